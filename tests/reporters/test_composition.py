"""What the terminal report says of a combination."""

from dataclasses import replace

import pytest

from adapterscan.model import Coverage, Evidence, Report, SourceKind, Subject
from adapterscan.reporters.composition import composition

BARE = Report("a", "a", SourceKind.FOLDER, None, (), (), (), (), {}, Coverage((), ()), {})
DETAILS = {
    "modules": 0, "cosine": 0.0, "opposed": 0, "first_larger": 0, "other_larger": 0, "agreeing": 0,
    "relation": "no module in common",
}  # fmt: skip


def pair(**details):
    return Evidence("sum.pair", Subject("adapter", name="a + b"), 0.0, "", {**DETAILS, **details})


def lines(*evidence):
    return list(composition(replace(BARE, evidence=evidence), verbose=False))


def test_parts_without_a_common_module_have_no_cosine_and_no_energy():
    assert lines(pair())[3].split()[:4] == ["0", "-", "-", "0"]


@pytest.mark.parametrize("column", ["z: ", "σ₁ grows: ", "largest part: "])
def test_columns_about_modules_are_explained_where_there_are_some(column):
    details = {"lost": 0.9, "cosine": -1.0, "z": -25.0, "growth": 0.4, "largest_part": 2.5}
    module = Evidence("sum.module", Subject("module", name="m"), 4.45, "", details)
    assert column in "\n".join(lines(pair(modules=1), module))
    assert column not in "\n".join(lines(pair(modules=1)))

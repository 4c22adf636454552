"""Edits that the closest peer misses: each is seen, or this page says that it is invisible.

The p-value is that of the shipped reference; the adapters are two trained ones that are not in it.
"""

import pytest

from adapterscan.rules.book import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.planted import TRAINED, Edited

ODD = 0.03  # the rule asks for 0.02; 88 members and a lot decide the last hundredth
SOURCES = [TRAINED / "benign", TRAINED / "semantic-backdoor"]


def judged(folder):
    report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
    (found,) = (item for item in report.evidence if item.name == "adapter.standing")
    return found.value, {finding.rule for finding in report.findings}


def of_all(**how):
    return lambda edited: edited.spike(edited.modules, **how)


def of_one(**how):
    return lambda edited: edited.spike([edited.one], **how)


def few_layers(**how):
    def edit(edited):
        edited.keep_layers(4)
        edited.spike([edited.one], **how)

    return edit


def behind_jitter(size):
    def edit(edited):
        edited.jitter(size)
        edited.spike([edited.one], 10)

    return edit


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("edit", [
    pytest.param(of_all(strength=1), id="dense rank-1 of 1 in all modules"),
    pytest.param(of_one(strength=3, column=7), id="input-side spike of 3"),
    pytest.param(of_all(strength=1, column=7), id="input-side spike of 1 in all modules"),
    pytest.param(of_one(strength=10, rows=64), id="spike of 64 rows of 10"),
    pytest.param(of_all(strength=3, rows=64), id="spike of 64 rows of 3 in all modules"),
    pytest.param(few_layers(strength=3, column=7), id="input-side spike of 3, four layers"),
    pytest.param(lambda e: e.embed_two_tokens(), id="two tokens of an embedding"),
    pytest.param(
        lambda e: e.boost(r".*\.1[0-2]\.self_attn\.q_proj", 1000), id="boost in a pattern"
    ),
    pytest.param(behind_jitter(3.0), id="dense rank-1 of 10 behind jitter of 3"),
])  # fmt: skip
def test_seen(source, edit, tmp_path) -> None:
    edited = Edited(source)
    edit(edited)
    p, _ = judged(edited.write(tmp_path / "edited"))
    assert p <= ODD


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("strength", [30, 100])
def test_a_strong_dense_direction_in_one_module_stands_out_from_its_neighbours(
    source, strength, tmp_path
) -> None:
    edited = Edited(source)
    of_one(strength=strength)(edited)
    assert "unusual-outlier" in judged(edited.write(tmp_path / "edited"))[1]


@pytest.mark.parametrize("edit", [
    pytest.param(of_one(strength=1), id="dense rank-1 of 1 in one module"),
    pytest.param(of_one(strength=3), id="dense rank-1 of 3 in one module"),
    pytest.param(of_all(strength=3), id="dense rank-1 of 3 in all modules"),
    pytest.param(
        lambda e: e.spike(e.modules[::2], 1), id="dense rank-1 of 1 in half of the modules"
    ),
    pytest.param(few_layers(strength=3), id="dense rank-1 of 3, four layers"),
    pytest.param(behind_jitter(0.3), id="dense rank-1 of 10 behind jitter of 0.3"),
])  # fmt: skip
def test_invisible(edit, tmp_path) -> None:
    """What docs/calibration.md says is not seen is not: change the page when this fails."""
    edited = Edited(TRAINED / "benign")
    edit(edited)
    p, found = judged(edited.write(tmp_path / "edited"))
    assert p > ODD
    assert found <= {"base-unpinned", "licence-missing"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_same_adapter_unedited_is_not_unusual(source, tmp_path) -> None:
    p, found = judged(Edited(source).write(tmp_path / "copy"))
    assert p > 0.1
    assert found <= {"base-unpinned", "licence-missing"}

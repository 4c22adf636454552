"""`docs/evidence.md` lists what a scan of every fixture yields, by name and by detail."""

import re
from collections import defaultdict

import pytest

from adapterscan.rules import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.conftest import ADAPTERS, ROOT


@pytest.fixture(scope="module")
def documented():
    rows = {}
    for line in (ROOT / "docs" / "evidence.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 5 and (name := re.fullmatch(r"`([a-z_.]+)`", cells[1])):
            rows[name[1]] = "|".join(cells[4:])
    for name, details in rows.items():
        if details.startswith("same"):
            rows[name] = rows["tensor.overwrite"]
        if details.startswith("as `"):
            rows[name] = rows["pickle.global"]
    return rows


@pytest.fixture(scope="module")
def seen():
    book, found = load_rules(), defaultdict(set)
    for folder in sorted([*ADAPTERS.iterdir(), ROOT / "fixtures" / "trained" / "benign"]):
        if folder.name.startswith("redos"):  # two seconds each, and nothing else in them
            continue
        report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), book)
        for item in report.evidence:
            found[item.name] |= set(item.details)
    return found


def test_every_name_that_fixtures_yield_is_documented(documented, seen):
    assert set(seen) - set(documented) == set()


def test_every_detail_that_fixtures_yield_is_documented(documented, seen):
    missing = {
        name: {key for key in keys if f"`{key}`" not in documented[name]}
        for name, keys in seen.items()
    }
    assert {name: keys for name, keys in missing.items() if keys} == {}


def test_the_fixtures_make_most_evidence_fire(documented, seen):
    static = {name for name in documented if not name.startswith("behaviour.")}
    assert len(set(seen) & static) >= 0.7 * len(static)

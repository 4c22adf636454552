"""`docs/evidence.md` lists what a scan of every fixture yields, by name and by detail."""

import re
from collections import defaultdict

import pytest

from adapterscan.combination import MergeRequest, merge
from adapterscan.rules.judging import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_documents import base_documents
from adapterscan.sources.base_shards import open_shards
from adapterscan.together.combining import Method
from fixtures import bases
from fixtures.folder import put
from fixtures.recipes import tokenizers
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
def seen(tmp_path_factory):
    book, found = load_rules(), defaultdict(set)
    folder = bases.write(tmp_path_factory.mktemp("base"))
    put(
        folder, tokenizers.files(settings=tokenizers.SETTINGS | {"chat_template": "{{ messages }}"})
    )
    documents = base_documents(str(folder), HubOptions())
    options = ScanOptions(base=open_shards(folder, "base"), documents=documents)
    for folder in sorted([*ADAPTERS.iterdir(), ROOT / "fixtures" / "trained" / "benign"]):
        if folder.name.startswith("redos"):  # two seconds each, and nothing else in them
            continue
        report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), book, options=options)
        for item in report.evidence:
            found[item.name] |= set(item.details)
    pair = [
        open_artifact(parse_ref(str(ROOT / "fixtures" / "trained" / name)), HubOptions())
        for name in ("colluding-one", "colluding-other")
    ]
    for report in merge(pair, book, MergeRequest((1.0, 1.0), Method())):
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

"""Mutated fixtures: a scan never raises, never hangs, and never calls clean what loaders refuse."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from adapterscan.model import Severity
from adapterscan.rules.judging import load_rules
from adapterscan.scan import ScanOptions, exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.folder import BIN, CONFIG, WEIGHTS

ADAPTERS = Path(__file__).parents[1] / "fixtures" / "adapters"
SEEDS = [
    ("benign-qv", WEIGHTS),
    ("benign-dora", WEIGHTS),
    ("benign-embedding", WEIGHTS),
    ("benign-modules-to-save", WEIGHTS),
    ("benign-bin", BIN),
    ("pickle-call", BIN),
    ("benign-qv", CONFIG),
    ("benign-rslora-patterns", CONFIG),
    ("alpha-pattern-boost", CONFIG),
]
TOKENS = [
    b"", b"\0", b"\xff", b"[", b"]", b"{", b"}", b'"', b",", b"-", b"0", b"9" * 30, b"null",
    b"NaN", b"1e999", b"true", b"\\ud800", b"\x1b[31m", b"\xe2\x80\xae", b".", b"R", b"c", b"PK",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.sampled_from(TOKENS)),
    min_size=1,
    max_size=4,
)
BOOK = load_rules()


def refused(data):
    try:
        deserialize(data)
    except SafetensorError:
        return True
    return False


@pytest.mark.parametrize(("name", "target"), SEEDS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS, early=st.booleans())
def test_a_mutated_adapter_is_scanned_to_a_report(tmp_path, name, target, edits, early):
    for source in (ADAPTERS / name).iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    data = (ADAPTERS / name / target).read_bytes()
    for place, cut, put in edits:
        at = int(place * (min(len(data), 600) if early else len(data)))
        data = data[:at] + put + data[at + cut :]
    (tmp_path / target).write_bytes(data)
    artifact = open_artifact(parse_ref(str(tmp_path)), HubOptions())
    report = scan(artifact, BOOK, options=ScanOptions(2))
    assert "defect of adapterscan" not in str(report.coverage.skipped)
    if target == WEIGHTS and refused(data):
        (record,) = (item for item in report.files if item.path == WEIGHTS)
        assert record.status == "not analysed"
        assert not report.coverage.complete
        assert exit_code([report], Severity.CRITICAL) != 0

"""Built-in rules end to end: fixtures and real adapters through the scan."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import pytest

from adapterscan.model import Report, Severity
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.rule_cases import ROOT, Case, cases

FIXTURES = ROOT / "fixtures" / "adapters"
CARDS = tomllib.loads((ROOT / "fixtures" / "cards.toml").read_text("utf-8"))
BENIGN = sorted(name for name, card in CARDS.items() if card["label"] == "benign")
DEFECTS = sorted(name for name, card in CARDS.items() if card["label"] != "benign")
REAL = ROOT.parent / "shared" / "data" / "adapters"

#: Without the base model PEFT's own saves of a resized vocabulary and of an adapted embedding are
#: swapped embeddings.
CANNOT_BE_TOLD_APART = {
    "benign-resized-vocabulary": {"embedding-replaced-undeclared"},
    "benign-embedding": {"adapted-embedding-replaced"},
}


#: Factors as `torch.randn` made them for PEFT's own tests: entries larger than weights are there.
NOT_TRAINED = {"peft/tests/regression/adalora_mlp/0.6.1": "unusual-size"}


@cache
def report(path: Path) -> Report:
    return scan(open_artifact(parse_ref(str(path)), HubOptions()), load_rules())


def found(path: Path, least: Severity = Severity.INFO) -> set[str]:
    return {finding.rule for finding in report(path).findings if finding.severity >= least}


@pytest.mark.parametrize("case", [case for case in cases() if case.fixture], ids=str)
def test_a_fixture_is_judged_as_its_case_says(case: Case) -> None:
    assert (case.rule.id in found(FIXTURES / case.fixture)) is case.hits


@pytest.mark.parametrize("name", BENIGN)
def test_a_benign_fixture_raises_nothing_above_low(name: str) -> None:
    assert found(FIXTURES / name, Severity.MEDIUM) == CANNOT_BE_TOLD_APART.get(name, set())


@pytest.mark.parametrize("name", BENIGN)
def test_a_benign_fixture_is_not_called_unusual(name: str) -> None:
    assert not [rule for rule in found(FIXTURES / name) if rule.startswith("unusual-")]


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_or_said_not_to_be_analysed(name: str) -> None:
    result = report(FIXTURES / name)
    assert found(FIXTURES / name, Severity.INFO) - {"base-unpinned"} or not result.coverage.complete


def real_adapters() -> list[Path]:
    suffixes = {".safetensors", ".bin", ".npz", ".pt"}
    return sorted({path.parent for path in REAL.rglob("*") if path.suffix in suffixes})


@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/adapters beside the checkout")
def test_fewer_than_one_real_adapter_in_twenty_raises_more_than_low() -> None:
    adapters = real_adapters()
    accused = {str(path): found(path, Severity.MEDIUM) for path in adapters}
    accused = {path: rules for path, rules in accused.items() if rules}
    assert len(accused) < len(adapters) / 20, accused


@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/adapters beside the checkout")
def test_no_real_adapter_raises_high_or_critical() -> None:
    accused = {str(path): found(path, Severity.HIGH) for path in real_adapters()}
    assert not {path: rules for path, rules in accused.items() if rules}


@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/adapters beside the checkout")
def test_no_real_adapter_is_called_unusual() -> None:
    unusual = {
        str(path): rule
        for path in real_adapters()
        for rule in found(path)
        if rule.startswith("unusual-")
    }
    assert {
        path.partition("huggingface+")[2]: rule for path, rule in unusual.items()
    } == NOT_TRAINED

"""What changed between two states of one adapter, and what only seems to have."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapterscan.change import changed
from adapterscan.cli import app
from adapterscan.model import Coverage, Severity, Skipped
from adapterscan.rules.book import load_rules
from tests.reporters.conftest import report_of

ADAPTERS = Path(__file__).parents[1] / "fixtures" / "adapters"
BOOK = load_rules()


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diff", *(str(word) for word in words)])
    return result.exit_code, result.output


def test_a_state_is_not_different_from_itself():
    report = report_of("benign", BOOK)
    change = changed(report, report)
    assert not change.any
    assert not change.worse(Severity.INFO)


def test_a_finding_that_appears_fails_and_one_that_vanishes_does_not():
    clean, bad = report_of("benign", BOOK), report_of("overwrite-layernorm", BOOK)
    assert [f.rule for f in changed(clean, bad).appeared] == ["base-weight-overwrite"]
    assert changed(clean, bad).worse(Severity.HIGH)
    assert [f.rule for f in changed(bad, clean).vanished] == ["base-weight-overwrite"]
    assert not changed(bad, clean).worse(Severity.HIGH)


def test_a_finding_about_another_tensor_has_moved():
    old = report_of("overwrite-layernorm", BOOK)
    fact = old.findings[0].evidence[0]
    other = replace(fact, subject=replace(fact.subject, name="lm_head.weight"))
    finding = replace(old.findings[0], evidence=(other,))
    (moved,) = changed(old, replace(old, findings=(finding, *old.findings[1:]))).moved
    assert moved.appeared == ("adapter_model.safetensors: lm_head.weight",)
    assert changed(old, replace(old, findings=(finding,))).worse(Severity.CRITICAL)


def test_a_finding_that_is_gone_since_nobody_looked_is_told():
    old = report_of("overwrite-layernorm", BOOK)
    blind = Skipped("adapter_model.safetensors", "not fetched", failed=True)
    new = replace(old, findings=(), coverage=Coverage((), (*old.coverage.skipped, blind)))
    assert changed(old, new).unseen == (blind,)


def test_modules_that_grew_are_named_the_most_changed_first():
    old = report_of("benign", BOOK)
    names = [f.subject.name for f in old.evidence if f.name == "delta.statistics"]
    factor = {names[0]: 2.0, names[1]: 0.1, names[2]: 1.0 + 1e-6}
    grown = tuple(
        replace(f, value=f.value * factor.get(f.subject.name, 1.0))
        if f.name == "delta.statistics" and isinstance(f.value, float)
        else f
        for f in old.evidence
    )
    found = changed(old, replace(old, evidence=grown)).modules
    assert [module.module for module in found] == [names[1], names[0]]


@pytest.fixture
def states(tmp_path: Path) -> tuple[Path, Path]:
    """A clean adapter, and the same with a pickle that calls something."""
    old = shutil.copytree(ADAPTERS / "benign", tmp_path / "old")
    new = shutil.copytree(ADAPTERS / "benign", tmp_path / "new")
    shutil.copy(ADAPTERS / "pickle-call-in-training-args" / "training_args.bin", new)
    return old, new


def test_two_folders_are_compared(states: tuple[Path, Path]):
    code, text = run(*states)
    assert code == 1
    assert "+ CRITICAL" in text
    assert "added: training_args.bin" in text
    assert run(states[0], states[0])[0] == 0


def test_a_report_stands_for_the_scan_that_wrote_it(states: tuple[Path, Path], tmp_path: Path):
    for name, state in zip(("a.json", "b.json"), states, strict=True):
        CliRunner().invoke(app, ["scan", str(state), "-o", str(tmp_path / name)])
    code, text = run(tmp_path / "a.json", tmp_path / "b.json", "--format", "json")
    table = json.loads(text)
    assert code == 1
    assert table["files"]["added"] == ["training_args.bin"]
    assert [row["severity"] for row in table["appeared"]] == ["critical"]
    assert table["modules"] == []


def test_a_report_of_several_targets_is_refused(states: tuple[Path, Path], tmp_path: Path):
    path = tmp_path / "two.json"
    CliRunner().invoke(app, ["scan", *map(str, states), "-o", str(path)])
    code, text = run(path, states[0])
    assert code == 2
    assert "2 targets" in text


def test_an_incomplete_later_state_does_not_pass(states: tuple[Path, Path]):
    weights = states[0] / "adapter_model.safetensors"
    other = shutil.copytree(states[0], states[0].parent / "cut")
    (other / weights.name).write_bytes(weights.read_bytes()[:-50])
    assert run(states[0], other)[0] == 3

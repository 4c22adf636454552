"""What was accepted fails no run, stays visible, and counts again when bytes or the day change."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapterscan.cli import app
from adapterscan.errors import BadConfig
from adapterscan.model import Severity
from adapterscan.report_file import read_report
from adapterscan.rules.book import load_rules
from adapterscan.scan import exit_code
from adapterscan.suppression import entries_of, read_entries, suppressed, written
from tests.reporters.conftest import report_of

ADAPTERS = Path(__file__).parents[1] / "fixtures" / "adapters"
DAY = date(2027, 1, 31)


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return shutil.copytree(ADAPTERS / "overwrite-layernorm", tmp_path / "adapter")


@pytest.fixture
def accepted(adapter: Path, tmp_path: Path) -> Path:
    """A file that accepts everything that is found in the adapter as it is."""
    run("scan", adapter, "-o", tmp_path / "r.json")
    run("baseline", tmp_path / "r.json", "--reason", "known", "--owner", "me",
        "--expires", "2999-01-31", "-o", tmp_path / "accepted.toml")  # fmt: skip
    return tmp_path / "accepted.toml"


def test_what_was_accepted_fails_no_run_and_stays_visible(adapter: Path, accepted: Path):
    code, text = run("scan", adapter, "--suppressions", accepted)
    assert code == 0
    assert "SUPPRESSED critical" in text
    assert "known (me, until 2999-01-31)" in text
    assert "3 findings suppressed" in text


def test_a_changed_byte_makes_it_count_again(adapter: Path, accepted: Path):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, text = run("scan", adapter, "--suppressions", accepted)
    assert code == 1
    assert "met nothing" in text


def test_after_the_day_it_counts_again(adapter: Path, accepted: Path):
    accepted.write_text(accepted.read_text().replace("2999-01-31", "2020-01-31"))
    code, text = run("scan", adapter, "--suppressions", accepted)
    assert code == 1
    assert "expired on 2020-01-31" in text


def test_another_finding_still_fails(adapter: Path, accepted: Path):
    shutil.copy(ADAPTERS / "pickle-call-in-training-args" / "training_args.bin", adapter)
    code, text = run("scan", adapter, "--suppressions", accepted)
    assert code == 1
    assert "SUPPRESSED critical" in text


def test_settings_name_suppressions_too(adapter: Path, accepted: Path, tmp_path: Path):
    settings = tmp_path / "settings.toml"
    settings.write_text(f'suppressions = ["{accepted}"]\n')
    assert run("scan", adapter, "--config", settings)[0] == 0


def test_every_format_says_that_it_was_accepted(adapter: Path, accepted: Path, tmp_path: Path):
    names = ["r.json", "r.sarif", "r.md", "r.xml", "r.csv", "r.cdx.json"]
    places = [word for name in names for word in ("-o", tmp_path / name)]
    run("scan", adapter, "--suppressions", accepted, *places)
    assert [name for name in names if "known" not in (tmp_path / name).read_text()] == [
        "r.xml",
        "r.csv",
    ]
    assert 'failures="0"' in (tmp_path / "r.xml").read_text()
    assert ",suppressed,critical," in (tmp_path / "r.csv").read_text()
    kept = read_report(tmp_path / "r.json").reports[0].findings[0].suppression
    assert kept is not None
    assert kept.owner == "me"


def test_an_entry_for_a_file_accepts_all_its_subjects():
    report = report_of("rank-mismatch", load_rules())
    finding = next(f for f in report.findings if f.count > 1 and f.severity > Severity.INFO)
    entries = [e for e in entries_of([report], "r", "o", DAY) if e.rule == finding.rule]
    (found,), notes = suppressed([report], entries, DAY)
    assert next(f for f in found.findings if f.rule == finding.rule).suppression
    assert notes == ()


def test_one_subject_of_several_is_not_enough(tmp_path: Path):
    report = report_of("rank-mismatch", load_rules())
    finding = next(f for f in report.findings if f.count > 1 and f.severity > Severity.INFO)
    (entry,) = (e for e in entries_of([report], "r", "o", DAY) if e.rule == finding.rule)
    path = tmp_path / "one.toml"
    name = json.dumps(finding.evidence[0].subject.name)
    path.write_text("".join(written([entry])) + f"subject = {name}\n")
    (found,), notes = suppressed([report], read_entries(path), DAY)
    assert not [f for f in found.findings if f.suppression]
    assert len(notes) == 1


def test_an_accepted_finding_does_not_fail_but_others_do():
    report = report_of("overwrite-layernorm", load_rules())
    entries = [e for e in entries_of([report], "r", "o", DAY) if e.rule == "base-weight-overwrite"]
    (found,), _ = suppressed([report], entries, DAY)
    assert exit_code([report], Severity.HIGH) == 1
    assert exit_code([found], Severity.HIGH) == 0
    assert exit_code([found], Severity.INFO) == 1


def test_odd_names_survive_the_file(tmp_path: Path):
    report = report_of("hostile-tensor-names", load_rules())
    entries = tuple(dict.fromkeys(entries_of([report], 'say "so"\n\\', "o", DAY)))
    path = tmp_path / "odd.toml"
    path.write_text("".join(written(entries)), "utf-8")
    assert read_entries(path) == entries


@pytest.mark.parametrize(
    "text",
    [
        "[[suppress]\n",
        "suppress = 1\n",
        "[[suppress]]\nrule = 'x'\n",
        "[[suppress]]\nrule='x'\nreason='r'\nowner='o'\nexpires=2027-01-31\n",
        "[[suppress]]\nrule='x'\nreason='r'\nowner='o'\nexpires='soon'\nsha256='0'\n",
        "[[suppress]]\nrule='x'\nreason='r'\nowner='o'\nexpires=2027-01-31\nsha256='0'\nx='y'\n",
        "[[suppress]]\nrule='x'\nreason='r'\nowner='o'\nexpires=2027-01-31\nsha256='0'\nartifact='1'\n",
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadConfig):
        read_entries(path)


def test_a_day_that_is_over_is_refused(adapter: Path, tmp_path: Path):
    run("scan", adapter, "-o", tmp_path / "r.json")
    code, text = run("baseline", tmp_path / "r.json", "--reason", "r", "--owner", "o",
                     "--expires", "2020-01-01")  # fmt: skip
    assert code == 2
    assert "is over" in text

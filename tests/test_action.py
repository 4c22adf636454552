"""The GitHub action's own scripts, run as a runner runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "fixtures" / "adapters"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
SCAN, _, END = ACTION["runs"]["steps"]


def test_no_input_is_part_of_a_script():
    assert not [step for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")]


def test_every_input_reaches_a_step():
    used = str(ACTION["runs"]["steps"])
    assert [name for name in ACTION["inputs"] if f"inputs.{name}" not in used] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose `pip install` finds adapterscan there already: only the script is tested."""
    home = tmp_path_factory.mktemp("action")
    python = home / "python"
    site = Path(sys.prefix)
    python.write_text(
        "#!/bin/sh\n"
        'mkdir -p "$3/bin"\n'
        "printf '#!/bin/sh\\nexit 0\\n' > \"$3/bin/pip\"\n"
        f'ln -s "{site}/bin/adapterscan" "$3/bin/adapterscan"\n'
        'chmod +x "$3/bin/pip"\n'
    )
    python.chmod(0o755)
    return python


def run(installed: Path, folder: Path, targets: str, **inputs: str) -> tuple[dict[str, str], str]:
    """Return the outputs of the scanning step, and the summary."""
    output, summary = folder / "output", folder / "summary"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "RUNNER_TEMP": str(folder / "temp"),
        "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), "TARGETS": targets,
        "BASE": "", "FAIL_ON": "high", "CONFIG": "", "SUMMARY": "true", "PYTHON": str(installed),
        "ACTION_PATH": str(ROOT), **inputs,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-e", "-c", SCAN["run"]], cwd=ROOT, env=environment, check=False, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pairs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return pairs, summary.read_text() if summary.exists() else ""


def ended(code: str, incomplete: str = "false") -> int:
    """Return how the last step ends."""
    environment = {"PATH": os.environ["PATH"], "CODE": code, "ALLOW_INCOMPLETE": incomplete}
    done = subprocess.run(["bash", "-e", "-c", END["run"]], env=environment, check=False)
    return done.returncode


def test_a_poisoned_adapter_fails_the_job_and_is_in_the_summary(installed: Path, tmp_path: Path):
    targets = f"{ADAPTERS / 'overwrite-layernorm'}\n{ADAPTERS / 'benign'}\n"
    outputs, summary = run(installed, tmp_path, targets)
    assert outputs["exit-code"] == "1"
    assert Path(outputs["sarif"]).is_file()
    assert "base-weight-overwrite" in summary
    assert ended(outputs["exit-code"]) == 1


def test_a_clean_adapter_passes(installed: Path, tmp_path: Path):
    outputs, summary = run(installed, tmp_path, str(ADAPTERS / "benign"))
    assert outputs["exit-code"] == "0"
    assert "No findings" in summary
    assert ended("0") == 0


def test_an_incomplete_scan_passes_only_where_that_is_allowed(installed: Path, tmp_path: Path):
    outputs, _ = run(installed, tmp_path, str(ADAPTERS / "header-cut"))
    assert outputs["exit-code"] == "3"
    assert ended("3") == 3
    assert ended("3", "true") == 0


def test_a_target_cannot_run_anything(installed: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    outputs, _ = run(installed, tmp_path, f"$(touch {marker})`touch {marker}`; touch {marker}")
    assert outputs["exit-code"] != "0"
    assert not marker.exists()


def test_a_step_that_gave_no_code_does_not_pass():
    assert ended("") == 2

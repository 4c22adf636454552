"""Shared by all tests: where the fixtures lie, and the command line as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "fixtures" / "adapters"


@pytest.fixture(scope="session")
def adapters() -> Path:
    """Return the folder of the committed fixtures."""
    return ADAPTERS


@pytest.fixture
def run(tmp_path):
    """Run `adapterscan …` as a process in an empty folder, with no hub settings of the machine."""

    def command(*arguments, cwd=tmp_path, stdin=None, **environment):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-m", "adapterscan", *map(str, arguments)],
            cwd=cwd,
            env={**kept, "COLUMNS": "100", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return command

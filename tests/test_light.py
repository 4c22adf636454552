"""A local scan imports no framework and no hub client; `--help` imports no numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "adapters" / "benign-qv"
HEAVY = {"torch", "transformers", "peft", "scipy", "pandas", "huggingface_hub"}
_THEN_TELL = """
import sys
from adapterscan.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), sep="\\n", file=sys.stderr)
"""


def _imported(*arguments: str) -> set[str]:
    """Return the top-level modules that `adapterscan ARGUMENTS` has loaded when it ends."""
    argv = (sys.executable, "-c", _THEN_TELL, *arguments)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1, 3), done.stderr
    return set(done.stderr.split())


def test_a_local_scan_imports_no_framework_and_no_hub_client() -> None:
    imported = _imported("scan", str(FIXTURE), "--format", "json")
    assert "numpy" in imported
    assert imported & {*HEAVY, "jinja2"} == set()


def test_a_local_scan_to_json_lays_out_no_tables() -> None:
    assert "tabulate" not in _imported("scan", str(FIXTURE), "--format", "json")


def test_help_imports_no_numpy() -> None:
    assert _imported("--help") & {"numpy", "ml_dtypes", "tabulate", *HEAVY} == set()
    assert _imported("scan", "--help") & {"numpy", "ml_dtypes", "tabulate", *HEAVY} == set()

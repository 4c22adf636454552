"""Other scanners on the same adapters, run as their users run them, each in its environment."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.venvs import PEERS, make

LIMIT = 300  # seconds for one adapter
LEVELS = ("INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL")


def environments(home: Path) -> dict[str, Path]:
    """Return the `bin` of each peer, installed under `home` on first use."""
    return {name: make(home / name, *wanted) for name, wanted in PEERS.items()}


def measure(folder: Path, bins: Mapping[str, Path]) -> dict[str, Any]:
    """Return each peer's score of the adapter in `folder`; its error where it gave none."""
    found: dict[str, Any] = {}
    for name, run in RUNS.items():
        try:
            found[name] = run(folder, bins[name])
        except (subprocess.SubprocessError, ValueError, KeyError, OSError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"[:200]}
    return found


def _adaptersentry(folder: Path, bin: Path) -> dict[str, Any]:
    """Score: the verdict's level, then the largest |z| that it reports."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "report.json"
        weights = str(folder / "adapter_model.safetensors")
        command = (str(bin / "adaptersentry"), "scan", weights, "--format", "json")
        subprocess.run(
            (*command, "--output", str(out)), capture_output=True, timeout=LIMIT, check=False
        )
        report = json.loads(out.read_text("utf-8"))
    level = report["verdict"]["level"]
    found = [abs(f["evidence"].get("z") or 0.0) for f in report["findings"] if f.get("evidence")]
    return {
        "score": LEVELS.index(level) + 0.001 * min(max(found, default=0.0), 900.0),
        "verdict": report["verdict"]["action"],
    }


def _weightprobe(folder: Path, bin: Path) -> dict[str, Any]:
    """Score: its own aggregate suspicion."""
    done = subprocess.run(
        (str(bin / "weightprobe"), "spectral", str(folder), "--json"),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    report = json.loads(done.stdout)
    return {"score": float(report["aggregate_suspicion"])}


RUNS: Mapping[str, Callable[[Path, Path], dict[str, Any]]] = {
    "adaptersentry": _adaptersentry,
    "weightprobe": _weightprobe,
}

"""Say in neutral words what was measured on: cores, processor, versions, load. No names."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path


def describe() -> Mapping[str, object]:
    """Return what decides how fast this machine is."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "sha256sum": _first_line("sha256sum", "--version"),
        "load_before": load(),
    }


def load() -> float:
    """Return how many processes wanted to run over the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def commit(root: Path) -> str:
    """Return the commit of the checkout, with `+` when files differ from it; "" outside of git."""
    try:
        name = _first_line("git", "-C", str(root), "rev-parse", "--short", "HEAD")
        changed = _first_line(
            "git", "-C", str(root), "status", "--porcelain", "adapterscan", "rules"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


def _processor() -> str:
    """Return the model with its family: some report only the brand."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    features = {"sha_ni", "avx2", "avx512f"} & set(fields.get("flags", "").split())
    family = f"family {fields.get('cpu family', '?')}, {' '.join(sorted(features))}"
    return f"{fields.get('model name', platform.processor())} ({family})"


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.partition("\n")[0]

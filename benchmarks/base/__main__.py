"""`python -m benchmarks.base`: what it takes to compare an adapter with a 7B-shaped base.

Writes a few layers of a 7B Llama's shape in bfloat16, with both embeddings, and an all-linear
adapter of rank 16 for them, and times whole processes in turns: a plain read of the same bytes,
`base build`, a scan with the profile, and a scan with the weights. Values are random: they decide
nothing here but how many directions are strangers (none of a small update's are).
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed import machine, timing
from benchmarks.speed.timing import Command

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
LIMIT = 900.0  # seconds of one command


def main() -> None:
    """Measure, print, and keep the result unless told not to."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.base", description=__doc__)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--runs", type=int, default=3, help="rounds after the warm-up")
    options.add_argument("--no-save", dest="save", action="store_false", help="only print")
    given = options.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="base-") as work:
        measured = measure(Path(work), given.layers, given.runs)
    found = {
        "command": f"python -m benchmarks.base --layers {given.layers} --runs {given.runs}",
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(ROOT),
        "machine": about,
        **measured,
        "load_after": machine.load(),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if given.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{found['date']}.json").write_text(text, "utf-8")


def measure(work: Path, layers: int, runs: int) -> dict[str, Any]:
    """Return what each command took, also for each GB of the base's weights."""
    base, adapter = work / "base", work / "adapter"
    inputs = (sys.executable, "-m", "benchmarks.base.inputs", str(base), str(adapter), str(layers))
    subprocess.run(inputs, check=True, cwd=ROOT)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors")) / 1e9
    profile = work / "base.profile"
    commands = list(_commands(base, adapter, profile))
    timing.once(commands[1], work)  # the scans want a profile
    done = timing.alternate(commands, runs, work, lambda text: print(text, file=sys.stderr))
    return {
        "layers": layers,
        "base_gb": round(size, 3),
        "profile_mb": round(profile.stat().st_size / 1e6, 1),
        "launcher_mb": round(timing.own_peak(), 1),
        "results": {
            name: {
                **timing.summary(items),
                "wall_s_per_gb": round(median(item.wall for item in items) / size, 3),
                "cpu_s_per_gb": round(median(item.cpu for item in items) / size, 3),
            }
            for name, items in done.items()
        },
    }


def _commands(base: Path, adapter: Path, profile: Path) -> Iterator[Command]:
    ours = (sys.executable, "-m", "adapterscan")
    files = [str(path) for path in sorted(base.glob("*.safetensors"))]
    yield Command("plain read (cat)", ("cat", *files), LIMIT)
    yield Command(
        "base build", (*ours, "base", "build", str(base), "-o", str(profile), "-q"), LIMIT
    )
    yield Command("scan alone", (*ours, "scan", str(adapter), "-q"), LIMIT)
    yield Command(
        "scan with the profile", (*ours, "scan", str(adapter), "--base", str(profile), "-q"), LIMIT
    )
    yield Command(
        "scan with the weights",
        (*ours, "scan", str(adapter), "--base", str(base), "--whole-base", "-q"), LIMIT,
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Benchmark the static scan: `python -m benchmarks.speed [--only ...] [--runs N] [--peers]`.

Builds the inputs and clean environments in a temporary folder, times whole processes in turns, and
writes `results/<date>.json` and the table in `README.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import machine, timing, venvs
from benchmarks.speed.table import markdown
from benchmarks.speed.timing import Command

HERE = Path(__file__).parent
INPUTS = ("7B r=16", "7B r=64", "70B r=64")
STARTUP = "startup"
PEER_LIMIT = 200.0


def main() -> None:
    """Measure what was asked for, print the table, and keep the results unless told not to."""
    options = _options()
    only = tuple(options.only or (STARTUP, *INPUTS))
    with tempfile.TemporaryDirectory(prefix="speed-") as temporary:
        work = Path(options.work or temporary).resolve()
        work.mkdir(parents=True, exist_ok=True)
        results = _measure(work, only, options.runs, options.peers)
    text = markdown(results)
    print(text)
    if options.save:
        date = results["date"]
        (HERE / "results").mkdir(exist_ok=True)
        kept = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
        (HERE / "results" / f"{date}.json").write_text(kept, "utf-8")
        _into_readme(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", action="append", choices=(STARTUP, *INPUTS), help="repeatable")
    parser.add_argument("--runs", type=int, default=11, help="rounds after the warm-up")
    parser.add_argument("--peers", action="store_true", help="time other scanners, too")
    parser.add_argument("--work", help="keep inputs and environments here for the next time")
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    return parser.parse_args()


def _measure(work: Path, only: Sequence[str], runs: int, peers: bool) -> dict[str, Any]:
    shutil.rmtree(work / "env-adapterscan", ignore_errors=True)  # it may hold older code
    bins = {"adapterscan": venvs.make(work / "env-adapterscan", str(venvs.ROOT))}
    for name, requirements in venvs.PEERS.items() if peers else ():
        bins[name] = venvs.make(work / f"env-{name}", *requirements)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "command": _command(only, runs, peers),
        "machine": machine.describe(),
        "versions": {name: venvs.versions(bin) for name, bin in bins.items()},
        "commit": machine.commit(venvs.ROOT),
        "install_mb": {name: venvs.install_size(bin) for name, bin in bins.items()},
        "launcher_mb": 0.0,
        "startup": {},
        "inputs": {},
    }
    if STARTUP in only:
        done = timing.alternate(_startup(bins["adapterscan"]), max(runs, 21), work, _tell)
        results["startup"] = {
            **{name: timing.summary(items) for name, items in done.items()},
            "adapterscan --help − import typer": timing.paired(
                done["adapterscan --help"], done["import typer"]
            ),
        }
    for name in (name for name in INPUTS if name in only):
        results["inputs"][name] = _input(work, name, bins, runs)
    results["launcher_mb"] = round(timing.own_peak(), 1)
    results["load_after"] = machine.load()
    return results


def _command(only: Sequence[str], runs: int, peers: bool) -> str:
    chosen = [] if len(only) > len(INPUTS) else [word for name in only for word in ("--only", name)]
    words = ["python", "-m", "benchmarks.speed", *chosen, "--runs", str(runs)]
    return shlex.join([*words, "--peers"] if peers else words)


def _input(work: Path, name: str, bins: dict[str, Path], runs: int) -> dict[str, Any]:
    folder = work / name.replace(" ", "-").replace("=", "")
    if not folder.is_dir():
        _python(Path(sys.executable), "benchmarks.speed.inputs", name, str(folder))
    weights = folder / "adapter_model.safetensors"
    _tell(f"== {name}: {weights.stat().st_size / 1e6:.0f} MB")
    done = timing.alternate(list(_commands(name, folder, bins, runs)), runs, work, _tell)
    python = bins["adapterscan"] / "python"
    return {
        "megabytes": round(weights.stat().st_size / 1e6, 1),
        "commands": {key: timing.summary(items) for key, items in done.items()},
        "json − sha256sum": timing.paired(done["adapterscan, JSON"], done["sha256sum"]),
        "table − sha256sum": timing.paired(done["adapterscan, table"], done["sha256sum"]),
        "kernel": json.loads(_python(python, "benchmarks.speed.kernel", str(folder))),
        "phases_ms": _phases(python, folder),
    }


def _commands(name: str, folder: Path, bins: dict[str, Path], runs: int) -> Sequence[Command]:
    """Return what is timed on one input, each as its manual calls it."""
    weights, ours = (
        str(folder / "adapter_model.safetensors"),
        str(bins["adapterscan"] / "adapterscan"),
    )
    commands = [
        Command("sha256sum", ("sha256sum", weights)),
        Command(
            "adapterscan, JSON", (ours, "scan", str(folder), "--format", "json", "-o", "out.json")
        ),
        Command("adapterscan, table", (ours, "scan", str(folder))),
    ]
    few = min(runs, 1 if name == "70B r=64" else 3)
    if "adaptersentry" in bins:
        tool = str(bins["adaptersentry"] / "adaptersentry")
        argv = (tool, "scan", weights, "--format", "json", "--output", "peer.json")
        commands.append(Command("adaptersentry", argv, PEER_LIMIT, few))
    if "weightprobe" in bins and name != "70B r=64":
        tool = str(bins["weightprobe"] / "weightprobe")
        spectral = (tool, "spectral", str(folder), "--json")
        commands.append(Command("weightprobe spectral", spectral, PEER_LIMIT, 1))
    return commands


def _startup(bin: Path) -> Sequence[Command]:
    python, ours = str(bin / "python"), str(bin / "adapterscan")
    return (
        Command("python -c pass", (python, "-c", "pass")),
        Command("import typer", (python, "-c", "import typer")),
        Command("adapterscan --help", (ours, "--help")),
        Command("adapterscan --version", (ours, "--version")),
        Command("import numpy", (python, "-c", "import numpy")),
        Command("adapterscan scan, fixture of 27 KB", (ours, "scan", _FIXTURE, "--format", "json")),
    )


_FIXTURE = str(venvs.ROOT / "fixtures" / "adapters" / "benign-qv")


def _phases(python: Path, folder: Path) -> dict[str, float]:
    """Return the medians of five runs."""
    runs = [json.loads(_python(python, "benchmarks.speed.phases", str(folder))) for _ in range(5)]
    return {step: sorted(run[step] for run in runs)[2] for step in runs[0]}


def _python(python: Path, module: str, *arguments: str) -> str:
    """Run one of our modules in another interpreter; the installed package comes first."""
    code = (
        "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    argv = (str(python), "-P", "-c", code, str(venvs.ROOT), *arguments)
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def _into_readme(text: str) -> None:
    path = HERE / "README.md"
    start, end = "<!-- results -->\n", "<!-- end of results -->"
    before, _, rest = path.read_text("utf-8").partition(start)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", "utf-8")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

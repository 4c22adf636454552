"""Time whole processes in turns: wall clock, CPU seconds, peak memory.

The launcher must stay small and never import numpy: on Linux the peak that `wait4` reports of a
child starts at the size of the process that started it.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Command:
    """Something to time. `limit` is in seconds; what runs longer is stopped and not run again."""

    name: str
    argv: tuple[str, ...]
    limit: float = 300.0
    runs: int = 0  # 0: as many as everything else, after a warm-up


@dataclass(frozen=True)
class Run:
    """One run of one command."""

    wall: float  # seconds
    cpu: float  # seconds, user + system
    peak: float  # 10^6 bytes
    code: int
    stopped: bool = False


Runs = dict[str, list[Run]]


def alternate(
    commands: Sequence[Command], runs: int, folder: Path, tell: Callable[[str], None]
) -> Runs:
    """Run every command once for warm-up, then in turns, every second round backwards."""
    done: Runs = {command.name: [] for command in commands}
    gone: set[str] = set()
    for number in range(runs + 1):
        for command in commands if number % 2 else reversed(commands):
            if command.name in gone or not min(1, command.runs) <= number <= (command.runs or runs):
                continue
            run = once(command, folder)
            tell(f"{number}/{runs} {command.name}: {run.wall:.3f} s")
            if run.stopped:
                gone.add(command.name)
            if number or run.stopped:
                done[command.name].append(run)
    return done


def once(command: Command, folder: Path) -> Run:
    """Run `command` in `folder` with a bare environment and nothing on its input and output."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command.argv,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(command.limit, stop)
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * 1024 / 1e6
    return Run(wall, usage.ru_utime + usage.ru_stime, peak, process.returncode, late.is_set())


def environment(home: Path) -> Mapping[str, str]:
    """Return what a plain shell has: no variables that change Python or the number of threads."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}


def own_peak() -> float:
    """Return the launcher's peak in 10^6 bytes: no child is seen to take less."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max, rounded to the tenth of a millisecond."""
    return {
        "median": round(median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def summary(runs: Sequence[Run]) -> dict[str, object]:
    """Return the figures of one command for the results file."""
    return {
        "runs": len(runs),
        "codes": sorted({run.code for run in runs}),
        "stopped": any(run.stopped for run in runs),
        "wall_s": spread([run.wall for run in runs]),
        "cpu_s": spread([run.cpu for run in runs]),
        "peak_mb": spread([run.peak for run in runs]),
    }


def paired(first: Sequence[Run], second: Sequence[Run]) -> dict[str, float]:
    """Return the spread of `first − second` in wall seconds, round by round."""
    return spread([a.wall - b.wall for a, b in zip(first, second, strict=False)])

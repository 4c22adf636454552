"""Time the exact kurtosis against the spectra alone: python -m benchmarks.speed.kurtosis

For modules of a 7B Llama and of SmolLM2-135M. `spectra`: everything else and the fourth moment of
one direction; `exact`: of all directions; `pairs` and `strips`: each of the two ways to it, forced.
Prints JSON with the best of several runs in milliseconds, and the largest relative error against
float64 over the modules of SmolLM2, where the dense ΔW is small.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import ml_dtypes
import numpy as np

from adapterscan import lowrank
from adapterscan.lowrank import LowRank
from benchmarks.speed.machine import describe, load

SHAPES = {
    "7B q_proj": (4096, 4096),
    "7B gate_proj": (11008, 4096),
    "135M q_proj": (576, 576),
    "135M up_proj": (1536, 576),
}
RANKS = (4, 8, 16, 24, 32, 48, 64)
EXACT = max(RANKS)
SMALL = 1 << 20  # elements of a dense ΔW that are looked at


def main(runs: int = 9) -> None:
    """Measure every shape at every rank."""
    rows = [row(name, *shape, rank, runs) for name, shape in SHAPES.items() for rank in RANKS]
    command = "OMP_NUM_THREADS=1 python -m benchmarks.speed.kurtosis"
    head = {"command": command, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    machine = {"machine": describe(), "load": load()}
    sys.stdout.write(json.dumps({**head, **machine, "ms": rows}, indent=1) + "\n")


def row(name: str, d_out: int, d_in: int, rank: int, runs: int) -> dict[str, object]:
    """Measure one module of random bfloat16 factors."""
    rng = np.random.default_rng(rank)
    a = rng.standard_normal((rank, d_in)).astype(ml_dtypes.bfloat16)
    b = (rng.standard_normal((d_out, rank)) * 0.9 ** np.arange(rank)).astype(ml_dtypes.bfloat16)
    delta = LowRank(a, b)
    found: dict[str, object] = {"module": name, "rank": rank}
    chosen, leading = lowrank._strips_are_cheaper, lowrank.KURTOSIS_RANK
    try:
        lowrank.KURTOSIS_RANK = 1
        found["spectra"] = best(lambda: delta.summary(0), runs)
        lowrank.KURTOSIS_RANK = leading
        found["leading 8"] = best(lambda: delta.summary(0), runs)
        found["exact"] = best(lambda: delta.summary(EXACT), runs)
        found["times the spectra"] = round(float(found["exact"]) / float(found["spectra"]), 1)  # type: ignore[arg-type]
        for way, strips in (("pairs", False), ("strips", True)):
            lowrank._strips_are_cheaper = lambda *_, strips=strips: strips  # type: ignore[misc]
            found[way] = best(lambda: delta.summary(EXACT), max(3, runs // 3))
            if d_out * d_in <= SMALL:
                found[f"error of {way}"] = float(f"{error(delta):.1e}")
    finally:
        lowrank._strips_are_cheaper, lowrank.KURTOSIS_RANK = chosen, leading
    sys.stderr.write(f"{found}\n")
    return found


def best(task: Callable[[], object], runs: int) -> float:
    """Return milliseconds of the quickest run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 2)


def error(delta: LowRank) -> float:
    """Return the relative error of the kurtosis against the dense definition."""
    dense = delta.dense()
    true = np.mean(dense**4) / np.mean(dense**2) ** 2
    return abs(float(delta.summary(EXACT).kurtosis or 0.0) / float(true) - 1)


if __name__ == "__main__":
    main()

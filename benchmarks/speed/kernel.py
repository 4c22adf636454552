"""Time `LowRank.summary` alone: every module of one file, one thread, bytes already in memory.

Run as a module by the benchmark, in the environment that is timed. Prints JSON.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adapterscan import lowrank
from adapterscan.formats.config import read_config
from adapterscan.formats.peft import build_adapter
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.tensors import TensorInfo, as_array
from adapterscan.weighing import one_pass


def main(folder: Path) -> dict[str, Any]:
    """Return seconds for all modules: as a scan does it, with the bounded kurtosis, and widening
    to float64 alone; then cumulative seconds by function, under a profiler."""
    config = read_config((folder / "adapter_config.json").read_bytes(), "adapter_config.json")
    path = folder / "adapter_model.safetensors"
    profile = cProfile.Profile()
    whole = bounded = widening = 0.0
    with SourceFile(path.name, path) as file, path.open("rb") as data:
        adapter = build_adapter("", config, read_safetensors(file))
        cost = sum(
            lowrank.kurtosis_cost(delta.b.shape[0], delta.a.shape[1], delta.rank)
            for delta in adapter.deltas
        )
        exact_to = one_pass.EXACT_RANK if cost <= one_pass.EXACT_COST else lowrank.KURTOSIS_RANK
        for delta in adapter.deltas:
            a, b = (_array(data, tensor) for tensor in (delta.a, delta.b))
            module = lowrank.LowRank(a, b, delta.scaling)
            start = time.thread_time()
            module.summary(exact_to)
            whole += time.thread_time() - start
            start = time.thread_time()
            module.summary(lowrank.KURTOSIS_RANK)
            bounded += time.thread_time() - start
            start = time.thread_time()
            a.astype(np.float64)
            b.astype(np.float64)
            widening += time.thread_time() - start
            profile.runcall(module.summary, exact_to)
    rows: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    functions = {
        name: round(row[3], 3)
        for (file_name, _, name), row in sorted(rows.items(), key=lambda item: -item[1][3])
        if file_name.endswith("lowrank.py") and name != "summary"
    }
    return {
        "modules": len(adapter.deltas),
        "exact_to": exact_to,
        "summary_s": round(whole, 3),
        "summary_bounded_kurtosis_s": round(bounded, 3),
        "widening_alone_s": round(widening, 3),
        "profiled_cumulative_s": dict(list(functions.items())[:7]),
    }


def _array(data: BinaryIO, tensor: TensorInfo) -> lowrank.Array:
    data.seek(tensor.start)
    return as_array(tensor, data.read(tensor.nbytes))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))

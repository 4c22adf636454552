"""ΔW as one level of an inverse Haar transform of a few coefficients: each makes a square of four.

The coefficients lie in the four quarters of a matrix of even sides: averages (upper left),
differences of rows (upper right), of columns (lower left), and of both. A coefficient c at (i, j)
of a quarter puts ±c/2 at the four entries (2i, 2j) to (2i + 1, 2j + 1).
Source: Haar 1910; Bilican et al. 2025, "Exploring sparsity for parameter efficient fine tuning
using wavelets" (WaveFT); peft 0.21.2, `tuners/waveft/layer.py`, `get_delta_weight`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import F64
from adapterscan.updates.scattered import Scattered, scattered

I64 = npt.NDArray[np.int64]


def haar(down: I64, across: I64, values: F64, shape: tuple[int, int], scaling: float) -> Scattered:
    """Return `scaling` times the transform of `values` (n,) at (down, across), cut to `shape`."""
    halves = [(side + 1) // 2 for side in shape]
    lower, right = down >= halves[0], across >= halves[1]
    rows, columns, found = [], [], []
    for below in (0, 1):
        for beside in (0, 1):
            sign = np.where(right & bool(below), -1.0, 1.0)
            sign = np.where(lower & bool(beside), -sign, sign)
            rows.append(2 * (down % halves[0]) + below)
            columns.append(2 * (across % halves[1]) + beside)
            found.append(sign * values / 2)
    at, beside_at, all_values = (np.concatenate(side) for side in (rows, columns, found))
    inside = (at < shape[0]) & (beside_at < shape[1])
    return scattered(at[inside], beside_at[inside], all_values[inside], shape, scaling)

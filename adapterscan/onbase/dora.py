"""DoRA's true delta: diag(c)·(W + ΔW) − W with c = m / ‖W + ΔW‖, a norm for each output.

Source: Liu et al. 2024, "DoRA: weight-decomposed low-rank adaptation", eq. 5; peft 0.21.2,
`DoraLinearLayer`: the norm of every row of W + s·B·A.
"""

from __future__ import annotations

import numpy as np

from adapterscan.lowrank import Array, LowRank
from adapterscan.onbase.matrix import F32, Matrix


def scales(matrix: Matrix, update: LowRank, magnitude: Array) -> F32:
    """Return c (d_out,). Raises ValueError for a magnitude of another length.

    c is 1 where the magnitude is exactly the norm of the row, and 0 for a row of zeros.
    """
    m = magnitude.astype(np.float64).reshape(-1)
    if len(m) != matrix.shape[0]:
        raise ValueError(f"has {len(m):,} magnitudes for {matrix.shape[0]:,} outputs")
    up = (update.scaling * update.b.astype(np.float64)).astype(np.float32)
    down = update.a.astype(np.float32)
    norms = np.empty(matrix.shape[0])
    for start, block in matrix.blocks():
        rows = slice(start, start + len(block))
        norms[rows] = np.sqrt(np.sum(np.square(block + up[rows] @ down, dtype=np.float64), axis=1))
    return np.divide(m, norms, out=np.zeros_like(m), where=norms > 0).astype(np.float32)

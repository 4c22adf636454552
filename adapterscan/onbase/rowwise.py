"""What a ΔW that is given a few rows at a time does to its W: of any rank, never held whole.

The same as `measure.py` measures of factors. Leading directions of ΔW come from subspace iteration,
and its shares in those of W exactly, from UᵀΔW and ΔW·V.
Limits: what is said of the ten leading directions is as good as the iteration is (`spectrum.py`); a
flat spectrum, as of a rotation, has no leading ones to speak of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapterscan.onbase.intruders import DIRECTIONS, intruders
from adapterscan.onbase.matrix import F32, Matrix
from adapterscan.onbase.measure import Merged, chance, nothing, shift
from adapterscan.onbase.rounding import carried_rows
from adapterscan.onbase.spectrum import (
    Leading,
    Operator,
    iterated,
    leading,
    side_by_side,
)

#: ΔW's rows of W's: the number of the first one, and rows (n, d_in) of W.
Change = Callable[[int, F32], F32]

_TOP = 8  # directions of ΔW that W + ΔW is started from
_PASSES = 4


class Changed:
    """`own`·W + ΔW as an operator, a block of rows at a time."""

    def __init__(self, matrix: Matrix, change: Change, own: float) -> None:
        self.matrix = matrix
        self._change, self._own = change, own

    def times(self, x: F32) -> F32:
        """Return the product (d_out, k) with `x` (d_in, k)."""
        out = np.empty((self.matrix.shape[0], x.shape[1]), np.float32)
        for start, block in self.matrix.blocks():
            out[start : start + len(block)] = self._rows(start, block) @ x
        return out

    def gram_times(self, x: F32) -> F32:
        """Return MᵀM·x (d_in, k) for `x` (d_in, k), in one pass."""
        out = np.zeros((self.matrix.shape[1], x.shape[1]), np.float32)
        for start, block in self.matrix.blocks():
            rows = self._rows(start, block)
            out += rows.T @ (rows @ x)
        return out

    def turned_times(self, y: F32) -> F32:
        """Return Mᵀ·y (d_in, k) for `y` (d_out, k)."""
        out = np.zeros((self.matrix.shape[1], y.shape[1]), np.float32)
        for start, block in self.matrix.blocks():
            out += self._rows(start, block).T @ y[start : start + len(block)]
        return out

    def _rows(self, start: int, block: F32) -> F32:
        rows = self._change(start, block)
        return rows + block if self._own else rows


def measure_rows(matrix: Matrix, change: Change) -> Merged:
    """Return what ΔW does to W. Raises ValueError for rows that do not fit, LinAlgError for values
    that are no numbers.
    """
    near = leading(matrix)
    formats = carried_rows(matrix, change)
    size = next(iter(formats.values())).update ** 0.5
    if not np.isfinite(size):
        raise np.linalg.LinAlgError("ΔW is no numbers")
    if not size:
        return nothing(near)
    alone = Changed(matrix, change, 0.0)
    start = near.right[:, : min(_TOP, *matrix.shape)]
    sigma, left, right = iterated(alone, start, _PASSES, _TOP)
    update = Leading(size, sigma, left, right)
    merged = Changed(matrix, change, 1.0)
    base, after = side_by_side(Operator(matrix), merged, near, update, DIRECTIONS)
    inside = float(np.linalg.norm(alone.turned_times(near.left).astype(np.float64)))
    beside = float(np.linalg.norm(alone.times(near.right).astype(np.float64)))
    return Merged(
        size, near.frobenius, float(sigma[0]), float(near.sigma[0]), shift(base, after),
        intruders(after.left, base, matrix), after.left.shape[1],
        min(1.0, (inside / size) ** 2), min(1.0, (beside / size) ** 2), *chance(near),
        len(near.sigma), formats,
    )  # fmt: skip

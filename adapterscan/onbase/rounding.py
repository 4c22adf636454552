"""What of an update a merged file carries: W + ΔW and W in the same format, and their difference.

E = Q(W + ΔW) − Q(W) is what merging really adds. bf16 and fp16 round to nearest even; int8 has a
scale for each row, max|row|/127; int4 one for each 32 inputs of a row, max|group|/7: plain
round-to-nearest, as file formats without calibration have it.
Limits: real quantisers differ in scales, zero points and calibration, so that small errors are an
order of magnitude and not a prediction. Where the step is far above ΔW, E is mostly rounding: its
mean is still ΔW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from adapterscan.lowrank import LowRank
from adapterscan.onbase.matrix import F32, Matrix

GROUP = 32
_BLOCK = 1 << 18  # elements: what one block's arrays take stays in a core's cache


@dataclass(frozen=True, slots=True)
class Carried:
    """Sums over a matrix (or several: they add up), of the difference E and of ΔW."""

    update: float = 0.0  # ‖ΔW‖²
    carried: float = 0.0  # ‖E‖²
    product: float = 0.0  # ⟨E, ΔW⟩
    lost: float = 0.0  # ‖E − ΔW‖²

    def __add__(self, other: Carried) -> Carried:
        return Carried(
            self.update + other.update, self.carried + other.carried,
            self.product + other.product, self.lost + other.lost,
        )  # fmt: skip

    @property
    def error(self) -> float:
        """Return ‖E − ΔW‖ / ‖ΔW‖, 0 or more; 0 for an update of zero."""
        return (self.lost / self.update) ** 0.5 if self.update else 0.0

    @property
    def cosine(self) -> float:
        """Return the cosine between E and ΔW, 0 where one of them is zero."""
        scale = (self.carried * self.update) ** 0.5
        return self.product / scale if scale else 0.0

    @property
    def kept(self) -> float:
        """Return ⟨E, ΔW⟩ / ‖ΔW‖²: how much of ΔW is in E, 1 for all of it."""
        return self.product / self.update if self.update else 0.0


def carried(matrix: Matrix, update: LowRank, scales: F32 | None = None) -> Mapping[str, Carried]:
    """Return what each format carries of ΔW, in one pass.

    `scales` (d_out,) are DoRA's: the update is then diag(c)·(W + ΔW) − W.
    """
    up = (update.scaling * update.b.astype(np.float64)).astype(np.float32)
    down = update.a.astype(np.float32)

    def added(start: int, block: F32) -> F32:
        rows: F32 = up[start : start + len(block)] @ down
        if scales is not None:
            scale = scales[start : start + len(block), None]
            rows = scale * rows + (scale - 1) * block
        return rows

    return carried_rows(matrix, added)


def carried_rows(matrix: Matrix, change: Callable[[int, F32], F32]) -> Mapping[str, Carried]:
    """Return what each format carries of a ΔW that `change` makes of rows of W, in one pass.

    `change` gets the number of the first row and rows (n, d_in) of W, and returns ΔW's.
    """
    totals = dict.fromkeys(FORMATS, Carried())
    for start, block in matrix.blocks(_BLOCK):
        added = change(start, block)
        merged = block + added
        size = _dot(added, added)
        for name, rounded in FORMATS.items():
            found = rounded(merged) - rounded(block)
            lost = found - added
            totals[name] += Carried(size, _dot(found, found), _dot(found, added), _dot(lost, lost))
    return totals


def bf16(values: F32) -> F32:
    """Round to bfloat16, to nearest even."""
    import ml_dtypes

    rounded: F32 = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    return rounded


def fp16(values: F32) -> F32:
    """Round to float16, to nearest even."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def int8(values: F32) -> F32:
    """Round (rows, n) to 8 bits, a scale for each row."""
    scale = np.abs(values).max(axis=1, keepdims=True, initial=0.0) / np.float32(127)
    return _steps(values, scale)


def int4(values: F32) -> F32:
    """Round (rows, n) to 4 bits, a scale for each GROUP of a row; the last group may be short."""
    rows, columns = values.shape
    short = -columns % GROUP
    padded = np.pad(values, ((0, 0), (0, short))) if short else values
    groups = padded.reshape(rows, -1, GROUP)
    scale = np.abs(groups).max(axis=2, keepdims=True) / np.float32(7)
    return _steps(groups, scale).reshape(rows, -1)[:, :columns]


FORMATS: Mapping[str, Callable[[F32], F32]] = {
    "bf16": bf16,
    "fp16": fp16,
    "int8": int8,
    "int4": int4,
}


def _steps(values: F32, scale: F32) -> F32:
    step = np.where(scale > 0, scale, np.float32(1))
    return np.rint(values / step) * step


def _dot(a: F32, b: F32) -> float:
    return float(np.dot(a.ravel(), b.ravel()))

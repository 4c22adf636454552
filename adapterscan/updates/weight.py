"""What a change that depends on its weight asks of it: rows, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

#: ΔW's rows of W's: the number of the first one, and rows (n, d_in) of W.
Rows = Callable[[int, F32], F32]


class Weight(Protocol):
    """A weight W (d_out, d_in) of the base. Reading raises SourceError or FileProblem."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        ...

    def blocks(self, elements: int = 0) -> Iterator[tuple[int, F32]]:
        """Yield (first row, rows), at most `elements` at a time."""
        ...

    def rows(self, start: int, stop: int) -> F32:
        """Return the rows [start, stop)."""
        ...


def turned_times(weight: Weight, y: F32) -> F32:
    """Return Wᵀ·y (d_in, k) for `y` (d_out, k), in one pass."""
    out = np.zeros((weight.shape[1], y.shape[1]), np.float64)
    for start, block in weight.blocks():
        out += block.T @ y[start : start + len(block)]
    return out.astype(np.float32)


def times(weight: Weight, x: F32) -> F32:
    """Return W·x (d_out, k) for `x` (d_in, k), in one pass."""
    out = np.empty((weight.shape[0], x.shape[1]), np.float32)
    for start, block in weight.blocks():
        out[start : start + len(block)] = block @ x
    return out

"""A weight of the base as a matrix that is held if it is small and read again if it is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adapterscan.errors import Unsupported
from adapterscan.onbase.base import BaseTensor, BaseWeights
from adapterscan.text import size_text

F32 = npt.NDArray[np.float32]

HELD = 256 << 20  # bytes in float32; 4096×11008 takes 180 MB
BLOCK = 1 << 22  # elements widened at a time


class Matrix:
    """W (d_out, d_in), or its transpose as stored (`transposed`: Conv1D of GPT-2).

    One that takes `limit` bytes or less in float32 is read once and kept; a larger one is read
    again each time, `block` elements at once. Raises Unsupported for one that is large and
    transposed: its rows lie apart.
    """

    def __init__(
        self,
        base: BaseWeights,
        tensor: BaseTensor,
        *,
        transposed: bool = False,
        limit: int = HELD,
        block: int = BLOCK,
    ) -> None:
        self._base, self._tensor, self._block = base, tensor, block
        rows, columns = tensor.matrix
        self.held = 4 * rows * columns <= limit
        if transposed and not self.held:
            raise Unsupported(
                tensor.name, f"is stored transposed and takes {size_text(4 * rows * columns)}",
                hint="no known model has such a one; compare the merged weights yourself",
            )  # fmt: skip
        self.shape = (columns, rows) if transposed else (rows, columns)
        self._whole: F32 | None = None
        self._transposed = transposed

    @property
    def dtype(self) -> str:
        """Return the dtype that it is stored in."""
        return self._tensor.dtype

    def blocks(self, elements: int = 0) -> Iterator[tuple[int, F32]]:
        """Yield (first row, rows in float32), at most `elements` at a time but at least a row."""
        rows, columns = self.shape
        step = max(1, (elements or self._block) // max(1, columns))
        if self.held:
            whole = self.whole()
            for start in range(0, rows, step):
                yield start, whole[start : start + step]
        else:  # in blocks of one size, whatever is asked for: some sources keep them
            large = max(1, self._block // max(1, columns))
            for first in range(0, rows, large):
                block = self._read(first, min(rows, first + large))
                for start in range(0, len(block), step):
                    yield first + start, block[start : start + step]

    def rows(self, start: int, stop: int) -> F32:
        """Return the rows [start, stop) in float32."""
        return self.whole()[start:stop] if self.held else self._read(start, stop)

    def whole(self) -> F32:
        """Return all of one that is held, (d_out, d_in)."""
        if self._whole is None:
            rows, columns = self._tensor.matrix
            whole = np.empty((rows, columns), np.float32)
            step = max(1, self._block // max(1, columns))
            for start in range(0, rows, step):
                whole[start : start + step] = self._read(start, min(rows, start + step))
            self._whole = np.ascontiguousarray(whole.T) if self._transposed else whole
        return self._whole

    def _read(self, start: int, stop: int) -> F32:
        found = self._base.rows(self._tensor.name, start, stop)
        return found.astype(np.float32).reshape(stop - start, -1)

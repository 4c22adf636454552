"""Read the factors of an adapter's updates again, one at a time, from the bytes that were scanned.

The pass over a weight file measures each ΔW and lets its factors go. What compares updates (with
the base model, with another adapter) comes back for them here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from adapterscan.errors import ChangedWhileReading, LimitExceeded, Unsupported
from adapterscan.formats.deltas import Delta
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.tensors import FLOAT_DTYPES, TensorInfo, as_array, numpy_dtype
from adapterscan.lowrank import LowRank
from adapterscan.model import File
from adapterscan.text import printable, size_text
from adapterscan.weighing.plan import Range, factors, range_of

FACTOR_LIMIT = 64 << 20  # bytes of one factor as stored
RANK_LIMIT = 1024  # the r×r work is cubic; the largest ranks published are 512
Storage = memoryview | bytes | bytearray


class Factors:
    """The factors in one weight file. Use as a context manager.

    `sha256` is the digest that the scan had of it: the whole file is hashed again when it is
    opened, and its size and time are compared when it is closed.
    Raises ChangedWhileReading for another content, Unreadable where there is none.
    """

    def __init__(self, file: File, sha256: str) -> None:
        self._file, self._sha256 = file, sha256
        if file.local is None:
            raise Unsupported(file.path, "was not fetched", hint="scan a copy that lies here")
        self._source = SourceFile(file.path, file.local)

    def __enter__(self) -> Self:
        for _ in self._source.segments(()):
            pass
        if self._source.sha256 != self._sha256:
            self._source.__exit__(None, None, None)
            raise ChangedWhileReading(
                self._file.path, "changed after it was scanned",
                hint="scan it again where nobody writes",
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._source.check_unchanged()
        finally:
            self._source.__exit__(kind, value, trace)

    def of(self, delta: Delta) -> LowRank:
        """Return ΔW as its factors, in the dtype that they are stored in.

        Raises LimitExceeded or Unsupported for factors that are not read (`why_not`), ValueError
        where their shapes do not fit.
        """
        if reason := why_not(delta):
            wrong = LimitExceeded if "limit" in reason else Unsupported
            raise wrong(self._file.path, f"{delta.name} {reason}", hint="ask its author")
        ranges = {range_of(tensor) for tensor in factors(delta)}
        return low_rank(delta, {found: self._source.read(*found) for found in ranges})

    def values(self, tensor: TensorInfo) -> npt.NDArray[Any]:
        """Return another tensor of the file whole, in its own dtype.

        Raises LimitExceeded for a large one, ValueError for one that holds no plain numbers.
        """
        size = max(tensor.nbytes, 8 * tensor.numel if tensor.strides is not None else 0)
        if size > FACTOR_LIMIT:  # a view may show a byte a million times
            raise LimitExceeded(
                self._file.path, f"{printable(tensor.name, 80)} takes {size_text(size)}, "
                f"over the limit of {size_text(FACTOR_LIMIT)}", hint="ask its author",
            )  # fmt: skip
        return as_array(tensor, self._source.glance(*range_of(tensor)))

    def rows(self, tensor: TensorInfo, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows [start, stop) of a tensor in its own dtype; a view comes whole first.

        Raises LimitExceeded for a large view, ValueError for what holds no plain numbers.
        """
        if tensor.strides is not None or tensor.offset or not tensor.shape:
            return self.values(tensor).reshape(max(1, tensor.shape[0] if tensor.shape else 1), -1)[
                start:stop
            ]
        dtype = numpy_dtype(tensor.dtype)
        if dtype is None:
            raise ValueError(f"dtype {tensor.dtype} has no element view")
        each = tensor.nbytes // max(1, tensor.shape[0])
        data = self._source.glance(tensor.start + start * each, (stop - start) * each)
        return np.frombuffer(data, dtype).reshape(stop - start, -1)


def why_not(delta: Delta) -> str:
    """Return why factors are not read: too large, or no plain floats; "" where they are."""
    if delta.rank > RANK_LIMIT:
        return f"has rank {delta.rank:,}, over the limit of {RANK_LIMIT:,}"
    for tensor in factors(delta):
        if tensor.nbytes > FACTOR_LIMIT:
            size = size_text(tensor.nbytes)
            return f"has a factor of {size}, over the limit of {size_text(FACTOR_LIMIT)}"
        dtype = numpy_dtype(tensor.dtype)
        if dtype is None or tensor.dtype not in FLOAT_DTYPES:
            return f"has a factor of dtype {tensor.dtype}, which holds no plain floats"
    return ""


def low_rank(delta: Delta, storages: Mapping[Range, Storage]) -> LowRank:
    """Shape the factors as `delta.kind` says. Raises ValueError where they cannot be."""
    a, b = (as_array(tensor, storages[range_of(tensor)]) for tensor in (delta.a, delta.b))
    part, parts, rank = delta.part, delta.parts, delta.rank
    if delta.kind == "conv":
        a, b = a.reshape(rank, -1), b.reshape(-1, rank)
    elif delta.kind == "experts":  # B is rank-major, expert-minor
        a = a.reshape(parts, rank, -1)[part]
        b = b.reshape(b.shape[0], rank, parts)[:, :, part]
    elif delta.kind == "merged":
        rows = b.shape[0] // parts
        a = a[part * rank : (part + 1) * rank]
        b = b[part * rows : (part + 1) * rows, :, 0]
    if delta.diag is not None:
        b = b.astype(np.float64) * as_array(delta.diag, storages[range_of(delta.diag)]).reshape(-1)
    return LowRank(a, b, delta.scaling)


def shape_of(delta: Delta) -> tuple[int, int]:
    """Return (d_out, d_in) of a ΔW as its factors say."""
    d_out, d_in = delta.b.shape[0], math.prod(delta.a.shape[1:])
    return (d_out // delta.parts, d_in) if delta.kind == "merged" else (d_out, d_in)

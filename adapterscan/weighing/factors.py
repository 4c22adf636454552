"""Read the factors of an adapter's updates again, one at a time, from the bytes that were scanned.

The pass over a weight file measures each ΔW and lets its factors go. What compares updates (with
the base model, with another adapter) comes back for them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from adapterscan.errors import ChangedWhileReading, LimitExceeded, Unsupported
from adapterscan.formats.deltas import FACTORED, Delta
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.tensors import FLOAT_DTYPES, TensorInfo, as_array, numpy_dtype
from adapterscan.formats.transforms import BY_KIND as METHODS_BY_KIND
from adapterscan.formats.transforms.transform import Transform
from adapterscan.formats.tuners import BY_KIND
from adapterscan.lowrank import LowRank
from adapterscan.model import File
from adapterscan.text import printable, size_text
from adapterscan.updates.update import RANK_LIMIT, Update
from adapterscan.weighing.plan import Range, factors, range_of

FACTOR_LIMIT = 64 << 20  # bytes of one factor as stored
_MADE_LIMIT = 512 << 20  # bytes that are made of what is stored, when it is read again
_CHANGED_LIMIT = 1 << 23  # values of a change that depends on its weight
_WHOLE_DTYPES = frozenset({"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
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

        Raises LimitExceeded or Unsupported for factors that are not read (`why_not`) and for a ΔW
        that has none, ValueError where their shapes do not fit.
        """
        found = self.update(delta).low_rank()
        if found is None:
            raise Unsupported(
                self._file.path, f"{delta.name} is no product of small factors ({delta.kind})",
                hint="it was measured as it is",
            )  # fmt: skip
        return found

    def update(self, delta: Delta) -> Update:
        """Return ΔW as what it is. Raises as `of` does, but for what has no factors."""
        if reason := why_not(delta):
            wrong = LimitExceeded if "limit" in reason else Unsupported
            raise wrong(self._file.path, f"{delta.name} {reason}", hint="ask its author")
        ranges = {range_of(tensor) for tensor in factors(delta)}
        return update_of(delta, {found: self._source.read(*found) for found in ranges})

    def arrays(self, transform: Transform) -> Sequence[npt.NDArray[Any]]:
        """Return the tensors that change a weight. Raises Unsupported or LimitExceeded."""
        whole = METHODS_BY_KIND[transform.kind].whole
        for tensor in transform.tensors:
            wanted = _WHOLE_DTYPES if whole & set(tensor.name.split(".")) else FLOAT_DTYPES
            if numpy_dtype(tensor.dtype) is None or tensor.dtype not in wanted:
                raise Unsupported(
                    transform.module, f"has a tensor of dtype {tensor.dtype}", hint="ask its author"
                )
        if sum(tensor.numel for tensor in transform.tensors) > _CHANGED_LIMIT:
            raise LimitExceeded(
                transform.module, f"has more than {_CHANGED_LIMIT:,} values for one weight",
                hint="ask its author",
            )  # fmt: skip
        return [self.values(tensor) for tensor in transform.tensors]

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
    factored = delta.kind in FACTORED
    if delta.rank > RANK_LIMIT and measured_by_rank(delta):
        return f"has rank {delta.rank:,}, over the limit of {RANK_LIMIT:,}"
    for tensor in factors(delta):
        if tensor.nbytes > FACTOR_LIMIT:
            size = size_text(tensor.nbytes)
            return f"has a factor of {size}, over the limit of {size_text(FACTOR_LIMIT)}"
        dtype = numpy_dtype(tensor.dtype)
        whole = not factored and BY_KIND[delta.kind].holds_whole(tensor)
        if dtype is None or tensor.dtype not in (_WHOLE_DTYPES if whole else FLOAT_DTYPES):
            wanted = "whole numbers" if whole else "plain floats"
            return f"has a factor of dtype {tensor.dtype}, which holds no {wanted}"
    if not factored and (made := BY_KIND[delta.kind].made(delta)) > _MADE_LIMIT:
        return f"would make {size_text(made)} of its tensors, over {size_text(_MADE_LIMIT)}"
    return ""


def measured_by_rank(delta: Delta) -> bool:
    """Return whether the statistics of a ΔW take r×r matrices; others have a structure for it."""
    return delta.kind in FACTORED or BY_KIND[delta.kind].cubic


def extra_bytes(delta: Delta) -> int:
    """Return what is made of the tensors of a ΔW, beside what its statistics take."""
    return 0 if delta.kind in FACTORED else BY_KIND[delta.kind].made(delta)


def work(delta: Delta) -> int:
    """Return the multiply-adds of a ΔW's statistics that are not one pass over its tensors."""
    return delta.rank**3 if delta.kind in FACTORED else BY_KIND[delta.kind].work(delta)


def update_of(delta: Delta, storages: Mapping[Range, Storage]) -> Update:
    """Return the ΔW of the tensors in `storages`. Raises ValueError where they do not fit."""
    if delta.kind in FACTORED:
        return low_rank(delta, storages)
    arrays = [as_array(tensor, storages[range_of(tensor)]) for tensor in delta.tensors]
    return BY_KIND[delta.kind].make(delta, arrays)


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

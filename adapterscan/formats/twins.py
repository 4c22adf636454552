"""Compare two weight files tensor by tensor: what differs, and by how much.

The files are read again, in blocks; the bytes that are compared are proven to be those that were
hashed (`SourceFile.segments` sees what was read before). Values of two dtypes agree when they
differ by no more than the coarser one rounds.
Limits: a file that was rounded differently on purpose, within half a unit, counts as equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.sniff import sniff
from adapterscan.formats.tensors import TensorInfo, WeightFile, as_array, numpy_dtype

BLOCK_BYTES = 4 << 20
STRIDED_LIMIT = 64 << 20  # a view in no order is read whole
_HEAD = 1024
#: Half a unit in the last place, relative; and what the smallest numbers of half precision lose.
_ROUNDING = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}
_COARSE = 0.07  # of eight bits
_TINY = 6.0e-8


@dataclass(slots=True)
class Difference:
    """What two files differ in. `largest`: |one − other| over the largest |value| of the tensor."""

    tensors: int = 0  # that were compared
    differing: int = 0
    only_first: int = 0
    only_second: int = 0
    reshaped: int = 0
    elements: int = 0
    elements_differing: int = 0
    largest: float = 0.0
    worst: str = ""
    unread: int = 0  # tensors of dtypes or views that are not compared

    def __bool__(self) -> bool:
        """Return whether the files are not the same weights."""
        return bool(self.differing or self.only_first or self.only_second or self.reshaped)


def read_again(source: SourceFile) -> WeightFile:
    """Return what the header of a weight file says. Raises FileProblem as the first time."""
    container = sniff(source.read(0, _HEAD))
    suffix = PurePosixPath(source.path).suffix.lower()
    if container == "safetensors" or suffix == ".safetensors":
        weights = read_safetensors(source)
    else:
        from adapterscan.formats.pickle_file import find_pickles  # most adapters hold no pickles
        from adapterscan.formats.torch_file import read_torch

        weights = read_torch(find_pickles(source))
    if weights.problem is not None:
        raise weights.problem
    return weights


def difference(one: SourceFile, other: SourceFile) -> Difference:
    """Compare all tensors of two files. Raises FileProblem where one cannot be read."""
    first = {tensor.name: tensor for tensor in read_again(one).tensors}
    second = {tensor.name: tensor for tensor in read_again(other).tensors}
    result = Difference(
        only_first=len(first.keys() - second.keys()), only_second=len(second.keys() - first.keys())
    )
    for name in sorted(first.keys() & second.keys()):
        a, b = first[name], second[name]
        if a.shape != b.shape:
            result.reshaped += 1
        elif not (_can_be_read(a) and _can_be_read(b)):
            result.unread += 1
        else:
            _tensor(result, _blocks(one, a), _blocks(other, b), a, b)
    return result


def _tensor(
    result: Difference,
    first: Iterator[npt.NDArray[Any]],
    second: Iterator[npt.NDArray[Any]],
    a: TensorInfo,
    b: TensorInfo,
) -> None:
    differ, distance, size = 0, 0.0, 0.0
    slack = 0.0 if a.dtype == b.dtype else max(_rounding(a), _rounding(b))
    for left, right in zip(first, second, strict=True):
        if a.dtype == b.dtype and left.tobytes() == right.tobytes():
            continue
        x, y = left.astype(np.float64), right.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(x - y)
            scale = np.maximum(np.abs(x), np.abs(y))
            odd = apart > slack * scale + (_TINY if slack else 0.0)
            odd |= np.isnan(x) != np.isnan(y)
        differ += int(np.count_nonzero(odd))
        finite = np.where(odd & np.isfinite(apart), apart, 0.0)
        distance = max(distance, float(finite.max(initial=0.0)))
        size = max(size, float(np.where(np.isfinite(scale), scale, 0.0).max(initial=0.0)))
    result.tensors += 1
    result.elements += a.numel
    result.elements_differing += differ
    result.differing += bool(differ)
    if differ and (not result.worst or (size and distance / size > result.largest)):
        result.worst, result.largest = a.name, distance / size if size else 0.0


def _can_be_read(tensor: TensorInfo) -> bool:
    """A view in no order is taken whole, and one that repeats itself can claim any size."""
    dtype = numpy_dtype(tensor.dtype)
    if dtype is None or dtype.kind == "c":
        return False
    size = max(tensor.nbytes, tensor.numel * dtype.itemsize)
    return tensor.strides is None or size <= STRIDED_LIMIT


def _rounding(tensor: TensorInfo) -> float:
    return _ROUNDING.get(tensor.dtype, _COARSE)


def _blocks(source: SourceFile, tensor: TensorInfo) -> Iterator[npt.NDArray[Any]]:
    """Yield the elements in order, the same numbers of them for every dtype."""
    dtype = numpy_dtype(tensor.dtype)
    assert dtype is not None  # noqa: S101  the caller passes over packed dtypes
    step = BLOCK_BYTES // 8  # elements
    if tensor.strides is None:
        start = tensor.start + tensor.offset * dtype.itemsize
        for low in range(0, tensor.numel, step):
            count = min(step, tensor.numel - low)
            data = source.read(start + low * dtype.itemsize, count * dtype.itemsize)
            yield np.frombuffer(data, dtype)
        return
    flat = as_array(tensor, source.read(tensor.start, tensor.nbytes)).ravel()
    for low in range(0, tensor.numel, step):
        yield flat[low : low + step]

"""Say which bytes of a weight file are measured, and which ΔW wait for which of them.

A file can have 100,000 tensors in a few megabytes, so what is kept for each is a row of numbers.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from adapterscan.formats.deltas import Delta
from adapterscan.formats.reader import SEGMENT_BYTES
from adapterscan.formats.tensors import TensorInfo

Range = tuple[int, int]  # start and length in the file
Unit = tuple[int, int, TensorInfo]  # a piece of a tensor: where it starts and ends
_Numbers = npt.NDArray[np.int64]
_Values = TypeVar("_Values", npt.NDArray[np.int64], npt.NDArray[np.complex128])


class FactorPlan:
    """The byte ranges that hold factors, in file order, and the deltas that each belongs to.

    Both go by number. Deltas can share a range, and so can the factors of one delta.
    """

    def __init__(self, deltas: Sequence[Delta]) -> None:
        count = max(1, len(deltas))
        owners = _numbers(number for number, delta in enumerate(deltas) for _ in factors(delta))
        keys = _keys(tensor for delta in deltas for tensor in factors(delta))
        self._keys, _, places = _unique(keys)
        # each pair once: a delta waits but once for a range that holds two of its factors
        pairs, _, _ = _unique(places * count + owners)
        sizes = np.searchsorted(pairs, count * np.arange(len(self._keys) + 1))
        self.starts = _plain(self._keys.real)
        self.ends = _plain(self._keys.real + self._keys.imag)
        self.missing = _plain(np.bincount(pairs % count, minlength=count))  # ranges, by delta
        self.unused = _plain(np.diff(sizes))  # deltas, by range
        self._owners, self._owner_bounds = _plain(pairs % count), _plain(sizes)
        self._places = _plain(places)
        self._place_bounds = _plain(np.searchsorted(owners, np.arange(len(deltas) + 1)))

    def owners(self, place: int) -> Sequence[int]:
        """Return the deltas that a range belongs to."""
        return self._owners[self._owner_bounds[place] : self._owner_bounds[place + 1]]

    def places(self, delta: int) -> Sequence[int]:
        """Return the range of each of `factors`."""
        return self._places[self._place_bounds[delta] : self._place_bounds[delta + 1]]

    def others(self, tensors: Sequence[TensorInfo]) -> list[TensorInfo]:
        """Return what is no factor, in file order; of tensors with one range the first."""
        keys, first, _ = _unique(_keys(tensors))
        known = np.append(self._keys, np.nan)[np.searchsorted(self._keys, keys)] == keys
        return [tensors[at] for at in first[~known].tolist()]


class DensePlan:
    """The pieces of other tensors, in file order, each of which fits a segment."""

    def __init__(self, tensors: Sequence[TensorInfo]) -> None:
        self._units = _units(tensors)
        self._next = next(self._units, None)

    def until(self, end: int) -> Iterator[Unit]:
        """Yield the next pieces that end at or before `end`."""
        while self._next is not None and self._next[1] <= end:
            yield self._next
            self._next = next(self._units, None)


def factors(delta: Delta) -> Iterator[TensorInfo]:
    """Yield the tensors that a ΔW is computed from."""
    yield from delta.tensors


def range_of(tensor: TensorInfo) -> Range:
    """Return where the tensor's storage lies."""
    return tensor.start, tensor.nbytes


def cuts(plan: FactorPlan, dense: Sequence[TensorInfo], size: int) -> Sequence[int]:
    """Return where a segment may end: at the borders of what is measured, and in long gaps."""
    lows = np.concatenate([np.array(plan.starts, np.int64), _numbers(t.start for t in dense)])
    highs = np.concatenate([np.array(plan.ends, np.int64), _numbers(t.end for t in dense)])
    order = np.argsort(lows, kind="stable")
    before = np.maximum.accumulate(np.concatenate([[0], highs[order]]))
    after = np.concatenate([lows[order], [size]])
    gaps = [_steps(*gap) for gap in _longer(before, after)]
    pieces = [_steps(tensor.start, tensor.end) for tensor in dense if _is_long(tensor)]
    return _plain(_unique(np.concatenate([lows, highs, *gaps, *pieces]))[0])


def _longer(lows: _Numbers, highs: _Numbers) -> Iterator[tuple[int, int]]:
    where = np.flatnonzero(highs - lows > SEGMENT_BYTES)
    return zip(lows[where].tolist(), highs[where].tolist(), strict=True)


def _steps(low: int, high: int) -> _Numbers:
    return np.arange(low + SEGMENT_BYTES, high, SEGMENT_BYTES, dtype=np.int64)


def _is_long(tensor: TensorInfo) -> bool:
    return tensor.nbytes > SEGMENT_BYTES


def _units(tensors: Sequence[TensorInfo]) -> Iterator[Unit]:
    """Cut what is longer than a segment, at element borders."""
    short = ((t.start, t.end, t) for t in tensors if t.nbytes and not _is_long(t))
    long = [_pieces(tensor) for tensor in tensors if _is_long(tensor)]
    return heapq.merge(short, *long, key=lambda unit: unit[:2])


def _pieces(tensor: TensorInfo) -> Iterator[Unit]:
    for low in range(tensor.start, tensor.end, SEGMENT_BYTES):
        yield low, min(low + SEGMENT_BYTES, tensor.end), tensor


def _unique(values: _Values) -> tuple[_Values, _Numbers, _Numbers]:
    """Return sorted values, where each stands first, and the place of each given one among them.

    NumPy's own imports its masked arrays, 10 ms.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.ones(len(values), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    places = np.empty(len(values), np.int64)
    places[order] = np.cumsum(new) - 1
    return ordered[new], order[new], places


def _keys(tensors: Iterable[TensorInfo]) -> npt.NDArray[np.complex128]:
    """Return ranges as start + length·i, which sorts as they do and is exact up to 2⁵³."""
    return np.fromiter((complex(t.start, t.nbytes) for t in tensors), np.complex128)


def _numbers(values: Iterable[int]) -> _Numbers:
    return np.fromiter(values, np.int64)


def _plain(values: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> array[int]:
    """Return whole numbers that are quick to take one by one."""
    return array("q", values.astype(np.int64).tobytes())

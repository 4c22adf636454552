"""A sparse ΔW: values at places, added up where a place stands twice.

Norms, the kurtosis and the shares of rows and columns come from the values. The spectrum is that of
the blocks that no shared row or column joins, each of them small where places lie far apart; where
one block is large it is not taken, and the summary has None for what would need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import (
    F64,
    RELATIVE_FLOOR,
    Array,
    DeltaSummary,
    LowRank,
    summarised,
    undefined,
)
from adapterscan.updates.update import RANK_LIMIT

I64 = npt.NDArray[np.int64]

_BLOCK = 1 << 22  # elements of a block that is decomposed, and its shorter side
_SIDE = 1024
_FACTORS = 1 << 25  # elements of both factors
_WORK = 1 << 31  # multiply-adds for all blocks of one ΔW


@dataclass(frozen=True, slots=True)
class Scattered:
    """s·Σ value at (row, column). Places are sorted and no place stands twice: see `scattered`."""

    places: I64  # row·d_in + column, ascending
    values: F64
    shape: tuple[int, int]
    scaling: float = 1.0

    def summary(self, exact_to: int = 16) -> DeltaSummary:
        """Return all statistics; those of the spectrum are None where a block is large."""
        rank = min(*self.shape, len(self.values))
        nonfinite = int(self.values.size - np.count_nonzero(np.isfinite(self.values)))
        if not np.isfinite(self.scaling):
            nonfinite = max(1, nonfinite)
        largest = 0.0 if nonfinite else float(np.abs(self.values).max(initial=0.0))
        if nonfinite or not largest or not self.scaling:
            return undefined(self.shape, rank, nonfinite)
        values = self.values / largest
        squares = np.square(values)
        total, (d_out, d_in) = float(squares.sum()), self.shape
        rows, columns = np.divmod(self.places, d_in)
        sigma = self._spectrum(values, rows, columns)
        known = sigma if sigma is not None else np.array([total**0.5])
        found = summarised(
            self.shape, rank, abs(self.scaling) * largest * known[:RANK_LIMIT],
            known[known > RELATIVE_FLOOR * known[0]] / known[0],
            kurtosis=float(np.square(squares).sum()) * d_out * d_in / total**2, kurtosis_energy=1.0,
            row_peak=float(_added(squares, rows).max()) / total,
            column_peak=float(_added(squares, columns).max()) / total,
        )  # fmt: skip
        if sigma is not None:
            return found
        return replace(
            found, numerical_rank=rank, singular_values=(), top_energy=None, top_share=None,
            stable_rank=None, entropy=None, effective_rank=None, participation=None,
        )  # fmt: skip

    def _spectrum(self, values: F64, rows: I64, columns: I64) -> F64 | None:
        """Return the singular values, descending; None where they would take too long."""
        blocks = list(_blocks(rows, columns))
        sizes = [(len(np.unique(rows[b])), len(np.unique(columns[b]))) for b in blocks]
        if any(p * q > _BLOCK or min(p, q) > _SIDE for p, q in sizes):
            return None
        if sum(p * q * min(p, q) for p, q in sizes) > _WORK:
            return None
        found = []
        for block in blocks:
            if len(block) == 1:
                found.append(np.abs(values[block]))
                continue
            (_, at), (_, beside) = (
                np.unique(side[block], return_inverse=True) for side in (rows, columns)
            )
            matrix = np.zeros((int(at.max()) + 1, int(beside.max()) + 1))
            matrix[at, beside] = values[block]
            found.append(np.linalg.svd(matrix, compute_uv=False))
        ordered: F64 = np.sort(np.concatenate(found))[::-1]
        return ordered

    def low_rank(self) -> LowRank | None:
        """Return one column for each row that is touched, or each column if they are fewer."""
        d_out, d_in = self.shape
        rows, columns = np.divmod(self.places, d_in)
        used, at = np.unique(rows, return_inverse=True)
        across, beside = np.unique(columns, return_inverse=True)
        rank = min(len(used), len(across))
        if rank > RANK_LIMIT or rank * (d_out + d_in) > _FACTORS:
            return None
        if len(used) <= len(across):
            a, b = np.zeros((len(used), d_in)), np.zeros((d_out, len(used)))
            a[at, columns], b[used, np.arange(len(used))] = self.values, 1.0
        else:
            a, b = np.zeros((len(across), d_in)), np.zeros((d_out, len(across)))
            b[rows, beside], a[np.arange(len(across)), across] = self.values, 1.0
        return LowRank(a, b, self.scaling)

    def rows(self, start: int, stop: int) -> F64:
        """Return the rows [start, stop) of ΔW."""
        d_out, d_in = self.shape
        stop = min(stop, d_out)
        low, high = np.searchsorted(self.places, [start * d_in, stop * d_in])
        found = np.zeros((stop - start) * d_in)
        found[self.places[low:high] - start * d_in] = self.scaling * self.values[low:high]
        return found.reshape(stop - start, d_in)

    def dense(self) -> F64:
        """Return ΔW in float64. For tests and small matrices only."""
        return self.rows(0, self.shape[0])

    def within(self, shape: tuple[int, int]) -> Scattered:
        """Return the same entries in a larger matrix. Raises ValueError where they do not fit."""
        if shape[0] < self.shape[0] or shape[1] < self.shape[1]:
            raise ValueError(f"has entries outside of {shape[0]:,} × {shape[1]:,}")
        rows, columns = np.divmod(self.places, self.shape[1])
        return replace(self, places=rows * shape[1] + columns, shape=shape)


def scattered(
    rows: Array, columns: Array, values: Array, shape: tuple[int, int], scaling: float = 1.0
) -> Scattered:
    """Return the sum of `values` (n,) at (rows, columns). Raises ValueError for places outside."""
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    for side, size in ((rows, shape[0]), (columns, shape[1])):
        if side.size and (side.min() < 0 or side.max() >= size):
            raise ValueError(f"has entries outside of {shape[0]:,} × {shape[1]:,}")
    places = rows * shape[1] + columns
    order = np.argsort(places, kind="stable")
    places, sorted_values = places[order], values.astype(np.float64)[order]
    new = np.ones(len(places), bool)
    new[1:] = places[1:] != places[:-1]
    starts = np.flatnonzero(new)
    summed = np.add.reduceat(sorted_values, starts) if len(starts) else sorted_values
    return Scattered(places[starts], summed, shape, scaling)


def _added(values: F64, places: I64) -> F64:
    """Return the sum of `values` at each place that occurs."""
    _, at = np.unique(places, return_inverse=True)
    return np.bincount(at, values).astype(np.float64)


def _blocks(rows: I64, columns: I64) -> Iterator[I64]:
    """Yield the entries (n,) of each block: entries that rows and columns join, step by step.

    Every round hooks each block to the smallest that it shares a row or column with (Shiloach and
    Vishkin 1982): of those with a neighbour at least half are gone after it, whatever the order.
    """
    sides = [np.unique(side, return_inverse=True)[1] for side in (rows, columns)]
    root = np.arange(len(rows))
    before = np.full_like(root, -1)
    while not np.array_equal(root, before):
        before = root
        for side in sides:
            smallest = np.full(int(side.max(initial=-1)) + 1, len(rows))
            np.minimum.at(smallest, side, root)
            hooked = root.copy()
            np.minimum.at(hooked, root, smallest[side])
            root = _compressed(hooked)
    order = np.argsort(root, kind="stable")
    cuts = np.flatnonzero(np.diff(root[order])) + 1
    yield from np.split(order, cuts)


def _compressed(root: I64) -> I64:
    """Return for each entry the root that its chain ends at."""
    while not np.array_equal(ahead := root[root], root):
        root = ahead
    return root

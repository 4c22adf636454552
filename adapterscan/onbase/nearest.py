"""Which rows of an embedding lie nearest to given vectors, in one pass over blocks of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterscan.onbase.matrix import F32, Matrix


@dataclass(frozen=True, slots=True)
class Nearest:
    """The row that a vector points to most: its number, the cosine, and how long rows are."""

    row: int
    cosine: float  # in [-1, 1]; -1 where there is no row but of zeros
    ratio: float | None  # the vector's length over the mean length of all rows


def nearest(matrix: Matrix, vectors: F32) -> list[Nearest]:
    """Return the nearest row for each of `vectors` (n, d_in); the first of equal ones.

    A vector of zeros, or of no numbers, is nearest to none: row 0 with a cosine of -1.
    """
    wide = vectors.astype(np.float64)
    sizes = np.linalg.norm(wide, axis=1)
    usable = np.isfinite(sizes) & (sizes > 0)
    units = np.where(usable[:, None], wide / np.where(usable, sizes, 1.0)[:, None], 0.0)
    units = np.where(usable[:, None], units, 0.0).astype(np.float32)
    best, where = np.full(len(units), -1.0), np.zeros(len(units), np.int64)
    total = 0.0
    for start, block in matrix.blocks():
        lengths = np.linalg.norm(block, axis=1)
        total += float(lengths.sum(dtype=np.float64))
        near = (block @ units.T) / np.where(lengths > 0, lengths, np.inf)[:, None]
        rows = near.argmax(axis=0)
        found = near[rows, np.arange(len(units))]
        better = usable & (found > best)
        best[better], where[better] = found[better], start + rows[better]
    mean = total / max(1, matrix.shape[0])
    return [
        Nearest(int(row), float(min(1.0, cosine)), float(size / mean) if mean and ok else None)
        for row, cosine, size, ok in zip(where, best, sizes, usable, strict=True)
    ]

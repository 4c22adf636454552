"""ΔW = s·(W₁ ⊗ W₂): its statistics are products of those of the two small matrices.

σ(W₁ ⊗ W₂) = {σᵢ(W₁)·σⱼ(W₂)}, and every entry is a product of one of W₁ and one of W₂, so that
norms, the kurtosis and the largest shares of rows and columns multiply (Van Loan 2000, "The
ubiquitous Kronecker product"). W₁ and W₂ are given as factors themselves, and need not be small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

_SMALL = 1 << 21  # elements of W₁ or W₂ of which the kurtosis is always exact


@dataclass(frozen=True, slots=True)
class Kronecker:
    """s·(first ⊗ second), with first (p, q) and second (m, n): (p·m, q·n)."""

    first: LowRank
    second: LowRank
    scaling: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        (p, q), (m, n) = self.first.shape, self.second.shape
        return p * m, q * n

    @property
    def rank(self) -> int:
        """Return how many singular values it can have: those of both multiplied."""
        return _rank(self.first) * _rank(self.second)

    def summary(self, exact_to: int = 16) -> DeltaSummary:
        """Return all statistics from those of the two matrices."""
        one, two = (_summary(part, exact_to) for part in (self.first, self.second))
        nonfinite = one.nonfinite + two.nonfinite
        if nonfinite or not one.frobenius or not two.frobenius or not self.scaling:
            return undefined(self.shape, self.rank, nonfinite)
        if not np.isfinite(self.scaling):
            return undefined(self.shape, self.rank, 1)
        products = np.outer(one.singular_values, two.singular_values).ravel()
        sigma = np.sort(products)[::-1]
        counted = sigma[sigma > RELATIVE_FLOOR * sigma[0]] / sigma[0]
        return summarised(
            self.shape, self.rank, abs(self.scaling) * sigma[:RANK_LIMIT], counted,
            kurtosis=(one.kurtosis or 0.0) * (two.kurtosis or 0.0),
            kurtosis_energy=(one.kurtosis_energy or 0.0) * (two.kurtosis_energy or 0.0),
            row_peak=(one.row_peak or 0.0) * (two.row_peak or 0.0),
            column_peak=(one.column_peak or 0.0) * (two.column_peak or 0.0),
        )  # fmt: skip

    def low_rank(self) -> LowRank | None:
        """Return factors from those of both; None where they would have too many columns."""
        one, two = _narrow(self.first), _narrow(self.second)
        if one.a.shape[0] * two.a.shape[0] > RANK_LIMIT:
            return None
        a = np.kron(one.a.astype(np.float64), two.a.astype(np.float64))
        b = np.kron(one.b.astype(np.float64), two.b.astype(np.float64))
        return LowRank(a, b, self.scaling * one.scaling * two.scaling)

    def rows(self, start: int, stop: int) -> F64:
        """Return the rows [start, stop) of ΔW."""
        height = self.second.shape[0]
        some = np.arange(start, min(stop, self.shape[0]))
        upper = self.first.rows(0, self.first.shape[0])[some // height]
        first, last = start // height, max(start, stop - 1) // height
        whole = first != last
        low, high = (0, height) if whole else (start % height, (stop - 1) % height + 1)
        lower = self.second.rows(low, high)[some % height - low]
        found: F64 = np.einsum("iq,in->iqn", self.scaling * upper, lower).reshape(len(some), -1)
        return found

    def dense(self) -> F64:
        """Return ΔW in float64. For tests and small matrices only."""
        return self.rows(0, self.shape[0])


def matrix(values: Array) -> LowRank:
    """Return a small matrix (p, q) as factors: itself and an identity on its shorter side."""
    p, q = values.shape
    identity = np.eye(min(p, q), dtype=np.float32)
    return LowRank(identity, values) if q <= p else LowRank(values, identity)


def _rank(part: LowRank) -> int:
    return min(int(part.a.shape[0]), *part.shape)


def _summary(part: LowRank, exact_to: int) -> DeltaSummary:
    p, q = part.shape
    return part.summary(max(exact_to, part.a.shape[0]) if p * q <= _SMALL else exact_to)


def _narrow(part: LowRank) -> LowRank:
    """Return a factored matrix with no more columns than its shorter side has."""
    p, q = part.shape
    if part.a.shape[0] <= min(p, q):
        return part
    return matrix(part.rows(0, p))

"""The low-rank delta ΔW = s·B·A as a type: its statistics from the factors, never dense.

Notation: B (d_out, r), A (r, d_in), s the scaling. With Gram matrices G_A = A·Aᵀ = T·Tᵀ (Cholesky,
or T = V·Λ^½ where it is nearly singular) and G_B = Bᵀ·B, the r×r matrix Tᵀ·G_B·T = W·Σ²·Wᵀ holds
the squared singular values of B·A; P = B·T·W is U·Σ, and Q = (T⁻ᵀ·W)ᵀ·A is the right singular
basis. It costs O((d_out + d_in)·r²), and all of it is invariant to (B, A) → (B·R⁻¹, R·A). Squaring
the condition number costs accuracy only below a relative singular value of about 1e-8, where we
stop counting (`numerical_rank`). Cores are float64; the sides are projected in float32, which
leaves a relative error of 1e-6.

The fourth moment is exact as well: Σᵢⱼ ΔWᵢⱼ⁴ = ⟨P₂ᵀ·P₂, Q₂ᵀ·Q₂⟩ where P₂ and Q₂ hold the products
of pairs of columns. It costs O((d_out + d_in)·r⁴), so above the rank that the caller can afford it
is taken of the best approximation of rank `KURTOSIS_RANK`, and the share of energy that this covers
is reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]

KURTOSIS_RANK = 8  # exact up to here at no noticeable cost
_BLOCK = 1 << 16  # elements widened at a time: the working set stays in a core's cache
_MOMENT_ROWS = 256
_RELATIVE_FLOOR = 1e-8


@dataclass(frozen=True, slots=True)
class DeltaSummary:
    """Gauge-invariant statistics of one ΔW. Source: `docs/statistics.md`, which has the formulas.

    Everything but `frobenius` and `rms` is free of scale. Statistics are None where they do not
    exist: for a delta that is zero or not finite. `singular_values` are of s·B·A, descending.
    """

    d_out: int
    d_in: int
    rank: int  # columns of B
    numerical_rank: int  # singular values above 1e-8 of the largest
    nonfinite: int  # NaN or infinite elements in A and B
    singular_values: tuple[float, ...]
    frobenius: float | None  # ‖ΔW‖_F
    rms: float | None  # ‖ΔW‖_F / √(d_out·d_in)
    top_energy: float | None  # σ₁² / Σσ², in [1/r, 1]
    top_share: float | None  # σ₁ / Σσ, in [1/r, 1]
    stable_rank: float | None  # Σσ² / σ₁², in [1, r]
    entropy: float | None  # H(σ/Σσ) / ln r, in [0, 1]; None for r = 1
    effective_rank: float | None  # exp H, in [1, r] (Roy & Vetterli 2007)
    participation: float | None  # (Σσ²)² / Σσ⁴, in [1, r]
    kurtosis: float | None  # mean(ΔW⁴) / mean(ΔW²)², ≥ 1; 3 for Gaussian entries
    kurtosis_energy: float | None  # share of ‖ΔW‖² that the kurtosis covers; 1 where exact
    row_peak: float | None  # share of ‖ΔW‖² in the largest row, in [1/d_out, 1]
    column_peak: float | None  # share of ‖ΔW‖² in the largest column, in [1/d_in, 1]

    @property
    def is_zero(self) -> bool:
        """Return whether the delta is finite and zero: an adapter that does nothing here."""
        return self.nonfinite == 0 and self.frobenius == 0.0


@dataclass(frozen=True, slots=True)
class LowRank:
    """ΔW = scaling · B · A. `a` is (r, d_in) and `b` is (d_out, r), in any real dtype."""

    a: Array
    b: Array
    scaling: float = 1.0

    def dense(self) -> F64:
        """Return ΔW (d_out, d_in) in float64. For tests and small matrices only."""
        product: F64 = self.b.astype(np.float64) @ self.a.astype(np.float64)
        return self.scaling * product

    def summary(self, exact_to: int = 16) -> DeltaSummary:
        """Return all statistics in two passes over the factors, each in cache-sized blocks.

        The kurtosis is exact up to rank `exact_to` (see `kurtosis_cost`).
        """
        left, right = _factor(self.b.T), _factor(self.a)
        nonfinite = left.nonfinite + right.nonfinite
        if nonfinite or not left.scale or not right.scale:
            return _undefined(self, nonfinite)
        root, inverse = gram_root(right.gram)
        squares, mixing = np.linalg.eigh(root.T @ left.gram @ root)
        sigma = np.sqrt(np.maximum(squares[::-1], 0.0))
        noise = _RELATIVE_FLOOR * float(np.sqrt(np.trace(left.gram) * np.trace(right.gram)))
        count = int(np.count_nonzero(sigma > _RELATIVE_FLOOR * sigma[0]))
        count = min(count, len(self.b), self.a.shape[1])  # more are noise near the floor
        if sigma[0] <= noise or not count:
            return _undefined(self, 0)
        mixing = mixing[:, ::-1][:, :count]
        shape = sigma[:count] / sigma[0]
        used = count if count <= max(exact_to, KURTOSIS_RANK) else KURTOSIS_RANK
        rows = _side(left, root @ mixing / sigma[0], np.ones(count), used)
        columns = _side(right, inverse.T @ mixing, shape, used)
        return _statistics(self, sigma * left.scale * right.scale, shape, rows, columns)


def kurtosis_cost(d_out: int, d_in: int, rank: int) -> int:
    """Return the multiply-adds that an exact kurtosis takes beyond the rest of a summary."""
    pairs = rank * (rank + 1) // 2
    return (d_out + d_in) * pairs * (pairs + 1) // 2


def working_bytes(rank: int, exact_to: int = 16) -> int:
    """Return how much memory a summary takes at the most, beside the factors."""
    used = rank if rank <= max(exact_to, KURTOSIS_RANK) else KURTOSIS_RANK
    pairs, width = used * (used + 1) // 2, max(64, _BLOCK // max(1, rank))
    return 10 * 8 * rank**2 + 4 * pairs * (3 * pairs + width) + 2 * 8 * rank * width


@dataclass(frozen=True, slots=True)
class _Factor:
    """A factor as (r, n), with the Gram matrix (r, r) of `values / scale`; scale 0 if all zero."""

    values: Array
    gram: F64
    scale: float
    nonfinite: int

    def blocks(self, dtype: type[np.floating[Any]] = np.float64) -> Iterator[tuple[int, Array]]:
        """Yield (start, values / scale) as `dtype`, a block of columns at a time.

        All blocks share one buffer, in the memory order of `values`: each is valid until the next.
        """
        rank, length = self.values.shape
        width = self.width
        tall = self.values.strides[0] < self.values.strides[1]
        buffer = np.empty((width, rank) if tall else (rank, width), dtype)
        buffer = buffer.T if tall else buffer
        for start in range(0, length, width):
            source = self.values[:, start : start + width]
            block = buffer[:, : source.shape[1]]
            if self.scale == 1.0:
                block[...] = source
            else:
                block[...] = source.astype(np.float64) / self.scale
            yield start, block

    @property
    def width(self) -> int:
        """Return how many columns a block has."""
        rank, length = int(self.values.shape[0]), int(self.values.shape[1])
        return max(1, min(length, max(64, _BLOCK // max(1, rank))))


@dataclass(frozen=True, slots=True)
class _Side:
    """What one pass over a side of ΔW leaves: the energy of each row (or column), divided by σ₁²,
    and the matrix of fourth moments over pairs of the leading `used` directions."""

    energy: Array
    moments: npt.NDArray[np.float32]
    used: int


def _factor(values: Array) -> _Factor:
    """Take the Gram matrix; rescale, or count what is not finite, where the plain way fails."""
    factor = _Factor(values, np.zeros((0, 0)), 1.0, 0)
    gram = _gram(factor)
    mean = float(np.trace(gram)) / max(1, values.size)
    if np.isfinite(gram).all() and 1e-24 < mean < 1e24:
        return _Factor(values, gram, 1.0, 0)
    nonfinite = sum(int(np.count_nonzero(~np.isfinite(block))) for _, block in factor.blocks())
    peaks = [float(np.abs(block).max(initial=0.0)) for _, block in factor.blocks()]
    largest = max(peaks, default=0.0)
    if nonfinite or not largest:
        return _Factor(values, gram, 0.0, nonfinite)
    scaled = _Factor(values, gram, largest, 0)
    return _Factor(values, _gram(scaled), largest, 0)


def _gram(factor: _Factor) -> F64:
    rank = factor.values.shape[0]
    gram = np.zeros((rank, rank))
    with np.errstate(over="ignore", invalid="ignore"):
        for _, block in factor.blocks():
            gram += block @ block.T
    return gram


def gram_root(gram: F64) -> tuple[F64, F64]:
    """Return T (r, r) with T·Tᵀ = `gram`, and its (pseudo-)inverse."""
    try:
        root: Array = np.linalg.cholesky(gram)
        diagonal = np.diagonal(root)
        if diagonal.min() > 1e-4 * diagonal.max():
            inverse: Array = np.linalg.inv(root)
            return root, inverse
    except np.linalg.LinAlgError:
        pass  # singular: repeated or zero rows
    lengths, rotation = np.linalg.eigh(gram)
    lengths = np.sqrt(np.maximum(lengths, 0.0))
    safe = np.where(lengths > 0, lengths, np.inf)
    root, inverse = rotation * lengths, (rotation / safe).T
    return root, inverse


def _side(factor: _Factor, basis: F64, weights: F64, used: int) -> _Side:
    """Project the factor on `basis` (r, k); `weights` (k,) scale directions for the energies."""
    pairs = used * (used + 1) // 2
    moments = np.zeros((pairs, pairs), np.float32)
    products = np.empty((pairs, factor.width), np.float32)
    sides = np.empty((basis.shape[1], factor.width), np.float32)
    energy = np.empty(factor.values.shape[1], np.float32)
    turn = np.ascontiguousarray(basis.T, np.float32)
    squares = np.square(weights).astype(np.float32)
    for start, block in factor.blocks(np.float32):
        width = block.shape[1]
        projected = np.matmul(turn, block, out=sides[:, :width])
        at = 0
        for first in range(used):
            lead = projected[first:used]
            np.multiply(projected[first], lead, out=products[at : at + used - first, :width])
            at += used - first
        moments += products[:, :width] @ products[:, :width].T
        energy[start : start + width] = squares @ np.square(projected, out=projected)
    return _Side(energy, moments, used)


@cache
def _pair_weights(used: int) -> F64:
    """Return how often each pair (i ≤ j) stands in a sum over all pairs: twice if i < j."""
    first, second = np.triu_indices(used)
    return np.where(first == second, 1.0, 2.0)


def _fourth_moment(rows: _Side, columns: _Side) -> float:
    """Return Σ ΔW⁴ / σ₁⁴ over the leading directions; unordered pairs count twice."""
    twice = _pair_weights(rows.used)
    total = 0.0
    for start in range(0, len(twice), _MOMENT_ROWS):  # 35 MB at rank 64 if widened at once
        some = slice(start, start + _MOMENT_ROWS)
        product = rows.moments[some].astype(np.float64) * columns.moments[some]
        total += float(twice[some] @ product @ twice)
    return total


def _statistics(
    delta: LowRank, sigma: F64, shape: F64, rows: _Side, columns: _Side
) -> DeltaSummary:
    """Combine both sides. `sigma` are the singular values of B·A, `shape` the counted ones / σ₁."""
    d_out, d_in, rank = delta.b.shape[0], delta.a.shape[1], delta.a.shape[0]
    energy = float(np.sum(shape**2))
    share = shape / float(np.sum(shape))
    entropy = float(-np.sum(share * np.log(share)))
    covered = float(np.sum(shape[: rows.used] ** 2))
    scaled = abs(delta.scaling) * sigma
    frobenius = float(scaled[0]) * energy**0.5
    return DeltaSummary(
        d_out=d_out,
        d_in=d_in,
        rank=rank,
        numerical_rank=len(shape),
        nonfinite=0,
        singular_values=tuple(scaled[: min(rank, d_out, d_in)].tolist()),
        frobenius=frobenius,
        rms=frobenius / (d_out * d_in) ** 0.5,
        top_energy=1.0 / energy,
        top_share=float(share[0]),
        stable_rank=energy,
        entropy=entropy / float(np.log(rank)) if rank > 1 else None,
        effective_rank=float(np.exp(entropy)),
        participation=energy**2 / float(np.sum(shape**4)),
        kurtosis=_fourth_moment(rows, columns) * d_out * d_in / covered**2,
        kurtosis_energy=covered / energy,
        row_peak=_largest_share(rows),
        column_peak=_largest_share(columns),
    )


def _largest_share(side: _Side) -> float:
    return float(side.energy.max()) / float(side.energy.sum(dtype=np.float64))


def _undefined(delta: LowRank, nonfinite: int) -> DeltaSummary:
    """Return the summary of a delta that is zero, or (`nonfinite` > 0) not a number."""
    zero = None if nonfinite else 0.0
    return DeltaSummary(
        delta.b.shape[0], delta.a.shape[1], delta.a.shape[0], 0, nonfinite, (), zero, zero,
        *(None,) * 10,
    )  # fmt: skip

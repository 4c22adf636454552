"""The low-rank delta ΔW = s·B·A as a type: its statistics from the factors, never dense.

Notation: B (d_out, r), A (r, d_in), s the scaling. With Gram matrices G_A = A·Aᵀ = T·Tᵀ (Cholesky,
or T = V·Λ^½ where it is nearly singular) and G_B = Bᵀ·B, the r×r matrix Tᵀ·G_B·T = W·Σ²·Wᵀ holds
the squared singular values of B·A; P = B·T·W is U·Σ, and Q = (T⁻ᵀ·W)ᵀ·A is the right singular
basis. It costs O((d_out + d_in)·r²), and all of it is invariant to (B, A) → (B·R⁻¹, R·A). Squaring
the condition number costs accuracy only below a relative singular value of about 1e-8, where we
stop counting (`numerical_rank`). Cores are float64; the sides are projected in float32, which
leaves a relative error of 1e-6.

The fourth moment is exact as well: Σᵢⱼ ΔWᵢⱼ⁴ = ⟨P₂ᵀ·P₂, Q₂ᵀ·Q₂⟩ where P₂ and Q₂ hold the products
of pairs of columns, in O((d_out + d_in)·r⁴); where O(d_out·d_in·r) is less, P·Qᵀ is made a few rows
at a time and summed. Above the rank that the caller can afford it is taken of the best
approximation of rank `KURTOSIS_RANK`, and the share of energy that this covers is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]

KURTOSIS_RANK = 8  # exact up to here at no noticeable cost
_BLOCK = 1 << 16  # elements widened at a time: the working set stays in a core's cache
_MOMENT_ROWS = 256
RELATIVE_FLOOR = 1e-8  # of the largest singular value: below it is rounding
_STRIP = 1 << 19  # elements of ΔW that exist at a time
#: What an element of ΔW costs beside its product, in multiply-adds of a pair: writing, squaring and
#: summing it (measured: benchmarks/speed, "kurtosis").
_ELEMENT_COST = 16


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

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        return int(self.b.shape[0]), int(self.a.shape[1])

    def low_rank(self) -> LowRank:
        """Return itself: every ΔW has this, and those of high rank return None."""
        return self

    def rows(self, start: int, stop: int) -> F64:
        """Return the rows [start, stop) of ΔW (n, d_in) in float64."""
        some = self.b[start:stop].astype(np.float64)
        found: F64 = (self.scaling * some) @ self.a.astype(np.float64)
        return found

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
        noise = RELATIVE_FLOOR * float(np.sqrt(np.trace(left.gram) * np.trace(right.gram)))
        count = int(np.count_nonzero(sigma > RELATIVE_FLOOR * sigma[0]))
        count = min(count, left.values.shape[1], right.values.shape[1])  # the rest is rounding
        if sigma[0] <= noise or not count:
            return _undefined(self, 0)
        mixing = mixing[:, ::-1][:, :count]
        shape = sigma[:count] / sigma[0]
        used = count if count <= max(exact_to, KURTOSIS_RANK) else KURTOSIS_RANK
        sides = (
            (left, root @ mixing / sigma[0], np.ones(count)),
            (right, inverse.T @ mixing, shape),
        )
        moment, rows, columns = _moment_and_energies(sides, used)
        covered = _Covered(used, moment)
        return _statistics(self, sigma * left.scale * right.scale, shape, rows, columns, covered)


def kurtosis_cost(d_out: int, d_in: int, rank: int) -> int:
    """Return the multiply-adds that an exact kurtosis takes over pairs of directions.

    It can take less (see `summary`); this is what budgets count, so that what is exact, and with it
    the kurtosis of an adapter, stays what references were made with.
    """
    pairs = rank * (rank + 1) // 2
    return (d_out + d_in) * pairs * (pairs + 1) // 2


def working_bytes(rank: int, exact_to: int = 16, shorter: int = 0) -> int:
    """Return how much memory a summary takes at the most, beside the factors.

    `shorter`: the smaller of d_out and d_in.
    """
    used = rank if rank <= max(exact_to, KURTOSIS_RANK) else KURTOSIS_RANK
    pairs, width = used * (used + 1) // 2, max(64, _BLOCK // max(1, rank))
    fourth = max(4 * pairs * (3 * pairs + width), 4 * used * shorter + 4 * _STRIP)
    return 10 * 8 * rank**2 + fourth + 2 * 8 * rank * width


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


_SideInput = tuple[_Factor, F64, F64]  # with the basis (r, k) and the weights (k,) of directions


@dataclass(frozen=True, slots=True)
class _Covered:
    """Σ ΔW⁴ / σ₁⁴ over the leading `used` directions."""

    used: int
    fourth: float


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


def _moment_and_energies(
    sides: tuple[_SideInput, _SideInput], used: int
) -> tuple[float, Array, Array]:
    """Return Σ ΔW⁴ / σ₁⁴ and the energies / σ₁² of the rows (d_out,) and columns (d_in,) of ΔW."""
    (rows, *_), (columns, *_) = sides
    d_out, d_in = rows.values.shape[1], columns.values.shape[1]
    if _strips_are_cheaper(d_out, d_in, used):
        order = sides if d_out <= d_in else sides[::-1]  # the shorter side is kept
        kept = _Kept(order[0][0], used)
        short = _energies(*order[0], kept)
        strips = _Strips(kept.values)
        long = _energies(*order[1], strips)
        return strips.total, *((short, long) if d_out <= d_in else (long, short))
    energies, moments = [], []
    for side in sides:
        pairs = _Pairs(side[0], used)
        energies.append(_energies(*side, pairs))
        moments.append(pairs.moments)
    return _fourth_moment(used, *moments), energies[0], energies[1]


def _strips_are_cheaper(d_out: int, d_in: int, used: int) -> bool:
    return d_out * d_in * (used + _ELEMENT_COST) < kurtosis_cost(d_out, d_in, used)


class _Into(Protocol):
    """What a pass over a side of ΔW hands its leading directions to, a block at a time."""

    def take(self, start: int, projected: Array) -> None:
        """Take `projected` (k, n), of the rows or columns from `start` on."""


def _energies(factor: _Factor, basis: F64, weights: F64, into: _Into) -> Array:
    """Project the factor on `basis` (r, k); return the energy (n,) of each row or column / σ₁²,
    with directions scaled by `weights` (k,)."""
    sides = np.empty((basis.shape[1], factor.width), np.float32)
    energy = np.empty(factor.values.shape[1], np.float32)
    turn = np.ascontiguousarray(basis.T, np.float32)
    squares = np.square(weights).astype(np.float32)
    for start, block in factor.blocks(np.float32):
        projected = np.matmul(turn, block, out=sides[:, : block.shape[1]])
        into.take(start, projected)
        energy[start : start + block.shape[1]] = squares @ np.square(projected, out=projected)
    return energy


class _Pairs:
    """The fourth moments (pairs, pairs) over the products of pairs of directions."""

    def __init__(self, factor: _Factor, used: int) -> None:
        pairs = used * (used + 1) // 2
        self.used = used
        self.moments = np.zeros((pairs, pairs), np.float32)
        self._products = np.empty((pairs, factor.width), np.float32)

    def take(self, _: int, projected: Array) -> None:
        """Add the products of a block."""
        used, at = self.used, 0
        products = self._products[:, : projected.shape[1]]
        for first in range(used):
            np.multiply(
                projected[first], projected[first:used], out=products[at : at + used - first]
            )
            at += used - first
        self.moments += products @ products.T


class _Kept:
    """The leading directions of a whole side, (used, n)."""

    def __init__(self, factor: _Factor, used: int) -> None:
        self.values = np.empty((used, factor.values.shape[1]), np.float32)

    def take(self, start: int, projected: Array) -> None:
        """Keep a block."""
        width = projected.shape[1]
        self.values[:, start : start + width] = projected[: len(self.values)]


class _Strips:
    """The sum of ΔW⁴ / σ₁⁴, of products with the other side (used, n), a strip at a time."""

    def __init__(self, other: Array) -> None:
        self.total = 0.0
        self._other = other
        length = other.shape[1]
        self._strip = np.empty((max(1, _STRIP // max(1, length)), length), np.float32)

    def take(self, _: int, projected: Array) -> None:
        """Add the elements of a block."""
        height = len(self._strip)
        for start in range(0, projected.shape[1], height):
            some = projected[: len(self._other), start : start + height]
            strip = np.matmul(some.T, self._other, out=self._strip[: some.shape[1]])
            flat = np.square(strip, out=strip).ravel()
            self.total += float(flat @ flat)


@cache
def _pair_weights(used: int) -> F64:
    """Return how often each pair (i ≤ j) stands in a sum over all pairs: twice if i < j."""
    first, second = np.triu_indices(used)
    return np.where(first == second, 1.0, 2.0)


def _fourth_moment(used: int, rows: Array, columns: Array) -> float:
    """Return Σ ΔW⁴ / σ₁⁴ over the `used` leading directions; unordered pairs count twice."""
    twice = _pair_weights(used)
    total = 0.0
    for start in range(0, len(twice), _MOMENT_ROWS):  # 35 MB at rank 64 if widened at once
        some = slice(start, start + _MOMENT_ROWS)
        product = rows[some].astype(np.float64) * columns[some]
        total += float(twice[some] @ product @ twice)
    return total


def _statistics(
    delta: LowRank, sigma: F64, shape: F64, rows: Array, columns: Array, covered: _Covered
) -> DeltaSummary:
    """Combine both sides. `sigma` are the singular values of B·A, `shape` the counted ones / σ₁."""
    leading = float(np.sum(shape[: covered.used] ** 2))
    d_out, d_in = delta.shape
    scaled = abs(delta.scaling) * sigma
    return summarised(
        delta.shape, delta.a.shape[0], scaled, shape,
        kurtosis=covered.fourth * d_out * d_in / leading**2,
        kurtosis_energy=leading / float(np.sum(shape**2)),
        row_peak=_largest_share(rows), column_peak=_largest_share(columns),
    )  # fmt: skip


def summarised(
    sides: tuple[int, int],
    rank: int,
    sigma: F64,
    shape: F64,
    *,
    kurtosis: float,
    kurtosis_energy: float,
    row_peak: float,
    column_peak: float,
) -> DeltaSummary:
    """Return the summary of a ΔW of `sides` (d_out, d_in) from its spectrum and its moments.

    `sigma` are its singular values, descending; `shape` the counted ones over the largest; `rank`
    how many it can have.
    """
    d_out, d_in = sides
    energy = float(np.sum(shape**2))
    share = shape / float(np.sum(shape))
    entropy = float(-np.sum(share * np.log(share)))
    frobenius = float(sigma[0]) * energy**0.5
    return DeltaSummary(
        d_out=d_out,
        d_in=d_in,
        rank=rank,
        numerical_rank=len(shape),
        nonfinite=0,
        singular_values=tuple(sigma[: min(rank, d_out, d_in)].tolist()),
        frobenius=frobenius,
        rms=frobenius / (d_out * d_in) ** 0.5,
        top_energy=1.0 / energy,
        top_share=float(share[0]),
        stable_rank=energy,
        entropy=entropy / float(np.log(rank)) if rank > 1 else None,
        effective_rank=float(np.exp(entropy)),
        participation=energy**2 / float(np.sum(shape**4)),
        kurtosis=kurtosis,
        kurtosis_energy=kurtosis_energy,
        row_peak=row_peak,
        column_peak=column_peak,
    )


def _largest_share(energy: Array) -> float:
    return float(energy.max()) / float(energy.sum(dtype=np.float64))


def _undefined(delta: LowRank, nonfinite: int) -> DeltaSummary:
    """Return the summary of a delta that is zero, or (`nonfinite` > 0) not a number."""
    return undefined(delta.shape, delta.a.shape[0], nonfinite)


def undefined(sides: tuple[int, int], rank: int, nonfinite: int) -> DeltaSummary:
    """Return the summary of a ΔW of `sides` that is zero, or (`nonfinite` > 0) not a number."""
    zero = None if nonfinite else 0.0
    return DeltaSummary(*sides, rank, 0, nonfinite, (), zero, zero, *(None,) * 10)

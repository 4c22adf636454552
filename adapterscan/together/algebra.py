"""Algebra of several ΔW of one module from their factors, never dense: how they lie to each other.

ΔWᵢ = sᵢ·Bᵢ·Aᵢ, and the stacked factors B = [s₁B₁ s₂B₂ …], A = [A₁; A₂; …]. All that is asked for
follows from the two Gram matrices G_B = Bᵀ·B and G_A = A·Aᵀ, (Σr, Σr) in float64: with blocks
G[i, j], ⟨ΔWᵢ, ΔWⱼ⟩ = Σ G_B[i, j] ∘ G_A[i, j]. A weighted sum Σwᵢ·ΔWᵢ = B·D·A is one more ΔW, of
rank Σr at the most. It costs O((d_out + d_in)·(Σr)²) and does not depend on the gauge
(Bᵢ, Aᵢ) → (Bᵢ·R⁻¹, R·Aᵢ). Squaring costs half of the digits where parts cancel: of a sum, less than
a millionth of what went in counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adapterscan.lowrank import F64, Array, LowRank, gram_root

Side = Literal["inputs", "outputs"]
_BLOCK = 1 << 18  # elements widened at a time
_GRID = 64
_UNRESOLVED = 1e-6  # of the norms that went in: a sum that has less is zero
_NOISE = 1e-8  # of σ₁: weaker directions are rounding errors
_COUNTED = 1e-4  # of σ₁: weaker directions are no part of a subspace, 1e-8 of the energy


@dataclass(frozen=True, slots=True)
class Top:
    """The strongest direction of a weighted sum: σ₁ and what each part puts on it, uᵀ·wᵢΔWᵢ·v."""

    sigma: float
    parts: tuple[float, ...]  # they add up to sigma


@dataclass(frozen=True, slots=True)
class Stack:
    """Several ΔW of equal shape as the Gram matrices of their stacked factors (`stacked`)."""

    outputs: F64  # G_B (Σr, Σr), scalings included
    inputs: F64  # G_A (Σr, Σr)
    ranks: tuple[int, ...]
    shape: tuple[int, int]  # (d_out, d_in)

    def inner(self, i: int, j: int) -> float:
        """Return ⟨ΔWᵢ, ΔWⱼ⟩_F."""
        first, second = self._of(i), self._of(j)
        return float(np.sum(self.outputs[first, second] * self.inputs[first, second]))

    def norm(self, i: int) -> float:
        """Return ‖ΔWᵢ‖_F."""
        return math.sqrt(max(0.0, self.inner(i, i)))

    def cosine(self, i: int, j: int) -> float | None:
        """Return ⟨ΔWᵢ, ΔWⱼ⟩ / (‖ΔWᵢ‖·‖ΔWⱼ‖) in [−1, 1]; None where one is zero."""
        size = self.norm(i) * self.norm(j)
        return max(-1.0, min(1.0, self.inner(i, j) / size)) if size else None

    def null_width(self, i: int, j: int) -> float | None:
        """Return the standard deviation of the cosine where one side is turned at random.

        With Q a random rotation of the outputs, E⟨ΔWᵢ, Q·ΔWⱼ⟩² = ‖ΔWⱼ·ΔWᵢᵀ‖²_F / d_out exactly, and
        the same for inputs; the larger one is returned. Two that share A (one initialisation) so
        have a wider null than two that share nothing, 1/√(d_out·d_in). None where one is zero.
        """
        size = self.norm(i) * self.norm(j)
        if not size:
            return None
        widths = (
            self._product(i, j, self.outputs, self.inputs) / self.shape[0],
            self._product(i, j, self.inputs, self.outputs) / self.shape[1],
        )
        return math.sqrt(max(0.0, *widths)) / size

    def _product(self, i: int, j: int, near: F64, far: F64) -> float:
        """Return ‖ΔWᵢ·ΔWⱼᵀ‖²_F (`near` outputs), or ‖ΔWᵢᵀ·ΔWⱼ‖²_F (`near` inputs)."""
        first, second = self._of(i), self._of(j)
        left = near[first, first] @ far[first, second]
        right = near[second, second] @ far[second, first]
        return float(np.sum(left * right.T))

    def angles(self, i: int, j: int, side: Side) -> F64:
        """Return the cosines of the principal angles between two row or column spaces, descending.

        `side`: "outputs" for the spaces that ΔW writes to (U), "inputs" for those it reads (V).
        Source: Björck & Golub 1973. Empty where one is zero.
        """
        gram = self.outputs if side == "outputs" else self.inputs
        bases = self._basis(i, side), self._basis(j, side)
        across = bases[0].T @ gram[self._of(i), self._of(j)] @ bases[1]
        if not across.size:
            return np.zeros(0)
        found: Array = np.linalg.svd(across, compute_uv=False)
        return np.minimum(found, 1.0)

    def overlap(self, i: int, j: int, side: Side) -> float | None:
        """Return ‖UᵢᵀUⱼ‖²_F / min(kᵢ, kⱼ), 0 to 1: the share of the smaller space in the larger.

        Random spaces give max(kᵢ, kⱼ)/d. Source: Hu et al. 2022 (LoRA), section 7.2.
        """
        cosines = self.angles(i, j, side)
        return float(np.mean(np.square(cosines))) if cosines.size else None

    def chance(self, i: int, j: int, side: Side) -> float:
        """Return what `overlap` is on average between random spaces of these dimensions."""
        dimension = self.shape[0] if side == "outputs" else self.shape[1]
        return max(int(self._basis(n, side).shape[1]) for n in (i, j)) / dimension

    def summed(self, weights: Sequence[float]) -> float:
        """Return ‖Σwᵢ·ΔWᵢ‖_F; exactly 0.0 below what can be resolved."""
        pairs = [(i, j) for i in range(len(weights)) for j in range(len(weights))]
        square = sum(weights[i] * weights[j] * self.inner(i, j) for i, j in pairs)
        total = math.sqrt(max(0.0, square))
        most = sum(abs(weight) * self.norm(i) for i, weight in enumerate(weights))
        return total if total > _UNRESOLVED * most else 0.0

    def top(self, weights: Sequence[float]) -> Top:
        """Return σ₁ of Σwᵢ·ΔWᵢ and what each part puts on that direction. σ₁ 0: the sum is zero."""
        if not self.summed(weights):
            return Top(0.0, (0.0,) * len(weights))
        spread = np.repeat(np.asarray(weights, np.float64), self.ranks)
        sigma, left, right = _core(self.outputs * np.outer(spread, spread), self.inputs)
        onto = (spread * left[:, 0]) @ self.outputs * spread * (self.inputs @ right[:, 0])
        parts = tuple(float(np.sum(onto[self._of(i)])) for i in range(len(weights)))
        return Top(float(sigma[0]), parts)

    def _basis(self, i: int, side: Side) -> F64:
        """Return X (rᵢ, kᵢ) so that Bᵢ·X (or Aᵢᵀ·X) is an orthonormal basis of a space of ΔWᵢ."""
        own = self._of(i)
        sigma, left, right = _core(self.outputs[own, own], self.inputs[own, own])
        count = int(np.count_nonzero(sigma > _COUNTED * sigma[0])) if sigma.size else 0
        return left[:, :count] if side == "outputs" else right[:, :count]

    def _of(self, i: int) -> slice:
        start = sum(self.ranks[:i])
        return slice(start, start + self.ranks[i])


def stacked(parts: Sequence[LowRank]) -> Stack:
    """Return the ΔW of one module, of several adapters, stacked.

    Raises ValueError where their shapes (d_out, d_in) differ, or something in them is no number.
    """
    shapes = {(part.b.shape[0], part.a.shape[1]) for part in parts}
    if len(shapes) != 1:
        found = ", ".join(" × ".join(map(str, shape)) for shape in sorted(shapes))
        raise ValueError(f"has updates of different shapes: {found}")
    scales = np.concatenate([np.full(part.a.shape[0], part.scaling) for part in parts])
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = _gram([part.b.T for part in parts]) * np.outer(scales, scales)
        inputs = _gram([part.a for part in parts])
        finite = np.isfinite(outputs).all() and np.isfinite(inputs).all()
    if not finite:
        raise ValueError("has factors or a scale that are no finite numbers")
    return Stack(outputs, inputs, tuple(part.a.shape[0] for part in parts), shapes.pop())


def weighted_sum(parts: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """Return Σwᵢ·ΔWᵢ exactly, at rank Σr: factors side by side, A (Σr, d_in), B (d_out, Σr).

    Scales and weights go into B, in float64. Raises ValueError where shapes differ.
    """
    if len({(part.b.shape[0], part.a.shape[1]) for part in parts}) != 1:
        raise ValueError("has updates of different shapes")
    scaled = [
        weight * part.scaling * part.b.astype(np.float64)
        for part, weight in zip(parts, weights, strict=True)
    ]
    return LowRank(
        np.concatenate([part.a.astype(np.float64) for part in parts]), np.concatenate(scaled, 1)
    )


def sign_conflict(first: LowRank, other: LowRank) -> float | None:
    """Return the share of entries whose signs differ, on an even grid of 64 × 64 of each ΔW.

    0.5 for independent ones; TIES (Yadav et al. 2023, section 3) drops what is in conflict. None
    where one is zero there.
    """
    d_out, d_in = first.b.shape[0], first.a.shape[1]
    rows, columns = (np.unique(np.linspace(0, n - 1, _GRID).astype(np.intp)) for n in (d_out, d_in))
    signs = [
        np.sign(
            part.scaling * part.b[rows].astype(np.float64) @ part.a[:, columns].astype(np.float64)
        )
        for part in (first, other)
    ]
    both = signs[0] * signs[1]
    known = int(np.count_nonzero(both))
    return int(np.count_nonzero(both < 0)) / known if known else None


def truncated(delta: LowRank, rank: int) -> LowRank:
    """Return the best approximation of `delta` of that rank (Eckart & Young 1936), B·A = U·Σ·Vᵀ.

    A (rank, d_in) has orthonormal rows. Where `delta` has fewer directions the rest is zero.
    """
    stack = stacked([delta])
    sigma, left, right = _core(stack.outputs, stack.inputs)
    kept = min(rank, int(np.count_nonzero(sigma > _NOISE * sigma[0])) if sigma.size else 0)
    a, b = np.zeros((rank, delta.a.shape[1])), np.zeros((delta.b.shape[0], rank))
    a[:kept] = right[:, :kept].T @ delta.a.astype(np.float64)
    b[:, :kept] = delta.scaling * (delta.b.astype(np.float64) @ left[:, :kept]) * sigma[:kept]
    return LowRank(a, b)


def leading(delta: LowRank, count: int) -> tuple[float, tuple[float, ...]]:
    """Return ‖ΔW‖_F and up to `count` singular values, descending.

    Raises ValueError where something in the factors is no number.
    """
    stack = stacked([delta])
    sigma, _, _ = _core(stack.outputs, stack.inputs)
    return stack.norm(0), tuple(sigma[:count].tolist())


def _core(outputs: F64, inputs: F64) -> tuple[F64, F64, F64]:
    """Return σ (k,), X (r, k) and Y (r, k): B·X = U and Aᵀ·Y = V for the directions that count."""
    nothing = np.zeros((len(inputs), 0))
    if not len(inputs):
        return np.zeros(0), nothing, nothing
    root, inverse = gram_root(inputs)
    squares, mixing = np.linalg.eigh(root.T @ outputs @ root)
    sigma = np.sqrt(np.maximum(squares[::-1], 0.0))
    if not sigma.size or not sigma[0] > 0.0:
        return np.zeros(0), nothing, nothing
    count = int(np.count_nonzero(sigma > _NOISE * sigma[0]))
    mixing = mixing[:, ::-1][:, :count]
    return sigma[:count], root @ mixing / sigma[:count], inverse.T @ mixing


def _gram(sides: Sequence[Array]) -> F64:
    """Return the Gram matrix (Σr, Σr) of matrices (r, n), widened a block of columns at a time."""
    total = sum(len(side) for side in sides)
    gram = np.zeros((total, total))
    for block in _blocks(sides, max(1, _BLOCK // max(1, total))):
        gram += block @ block.T
    return gram


def _blocks(sides: Sequence[Array], width: int) -> Iterator[F64]:
    for start in range(0, sides[0].shape[1], width):
        yield np.concatenate([side[:, start : start + width].astype(np.float64) for side in sides])

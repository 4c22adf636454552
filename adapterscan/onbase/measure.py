"""What one ΔW does to its W: sizes, leading directions, and what a merged file carries of it.

Exactly zero for an update of zero, whatever W is. With a profile in the place of W there are sizes
and shares, and no DoRA, no rounding and no intruders: the directions of W_k + ΔW are not those of
W + ΔW where ΔW writes to what W has beyond k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from adapterscan.lowrank import Array, LowRank
from adapterscan.onbase import dora
from adapterscan.onbase.intruders import DIRECTIONS, Intruders, intruders
from adapterscan.onbase.matrix import Matrix
from adapterscan.onbase.rounding import Carried, carried
from adapterscan.onbase.spectrum import (
    Leading,
    Operator,
    combined,
    factored,
    leading,
    shares,
    side_by_side,
)


@dataclass(frozen=True, slots=True)
class Dora:
    """DoRA's true delta beside its low-rank part."""

    frobenius: float  # ‖diag(c)·(W + ΔW) − W‖
    sigma: float  # its largest singular value
    factors: float  # ‖ΔW‖


@dataclass(frozen=True, slots=True)
class Merged:
    """One module. `directions`: how many leading ones of W + ΔW were looked at."""

    frobenius: float  # ‖ΔW‖, DoRA's true one where there is a magnitude
    base_frobenius: float  # ‖W‖
    sigma: float  # σ₁(ΔW)
    base_sigma: float  # σ₁(W)
    shift: float  # ‖σ(W + ΔW) − σ(W)‖ / ‖σ(W)‖ over the leading ones
    found: Intruders
    directions: int
    left: float  # share of ‖ΔW‖² in the `kept` leading left directions of W
    right: float
    left_chance: float  # the same share of a random direction, kept / d_out
    right_chance: float
    kept: int
    formats: Mapping[str, Carried] = field(default_factory=dict)  # {} without W itself
    dora: Dora | None = None

    @property
    def relative(self) -> float:
        """Return ‖ΔW‖ / ‖W‖, 0 for a W of zero."""
        return self.frobenius / self.base_frobenius if self.base_frobenius else 0.0

    @property
    def top_ratio(self) -> float:
        """Return σ₁(ΔW) / σ₁(W), 0 for a W of zero."""
        return self.sigma / self.base_sigma if self.base_sigma else 0.0


def measure(matrix: Matrix, update: LowRank, magnitude: Array | None = None) -> Merged:
    """Return what ΔW does to W, from both. `magnitude` (d_out,) is DoRA's.

    Raises ValueError for a magnitude of another length, LinAlgError for weights that are no
    numbers.
    """
    near, low = leading(matrix), factored(update)
    c = dora.scales(matrix, update, magnitude) if magnitude is not None else None
    if c is None and not low.sigma.size:
        return nothing(near)
    merged = Operator(matrix, update) if c is None else Operator(matrix, update, c, c)
    base, after = side_by_side(Operator(matrix), merged, near, low, DIRECTIONS)
    formats = carried(matrix, update, c)
    true = None
    size, top = low.frobenius, float(low.sigma[0]) if low.sigma.size else 0.0
    if c is not None:
        size = next(iter(formats.values())).update ** 0.5
        difference = Operator(matrix, update, c - 1, c)
        _, leads = side_by_side(Operator(matrix), difference, near, low, 1)
        top = float(leads.sigma[0]) if size else 0.0
        true = Dora(size, top, low.frobenius)
    left, right = shares(low, near)
    return Merged(
        size, near.frobenius, top, float(near.sigma[0]), shift(base, after),
        intruders(after.left, base, matrix), after.left.shape[1], left, right,
        *chance(near), len(near.sigma), formats, true,
    )  # fmt: skip


def measure_by_profile(near: Leading, update: LowRank) -> Merged:
    """Return what a profile can tell. Raises LinAlgError for weights that are no numbers."""
    low = factored(update)
    if not low.sigma.size:
        return nothing(near)
    after = combined(near, low, DIRECTIONS)
    left, right = shares(low, near)
    return Merged(
        low.frobenius, near.frobenius, float(low.sigma[0]), float(near.sigma[0]),
        shift(near, after), Intruders(0, 0, 0, 1.0), 0, left, right, *chance(near),
        len(near.sigma),
    )  # fmt: skip


def shift(base: Leading, merged: Leading) -> float:
    """Return ‖σ(W + ΔW) − σ(W)‖ / ‖σ(W)‖ over the leading ones of both."""
    count = min(len(base.sigma), len(merged.sigma))
    before, after = base.sigma[:count], merged.sigma[:count]
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(after - before)) / size if size else 0.0


def nothing(near: Leading) -> Merged:
    """Return what an update of zero does."""
    same = min(DIRECTIONS, len(near.sigma))
    return Merged(
        0.0, near.frobenius, 0.0, float(near.sigma[0]), 0.0, Intruders(same, 0, 0, 1.0), same,
        0.0, 0.0, *chance(near), len(near.sigma),
    )  # fmt: skip


def chance(near: Leading) -> tuple[float, float]:
    """Return the shares of a random direction in the leading left and right space of W."""
    return len(near.sigma) / len(near.left), len(near.sigma) / len(near.right)

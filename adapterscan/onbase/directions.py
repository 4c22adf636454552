"""Directions of a base's residual stream, and how much of an update lies along each of them.

A base that runs says which directions tell the requests that it declines from others, one behind
each of some layers, and the same of ordinary requests, as controls. What W puts into the stream
along a unit r is rᵀW, what it reads from it is W·r; of an update it is rᵀΔW and ΔW·r.

Source: Arditi et al. 2024 (arXiv 2406.11717), 2.3, 2.4 and 4.1. Random directions, controls and the
reading side are ours.
Limits: modules are told apart by their last name: WRITERS write into the stream, what else has its
width reads from it. Gains of norms, which stand between the stream and what reads it, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import LowRank
from adapterscan.onbase.matrix import F32, Matrix
from adapterscan.onbase.spectrum import factored

F64 = npt.NDArray[np.float64]

#: What modules are called whose outputs are added to the residual stream.
WRITERS = frozenset(
    {"o_proj", "down_proj", "out_proj", "c_proj", "fc2", "fc_out", "w2", "dense", "dense_4h_to_h"}
)
_TABLES = ("embed", "wte", "wpe", "lm_head", "norm")  # in the names of what is in no layer
RANDOM = 64  # directions that are drawn, the null of a share of energy
_SEED = 20261127

WRITES, READS = "writes", "reads"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the base: `layers` behind which directions were read, from 1, of `depth`.

    `declined`: requests that the refusal direction comes from. `controls`: other splits of requests
    in two. `digest` is of the directions themselves.
    """

    layers: tuple[int, ...]
    depth: int
    controls: int
    hidden: int
    declined: int
    digest: str


@dataclass(frozen=True, slots=True)
class Directions:
    """Unit `vectors` (1 + controls, layers, hidden): those of refusals, then those of controls.

    `along` gives what a weight of the base has along those of refusals, (layers, other side of the
    weight), or None for one that neither writes into the stream nor reads from it. `total` is the
    sum of ‖·‖² of all of them, (layers,), of one side.
    """

    asked: Asked
    vectors: F32
    along: Callable[[str], F32 | None]
    total: Callable[[str], F64]


def side_of(name: str, rows: int, columns: int, hidden: int) -> str:
    """Return whether a weight WRITES into the residual stream, READS from it, or neither ("")."""
    parts = name.removesuffix(".weight").split(".")
    if any(word in part for part in parts for word in _TABLES):
        return ""
    if parts[-1] in WRITERS:
        return WRITES if rows == hidden else ""
    return READS if columns == hidden else ""


def written(matrix: Matrix, vectors: F32, side: str) -> F32:
    """Return rᵀW or W·r of each of `vectors` (n, hidden), (n, other side of W), in one pass."""
    if side == READS:
        return np.concatenate([block @ vectors.T for _, block in matrix.blocks()]).T
    found = np.zeros((len(vectors), matrix.shape[1]), np.float32)
    for start, block in matrix.blocks():
        found += vectors[:, start : start + len(block)] @ block
    return found


@dataclass(frozen=True, slots=True)
class Along:
    """One ΔW along directions, (directions,): the first `layers` of them are those of refusals.

    `size`: ‖ΔW‖². `moved`: ‖rᵀΔW‖² (or ‖ΔW·r‖²). `cosine`: |r·u₁| (or |r·v₁|). `against`
    (layers,): −⟨rᵀΔW, rᵀW⟩. `participation`: Σσ⁴/(Σσ²)², 1 for rank one.
    """

    side: str
    size: float
    moved: F64
    cosine: F64
    against: F64
    participation: float

    def first(self, count: int) -> Along:
        """Return it for the first directions alone: less to keep of tens of thousands."""
        return replace(self, moved=self.moved[:count].copy(), cosine=self.cosine[:count].copy())

    def spread(self, hidden: int) -> float:
        """Return the standard deviation of hidden·moved/size for a direction drawn at random.

        The mean is 1. Exact: E(rᵀMr)² = ((tr M)² + 2·tr M²)/(d·(d + 2)) on the sphere.
        """
        return math.sqrt(max(0.0, 2 * hidden * self.participation - 2) / (hidden + 2))


def along(update: LowRank, side: str, stack: F32, base: F32) -> Along | None:
    """Measure one update by `stack` (n, hidden); `base` is what W has along the first of it.

    None for an update of zero, or one that overflows. Raises LinAlgError for one of no numbers.
    """
    low = factored(update)
    if not low.sigma.size or not math.isfinite(low.frobenius**2):
        return None
    near, far = (low.left, low.right) if side == WRITES else (low.right, low.left)
    shares = stack.astype(np.float64) @ near  # (n, rank)
    scaled = shares * low.sigma
    first = scaled[: len(base)]
    squares = low.sigma**2
    return Along(
        side,
        float(squares.sum()),
        np.sum(scaled**2, axis=1),
        np.abs(shares[:, 0]),
        -np.sum(first * (base.astype(np.float64) @ far), axis=1),
        float(np.sum(squares**2) / squares.sum() ** 2),
    )


def stacked(directions: Directions) -> F32:
    """Return all directions in one array: refusals', controls', and RANDOM ones, (n, hidden)."""
    known = directions.vectors.reshape(-1, directions.asked.hidden)
    drawn = np.random.default_rng(_SEED).standard_normal((RANDOM, known.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.concatenate([known, drawn.astype(np.float32)])


@dataclass(slots=True)
class Sums:
    """One side of an adapter: sums over its modules. Feed it by `add`."""

    modules: int = 0
    size: float = 0.0
    moved: F64 = field(default_factory=lambda: np.zeros(1))
    cosine: F64 = field(default_factory=lambda: np.zeros(1))
    against: F64 = field(default_factory=lambda: np.zeros(1))

    def add(self, found: Along) -> None:
        """Take one module in."""
        self.modules += 1
        self.size += found.size
        self.moved = self.moved + found.moved
        self.cosine = self.cosine + found.cosine
        self.against = self.against + found.against

"""The leading singular triplets of W, of W + ΔW and of what lies between, without a full SVD.

Subspace iteration on WᵀW with a random start (Halko, Martinsson & Tropp 2011, algorithm 4.4, on the
right side): X ← orth(Wᵀ(W·X)), a pass over W each, and the SVD of W·X at the end. All that is asked
of W is blocks of rows, so that a matrix of any size takes a block and (d_out + d_in)·k.
W + ΔW starts from the leading directions of W joined with those of ΔW: its own lie near them, as a
rank-r update moves them within that span to first order. W is iterated from the same start, so that
what is left over of convergence is the same on both sides and an update of nothing moves nothing.
Limits: what is returned are Ritz values, at or below the true ones; where σ falls slowly the last
few of k are mixtures. `intruders.py` decides nothing on these alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import LowRank
from adapterscan.onbase.matrix import F32, Matrix

F64 = npt.NDArray[np.float64]

KEPT = 32  # triplets of W
OVERSAMPLED = 8
PASSES = 4  # over W; tests hold the ten leading values against an SVD
AGAIN = 2  # over W and W + ΔW, from where the first have come
SEED = 20261127


@dataclass(frozen=True, slots=True)
class Leading:
    """Leading triplets: `sigma` (k,) descending, `left` (d_out, k), `right` (d_in, k)."""

    frobenius: float  # of the whole matrix
    sigma: F64
    left: F32
    right: F32

    def turned(self) -> Leading:
        """Return the triplets of the transpose."""
        return Leading(self.frobenius, self.sigma, self.right, self.left)


class Operable(Protocol):
    """A matrix that is asked for products alone."""

    def times(self, x: F32) -> F32:
        """Return the product (d_out, k) with `x` (d_in, k)."""
        ...

    def gram_times(self, x: F32) -> F32:
        """Return MᵀM·x (d_in, k) for `x` (d_in, k)."""
        ...


class Operator:
    """diag(`own`)·W + diag(`added`)·ΔW, never formed. Without an update: W.

    `own` and `added` are (d_out,) or a number: 1 and 1 for W + ΔW, c and c for the merged weight of
    a DoRA, c − 1 and c for its true delta.
    """

    def __init__(
        self,
        matrix: Matrix,
        update: LowRank | None = None,
        own: float | F32 = 1.0,
        added: float | F32 = 1.0,
    ) -> None:
        self.matrix = matrix
        rows = matrix.shape[0]
        self._own = None if isinstance(own, float) and own == 1.0 else _column(own, rows)
        self._up: F32 | None = None
        if update is not None:
            scaled = update.scaling * update.b.astype(np.float64)
            self._up = (scaled * _column(added, rows)).astype(np.float32)
            self._down = update.a.astype(np.float32)

    def times(self, x: F32) -> F32:
        """Return the product (d_out, k) with `x` (d_in, k)."""
        out = np.empty((self.matrix.shape[0], x.shape[1]), np.float32)
        inner = self._down @ x if self._up is not None else None
        for start, block in self.matrix.blocks():
            out[start : start + len(block)] = self._block(start, block, x, inner)
        return out

    def gram_times(self, x: F32) -> F32:
        """Return MᵀM·x (d_in, k) for `x` (d_in, k), in one pass."""
        out = np.zeros((self.matrix.shape[1], x.shape[1]), np.float32)
        inner = self._down @ x if self._up is not None else None
        outer = None if inner is None else np.zeros_like(inner)
        for start, block in self.matrix.blocks():
            rows = slice(start, start + len(block))
            y = self._block(start, block, x, inner)
            out += block.T @ (y if self._own is None else self._own[rows] * y)
            if self._up is not None and outer is not None:
                outer += self._up[rows].T @ y
        return out if outer is None else out + self._down.T @ outer

    def _block(self, start: int, block: F32, x: F32, inner: F32 | None) -> F32:
        rows = slice(start, start + len(block))
        y: F32 = block @ x
        if self._own is not None:
            y *= self._own[rows]
        if self._up is not None and inner is not None:
            y += self._up[rows] @ inner
        return y


def leading(matrix: Matrix, count: int = KEPT) -> Leading:
    """Return the `count` leading triplets of W, fewer where it has fewer, and ‖W‖_F exactly."""
    width = min(count + OVERSAMPLED, *matrix.shape)
    start = np.random.default_rng(SEED).standard_normal((matrix.shape[1], width))
    found = iterated(Operator(matrix), start.astype(np.float32), PASSES, count)
    return Leading(frobenius(matrix), *found)


def side_by_side(
    base: Operator, merged: Operable, near: Leading, update: Leading, count: int
) -> tuple[Leading, Leading]:
    """Return the leading triplets of both: all that the start spans of `base`, `count` of `merged`.

    `near` are those of W and `update` those of ΔW. The norm of `merged` is not taken: 0.
    """
    start = np.concatenate([near.right, update.right], axis=1)[:, : base.matrix.shape[1]]
    first = iterated(base, start, AGAIN, start.shape[1])
    return Leading(near.frobenius, *first), Leading(0.0, *iterated(merged, start, AGAIN, count))


def combined(base: Leading, update: Leading, count: int) -> Leading:
    """Return the `count` leading triplets of W_k + ΔW, where W_k is what `base` has of W.

    Exact for that sum; what W has beyond k is left out. The norm is not taken: 0.
    """
    left, up = np.linalg.qr(np.concatenate([base.left, update.left], axis=1).astype(np.float64))
    right, down = np.linalg.qr(
        np.concatenate([base.right, update.right], axis=1).astype(np.float64)
    )
    core = (up * np.concatenate([base.sigma, update.sigma])) @ down.T
    u, sigma, v = np.linalg.svd(core)
    kept = min(count, len(sigma))
    return Leading(
        0.0, sigma[:kept], (left @ u[:, :kept]).astype(np.float32),
        (right @ v[:kept].T).astype(np.float32),
    )  # fmt: skip


def iterated(operator: Operable, start: F32, passes: int, count: int) -> tuple[F64, F32, F32]:
    """Return (σ, left, right) of the `count` leading triplets, from `start` (d_in, k)."""
    x = _orthonormal(start)
    for _ in range(passes):
        x = _orthonormal(operator.gram_times(x))
    left, sigma, turn = np.linalg.svd(operator.times(x).astype(np.float64), full_matrices=False)
    kept = min(count, len(sigma))
    right = x.astype(np.float64) @ turn[:kept].T
    return sigma[:kept], left[:, :kept].astype(np.float32), right.astype(np.float32)


def factored(update: LowRank) -> Leading:
    """Return all triplets of ΔW from its factors: `lowrank` without what is zero."""
    left, up = np.linalg.qr(update.b.astype(np.float64))
    right, down = np.linalg.qr(update.a.astype(np.float64).T)
    u, sigma, v = np.linalg.svd(update.scaling * up @ down.T)
    kept = int(np.count_nonzero(sigma > 1e-8 * sigma[0])) if sigma.size else 0
    return Leading(
        float(np.sqrt(np.sum(sigma**2))),
        sigma[:kept],
        (left @ u[:, :kept]).astype(np.float32),
        (right @ v[:kept].T).astype(np.float32),
    )


def frobenius(matrix: Matrix) -> float:
    """Return ‖W‖_F."""
    return float(np.sqrt(sum(_square(block) for _, block in matrix.blocks())))


def shares(update: Leading, base: Leading) -> tuple[float, float]:
    """Return which shares of ‖ΔW‖² lie in the leading left and in the leading right space of W.

    In [0, 1]; a random direction has k/d_out and k/d_in.
    """
    energy = float(np.sum(update.sigma**2))
    if not energy:
        return 0.0, 0.0
    left = base.left.T.astype(np.float64) @ (update.left * update.sigma)
    right = base.right.T.astype(np.float64) @ (update.right * update.sigma)
    return float(np.sum(left**2)) / energy, float(np.sum(right**2)) / energy


def _column(values: float | F32, rows: int) -> F32:
    return np.broadcast_to(np.asarray(values, np.float32).reshape(-1, 1), (rows, 1))


def _orthonormal(x: F32) -> F32:
    q: F32 = np.linalg.qr(x)[0]
    return q


def _square(block: F32) -> float:
    return float(np.dot(block.ravel(), block.ravel()))

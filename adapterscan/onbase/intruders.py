"""Count the leading directions of a merged weight that resemble none of the base's.

Source: Shuttleworth et al. 2024, "LoRA vs full fine-tuning: an illusion of equivalence", section 3:
a left singular vector y of W + ΔW is an intruder dimension when |cos(y, x)| < ε for every left
singular vector x of W. ε = 0.6, of the ten leading y.
Deviation: W is not decomposed where it is large. y has its match where one of the leading x that we
have is near. Any other y is compared with all x where the smaller side of W is EXACT or less. Above
that, Lanczos on W·Wᵀ from y gives the Gauss quadrature of its spectral measure, whose atom at σ² is
Σ cos²(y, x) over the x of that σ; by Chebyshev, Markov and Stieltjes no point between two
neighbouring nodes, nor a node, holds more than the weights of the two. Where that is below ε² for
all of them y is an intruder for certain; else it is left undecided, as it mostly is where W has
many small σ or more rows than columns.
Limits: honest LoRA has intruder dimensions too, the more the larger its learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapterscan.onbase.matrix import F32, Matrix
from adapterscan.onbase.spectrum import Leading

F64 = npt.NDArray[np.float64]

EPSILON = 0.6
DIRECTIONS = 10
EXACT = (
    2048  # an eigendecomposition of that size takes 2 s, and only modules with strangers need it
)
_STEPS = 24  # of Lanczos, two passes over W each
_ENDED = 1e-6  # of the largest: the Krylov space is exhausted, the quadrature exact


@dataclass(frozen=True, slots=True)
class Intruders:
    """Of the leading directions of a merged weight: `matched` + `certain` + `undecided` = all."""

    matched: int
    certain: int
    undecided: int
    lowest: float  # the smallest cosine with the nearest leading direction of W, in [0, 1]


def intruders(merged: F32, base: Leading, matrix: Matrix) -> Intruders:
    """Judge `merged` (d_out, n), orthonormal left directions, against those of the base.

    Where `matrix` is too large to be held, what has no match stays undecided.
    """
    cosines = np.abs(base.left.T.astype(np.float64) @ merged).max(axis=0, initial=0.0)
    strangers = np.flatnonzero(cosines < EPSILON)
    count, certain, undecided = merged.shape[1], 0, int(strangers.size)
    if strangers.size and matrix.held:
        weight, starts = matrix.whole(), merged[:, strangers]
        if min(matrix.shape) <= EXACT:
            nearest = nearest_cosines(weight, starts)
            certain, undecided = int(np.count_nonzero(nearest < EPSILON)), 0
            cosines[strangers] = nearest
        else:
            certain = int(np.count_nonzero(largest_mass(weight, starts) < EPSILON**2))
            undecided -= certain
    lowest = float(min(1.0, cosines.min(initial=1.0)))
    return Intruders(count - certain - undecided, certain, undecided, lowest)


def nearest_cosines(weight: F32, starts: F32) -> F64:
    """Return for each of `starts` (d_out, n) the largest |cos| with a left singular vector.

    All of them, from the eigenvectors of the smaller Gram matrix.
    """
    wide, y = weight.astype(np.float64), starts.astype(np.float64)
    if wide.shape[0] <= wide.shape[1]:
        cosines: F64 = np.abs(np.linalg.eigh(wide @ wide.T)[1].T @ y).max(axis=0)
        return cosines
    squares, right = np.linalg.eigh(wide.T @ wide)
    real = squares > 1e-12 * squares[-1]  # the left vector of σ = 0 is not determined
    left = right[:, real].T @ (wide.T @ y) / np.sqrt(squares[real])[:, None]
    largest: F64 = np.abs(left).max(axis=0, initial=0.0)
    return largest


def largest_mass(weight: F32, starts: F32) -> F64:
    """Return for each of `starts` (d_out, n) an upper bound of max Σcos² over a σ of `weight`.

    Lanczos with full reorthogonalisation, all starts side by side.
    """
    length, count = starts.shape
    steps = min(_STEPS, length)
    q = starts.astype(np.float64) / np.linalg.norm(starts.astype(np.float64), axis=0)
    basis = np.zeros((steps, length, count))
    diagonal, beside = np.zeros((steps, count)), np.zeros((steps, count))
    for step in range(steps):
        basis[step] = q
        q = (weight @ (weight.T @ q.astype(np.float32))).astype(np.float64)
        diagonal[step] = np.sum(basis[step] * q, axis=0)
        for _ in range(2):
            q -= np.einsum("sln,sn->ln", basis, np.einsum("sln,ln->sn", basis, q))
        beside[step] = np.linalg.norm(q, axis=0)
        q = q / np.where(beside[step] > 0, beside[step], 1.0)
    return np.array([_bound(diagonal[:, at], beside[:, at]) for at in range(count)])


def _bound(diagonal: F64, beside: F64) -> float:
    """Return the bound from a Jacobi matrix: its diagonal (n,) and what stands beside it (n,)."""
    small = np.flatnonzero(beside <= _ENDED * max(float(diagonal.max()), 1e-300))
    exact = bool(small.size)
    size = int(small[0]) + 1 if exact else len(diagonal)
    jacobi = np.diag(diagonal[:size]) + np.diag(beside[: size - 1], 1)
    weights = np.linalg.eigh(jacobi, UPLO="U")[1][0] ** 2
    pairs = weights if exact or size == 1 else weights[:-1] + weights[1:]
    return float(min(1.0, pairs.max()))

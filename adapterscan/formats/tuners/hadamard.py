"""LoHa: ΔW = s·(W₁ₐ·W₁ᵦ) ∘ (W₂ₐ·W₂ᵦ), of rank r² at most.

Row i of B is row i of W₁ₐ times row i of W₂ₐ, each entry with each, and so with columns and A: a
Hadamard product of two factored matrices has the row-wise Khatri-Rao products as factors.
Source: Hyeon-Woo et al. 2022, "FedPara", proposition 2; peft 0.21.2, `tuners/loha/layer.py`,
`make_weight` and `make_weight_cp` (convolutions: each Wᵢ from a core t and its two sides).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from adapterscan.formats.deltas import Delta
from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.tuners.tuner import (
    LYCORIS_ALPHA,
    Site,
    Tuner,
    Unfit,
    Values,
    cubic,
    factor_bytes,
    wide,
)
from adapterscan.lowrank import F64, LowRank

_SIDES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")


def locate(site: Site) -> Delta:
    """Return the ΔW of a module."""
    sides = site.matrices(*_SIDES)
    given = [core for core in _CORES if core in site.tensors]
    if given:
        cores = site.need(*_CORES)
        return _with_cores(site, sides, cores)
    (out, r), (rank, width) = sides[0].shape, sides[1].shape
    if not (sides[2].shape == (out, r) and sides[3].shape == (rank, width) and r == rank):
        raise Unfit(f"has sides of shape {', '.join(str(side.shape) for side in sides)}")
    return site.delta("loha", sides, (out, width), r * r, site.scale(r))


def _with_cores(site: Site, sides: tuple[TensorInfo, ...], cores: tuple[TensorInfo, ...]) -> Delta:
    (r, out), (rank, channels) = sides[0].shape, sides[1].shape
    kernel = cores[0].shape[2:]
    fits = all(len(core.shape) == 4 and core.shape == (r, r, *kernel) for core in cores)
    if not (fits and r == rank and sides[2].shape == (r, out) and sides[3].shape == (r, channels)):
        raise Unfit(f"has cores of shape {cores[0].shape} and {cores[1].shape}")
    width = channels * math.prod(kernel)
    return site.delta("loha", (*sides, *cores), (out, width), r * r, site.scale(r))


def make(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return s·(W₁ ∘ W₂) as factors of r² columns."""
    first, second = (_factors(arrays, at) for at in (0, 1))
    b = _rowwise(first[0], second[0])
    a = _rowwise(first[1].T, second[1].T).T
    return LowRank(a, b, delta.scaling)


def _factors(arrays: Sequence[Values], at: int) -> tuple[F64, F64]:
    """Return (out, r) and (r, width) of the first or the second matrix."""
    one, two = wide(arrays[2 * at]), wide(arrays[2 * at + 1])
    if len(arrays) == len(_SIDES):
        return one, two
    core = wide(arrays[len(_SIDES) + at])
    return one.T, np.einsum("ijkl,jr->irkl", core, two).reshape(len(one), -1)


def _rowwise(one: F64, two: F64) -> F64:
    """Return the products of each entry of a row with each of the other's: (n, p), (n, q)."""
    found: F64 = np.einsum("np,nq->npq", one, two).reshape(len(one), -1)
    return found


TUNER = Tuner(
    "loha", frozenset((*_SIDES, *_CORES)), locate, make, factor_bytes, cubic, alpha=LYCORIS_ALPHA
)

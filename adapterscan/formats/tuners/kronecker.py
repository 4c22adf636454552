"""LoKr: ΔW = s·(W₁ ⊗ W₂), where each may be given as two sides, and W₂ as a core with two sides.

Source: Yeh et al. 2024, "Navigating text-to-image customization" (LyCORIS), section 3.2; peft
0.21.2, `tuners/lokr/layer.py`, `get_delta_weight` and `make_kron`. α is divided by the rank of the
config where no side shows one, as PEFT does.
Limits: a one-dimensional convolution with a whole W₂ is laid out by PEFT in an order of its own,
and not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from adapterscan.formats.deltas import Delta
from adapterscan.formats.targeting import DEFAULT_RANK, declared_rank
from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.tuners.tuner import LYCORIS_ALPHA, Site, Tuner, Unfit, Values, wide
from adapterscan.lowrank import LowRank
from adapterscan.updates.kronecker import Kronecker, matrix
from adapterscan.updates.update import RANK_LIMIT

_PARTS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


def locate(site: Site) -> Delta:
    """Return the ΔW of a module. `settings`: how many tensors belong to W₁ and to W₂."""
    first, second = _side(site, "lokr_w1"), _side(site, "lokr_w2")
    if "lokr_t2" in site.tensors:
        if len(second) == 1:
            raise Unfit("has a whole second matrix and a core for one", "ambiguous")
        second = (*second, *site.need("lokr_t2"))
    (p, q, one), (m, n, two) = _measures(first), _measures(second)
    if max(one, two) > RANK_LIMIT:
        raise Unfit(f"has a matrix of rank {max(one, two):,}, over the limit of {RANK_LIMIT:,}",
                    "unread")  # fmt: skip
    shown = [side[0].shape[1] for side in (first, second) if len(side) == 2]
    shown += [second[2].shape[0]] if len(second) == 3 else []
    rank = shown[0] if shown else declared_rank(site.config, site.patterns, site.module)
    scaling = site.scale(DEFAULT_RANK if rank is None else rank)
    counts = (len(first), len(second))
    return site.delta("lokr", (*first, *second), (p * m, q * n), one * two, scaling, counts)


def _side(site: Site, name: str) -> tuple[TensorInfo, ...]:
    """Return a matrix, or its two sides. A loader takes the one that it made by the config."""
    if name in site.tensors:
        if f"{name}_a" in site.tensors or f"{name}_b" in site.tensors:
            raise Unfit(f"has {name} whole and in parts", "ambiguous")
        return (site.tensors[name],)
    return site.matrices(f"{name}_a", f"{name}_b")


def _measures(side: Sequence[TensorInfo]) -> tuple[int, int, int]:
    """Return (rows, columns, rank) of a matrix. Raises Unfit."""
    if len(side) == 1:
        shape = side[0].shape
        if len(shape) not in (2, 4):
            raise Unfit(
                f"has {'.'.join(side[0].name.split('.')[-1:])[:40]} of shape {shape}", "unread"
            )
        rows, columns = shape[0], math.prod(shape[1:])
        return rows, columns, min(rows, columns)
    one, two = side[0].shape, side[1].shape
    if len(side) == 2:
        if one[1] != two[0]:
            raise Unfit(f"has sides of shape {one} and {two}")
        return one[0], two[1], min(one[1], one[0], two[1])
    core = side[2].shape
    if len(core) != 4 or not core[0] == core[1] == one[0] == two[0]:
        raise Unfit(f"has a core of shape {core} with sides {one} and {two}")
    return one[1], two[1] * math.prod(core[2:]), min(one[0], one[1])


def make(delta: Delta, arrays: Sequence[Values]) -> Kronecker:
    """Return s·(W₁ ⊗ W₂)."""
    count = delta.settings[0]
    return Kronecker(_factored(arrays[:count]), _factored(arrays[count:]), delta.scaling)


def _factored(side: Sequence[Values]) -> LowRank:
    if len(side) == 1:
        return matrix(wide(side[0]).reshape(side[0].shape[0], -1))
    one, two = wide(side[0]), wide(side[1])
    if len(side) == 2:
        found = LowRank(two, one)
        return found if one.shape[1] <= min(found.shape) else matrix(found.dense())
    core = np.einsum("ijkl,jr->irkl", wide(side[2]), two).reshape(len(one), -1)
    return LowRank(core, one.T)


def _extra(delta: Delta) -> int:
    """Return the bytes of the matrices' factors, their Gram matrices and the products of σ."""
    made = 0
    for side in (delta.tensors[: delta.settings[0]], delta.tensors[delta.settings[0] :]):
        rows, columns, rank = _measures(side)
        made += 80 * rank**2 + 8 * 4 * rank * (rows + columns)
    return made + 8 * 4 * delta.rank


def _work(delta: Delta) -> int:
    """Return the work on both matrices: cubic in their ranks."""
    sides = delta.tensors[: delta.settings[0]], delta.tensors[delta.settings[0] :]
    return sum(_measures(side)[2] ** 3 for side in sides) + 32 * delta.rank


TUNER = Tuner("lokr", frozenset(_PARTS), locate, make, _extra, _work, alpha=LYCORIS_ALPHA)

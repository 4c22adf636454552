"""VB-LoRA, Uni-LoRA and TinyLoRA: factors made of a few vectors that all modules share.

VB-LoRA mixes every stretch of A and B from the k likeliest vectors of a bank; Uni-LoRA takes every
entry from one vector, by index, times a scale; TinyLoRA has B·(Σ vᵢ·Pᵢ)·A with shared v.
Source: Li et al. 2024, "VB-LoRA"; Li et al. 2025, "Uni-LoRA"; peft 0.21.2, `tuners/vblora/layer.py`
(`_get_low_rank_matrix`), `vblora/model.py` (the last weight is what the others leave of 1),
`tuners/unilora/layer.py` and `tuners/tinylora/layer.py`, `get_delta_weight`.
Limits: what a file leaves out for a seed (Uni-LoRA without `save_indices`) is not drawn again.
TinyLoRA's modules are numbered in the order of the model, which the file does not tell where
several kinds of module have vectors of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.deltas import Delta
from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.tuners.tuner import (
    Site,
    Tuner,
    Unfit,
    Values,
    cubic,
    factor_bytes,
    whole,
    wide,
)
from adapterscan.lowrank import F64, LowRank

_TOPK = 2
_LOGITS = ("vblora_logits_A", "vblora_logits_B")
_CHOSEN = tuple(f"{part}_{what}" for part in _LOGITS for what in ("topk_indices", "topk_weights"))
_UNILORA = ("unilora_indices_A", "unilora_indices_B", "unilora_scales_A", "unilora_scales_B")
_TINYLORA = ("tinylora_A", "tinylora_B", "tinylora_P")


def locate_vblora(site: Site) -> Delta:
    """Return the ΔW of a module. `settings`: how many vectors are mixed."""
    (bank,) = site.common("vblora_vector_bank")
    if len(bank.shape) != 2:
        raise Unfit(f"shares a bank of shape {bank.shape}")
    count, length = bank.shape
    topk = whole(site.config, "topk", _TOPK)
    if not 1 <= topk <= count:
        raise Unfit(f"mixes {topk:,} of {count:,} vectors")
    if all(part in site.tensors for part in _LOGITS):
        found = site.need(*_LOGITS)
        last = [count, count]
    else:
        found = site.need(*_CHOSEN)
        last = [topk, topk - 1] * 2
    ends = [tensor.shape[-1] if len(tensor.shape) == 3 else -1 for tensor in found]
    half = len(found) // 2
    one, two = found[0].shape, found[half].shape
    same = one[:2] == found[half - 1].shape[:2] and two[:2] == found[-1].shape[:2]
    if ends != last or not same or one[0] != two[1]:
        raise Unfit(f"has choices of shape {one} and {two} for {topk} of {count:,} vectors")
    sides = (two[0] * length, one[1] * length)
    return site.delta("vblora", (bank, *found), sides, one[0], settings=(topk,))


def make_vblora(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW as factors."""
    bank, topk = wide(arrays[0]), delta.settings[0]
    half = (len(arrays) - 1) // 2
    down, up = (
        _mixed(bank, arrays[1 + side * half : 1 + (side + 1) * half], topk) for side in (0, 1)
    )
    return LowRank(down.reshape(delta.rank, -1), up.transpose(0, 2, 1).reshape(-1, delta.rank))


def _mixed(bank: F64, given: Sequence[Values], topk: int) -> F64:
    """Return the stretches (p, q, length) that logits, or choices and weights, mix of a bank."""
    if len(given) == 1:
        logits = wide(given[0])
        chosen = np.argpartition(logits, -topk, axis=-1)[..., -topk:]
        likely = np.take_along_axis(logits, chosen, axis=-1)
        weights = np.exp(likely - likely.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
    else:
        chosen, most = given[0].astype(np.int64), wide(given[1])
        weights = np.concatenate([most, 1 - most.sum(axis=-1, keepdims=True)], axis=-1)
        ordered = np.sort(chosen, axis=-1)
        if (ordered[..., 1:] == ordered[..., :-1]).any() or (weights < -1e-3).any():
            raise ValueError("chooses a vector twice or by less than nothing")
    if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(bank):
        raise ValueError("chooses a vector that the bank does not have")
    found = np.zeros((*chosen.shape[:2], bank.shape[1]))
    for at in range(topk):
        found += weights[..., at, None] * bank[chosen[..., at]]
    return found


def locate_unilora(site: Site) -> Delta:
    """Return the ΔW of a module."""
    (vector,) = site.common("unilora_theta_d")
    if any(part not in site.tensors for part in _UNILORA):
        raise Unfit(
            "takes its entries by indices that are not in the file: loaders draw them from a seed",
            "unread",
        )
    found = site.matrices(*_UNILORA)
    (rank, width), (out, r) = found[0].shape, found[1].shape
    fits = rank == r and found[2].shape == (rank, width) and found[3].shape == (out, r)
    if not fits or len(vector.shape) != 1:
        raise Unfit(f"has indices of shape {found[0].shape} and {found[1].shape}")
    return site.delta("unilora", (vector, *found), (out, width), rank)


def make_unilora(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW as factors."""
    vector = wide(arrays[0])
    sides = []
    for indices, scales in zip(arrays[1:3], arrays[3:5], strict=True):
        places = indices.astype(np.int64)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < len(vector):
            raise ValueError("takes an entry that the shared vector does not have")
        sides.append(vector[places] * wide(scales))
    return LowRank(sides[0], sides[1], delta.scaling)


def locate_tinylora(site: Site) -> Delta:
    """Return the ΔW of a module."""
    a, b = site.matrices("tinylora_A", "tinylora_B")
    (basis,) = site.need("tinylora_P")
    rank, width = a.shape
    vector = _vector(site)
    if b.shape[1] != rank or basis.shape != (vector.numel, rank, rank) or len(vector.shape) != 1:
        raise Unfit(f"has a basis of shape {basis.shape} between {b.shape} and {a.shape}")
    return site.delta("tinylora", (a, b, basis, vector), (b.shape[0], width), rank)


def _vector(site: Site) -> TensorInfo:
    """Return the shared vector of a module. Raises Unfit where the file does not tell which."""
    found = [tensor for name, tensor in site.shared.items() if name.startswith("tinylora_v.")]
    if not found:
        site.common("tinylora_v")
    if len(found) > 1:
        raise Unfit(
            f"takes one of {len(found):,} shared vectors by its place in the model, which is not "
            "in the file", "unread",
        )  # fmt: skip
    return found[0]


def make_tinylora(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW as factors."""
    a, b, basis, vector = map(wide, arrays)
    middle = np.einsum("u,uij->ij", vector, basis)
    return LowRank(middle @ a, b, delta.scaling)


def _vblora_bytes(delta: Delta) -> int:
    """Return the bytes of factors, and of choices in 64 bits, sorted."""
    return factor_bytes(delta) + 8 * 4 * sum(tensor.numel for tensor in delta.tensors)


VBLORA = Tuner(
    "vblora", frozenset((*_LOGITS, *_CHOSEN)), locate_vblora, make_vblora, _vblora_bytes, cubic,
    shared=frozenset({"vblora_vector_bank"}),
    whole=frozenset(part for part in _CHOSEN if part.endswith("indices")),
)  # fmt: skip
UNILORA = Tuner(
    "unilora", frozenset(_UNILORA), locate_unilora, make_unilora, factor_bytes, cubic,
    shared=frozenset({"unilora_theta_d"}), whole=frozenset(_UNILORA[:2]),
)  # fmt: skip
TINYLORA = Tuner(
    "tinylora", frozenset(_TINYLORA), locate_tinylora, make_tinylora, factor_bytes, cubic,
    shared=frozenset({"tinylora_v"}),
)  # fmt: skip

"""GraLoRA: k·k blocks of rank r/k each, and an ordinary low-rank part beside them.

Block (out j, in n) is Bⱼ's rows n times Aₙ's columns j: all blocks together are factors of k·r
columns, most of them zero.
Source: Jung et al. 2025, "GraLoRA"; peft 0.21.2, `tuners/gralora/layer.py`, `get_delta_weight`.
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
    number,
    whole,
    wide,
)
from adapterscan.lowrank import LowRank

_ALPHA = 64.0
_GENERAL = ("gralora_A_general", "gralora_B_general")


def locate(site: Site) -> Delta:
    """Return the ΔW of a module."""
    a, b = site.need("gralora_A", "gralora_B")
    if len(a.shape) != 3 or len(b.shape) != 3:
        raise Unfit(f"has blocks of shape {a.shape} and {b.shape}")
    (k, inner, r), (blocks, rank, outer) = a.shape, b.shape
    if k != blocks or r != rank or not k or r % k:
        raise Unfit(f"has blocks of shape {a.shape} and {b.shape}")
    hybrid = whole(site.config, "hybrid_r", 0)
    tensors: tuple[TensorInfo, ...] = (a, b)
    sides = (k * outer, k * inner)
    if hybrid:
        general = site.matrices(*_GENERAL)
        if general[0].shape != (hybrid, sides[1]) or general[1].shape != (sides[0], hybrid):
            raise Unfit(f"has a general part of shape {general[0].shape} and {general[1].shape}")
        tensors = (*tensors, *general)
    elif any(part in site.tensors for part in _GENERAL):
        raise Unfit("has a general part that the config does not have", "variant")
    scaling = number(site.config, "alpha", _ALPHA) / (r + hybrid) if r else 0.0
    return site.delta("gralora", tensors, sides, k * r + hybrid, scaling)


def make(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW as factors."""
    a, b = wide(arrays[0]), wide(arrays[1])
    k, inner, r = a.shape
    outer, each = b.shape[2], r // k
    down, up = np.zeros((k, r, k, inner)), np.zeros((k, outer, k, r))
    for j in range(k):
        up[j, :, j] = b[j].T
        for n in range(k):  # the r rows of j: `each` for every n
            down[j, n * each : (n + 1) * each, n] = a[n, :, j * each : (j + 1) * each].T
    a_whole, b_whole = down.reshape(k * r, k * inner), up.reshape(k * outer, k * r)
    if len(arrays) > 2:
        a_whole = np.concatenate([a_whole, wide(arrays[2])])
        b_whole = np.concatenate([b_whole, wide(arrays[3])], axis=1)
    return LowRank(a_whole, b_whole, delta.scaling)


TUNER = Tuner(
    "gralora", frozenset({"gralora_A", "gralora_B", *_GENERAL}), locate, make, factor_bytes, cubic,
    layers=frozenset(_GENERAL), alpha=_ALPHA,
)  # fmt: skip

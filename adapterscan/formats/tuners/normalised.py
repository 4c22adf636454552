"""DeLoRA: ΔW = (B·diag(λ / (r·‖Aᵢ‖·‖Bᵢ‖))·A) ∘ w, with w the norms of the weight's columns.

w is saved with the adapter (`delora_w_norm`), so that ΔW is known without the base: of the weight
that it was trained on.
Source: Bini et al. 2025, "DeLoRA"; peft 0.21.2, `tuners/delora/layer.py`, `_compute_delta` (norms
below 1e-4 are read as that).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.deltas import Delta
from adapterscan.formats.tuners.tuner import (
    Site,
    Tuner,
    Unfit,
    Values,
    cubic,
    factor_bytes,
    wide,
)
from adapterscan.lowrank import LowRank

_PARTS = ("delora_A", "delora_B", "delora_lambda", "delora_w_norm")
_LEAST = 1e-4


def locate(site: Site) -> Delta:
    """Return the ΔW of a module."""
    a, b = site.matrices("delora_A", "delora_B")
    strength, norms = site.need("delora_lambda", "delora_w_norm")
    rank, width = a.shape
    if b.shape[1] != rank or strength.numel != 1 or norms.shape != (width,):
        shapes = f"{a.shape}, {b.shape}, {strength.shape} and {norms.shape}"
        raise Unfit(f"has tensors of shape {shapes}")
    return site.delta("delora", (a, b, strength, norms), (b.shape[0], width), rank)


def make(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW as factors."""
    a, b, strength, norms = map(wide, arrays)
    sizes = np.maximum(np.linalg.norm(a, axis=1), _LEAST)
    sizes *= np.maximum(np.linalg.norm(b, axis=0), _LEAST)
    diagonal = float(strength.reshape(())) / delta.rank / sizes
    return LowRank(diagonal[:, None] * a * norms, b)


TUNER = Tuner("delora", frozenset(_PARTS), locate, make, factor_bytes, cubic)

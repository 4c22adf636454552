"""VeRA and PVeRA: ΔW = (λ_b ∘ B)·(λ_d ∘ A) with A and B drawn at random and shared by all modules.

A module takes the first columns of A and the first rows of B. How many columns is only known from
its weight: without the base, all of A is taken, which is exact for the widest modules.
Source: Kopiczko et al. 2024, "VeRA"; peft 0.21.2, `tuners/vera/layer.py`, `tuners/pvera/layer.py`
(it merges the mean, the first half of λ_d and A), `get_delta_weight`.
Limits: without `save_projection` A and B are not in the file; they are not drawn again here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _locator(kind: str, halves: int) -> Callable[[Site], Delta]:
    def locate(site: Site) -> Delta:
        a, b = site.common(f"{kind}_A", f"{kind}_B")
        up, down = site.need(f"{kind}_lambda_b", f"{kind}_lambda_d")
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != halves * b.shape[1]:
            raise Unfit(f"shares projections of shape {a.shape} and {b.shape}")
        if down.shape != a.shape[:1] or len(up.shape) != 1 or up.shape[0] > b.shape[0]:
            raise Unfit(f"has vectors of {up.shape} and {down.shape} for them")
        return site.delta(kind, (a, b, up, down), (up.shape[0], a.shape[1]), a.shape[0] // halves)

    return locate


def make(delta: Delta, arrays: Sequence[Values]) -> LowRank:
    """Return the ΔW: as many columns as A has, and as many rows as λ_b."""
    a, b, up, down = map(wide, arrays)
    rank = delta.rank
    return LowRank(down[:rank, None] * a[:rank], up[:, None] * b[: len(up)])


def _tuner(kind: str, halves: int) -> Tuner:
    return Tuner(
        kind, frozenset({f"{kind}_lambda_b", f"{kind}_lambda_d"}), _locator(kind, halves), make,
        factor_bytes, cubic, shared=frozenset({f"{kind}_A", f"{kind}_B"}),
    )  # fmt: skip


VERA, PVERA = _tuner("vera", 1), _tuner("pvera", 2)

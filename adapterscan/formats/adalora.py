"""Locate the factors of AdaLoRA: ΔW = B·(A∘E)·s with s = α/(init_r + 1e-5), one s for all.

Source: peft 0.21.2, `tuners/adalora/layer.py`, `SVDLinear.get_delta_weight` and `update_layer`
(α that is not above 0 is read as the rank); `model.py`, `resize_modules_by_rank_pattern`: a module
that was pruned keeps the divisor of its first rank. `r`, `alpha_pattern` and `use_rslora` are not
read there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import DELTA_LIMIT, Delta, Problem, ambiguous
from adapterscan.formats.peft_keys import Key
from adapterscan.formats.targeting import DEFAULT_ALPHA
from adapterscan.formats.tensors import TensorInfo
from adapterscan.model import ModulePath

DEFAULT_INITIAL_RANK = 12
_DAMPING = 1e-5
_PARTS = ("lora_A", "lora_B", "lora_E")
_TAILS = ((), ("default",))


def locate_adalora(config: AdapterConfig, keys: Sequence[Key]) -> Iterator[Delta | Problem]:
    """Yield the ΔW of each module of `keys`, and for modules where there is none why."""
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        if key.part in _PARTS and key.tail in _TAILS:
            groups[key.module].append(key)
    for at, (module, found) in enumerate(groups.items()):
        parts = {key.part: key.tensor for key in found}
        missing = next((part for part in _PARTS if part not in parts), "")
        if at >= DELTA_LIMIT:
            yield Problem(module, f"is over the limit of {DELTA_LIMIT:,} updates", "unread")
        elif len(found) > len(parts):
            yield ambiguous(module)
        elif missing:
            yield Problem(module, f"has no {missing}", "orphan")
        else:
            yield _delta(config, module, *(parts[part] for part in _PARTS))


def _delta(
    config: AdapterConfig, module: str, a: TensorInfo, b: TensorInfo, e: TensorInfo
) -> Delta | Problem:
    shapes = f"factors of shape {a.shape}, {b.shape} and {e.shape}"
    if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] == e.numel:
        return Problem(module, f"has {shapes}", "shape")
    rank = a.shape[0]
    return Delta(ModulePath(module), "linear", (a, b, e), rank, adalora_scaling(config, rank))


def initial_rank(config: AdapterConfig) -> int:
    """Return the rank that all modules began with, by which PEFT divides."""
    rank = config.raw.get("init_r")
    return rank if type(rank) is int and 0 <= rank < 1 << 31 else DEFAULT_INITIAL_RANK


def adalora_scaling(config: AdapterConfig, rank: int) -> float:
    """Return s of a module that has `rank` left."""
    alpha = DEFAULT_ALPHA if config.alpha is None else config.alpha
    return (alpha if alpha > 0 else rank) / (initial_rank(config) + _DAMPING)

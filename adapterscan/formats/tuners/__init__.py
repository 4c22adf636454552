"""PEFT's tuners beside LoRA whose ΔW is known without the base: where it lies, what makes it.

Each module has one tuner, or a few that are alike; `TUNERS` lists them by `peft_type`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import DELTA_LIMIT, Delta, Problem, ambiguous
from adapterscan.formats.patterns import Matches
from adapterscan.formats.peft_keys import Key
from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.tuners import (
    banked,
    circular,
    granular,
    hadamard,
    kronecker,
    normalised,
    projected,
    sparse,
)
from adapterscan.formats.tuners.tuner import Kept, Site, Tuner, Unfit
from adapterscan.model import ModulePath

TUNERS: Mapping[str, Tuner] = {
    "C3A": circular.TUNER,
    "DELORA": normalised.TUNER,
    "GRALORA": granular.TUNER,
    "LOHA": hadamard.TUNER,
    "LOKR": kronecker.TUNER,
    "PVERA": projected.PVERA,
    "SHIRA": sparse.TUNER,
    "TINYLORA": banked.TINYLORA,
    "UNILORA": banked.UNILORA,
    "VBLORA": banked.VBLORA,
    "VERA": projected.VERA,
}

_ROOT = "base_model"  # where what all modules share is saved
Found = TypeVar("Found")

BY_KIND: Mapping[str, Tuner] = {tuner.kind: tuner for tuner in TUNERS.values()}


def locate(
    tuner: Tuner, config: AdapterConfig, keys: Sequence[Key], patterns: Mapping[str, Matches]
) -> Iterator[Delta | Problem]:
    """Yield the ΔW of each module of `keys`, and for modules where there is none why."""
    return sites(tuner, tuner.locate, config, keys, patterns)


def sites(
    kept: Kept,
    found_at: Callable[[Site], Found],
    config: AdapterConfig,
    keys: Sequence[Key],
    patterns: Mapping[str, Matches],
) -> Iterator[Found | Problem]:
    """Yield what `found_at` makes of each module of `keys`, and where it is Unfit why."""
    groups: dict[str, dict[str, list[TensorInfo]]] = {}
    shared: dict[str, list[TensorInfo]] = {}
    for key in keys:
        if key.part in kept.shared and not (kept.repeats and key.module != _ROOT):
            shared.setdefault(_called(kept, key), []).append(key.tensor)
        elif key.part in kept.parts | kept.shared and is_saved(kept, key):
            groups.setdefault(key.module, {}).setdefault(_called(kept, key), []).append(key.tensor)
    common = {name: found[0] for name, found in shared.items()}
    twice = any(len(found) > 1 for found in shared.values())
    for at, (module, parts) in enumerate(groups.items()):
        if at >= DELTA_LIMIT:
            yield Problem(module, f"is over the limit of {DELTA_LIMIT:,} updates", "unread")
        elif twice or any(len(found) > 1 for found in parts.values()):
            yield ambiguous(module)
        else:
            tensors = {part: found[0] for part, found in parts.items()}
            try:
                yield found_at(Site(ModulePath(module), tensors, common, config, patterns))
            except Unfit as problem:
                yield Problem(module, str(problem), problem.defect)


def _called(kept: Kept, key: Key) -> str:
    """Return what a site calls a tensor: its part, with what tells several of a part apart."""
    tail = [name for name in key.tail if name not in ("default", "weight")]
    return ".".join((key.part, *tail)) if key.part in kept.shared or kept.leaves else key.part


def is_saved(kept: Kept, key: Key) -> bool:
    """Return whether PEFT saves a tensor of this name: what has a longer one no loader finds.

    What modules share lies at the root of the wrapper (`base_model.vera_A`), which some tuners
    repeat in every module.
    """
    if key.part in kept.shared:
        return len(key.tail) <= 2
    tail = key.tail[1:] if key.tail[:1] == ("default",) else key.tail
    if kept.leaves:
        return len(tail) == 1 and tail[0] in kept.leaves
    return tail == (("weight",) if key.part in kept.layers else ())

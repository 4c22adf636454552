"""Turn a weight file and its config into an adapter: tensors accounted for, deltas located."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapterscan.formats.accounting import Accounted, Ledger, Role
from adapterscan.formats.adalora import locate_adalora
from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import (
    UNCLEAR,
    Delta,
    Problem,
    ambiguous,
    locate,
    parameters_of,
    resolve_parameters,
    with_aliases,
)
from adapterscan.formats.patterns import Matches, match_all
from adapterscan.formats.peft_keys import Key, guess_type
from adapterscan.formats.targeting import pattern_fields, probe_names, untargeted_modules
from adapterscan.formats.tensors import WeightFile
from adapterscan.formats.transforms import METHODS
from adapterscan.formats.transforms import locate as locate_transforms
from adapterscan.formats.transforms.transform import Transform
from adapterscan.formats.tuners import TUNERS
from adapterscan.formats.tuners import locate as locate_tuner


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter: its config, its weight file, and what they mean together."""

    folder: str
    config: AdapterConfig
    weights: WeightFile
    accounted: tuple[Accounted, ...]
    deltas: tuple[Delta, ...]
    problems: tuple[Problem, ...]
    patterns: Mapping[str, Matches] = field(default_factory=dict)
    untargeted: tuple[str, ...] = ()
    transforms: tuple[Transform, ...] = ()


def adapting(kind: str) -> frozenset[str]:
    """Return the parts that show a module to be adapted."""
    kept = TUNERS.get(kind) or METHODS.get(kind)
    if kept is not None:
        return kept.parts
    return frozenset({"lora_A", "lora_embedding_A"})


def build_adapter(folder: str, config: AdapterConfig, weights: WeightFile) -> Adapter:
    """Account for every tensor of `weights` under `config` and locate the low-rank deltas."""
    parsed = [Key.parse(tensor) for tensor in weights.tensors]
    kind = config.peft_type or guess_type(parsed)
    modules = sorted({key.module for key in parsed if key.part in adapting(kind)})
    names = parameters_of(config, modules)
    known = {name for found in names.values() for name in found}
    patterns = match_all(
        list(pattern_fields(config)), [*modules, *sorted(known), *probe_names(config)]
    )
    aliases, unclear = resolve_parameters(config, parsed, names, patterns)
    patterns = with_aliases(config, patterns, aliases) if aliases else patterns
    ledger = Ledger(config, kind, patterns, parsed)
    accounted = tuple(ledger.account(key) for key in parsed)
    deltas: list[Delta] = []
    problems: list[Problem] = []
    if kind in ("LORA", "XLORA"):
        used = [
            key
            for key, item in zip(parsed, accounted, strict=True)
            if key.part and item.role is Role.ADAPTER
        ]
        doubled = ledger.doubled()
        problems += [ambiguous(module) for module in sorted(doubled)]
        problems += [Problem(module, UNCLEAR, "unread") for module in sorted(unclear - doubled)]
        for found in locate(config, used, patterns):
            if isinstance(found, Problem):
                problems.append(found)
            elif found.module not in doubled | unclear:
                deltas.append(found)
    elif kind == "ADALORA" or kind in TUNERS:
        found_there = (
            locate_tuner(TUNERS[kind], config, parsed, patterns)
            if kind in TUNERS
            else locate_adalora(config, parsed)
        )
        for item in found_there:
            if isinstance(item, Problem):
                problems.append(item)
            else:
                deltas.append(item)
    transforms: list[Transform] = []
    if kind in METHODS:
        for change in locate_transforms(METHODS[kind], config, parsed, patterns):
            if isinstance(change, Problem):
                problems.append(change)
            else:
                transforms.append(change)
    return Adapter(
        folder, config, weights, accounted, tuple(deltas), tuple(problems), patterns,
        tuple(untargeted_modules(config, modules, patterns)), tuple(transforms),
    )  # fmt: skip

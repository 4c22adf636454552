"""Say what a config's targets and patterns mean for a module: adapted or not, rank, scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.patterns import Matches, is_active, keyed, layered, match_all, saved
from adapterscan.formats.peft_keys import last_name
from adapterscan.formats.peft_types import OUTPUT_EMBEDDINGS

DEFAULT_RANK = 8  # LoraConfig's defaults, which PEFT uses when a config leaves them out

DEFAULT_ALPHA = 8.0

_DIGITS = 10  # of a layer's number

_COMMON_NAMES = (
    "lm_head",
    "model.embed_tokens",
    "model.layers.10.self_attn.q_proj",
    "transformer.h.10.attn.c_attn",
)


def pattern_fields(config: AdapterConfig) -> Mapping[str, str]:
    """Return every pattern that PEFT would make of the config, and the field it comes from.

    Those of rank, scale and targets decide what a module gets. The others are of tuners and steps
    that we do not follow: they are tried only where they can hang.
    """
    found = {keyed(key): f"rank_pattern[{key}]" for key in config.rank_pattern}
    found |= {keyed(key): f"alpha_pattern[{key}]" for key in config.alpha_pattern}
    if isinstance(config.target_modules, str) and not all_linear(config.target_modules):
        found[config.target_modules] = "target_modules"
    excluded = config.raw.get("exclude_modules")
    if isinstance(excluded, str):
        found[excluded] = "exclude_modules"
    for wrap, text, field_name in _other_patterns(config):
        if is_active(text):
            found.setdefault(wrap(text), field_name)
    return found


def _other_patterns(config: AdapterConfig) -> Iterator[tuple[Callable[[str], str], str, str]]:
    raw = config.raw
    layers = raw.get("layers_pattern")
    for text in layers if isinstance(layers, list) else [layers]:
        if isinstance(text, str):
            yield layered, text, "layers_pattern"
    for text in config.modules_to_save:
        yield saved, text, "modules_to_save"
    forward = raw.get("feedforward_modules")  # IA3
    if isinstance(forward, str):
        yield str, forward, "feedforward_modules"
    for name, table in raw.items():  # block_size_pattern, lambda_pattern, n_frequency_pattern, …
        if name.endswith("_pattern") and isinstance(table, dict):
            for key in table:
                yield keyed, key, f"{name}[{key}]"


def probe_patterns(config: AdapterConfig) -> Mapping[str, Matches]:
    """Try the patterns of a config that no weights came with: a loader reads them all the same."""
    return match_all(list(pattern_fields(config)), probe_names(config))


def probe_names(config: AdapterConfig) -> list[str]:
    """Return names on which a pattern that can hang does: module names of common bases, and runs of
    each letter that the patterns themselves contain."""
    letters = {
        letter for pattern in pattern_fields(config) for letter in pattern if letter.isalnum()
    }
    return [*_COMMON_NAMES, *(letter * 48 + "!" for letter in sorted(letters)[:64])]


def all_linear(target: object) -> bool:
    """Return whether `target_modules` is PEFT's word for every linear layer."""
    return isinstance(target, str) and target.lower() == "all-linear"


def tied_head(config: AdapterConfig, module: str) -> bool:
    """Whether `ensure_weight_tying` adapts this output head along with the input embedding."""
    return bool(config.raw.get("ensure_weight_tying")) and last_name(module) in OUTPUT_EMBEDDINGS


def is_named(wanted: object, module: str, patterns: Mapping[str, Matches]) -> bool:
    """Whether a `target_modules` or `exclude_modules` value names `module`, as PEFT decides it."""
    if isinstance(wanted, str):
        return wanted in patterns and module in patterns[wanted].names
    if not isinstance(wanted, (list, tuple)):
        return False
    return any(
        isinstance(item, str) and (module == item or module.endswith(f".{item}")) for item in wanted
    )


def untargeted_modules(
    config: AdapterConfig, modules: Sequence[str], patterns: Mapping[str, Matches]
) -> Iterator[str]:
    """Yield adapted modules that the config does not target: PEFT ignores their tensors.

    Source: peft 0.21.2, `tuners/tuners_utils.py`, `check_target_module_exists`.
    """
    target, excluded = config.target_modules, config.raw.get("exclude_modules")
    if config.target_parameters:
        return
    unknown = target is None or all_linear(target)
    if isinstance(target, str) and not unknown and patterns[target].problem:
        return
    targeted = target_test(config, patterns)
    transformed = _layer_test(config)
    for module in modules:
        known = unknown or (targeted(module) and transformed(module)) or tied_head(config, module)
        if not known or is_named(excluded, module, patterns):
            yield module


def _layer_test(config: AdapterConfig) -> Callable[[str], bool]:
    """Return a test for the layers that `layers_to_transform` leaves in a list of targets.

    A module that the list has by its whole path is left in. A `layers_pattern` that is more than a
    name is not followed: all layers are taken for left in.
    """
    wanted = config.raw.get("layers_to_transform")
    numbers = {wanted} if type(wanted) is int else wanted if isinstance(wanted, list) else ()
    names = config.raw.get("layers_pattern") or ()
    names = (names,) if isinstance(names, str) else names
    target = config.target_modules
    if not numbers or not isinstance(target, tuple) or not isinstance(names, (list, tuple)):
        return lambda _: True
    if any(not isinstance(name, str) or is_active(name) for name in names):
        return lambda _: True
    layers = frozenset(number for number in numbers if type(number) is int)
    whole = frozenset(target)
    return lambda module: module in whole or layer_number(module, names) in layers


def layer_number(module: str, parents: Sequence[str] = ()) -> int | None:
    """Return the layer that PEFT takes a module for, None for none.

    The first number with two names before it and one after it; with `parents`, the first after the
    first of them that has one. Source: peft 0.21.2, `check_target_module_exists`.
    """
    names = module.split(".")
    numbers = [
        at for at, name in enumerate(names[:-1]) if at and name.isdecimal() and len(name) < _DIGITS
    ]
    if not parents:
        return next((int(names[at]) for at in numbers if at > 1), None)
    after = (at for parent in parents for at in numbers if names[at - 1] == parent)
    return next((int(names[at]) for at in after), None)


def target_test(config: AdapterConfig, patterns: Mapping[str, Matches]) -> Callable[[str], bool]:
    """Return a test for what `target_modules` names, at the same cost however long the list is."""
    target = config.target_modules
    if isinstance(target, str):
        return patterns[target].names.__contains__ if target in patterns else lambda _: False
    wanted = frozenset(target or ())
    return lambda module: not wanted.isdisjoint(suffixes(module))


def suffixes(module: str) -> Iterator[str]:
    """Yield `a.b.c`, `b.c`, `c`."""
    names = module.split(".")
    return (".".join(names[start:]) for start in range(len(names)))


def declared_rank(
    config: AdapterConfig, patterns: Mapping[str, Matches], module: str
) -> int | None:
    """Return the rank that the config gives to `module`, None when it gives none."""
    key = pattern_key(config.rank_pattern, patterns, module)
    return config.rank_pattern[key] if key is not None else config.r


def scaling_of(
    config: AdapterConfig, patterns: Mapping[str, Matches], module: str, rank: int
) -> float:
    """Return s of ΔW = s·B·A as PEFT computes it: α/r, or α/√r with rsLoRA, per module."""
    alpha = alpha_of(config, patterns, module)
    return alpha / (math.sqrt(rank) if config.rslora else rank) if rank else 0.0


def alpha_of(config: AdapterConfig, patterns: Mapping[str, Matches], module: str) -> float:
    """Return the α that the config gives to `module`."""
    key = pattern_key(config.alpha_pattern, patterns, module)
    alpha = config.alpha_pattern[key] if key is not None else config.alpha
    return DEFAULT_ALPHA if alpha is None else alpha


def pattern_key(
    table: Mapping[str, float], patterns: Mapping[str, Matches], module: str
) -> str | None:
    """Return the first key of a pattern table that matches `module`, as PEFT picks it."""
    return next((key for key in table if module in patterns[keyed(key)].names), None)

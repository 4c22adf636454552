"""Locate the factors of every ΔW: which tensors, of which shape, with which scale."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.patterns import Matches, keyed
from adapterscan.formats.peft_keys import Key
from adapterscan.formats.targeting import (
    DEFAULT_RANK,
    all_linear,
    declared_rank,
    pattern_key,
    scaling_of,
    suffixes,
    target_test,
)
from adapterscan.formats.tensors import TensorInfo
from adapterscan.model import ModulePath

#: Updates in one file. Mixtures of experts with a pair of factors per expert reach 45,000; a header
#: of `target_parameters` can claim millions in a few bytes, and each is a matrix to measure.
DELTA_LIMIT = 50_000

_PARAMETERS = 6  # of one module that are considered; real modules have two to four

_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")

UNCLEAR = "adapts one of several parameters that have different scales; which one is not written"

_TOO_MANY = f"would go over the limit of {DELTA_LIMIT:,} updates in one file"

_TWO_KINDS = "has factors of a linear layer and of an embedding; the base decides which are used"


#: Kinds whose tensors are the factors A and B, with a diagonal between them for some.
FACTORED = frozenset({"linear", "conv", "embedding", "experts", "merged"})

#: Kinds of which only the base tells how large they are: `shape` is what any weight has at least.
UNSIZED = frozenset({"shira"})


@dataclass(frozen=True, slots=True)
class Delta:
    """Where the tensors of one ΔW lie. Shapes follow `kind`; `part` selects within shared tensors.

    kind: "linear" | "conv" | "embedding" | "experts" (target_parameters) | "merged" (legacy), whose
    `tensors` are A, B and maybe a diagonal (KaSA, AdaLoRA); or the name of a tuner, which knows
    what its tensors make (`formats/tuners`).
    """

    module: ModulePath
    kind: str
    tensors: tuple[TensorInfo, ...]
    rank: int  # at most; of another tuner's ΔW
    scaling: float
    part: int = 0
    parts: int = 1
    magnitude: TensorInfo | None = None  # DoRA: the true delta also needs the base weight
    sides: tuple[int, int] | None = None  # (d_out, d_in) of another tuner's ΔW
    settings: tuple[int, ...] = ()  # what else its formula takes from the config

    @property
    def a(self) -> TensorInfo:
        """Return A of a kind that is FACTORED."""
        return self.tensors[0]

    @property
    def b(self) -> TensorInfo:
        """Return B of a kind that is FACTORED."""
        return self.tensors[1]

    @property
    def diag(self) -> TensorInfo | None:
        """Return the diagonal between A and B, None without one."""
        factored = self.kind in FACTORED and len(self.tensors) > 2
        return self.tensors[2] if factored else None

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in) of the ΔW as its tensors say."""
        if self.sides is not None:
            return self.sides
        d_out, d_in = self.b.shape[0], math.prod(self.a.shape[1:])
        return (d_out // self.parts, d_in) if self.kind == "merged" else (d_out, d_in)

    @property
    def name(self) -> str:
        """Return the module path, with the part where tensors hold several deltas."""
        return f"{self.module}[{self.part}]" if self.parts > 1 else self.module

    @property
    def family(self) -> str:
        """Return the kind of module: its last two names without numbers, `self_attn.q_proj`."""
        names = [name for name in self.module.split(".") if not name.isdigit()]
        return ".".join(names[-2:])

    @property
    def layer(self) -> int | None:
        """Return the first number in the module path, or None."""
        match = _LAYER.search(self.module)
        return int(match[1]) if match and len(match[1]) < 7 else None


@dataclass(frozen=True, slots=True)
class Problem:
    """A module that has adapter tensors but no ΔW that we can compute, and why."""

    module: str
    reason: str
    defect: str  # stable code for rules: "orphan" | "shape" | "ambiguous" | "variant" | "unread"


def ambiguous(module: str) -> Problem:
    """Return the problem of a module with two tensors in one place."""
    reason = "has two tensors for one factor; which of them is used depends on the loader"
    return Problem(module, reason, "ambiguous")


def parameters_of(config: AdapterConfig, modules: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the parameters that `target_parameters` may mean in a module: `….experts.down_proj`.

    PEFT wraps a module once for each of its parameters, and the innermost wrapper's factors are
    called `experts.base_layer.lora_A`; which parameter that is, only the base model tells.
    """
    owned: dict[str, list[str]] = defaultdict(list)
    for target in sorted(set(config.target_parameters)):
        owner, _, name = target.rpartition(".")
        owned[owner].append(name)
    found: dict[str, tuple[str, ...]] = {}
    default = config.target_modules is None or all_linear(config.target_modules)
    for module in modules if owned else ():
        holder = module
        while holder.endswith(".base_layer"):
            holder = holder.removesuffix(".base_layer")
        names = (name for end in ("", *suffixes(holder)) for name in owned.get(end, ()))
        unique = dict.fromkeys(islice(names, _PARAMETERS))
        if unique:
            whole = (holder,) if default else ()
            found[module] = (*(f"{holder}.{name}" for name in unique), *whole)
    return found


def resolve_parameters(
    config: AdapterConfig,
    keys: Sequence[Key],
    names: Mapping[str, tuple[str, ...]],
    patterns: Mapping[str, Matches],
) -> tuple[Mapping[str, str], frozenset[str]]:
    """Return which parameter each wrapper adapts, and the wrappers of which that is not known.

    It matters where `rank_pattern` or `alpha_pattern` tell the parameters of a module apart. Then
    the one assignment is taken by which all of them have the same number of experts.
    """
    rows = {
        key.module: key.tensor.shape[0] for key in keys if key.part == "lora_A" and key.tensor.shape
    }
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    targeted = target_test(config, patterns)
    for module, parameters in names.items():
        if module in rows and not targeted(module):
            groups[parameters].append(module)
    found: dict[str, str] = {}
    unclear: set[str] = set()
    for parameters, modules in groups.items():
        settings = {name: _setting(config, patterns, name) for name in parameters}
        choices = {
            tuple(settings[name] for name in order): order
            for order in permutations(parameters, len(modules))
            if len(set(settings.values())) == 1
            or _one_count([rows[m] for m in modules], [settings[name][0] for name in order])
        }
        if len(choices) == 1:
            found |= dict(zip(modules, *choices.values(), strict=True))
        else:
            unclear.update(modules)
    return found, frozenset(unclear)


def _setting(
    config: AdapterConfig, patterns: Mapping[str, Matches], name: str
) -> tuple[int, float | None]:
    key = pattern_key(config.alpha_pattern, patterns, name)
    rank = declared_rank(config, patterns, name)
    return rank or DEFAULT_RANK, config.alpha_pattern[key] if key is not None else config.alpha


def _one_count(rows: Sequence[int], ranks: Sequence[int]) -> bool:
    counts = {have / rank for have, rank in zip(rows, ranks, strict=True)}
    return len(counts) == 1 and all(count.is_integer() for count in counts)


def with_aliases(
    config: AdapterConfig, patterns: Mapping[str, Matches], aliases: Mapping[str, str]
) -> Mapping[str, Matches]:
    """Return `patterns` with each wrapper matched where the parameter that it adapts is."""
    changed = dict(patterns)
    for pattern in {keyed(key) for key in (*config.rank_pattern, *config.alpha_pattern)}:
        matches = changed[pattern]
        changed[pattern] = Matches(matches.names.moved(aliases), matches.problem)
    return changed


def locate(
    config: AdapterConfig, keys: Sequence[Key], patterns: Mapping[str, Matches]
) -> Iterator[Delta | Problem]:
    """Yield every ΔW of `keys`, and for modules where there is none why."""
    room = DELTA_LIMIT
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        if key.part and key.leaf != "bias":
            groups[key.module].append(key)
    for module, found_keys in groups.items():
        parts = {key.part: key.tensor for key in reversed(found_keys)}  # the first of each
        if {"lora_A", "lora_B"} <= parts.keys() and parts.keys() & {
            "lora_embedding_A",
            "lora_embedding_B",
        }:
            yield Problem(module, _TWO_KINDS, "ambiguous")
            continue
        for first, second in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            a, b = parts.get(first), parts.get(second)
            if a is None and b is None:
                continue
            if a is None or b is None:
                missing = first if a is None else second
                yield Problem(module, f"has no {missing}", "orphan")
            else:
                found = list(
                    islice(_module_deltas(config, patterns, module, parts, a, b), room + 1)
                )
                if len(found) > room:
                    found = [Problem(module, _TOO_MANY, "unread")]
                else:
                    room -= len(found)
                yield from found


def _module_deltas(
    config: AdapterConfig,
    patterns: Mapping[str, Matches],
    module: str,
    parts: Mapping[str, TensorInfo],
    a: TensorInfo,
    b: TensorInfo,
) -> Iterator[Delta | Problem]:
    layout = _layout(config, patterns, module, a, b)
    if isinstance(layout, Problem):
        yield layout
        return
    kind, rank, count = layout
    scaling = scaling_of(config, patterns, module, rank)
    diagonal = parts.get("lora_diag")
    factors = (a, b) if diagonal is None else (a, b, diagonal)
    for part in range(count):
        yield Delta(
            ModulePath(module), kind, factors, rank, scaling, part, count,
            parts.get("lora_magnitude_vector"),
        )  # fmt: skip


def _layout(
    config: AdapterConfig,
    patterns: Mapping[str, Matches],
    module: str,
    a: TensorInfo,
    b: TensorInfo,
) -> tuple[str, int, int] | Problem:
    """Return (kind, rank, parts) by the shapes, as PEFT's layers would use them."""
    if not a.shape or not b.shape or len(a.shape) < 2 or len(b.shape) < 2:
        return Problem(module, f"has factors of shape {a.shape} and {b.shape}", "shape")
    rows, columns = a.shape[0], b.shape[1]
    if a.name.split(".")[-1] == "lora_embedding_A" or "lora_embedding_A" in a.name:
        kind = "embedding"
    else:
        kind = "linear" if len(a.shape) == len(b.shape) == 2 else "conv"
    if config.raw.get("use_bdlora"):
        return Problem(module, "has block-diagonal factors (BD-LoRA), not read yet", "unread")
    declared = declared_rank(config, patterns, module)
    fused = kind == "linear" and bool(config.target_parameters) and rows == columns
    if fused and declared and rows > declared and rows % declared == 0:
        return "experts", declared, rows // declared
    if len(a.shape) == 2 and len(b.shape) == 3 and b.shape[2] == 1:
        return _merged(module, a, b)
    if kind == "conv" and math.prod(b.shape[2:]) != 1:
        return Problem(module, f"has lora_B of shape {b.shape}, not pointwise", "variant")
    if rows != columns:
        return Problem(module, f"has rank {rows} in A and {columns} in B", "shape")
    return kind, rows, 1


def _merged(module: str, a: TensorInfo, b: TensorInfo) -> tuple[str, int, int] | Problem:
    """PEFT before 0.3 put q, k, v of a fused layer in one grouped convolution (MergedLinear)."""
    rank = b.shape[1]
    if not rank or a.shape[0] % rank or b.shape[0] % max(1, a.shape[0] // rank):
        return Problem(module, f"has rank {a.shape[0]} in A and {rank} in B", "shape")
    return "merged", rank, a.shape[0] // rank

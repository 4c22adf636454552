"""Turn a weight file and its config into an adapter: every tensor accounted for, every ΔW located.

PEFT loads an adapter with `load_state_dict(strict=False)`: a key that names any parameter of the
base model is loaded into the base model, declared or not, and survives `disable_adapter()`. So the
first question about a tensor is what it will do, and only then what is in it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice, permutations

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.patterns import Matches, is_active, keyed, layered, match_all, saved
from adapterscan.formats.peft_types import (
    ALL_PARTS,
    INPUT_EMBEDDINGS,
    OUTPUT_EMBEDDINGS,
    PARTS,
    ROOT_PARAMETERS,
    TASK_HEADS,
)
from adapterscan.formats.tensors import TensorInfo, WeightFile
from adapterscan.model import ModulePath

DEFAULT_RANK = 8  # LoraConfig's defaults, which PEFT uses when a config leaves them out
DEFAULT_ALPHA = 8.0
#: Updates in one file. Mixtures of experts with a pair of factors per expert reach 45,000; a header
#: of `target_parameters` can claim millions in a few bytes, and each is a matrix to measure.
DELTA_LIMIT = 50_000
_PREFIXES = ("base_model.model.", "module.", "_fsdp_wrapped_module.", "_orig_mod.")
_INFIXES = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")
_COMMON_NAMES = (
    "lm_head",
    "model.embed_tokens",
    "model.layers.10.self_attn.q_proj",
    "transformer.h.10.attn.c_attn",
)
_OPEN_PARTS = frozenset({"lora_monteclora_sampler"})  # that hold several parameters
_FACTORS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_diag"})
_PARAMETERS = 6  # of one module that are considered; real modules have two to four
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


class Role(Enum):
    """What a loader does with a tensor."""

    ADAPTER = "adapter weight"
    DECLARED = "declared full weight"
    OVERWRITE = "undeclared overwrite of a base weight"
    EMBEDDING = "undeclared replacement of an embedding"
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Accounted:
    """One tensor and what a loader does with it. `path` has no wrapper prefixes."""

    tensor: TensorInfo
    path: str
    role: Role
    why: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Where the factors of one ΔW lie. Shapes follow `kind`; `part` selects within shared tensors.

    kind: "linear" | "conv" | "embedding" | "experts" (target_parameters) | "merged" (legacy).
    """

    module: ModulePath
    kind: str
    a: TensorInfo
    b: TensorInfo
    rank: int
    scaling: float
    part: int = 0
    parts: int = 1
    diag: TensorInfo | None = None  # KaSA
    magnitude: TensorInfo | None = None  # DoRA: the true delta also needs the base weight

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


def build_adapter(folder: str, config: AdapterConfig, weights: WeightFile) -> Adapter:
    """Account for every tensor of `weights` under `config` and locate the low-rank deltas."""
    parsed = [_Key.parse(tensor) for tensor in weights.tensors]
    kind = config.peft_type or _guess_type(parsed)
    modules = sorted({key.module for key in parsed if key.part in ("lora_A", "lora_embedding_A")})
    names = _parameters(config, modules)
    known = {name for found in names.values() for name in found}
    patterns = match_all(list(pattern_fields(config)), [*modules, *sorted(known), *_probes(config)])
    aliases, unclear = _resolve(config, parsed, names, patterns)
    patterns = _aliased(config, patterns, aliases) if aliases else patterns
    ledger = _Ledger(config, kind, patterns, parsed)
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
        problems += [_ambiguous(module) for module in sorted(doubled)]
        problems += [Problem(module, _UNCLEAR, "unread") for module in sorted(unclear - doubled)]
        for found in _deltas(config, used, patterns):
            if isinstance(found, Problem):
                problems.append(found)
            elif found.module not in doubled | unclear:
                deltas.append(found)
    return Adapter(
        folder, config, weights, accounted, tuple(deltas), tuple(problems), patterns,
        tuple(_untargeted(config, modules, patterns)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Key:
    """A tensor name taken apart: `model.layers.0.q_proj` + `lora_A` + `weight`."""

    tensor: TensorInfo
    path: str  # without wrapper prefixes
    module: str  # what stands before the part; the path without its last name when there is none
    part: str  # "" for a key that no tuner owns
    leaf: str  # "weight", "bias", or "" for a bare parameter
    tail: tuple[str, ...]  # what stands after the part: ("weight",), ("default", "weight"), …
    prefixed: bool

    @classmethod
    def parse(cls, tensor: TensorInfo) -> _Key:
        path, prefixed = _strip(tensor.name)
        names = path.split(".")
        at = next((i for i, name in enumerate(names) if name in ALL_PARTS), None)
        if at is None:
            return cls(tensor, path, ".".join(names[:-1]), "", names[-1], (), prefixed)
        leaf = names[-1] if len(names) > at + 1 and names[-1] in ("weight", "bias") else ""
        tail = tuple(names[at + 1 :])
        return cls(tensor, path, ".".join(names[:at]), names[at], leaf, tail, prefixed)

    @property
    def infix(self) -> str:
        """Return the adapter's name where a save left it in: `lora_A.default.weight`.

        PEFT takes it out and puts the name in again on load, but leaves a key that has one as it is
        (`_insert_adapter_name_into_state_dict`): it then reaches the adapter of that name.
        """
        if self.part not in PARTS["LORA"] or self.part in _OPEN_PARTS:
            return ""
        names = self.tail[:-1] if self.leaf else self.tail
        return names[0] if len(names) == 1 else ""

    @property
    def distance(self) -> tuple[bool, bool, str]:
        """Order keys that claim one place: the name that PEFT itself saves comes first."""
        return self.tensor.name != f"base_model.model.{self.path}", len(self.tail) > 1, self.path


def _strip(name: str) -> tuple[str, bool]:
    prefixed, changed = False, True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, changed = name[len(prefix) :], True
                prefixed = prefixed or prefix.startswith("base_model")
    for infix in _INFIXES:
        name = name.replace(infix, "")
    return name, prefixed


def _guess_type(keys: Sequence[_Key]) -> str:
    """Name the one tuner whose segments the keys use; "" when none or several would fit."""
    used = {key.part for key in keys if key.part}
    if used and used <= PARTS["LORA"]:
        return "LORA"
    fits = [kind for kind, parts in PARTS.items() if used and used <= parts]
    return fits[0] if len(fits) == 1 else ""


class _Ledger:
    """Decides what a loader does with each tensor of one file."""

    def __init__(
        self,
        config: AdapterConfig,
        kind: str,
        patterns: Mapping[str, Matches],
        keys: Sequence[_Key],
    ) -> None:
        self.config = config
        self.patterns = patterns
        self.keys = keys
        self.parts = PARTS.get(kind, frozenset())
        self.low_rank = kind in ("LORA", "XLORA")
        self.infixes = {key.infix for key in keys if key.part in PARTS["LORA"] - _OPEN_PARTS}
        self.first: dict[tuple[str, str, bool], str] = {}  # place -> name of the tensor that wins
        for key in sorted((key for key in keys if key.part), key=lambda key: key.distance):
            self.first.setdefault(_place(key), key.tensor.name)
        owned = [key for key in keys if key.part and self._adapter(key)[0] is Role.ADAPTER]
        self.adapted = frozenset(key.module for key in owned)
        self.roots = frozenset(key.module.split(".", 1)[0] for key in keys if key.part) - {""}
        self.saved = (*config.modules_to_save, *TASK_HEADS.get(config.task_type, ()))
        bare = [key.module.rsplit(".", 1)[-1] for key in keys if not key.part]
        self.input_embedding = any(name in INPUT_EMBEDDINGS for name in bare)

    def doubled(self) -> frozenset[str]:
        """Return the modules with two tensors in one place: which one is loaded nobody can say."""
        return frozenset(
            key.module
            for key in self.keys
            if key.part in _FACTORS
            and self.first[_place(key)] != key.tensor.name
            and key.part in self.parts
            and _TAILS[key.part](key.tail)
        )

    def account(self, key: _Key) -> Accounted:
        role, why = self._adapter(key) if key.part else self._full(key)
        return Accounted(key.tensor, key.path, role, why)

    def _adapter(self, key: _Key) -> tuple[Role, str]:
        if key.part in self.parts:
            if key.part == "trainable_tokens_delta" and not (
                self.config.trainable_tokens or self.config.peft_type == "TRAINABLE_TOKENS"
            ):
                return Role.UNMATCHED, "trainable tokens without trainable_token_indices"
            if self.low_rank and key.part in PARTS["LORA"]:
                if key.infix not in ("", "default") and len(self.infixes) > 1:
                    return Role.OVERWRITE, "names the factor of another adapter"
                if "parametrizations" in key.module.split("."):
                    return Role.OVERWRITE, "names a parametrization, which only a base has"
                why = self._unused(key)
                if why:
                    return Role.UNMATCHED, why
            return Role.ADAPTER, key.part
        kind = self.config.peft_type or "unknown"
        return Role.UNMATCHED, f"{key.part} is not a parameter of peft_type {kind}"

    def _unused(self, key: _Key) -> str:
        """Return why PEFT has no parameter of this name although a segment of it is LoRA's.

        Such a key is storage, or a decoy: were it taken for the factor, a zero tensor under it
        would hide the real one.
        """
        raw, known = self.config.raw, bool(self.config.path)
        if not key.module:
            return f"{key.part} of no module"
        if not _TAILS[key.part](key.tail):
            return f"nothing saves {key.part}.{'.'.join(key.tail)}".rstrip(".")
        if self.first[_place(key)] != key.tensor.name:
            return f"a second {key.part} of its module"
        if key.leaf == "bias" and known and not raw.get("lora_bias"):
            return "lora_bias is not set"
        if key.part == "lora_magnitude_vector" and known and not self.config.dora:
            return "use_dora is not set"
        if key.part == "lora_diag" and known and not raw.get("kasa_config"):
            return "kasa_config is not set"
        return ""

    def _full(self, key: _Key) -> tuple[Role, str]:
        past = _past_wrapper(key.path)
        if past:
            return Role.OVERWRITE, past
        saved = self._saved_by(key.module)
        if saved is not None:
            return Role.DECLARED, f"modules_to_save: {saved}"
        if self._declared_bias(key):
            return Role.DECLARED, f"bias: {self.config.bias}"
        owner = key.module.removesuffix(".base_layer")
        name = owner.rsplit(".", 1)[-1]
        if name in INPUT_EMBEDDINGS | OUTPUT_EMBEDDINGS and key.leaf == "weight":
            if owner in self.adapted and self._targets(owner):
                return Role.DECLARED, "target_modules: base_layer of an adapted embedding"
            if name in INPUT_EMBEDDINGS or self.input_embedding:
                return Role.EMBEDDING, "not in modules_to_save"
        if self._reaches_base(key):
            return Role.OVERWRITE, "not declared in the config"
        return Role.UNMATCHED, "no loader knows this name"

    def _targets(self, module: str) -> bool:
        """Whether PEFT puts a LoRA layer on an embedding: a key that says so is not enough."""
        if self._listed(module):
            return True
        return _tied_head(self.config, module) and any(
            other != module and _last(other) in INPUT_EMBEDDINGS and self._listed(other)
            for other in self.adapted
        )

    def _listed(self, module: str) -> bool:
        config, raw = self.config, self.config.raw
        if raw.get("layers_to_transform") is not None:  # only numbered modules, then
            return False
        if _named(raw.get("exclude_modules"), module, self.patterns):
            return False
        target = config.target_modules
        if target is None:
            return not config.path
        return not _all_linear(target) and _named(target, module, self.patterns)

    def _saved_by(self, module: str) -> str | None:
        """PEFT wraps by plain string suffix: `norm` also catches `input_layernorm`."""
        names = module.split(".")
        ancestors = [".".join(names[: end + 1]) for end in range(len(names))]
        for entry in self.saved:
            if entry and any(ancestor.endswith(entry) for ancestor in ancestors):
                return entry
        return None

    def _declared_bias(self, key: _Key) -> bool:
        if self.config.bias == "all":
            return key.leaf == "bias"
        owner = key.module.removesuffix(".base_layer")
        return self.config.bias == "lora_only" and key.leaf == "bias" and owner in self.adapted

    def _reaches_base(self, key: _Key) -> bool:
        """Whether the name could be a parameter or buffer of the base model.

        Transformers adds and removes prefixes until a name fits, and a fused expert's parameter is
        not called `weight`; so any dotted name may be one, unless it ends in a number. A false yes
        costs a question, a false no a backdoor.
        """
        root = key.path.split(".", 1)[0]
        if key.prefixed or root in self.roots:
            return True
        return not key.leaf.isdigit() if key.module else key.path in ROOT_PARAMETERS


_UNCLEAR = "adapts one of several parameters that have different scales; which one is not written"

_TOO_MANY = f"would go over the limit of {DELTA_LIMIT:,} updates in one file"
_TWO_KINDS = "has factors of a linear layer and of an embedding; the base decides which are used"


def _ambiguous(module: str) -> Problem:
    reason = "has two tensors for one factor; which of them is used depends on the loader"
    return Problem(module, reason, "ambiguous")


def _place(key: _Key) -> tuple[str, str, bool]:
    """Return what two keys must not share: module, part, and whether it is the bias of it."""
    part = f"{key.part}.{'.'.join(key.tail)}" if key.part in _OPEN_PARTS else key.part
    return key.module, part, key.leaf == "bias"


def _tails(part: str) -> Callable[[tuple[str, ...]], bool]:
    """Return a test for what may follow `part`: the names that some release of PEFT has saved,
    with or without the adapter's name, which saves that go around PEFT leave in."""
    if part in _OPEN_PARTS:
        return lambda tail: 1 <= len(tail) <= 2
    if part in ("lora_A", "lora_B"):
        leaves = ("weight", "bias") if part == "lora_B" else ("weight",)
        return lambda tail: 1 <= len(tail) <= 2 and tail[-1] in leaves
    return lambda tail: len(tail) <= 1 or (len(tail) == 2 and tail[1] == "weight")


def _past_wrapper(path: str) -> str:
    """Return why a key below a wrapper of PEFT reaches what the wrapper protects, or "".

    `lm_head` in `modules_to_save` makes a copy, and PEFT renames `lm_head.weight` to go there; but
    `lm_head.original_module.weight` is loaded as it is, into the base.
    Source: peft 0.21.2, `set_peft_model_state_dict`: only the names that the wrapper knows move.
    """
    names = path.split(".")
    if "original_module" in names:
        return "names the base module behind a wrapper"
    if "modules_to_save" in names[:-1] and names[names.index("modules_to_save") + 1] != "default":
        return "names the copy of another adapter"
    return ""


def _last(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _all_linear(target: object) -> bool:
    return isinstance(target, str) and target.lower() == "all-linear"


def _tied_head(config: AdapterConfig, module: str) -> bool:
    """Whether `ensure_weight_tying` adapts this output head along with the input embedding."""
    return bool(config.raw.get("ensure_weight_tying")) and _last(module) in OUTPUT_EMBEDDINGS


def _named(wanted: object, module: str, patterns: Mapping[str, Matches]) -> bool:
    """Whether a `target_modules` or `exclude_modules` value names `module`, as PEFT decides it."""
    if isinstance(wanted, str):
        return wanted in patterns and module in patterns[wanted].names
    if not isinstance(wanted, (list, tuple)):
        return False
    return any(
        isinstance(item, str) and (module == item or module.endswith(f".{item}")) for item in wanted
    )


_TAILS: Mapping[str, Callable[[tuple[str, ...]], bool]] = {
    part: _tails(part) for part in PARTS["LORA"]
}


def pattern_fields(config: AdapterConfig) -> Mapping[str, str]:
    """Return every pattern that PEFT would make of the config, and the field it comes from.

    Those of rank, scale and targets decide what a module gets. The others are of tuners and steps
    that we do not follow: they are tried only where they can hang.
    """
    found = {keyed(key): f"rank_pattern[{key}]" for key in config.rank_pattern}
    found |= {keyed(key): f"alpha_pattern[{key}]" for key in config.alpha_pattern}
    if isinstance(config.target_modules, str) and not _all_linear(config.target_modules):
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
    return match_all(list(pattern_fields(config)), _probes(config))


def _probes(config: AdapterConfig) -> list[str]:
    """Return names on which a pattern that can hang does: module names of common bases, and runs of
    each letter that the patterns themselves contain."""
    letters = {
        letter for pattern in pattern_fields(config) for letter in pattern if letter.isalnum()
    }
    return [*_COMMON_NAMES, *(letter * 48 + "!" for letter in sorted(letters)[:64])]


def _untargeted(
    config: AdapterConfig, modules: Sequence[str], patterns: Mapping[str, Matches]
) -> Iterator[str]:
    """Yield adapted modules that the config does not target: PEFT ignores their tensors."""
    target = config.target_modules
    if target is None or _all_linear(target) or config.target_parameters:
        return
    if isinstance(target, str) and patterns[target].problem:
        return
    targeted = _targeted(config, patterns)
    for module in modules:
        if not targeted(module) and not _tied_head(config, module):
            yield module


def _targeted(config: AdapterConfig, patterns: Mapping[str, Matches]) -> Callable[[str], bool]:
    """Return a test for what `target_modules` names, at the same cost however long the list is."""
    target = config.target_modules
    if isinstance(target, str):
        matched = patterns[target].names if target in patterns else frozenset()
        return matched.__contains__
    wanted = frozenset(target or ())
    return lambda module: not wanted.isdisjoint(_suffixes(module))


def _suffixes(module: str) -> Iterator[str]:
    names = module.split(".")
    return (".".join(names[start:]) for start in range(len(names)))


def _parameters(config: AdapterConfig, modules: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the parameters that `target_parameters` may mean in a module: `….experts.down_proj`.

    PEFT wraps a module once for each of its parameters, and the innermost wrapper's factors are
    called `experts.base_layer.lora_A`; which parameter that is, only the base model tells.
    """
    owned: dict[str, list[str]] = defaultdict(list)
    for target in sorted(set(config.target_parameters)):
        owner, _, name = target.rpartition(".")
        owned[owner].append(name)
    found: dict[str, tuple[str, ...]] = {}
    default = config.target_modules is None or _all_linear(config.target_modules)
    for module in modules if owned else ():
        holder = module
        while holder.endswith(".base_layer"):
            holder = holder.removesuffix(".base_layer")
        names = (name for end in ("", *_suffixes(holder)) for name in owned.get(end, ()))
        unique = dict.fromkeys(islice(names, _PARAMETERS))
        if unique:
            whole = (holder,) if default else ()
            found[module] = (*(f"{holder}.{name}" for name in unique), *whole)
    return found


def _resolve(
    config: AdapterConfig,
    keys: Sequence[_Key],
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
    targeted = _targeted(config, patterns)
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
    key = _lookup(config.alpha_pattern, patterns, name)
    rank = declared_rank(config, patterns, name)
    return rank or DEFAULT_RANK, config.alpha_pattern[key] if key is not None else config.alpha


def _one_count(rows: Sequence[int], ranks: Sequence[int]) -> bool:
    counts = {have / rank for have, rank in zip(rows, ranks, strict=True)}
    return len(counts) == 1 and all(count.is_integer() for count in counts)


def _aliased(
    config: AdapterConfig, patterns: Mapping[str, Matches], aliases: Mapping[str, str]
) -> Mapping[str, Matches]:
    """Return `patterns` with each wrapper matched where the parameter that it adapts is."""
    changed = dict(patterns)
    for pattern in {keyed(key) for key in (*config.rank_pattern, *config.alpha_pattern)}:
        matches = changed[pattern]
        meant = {module for module, name in aliases.items() if name in matches.names}
        changed[pattern] = Matches(matches.names - aliases.keys() | meant, matches.problem)
    return changed


def _deltas(
    config: AdapterConfig, keys: Sequence[_Key], patterns: Mapping[str, Matches]
) -> Iterator[Delta | Problem]:
    room = DELTA_LIMIT
    groups: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
    for key in keys:
        if key.part and key.leaf != "bias":
            groups[key.module].setdefault(key.part, key.tensor)
    for module, parts in groups.items():
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
    for part in range(count):
        yield Delta(
            ModulePath(module), kind, a, b, rank, scaling, part, count,
            parts.get("lora_diag"), parts.get("lora_magnitude_vector"),
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


def declared_rank(
    config: AdapterConfig, patterns: Mapping[str, Matches], module: str
) -> int | None:
    """Return the rank that the config gives to `module`, None when it gives none."""
    key = _lookup(config.rank_pattern, patterns, module)
    return config.rank_pattern[key] if key is not None else config.r


def scaling_of(
    config: AdapterConfig, patterns: Mapping[str, Matches], module: str, rank: int
) -> float:
    """Return s of ΔW = s·B·A as PEFT computes it: α/r, or α/√r with rsLoRA, per module."""
    alpha = alpha_of(config, patterns, module)
    return alpha / (math.sqrt(rank) if config.rslora else rank) if rank else 0.0


def alpha_of(config: AdapterConfig, patterns: Mapping[str, Matches], module: str) -> float:
    """Return the α that the config gives to `module`."""
    key = _lookup(config.alpha_pattern, patterns, module)
    alpha = config.alpha_pattern[key] if key is not None else config.alpha
    return DEFAULT_ALPHA if alpha is None else alpha


def _lookup(table: Mapping[str, float], patterns: Mapping[str, Matches], module: str) -> str | None:
    return next((key for key in table if module in patterns[keyed(key)].names), None)

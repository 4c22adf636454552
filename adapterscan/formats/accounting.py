"""Account for every tensor of an adapter: what a loader does with it.

PEFT loads an adapter with `load_state_dict(strict=False)`: a key that names any parameter of the
base model is loaded into the base model, declared or not, and survives `disable_adapter()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.patterns import Matches
from adapterscan.formats.peft_keys import (
    COPIES,
    OPEN_PARTS,
    TAILS,
    Key,
    last_name,
    past_wrapper,
    place_of,
    unwrapped,
)
from adapterscan.formats.peft_types import (
    INPUT_EMBEDDINGS,
    OUTPUT_EMBEDDINGS,
    PARTS,
    ROOT_PARAMETERS,
    TASK_HEADS,
)
from adapterscan.formats.targeting import all_linear, is_named, tied_head
from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.transforms import METHODS
from adapterscan.formats.tuners import TUNERS, is_saved


class Role(Enum):
    """What a loader does with a tensor."""

    ADAPTER = "adapter weight"
    DECLARED = "declared full weight"
    OVERWRITE = "undeclared overwrite of a base weight"
    EMBEDDING = "undeclared replacement of an embedding"
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Accounted:
    """One tensor and what a loader does with it."""

    tensor: TensorInfo
    role: Role
    why: str

    @property
    def path(self) -> str:
        """Return the tensor's name without wrapper prefixes."""
        return unwrapped(self.tensor.name)


def _unsaved(key: Key) -> str:
    return f"nothing saves {key.part}.{'.'.join(key.tail)}".rstrip(".")


_FACTORS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_diag"})


class Ledger:
    """Decides what a loader does with each tensor of one file."""

    def __init__(
        self,
        config: AdapterConfig,
        kind: str,
        patterns: Mapping[str, Matches],
        keys: Sequence[Key],
    ) -> None:
        self.config = config
        self.patterns = patterns
        self.keys = keys
        self.parts = PARTS.get(kind, frozenset())
        self.low_rank = kind in ("LORA", "XLORA")
        self.kept = TUNERS.get(kind) or METHODS.get(kind)
        self.infixes = {key.infix for key in keys if key.part in PARTS["LORA"] - OPEN_PARTS}
        self.first: dict[tuple[str, str, bool], Key] = {}  # place -> the key that wins it
        for key in keys:
            if key.part:
                other = self.first.setdefault(place_of(key), key)
                if other is not key and key.distance < other.distance:
                    self.first[place_of(key)] = key
        self.reasons: dict[str, str] = {}  # one object for what is said of 100,000 tensors
        self.adapted = frozenset(
            key.module for key in keys if key.part and self._adapter(key)[0] is Role.ADAPTER
        )
        biases = (key.path for key in keys if key.leaf == "bias")
        self.biases = frozenset(biases if config.bias == "all" else ())
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
            and self.first[place_of(key)] is not key
            and key.part in self.parts
            and TAILS[key.part](key.tail)
        )

    def account(self, key: Key) -> Accounted:
        """Return what a loader does with the tensor of `key`, and why we think so."""
        role, why = self._adapter(key) if key.part else self._full(key)
        return Accounted(key.tensor, role, self.reasons.setdefault(why, why))

    def _adapter(self, key: Key) -> tuple[Role, str]:
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
            elif key.part == "ln_tuning_layers":
                return self._copied(key)
            elif self.kept is not None and not is_saved(self.kept, key):
                return Role.UNMATCHED, _unsaved(key)
            return Role.ADAPTER, key.part
        kind = self.config.peft_type or "unknown"
        return Role.UNMATCHED, f"{key.part} is not a parameter of peft_type {kind}"

    def _copied(self, key: Key) -> tuple[Role, str]:
        """LN tuning saves whole layers, norms or any others, that stand in for the base's own."""
        if len(key.tail) > 2 or key.leaf == "" or not self._listed(key.module):
            return Role.UNMATCHED, "no layer that target_modules names"
        return Role.DECLARED, "target_modules: ln_tuning_layers"

    def _unused(self, key: Key) -> str:
        """Return why PEFT has no parameter of this name although a segment of it is LoRA's.

        Such a key is storage, or a decoy: were it taken for the factor, a zero tensor under it
        would hide the real one.
        """
        raw, known = self.config.raw, bool(self.config.path)
        if not key.module:
            return f"{key.part} of no module"
        if not TAILS[key.part](key.tail):
            return _unsaved(key)
        if self.first[place_of(key)] is not key:
            return f"a second {key.part} of its module"
        if key.leaf == "bias" and known and not raw.get("lora_bias"):
            return "lora_bias is not set"
        if key.part == "lora_magnitude_vector" and known and not self.config.dora:
            return "use_dora is not set"
        if key.part == "lora_diag" and known and not raw.get("kasa_config"):
            return "kasa_config is not set"
        return ""

    def _full(self, key: Key) -> tuple[Role, str]:
        if self._bias_of_a_copy(key):
            return Role.DECLARED, f"bias: {self.config.bias}"
        path = key.path
        past = past_wrapper(path)
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
        if self._reaches_base(key, path):
            return Role.OVERWRITE, "not declared in the config"
        return Role.UNMATCHED, "no loader knows this name"

    def _targets(self, module: str) -> bool:
        """Whether PEFT puts a LoRA layer on an embedding: a key that says so is not enough."""
        if self._listed(module):
            return True
        return tied_head(self.config, module) and any(
            other != module and last_name(other) in INPUT_EMBEDDINGS and self._listed(other)
            for other in self.adapted
        )

    def _listed(self, module: str) -> bool:
        config, raw = self.config, self.config.raw
        if raw.get("layers_to_transform") is not None:  # only numbered modules, then
            return False
        if is_named(raw.get("exclude_modules"), module, self.patterns):
            return False
        target = config.target_modules
        if target is None:
            return not config.path
        return not all_linear(target) and is_named(target, module, self.patterns)

    def _saved_by(self, module: str) -> str | None:
        """PEFT wraps by plain string suffix: `norm` also catches `input_layernorm`."""
        within = f"{module}."  # the module's own path and those above it end before a dot
        return next((entry for entry in self.saved if entry and f"{entry}." in within), None)

    def _bias_of_a_copy(self, key: Key) -> bool:
        """Whether PEFT itself saves this bias behind a wrapper: `bias: all` takes every name.

        `classifier.original_module.dense.bias` and `classifier.modules_to_save.dense.bias` lie
        beside the declared `classifier.dense.bias`; without that neighbour the name is an attempt.
        Source: peft 0.21.2, `get_peft_model_state_dict`: `"bias" in k`.
        """
        if self.config.bias != "all" or key.leaf != "bias":
            return False
        names = key.path.split(".")
        at = next((i for i, name in enumerate(names) if name in COPIES), None)
        if at is None:
            return False
        beside = ".".join((*names[:at], *names[at + 1 :]))
        return self._saved_by(".".join(names[:at])) is not None and beside in self.biases

    def _declared_bias(self, key: Key) -> bool:
        if self.config.bias == "all":
            return key.leaf == "bias"
        owner = key.module.removesuffix(".base_layer")
        return self.config.bias == "lora_only" and key.leaf == "bias" and owner in self.adapted

    def _reaches_base(self, key: Key, path: str) -> bool:
        """Whether the name could be a parameter or buffer of the base model.

        Transformers adds and removes prefixes until a name fits, and a fused expert's parameter is
        not called `weight`; so any dotted name may be one, unless it ends in a number. A false yes
        costs a question, a false no a backdoor.
        """
        if key.prefixed or path.split(".", 1)[0] in self.roots:
            return True
        return not key.leaf.isdigit() if key.module else path in ROOT_PARAMETERS

"""Take the names of tensors apart as PEFT's loaders do: wrappers, module, part, leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adapterscan.formats.peft_types import ALL_PARTS, PARTS
from adapterscan.formats.tensors import TensorInfo

_PREFIXES = ("base_model.model.", "module.", "_fsdp_wrapped_module.", "_orig_mod.")

_INFIXES = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")

OPEN_PARTS = frozenset({"lora_monteclora_sampler"})  # that hold several parameters


@dataclass(frozen=True, slots=True)
class Key:
    """A tensor name taken apart: `model.layers.0.q_proj` + `lora_A` + `weight`."""

    tensor: TensorInfo
    module: str  # what stands before the part; the path without its last name when there is none
    part: str  # "" for a key that no tuner owns
    leaf: str  # "weight", "bias", or "" for a bare parameter
    tail: tuple[str, ...]  # what stands after the part: ("weight",), ("default", "weight"), …
    prefixed: bool

    @classmethod
    def parse(cls, tensor: TensorInfo) -> Key:
        """Take the name of `tensor` apart."""
        path, prefixed = _strip(tensor.name)
        names = path.split(".")
        at = next((i for i, name in enumerate(names) if name in ALL_PARTS), None)
        if at is None:
            leaf = _COMMON.get(names[-1], names[-1])
            return cls(tensor, ".".join(names[:-1]), "", leaf, (), prefixed)
        leaf = names[-1] if len(names) > at + 1 and names[-1] in ("weight", "bias") else ""
        tail = tuple(names[at + 1 :])
        part, leaf, tail = _COMMON[names[at]], _COMMON.get(leaf, leaf), _TAIL.get(tail, tail)
        return cls(tensor, ".".join(names[:at]), part, leaf, tail, prefixed)

    @property
    def path(self) -> str:
        """Return the tensor's name without wrapper prefixes."""
        return unwrapped(self.tensor.name)

    @property
    def infix(self) -> str:
        """Return the adapter's name where a save left it in: `lora_A.default.weight`.

        PEFT takes it out and puts the name in again on load, but leaves a key that has one as it is
        (`_insert_adapter_name_into_state_dict`): it then reaches the adapter of that name.
        """
        if self.part not in PARTS["LORA"] or self.part in OPEN_PARTS:
            return ""
        names = self.tail[:-1] if self.leaf else self.tail
        return names[0] if len(names) == 1 else ""

    @property
    def distance(self) -> tuple[bool, bool, str]:
        """Order keys that claim one place: the name that PEFT itself saves comes first."""
        path = self.path
        return self.tensor.name != f"base_model.model.{path}", len(self.tail) > 1, path


#: One object for what stands in 100,000 names.
_COMMON: Mapping[str, str] = {name: name for name in (*ALL_PARTS, "", "weight", "bias")}
_TAIL: Mapping[tuple[str, ...], tuple[str, ...]] = {
    tail: tail for tail in ((), ("weight",), ("bias",), ("default", "weight"))
}


def unwrapped(name: str) -> str:
    """Return the name of a tensor without what wrappers of modules put into it."""
    return _strip(name)[0]


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


def guess_type(keys: Sequence[Key]) -> str:
    """Name the one tuner whose segments the keys use; "" when none or several would fit."""
    used = {key.part for key in keys if key.part}
    if used and used <= PARTS["LORA"]:
        return "LORA"
    fits = [kind for kind, parts in PARTS.items() if used and used <= parts]
    return fits[0] if len(fits) == 1 else ""


def place_of(key: Key) -> tuple[str, str, bool]:
    """Return what two keys must not share: module, part, and whether it is the bias of it."""
    part = f"{key.part}.{'.'.join(key.tail)}" if key.part in OPEN_PARTS else key.part
    return key.module, part, key.leaf == "bias"


def _tails(part: str) -> Callable[[tuple[str, ...]], bool]:
    """Return a test for what may follow `part`: the names that some release of PEFT has saved,
    with or without the adapter's name, which saves that go around PEFT leave in."""
    if part in OPEN_PARTS:
        return lambda tail: 1 <= len(tail) <= 2
    if part in ("lora_A", "lora_B"):
        leaves = ("weight", "bias") if part == "lora_B" else ("weight",)
        return lambda tail: 1 <= len(tail) <= 2 and tail[-1] in leaves
    return lambda tail: len(tail) <= 1 or (len(tail) == 2 and tail[1] == "weight")


TAILS: Mapping[str, Callable[[tuple[str, ...]], bool]] = {
    part: _tails(part) for part in PARTS["LORA"]
}


#: What stands between a module in modules_to_save and its two copies.
COPIES = ("original_module", "modules_to_save")


def past_wrapper(path: str) -> str:
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


def last_name(module: str) -> str:
    """Return the last of the dotted names."""
    return module.rsplit(".", 1)[-1]

"""The nouns of loading: what a config gives to each delta, and what a runtime makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import Delta
from adapterscan.formats.peft import Adapter
from adapterscan.formats.peft_keys import last_name
from adapterscan.formats.targeting import DEFAULT_RANK, alpha_of, declared_rank
from adapterscan.text import printable

PREFIX = "base_model.model."
FACTORS = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B")
#: What stands before a module in the names of its tensors, the oddest first.
NAMINGS = ("wrapped", "repeated", "bare", "as saved")


@dataclass(frozen=True, slots=True)
class Settings:
    """An adapter with what its config gives to each of its deltas, in their order."""

    adapter: Adapter
    ranks: Sequence[int]
    alphas: Sequence[float]
    names: Sequence[str]  # of NAMINGS
    infixed: bool  # some factor has the adapter's name in it: `lora_A.default.weight`

    @classmethod
    def of(cls, adapter: Adapter) -> Settings:
        """Look up what the config gives to each delta."""
        config, patterns = adapter.config, adapter.patterns
        ranks = [declared_rank(config, patterns, delta.module) for delta in adapter.deltas]
        return cls(
            adapter,
            [DEFAULT_RANK if rank is None else rank for rank in ranks],
            [alpha_of(config, patterns, delta.module) for delta in adapter.deltas],
            [_naming(delta) for delta in adapter.deltas],
            any(not tensor.name.endswith(FACTORS) for d in adapter.deltas for tensor in (d.a, d.b)),
        )

    @property
    def config(self) -> AdapterConfig:
        """Return the adapter's config."""
        return self.adapter.config

    def set_fields(self, *names: str) -> tuple[str, ...]:
        """Return those of the config's fields that are set."""
        return tuple(name for name in names if self.config.raw.get(name))

    def wrapped(self) -> Mapping[int, str]:
        """Return the deltas whose names no base model has."""
        return {at: "names" for at, name in enumerate(self.names) if name == "wrapped"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one runtime does: s of every delta, in their order, 0 for one that it leaves out.

    `refuses` says why it fails. `left_out` has, for deltas that it leaves out without failing, why:
    "names" or "targets". `ignores`: fields of the config that are set and that it does not read.
    """

    scales: Sequence[float]
    refuses: str = ""
    left_out: Mapping[int, str] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loader of adapters, at the version that was read."""

    name: str
    version: str
    read: Callable[[Settings], Reading]


def first(reasons: Iterator[str]) -> str:
    """Return the first reason, "" where there is none."""
    return next(reasons, "")


def scale_of(alpha: float, rank: int, rslora: bool = False) -> float:
    """Return α/r, or α/√r; NaN where a runtime would divide by nothing."""
    if rank <= 0:
        return math.nan
    return alpha / (math.sqrt(rank) if rslora else rank)


def other_rank(delta: Delta, declared: int) -> str:
    """Say that the factors have another rank than the config gives them."""
    shown = f"{declared}" if abs(declared) < 1 << 53 else "another"
    return (
        f"{printable(last_name(delta.module), 40)} has rank {delta.rank}, the config says {shown}"
    )


def ending(name: str) -> str:
    """Return the last parts of a tensor's name, to be shown."""
    return printable(".".join(name.split(".")[-3:]), 60)


def _naming(delta: Delta) -> str:
    found = {_before(tensor.name, delta.module) for tensor in (delta.a, delta.b)}
    return next(name for name in NAMINGS if name in found)


def _before(name: str, module: str) -> str:
    times = 0
    while name.startswith(PREFIX):
        name, times = name[len(PREFIX) :], times + 1
    if not name.startswith(f"{module}."):
        return "wrapped"
    return ("bare", "as saved")[times] if times < 2 else "repeated"

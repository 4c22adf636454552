"""The nouns of PEFT's other tuners: what a module of theirs has, and what a tuner makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import Delta
from adapterscan.formats.patterns import Matches
from adapterscan.formats.targeting import pattern_key
from adapterscan.formats.tensors import TensorInfo
from adapterscan.model import ModulePath
from adapterscan.updates.update import Update

Values = npt.NDArray[Any]

#: What two tensors of a product may cost each other: config numbers are read up to here.
_WHOLE = 1 << 31


class Unfit(ValueError):
    """Tensors that make no ΔW that we can compute. `defect`: a code of `deltas.Problem`."""

    def __init__(self, reason: str, defect: str = "shape") -> None:
        super().__init__(reason)
        self.defect = defect


@dataclass(frozen=True, slots=True)
class Site:
    """The tensors of one module by part, those that all modules share, and the config."""

    module: ModulePath
    tensors: Mapping[str, TensorInfo]
    shared: Mapping[str, TensorInfo]
    config: AdapterConfig
    patterns: Mapping[str, Matches]

    def matrices(self, *parts: str) -> tuple[TensorInfo, ...]:
        """Return the tensors of `parts`, which have two axes. Raises Unfit."""
        found = self.need(*parts)
        for part, tensor in zip(parts, found, strict=True):
            if len(tensor.shape) != 2:
                raise Unfit(f"has {part} of shape {tensor.shape}")
        return found

    def need(self, *parts: str) -> tuple[TensorInfo, ...]:
        """Return the tensors of `parts`. Raises Unfit where one is missing."""
        missing = next((part for part in parts if part not in self.tensors), "")
        if missing:
            raise Unfit(f"has no {missing}", "orphan")
        return tuple(self.tensors[part] for part in parts)

    def common(self, *parts: str) -> tuple[TensorInfo, ...]:
        """Return shared tensors. Raises Unfit where one is missing: it is then regenerated."""
        missing = next((part for part in parts if part not in self.shared), "")
        if missing:
            raise Unfit(
                f"needs {missing}, which is not in the file: loaders draw it from a seed", "unread"
            )
        return tuple(self.shared[part] for part in parts)

    def scale(self, rank: int) -> float:
        """Return α/r as LyCORIS' tuners have it: `alpha` and `alpha_pattern`. Raises Unfit."""
        alpha = alpha_for(self.config, self.patterns, self.module, LYCORIS_ALPHA)
        return alpha / rank if rank else 0.0

    def delta(
        self,
        kind: str,
        tensors: Sequence[TensorInfo],
        sides: tuple[int, int],
        rank: int,
        scaling: float = 1.0,
        settings: tuple[int, ...] = (),
    ) -> Delta:
        """Return the ΔW that `tensors` make. Raises Unfit for a side without a single value."""
        if not all(sides):
            raise Unfit(f"has an update of {sides[0]:,} × {sides[1]:,}")
        return Delta(
            self.module, kind, tuple(tensors), rank, scaling, sides=sides, settings=settings
        )


class Kept(Protocol):
    """What one type of PEFT calls its tensors. `Tuner` and `Method` say what the fields are."""

    @property
    def parts(self) -> frozenset[str]: ...
    @property
    def shared(self) -> frozenset[str]: ...
    @property
    def layers(self) -> frozenset[str]: ...
    @property
    def leaves(self) -> frozenset[str]: ...
    @property
    def repeats(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Tuner:
    """How one type of PEFT keeps its ΔW.

    `parts` stand in a module and `shared` beside all modules; `layers` are those of both that are
    layers of their own (`oft_R.weight`). `locate` finds the ΔW of a site or raises Unfit, by shapes
    alone; `make` computes it from the arrays of its tensors, and raises ValueError. `whole`:
    parts that hold whole numbers. `made`: bytes that are made beside what is stored. `alpha`: of a
    config without one; None where no α scales it. `leaves` and `repeats` as of `Method`.
    """

    kind: str
    parts: frozenset[str]
    locate: Callable[[Site], Delta]
    make: Callable[[Delta, Sequence[Values]], Update]
    made: Callable[[Delta], int]
    work: Callable[[Delta], int]  # multiply-adds beside a pass over what is stored
    shared: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    alpha: float | None = None
    leaves: frozenset[str] = frozenset()
    repeats: bool = False

    @property
    def cubic(self) -> bool:
        """Return whether its ΔW is measured by r×r matrices, which a limit of rank bounds."""
        return self.work is cubic

    def holds_whole(self, tensor: TensorInfo) -> bool:
        """Return whether a tensor holds whole numbers: indices, not values."""
        return any(name in self.whole for name in tensor.name.split("."))


def factor_bytes(delta: Delta) -> int:
    """Return the bytes of two factors in float64, and of one more while they are made."""
    return 8 * delta.rank * (sum(delta.shape) + max(delta.shape))


def cubic(delta: Delta) -> int:
    """Return the work on the r×r matrices of factors."""
    return delta.rank**3


#: What LyCORIS' tuners (LoHa, LoKr) take for α where the config has none.
LYCORIS_ALPHA = 8.0


def alpha_for(
    config: AdapterConfig, patterns: Mapping[str, Matches], module: str, default: float
) -> float:
    """Return the α of a module: of the first key of `alpha_pattern` that matches, or of all.

    Raises Unfit where it is no number.
    """
    key = pattern_key(config.alpha_pattern, patterns, module)
    return config.alpha_pattern[key] if key is not None else number(config, "alpha", default)


def number(config: AdapterConfig, field: str, default: float) -> float:
    """Return a number of the config. Raises Unfit for anything else under that name."""
    value = config.raw.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit(f"has a config whose {field} is no number", "unread")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def whole(config: AdapterConfig, field: str, default: int) -> int:
    """Return a whole number of the config that is not negative. Raises Unfit for others."""
    value = config.raw.get(field, default)
    if type(value) is not int or not 0 <= value < _WHOLE:
        raise Unfit(f"has a config whose {field} is no whole number", "unread")
    return value


def wide(values: Values) -> npt.NDArray[np.float64]:
    """Return an array in float64."""
    return values.astype(np.float64)

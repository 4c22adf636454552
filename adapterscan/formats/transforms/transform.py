"""The nouns of tuners whose ΔW depends on the weight W: what a module has, what is done to W."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.tuners.tuner import Site, Values
from adapterscan.model import ModulePath
from adapterscan.updates.update import Update
from adapterscan.updates.weight import Rows, Weight

Setting = int | float | str | bool

#: What a strength is: of ΔW over W, as large as it is for a W whose entries are independent; or of
#: ΔW alone.
RELATIVE, ALONE = "‖ΔW‖/‖W‖ for independent entries of W", "root mean square of ΔW"


@dataclass(frozen=True, slots=True)
class Transform:
    """Where the tensors lie that change one weight, and what the config says of them."""

    module: ModulePath
    kind: str
    tensors: tuple[TensorInfo, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what reports call it."""
        return self.module


@dataclass(frozen=True, slots=True)
class Method:
    """How one type of PEFT changes weights.

    `parts`, `shared`, `layers` and `whole` as of `Tuner`; `leaves`: names behind a part that tell
    tensors of it apart (`glora_A.Xd`); `repeats`: modules have copies of what is shared. `locate`
    finds the tensors of a site or raises Unfit; `change` gives ΔW of a weight, as an update where
    it is one, else row by row, and raises ValueError where they do not fit each other. `strength`
    is what can be said without W, as `unit` says; None where nothing can. `needs`: what of the base
    ΔW takes.
    """

    kind: str
    parts: frozenset[str]
    locate: Callable[[Site], Transform]
    change: Callable[[Transform, Sequence[Values], Weight], Update | Rows]
    strength: Callable[[Transform, Sequence[Values]], float | None]
    unit: str = RELATIVE
    needs: str = "the weight"
    shared: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    repeats: bool = False


def unknown(_: Transform, __: Sequence[Values]) -> None:
    """Say that nothing can be said without the weight."""
    return


def require(fits: bool, what: str, weight: Weight) -> None:
    """Raise ValueError unless what the adapter has fits its weight."""
    if not fits:
        d_out, d_in = weight.shape
        raise ValueError(f"has {what} for a weight of {d_out:,} × {d_in:,}")

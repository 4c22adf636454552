"""How a ΔW lies on its weight of the base: as it is, transposed, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from adapterscan.formats.deltas import UNSIZED, Delta
from adapterscan.lowrank import LowRank
from adapterscan.onbase.base import BaseTensor
from adapterscan.updates.scattered import Scattered
from adapterscan.updates.update import Update

#: Kinds of which only the weight tells how many columns of what is shared a module takes.
_WIDE = frozenset({"vera", "pvera"})


@dataclass(frozen=True, slots=True)
class Fit:
    """A weight under a ΔW. `swapped`: the factors change places (embeddings are stored as rows)."""

    tensor: BaseTensor
    transposed: bool = False  # the weight is stored (d_in, d_out): Conv1D of GPT-2
    swapped: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape of the weight as a ΔW has it: (d_out, d_in)."""
        rows, columns = self.tensor.matrix
        return (columns, rows) if self.transposed else (rows, columns)

    def laid(self, update: Update) -> Update:
        """Return ΔW in the layout of the weight. Raises ValueError where it leaves it."""
        if isinstance(update, Scattered):
            return update.within(self.shape)
        if not isinstance(update, LowRank):
            return update
        if self.swapped:
            return LowRank(update.b.T, update.a.T, update.scaling)
        width = self.shape[1]
        if width < update.a.shape[1]:
            return LowRank(update.a[:, :width], update.b, update.scaling)
        return update


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Shapes that cannot belong together. `axis`: "vocabulary" where only that one differs."""

    tensor: BaseTensor
    wanted: tuple[int, int]  # (rows, columns) that the ΔW has in the layout of the weight
    axis: str


def fit(delta: Delta, tensor: BaseTensor, *, fan_in_fan_out: bool) -> Fit | Mismatch:
    """Return how `delta` lies on `tensor`.

    A square weight is transposed where the config says fan_in_fan_out, as PEFT takes it.
    """
    d_out, d_in = delta.shape
    rows, columns = tensor.matrix
    if delta.kind in UNSIZED and len(tensor.shape) == 2:
        return Fit(tensor, transposed=fan_in_fan_out)
    if delta.kind in _WIDE:
        d_in = min(d_in, rows if fan_in_fan_out else columns)
    if delta.kind == "embedding":
        if (rows, columns) == (d_in, d_out):
            return Fit(tensor, swapped=True)
        return Mismatch(tensor, (d_in, d_out), "vocabulary" if columns == d_out else "width")
    if (rows, columns) == (d_out, d_in) and not (rows == columns and fan_in_fan_out):
        return Fit(tensor)
    if (columns, rows) == (d_out, d_in) and len(tensor.shape) == 2 and delta.kind != "conv":
        return Fit(tensor, transposed=True)
    name = delta.module.rsplit(".", 1)[-1]
    head = name in ("lm_head", "embed_out") and columns == d_in
    return Mismatch(tensor, (d_out, d_in), "vocabulary" if head else "width")

"""The base model's weights by name, some rows at a time, and which of them a module means.

A base is never held: what compares asks for a tensor, uses it and lets it go. Where the tensors lie
(a folder, a GGUF file, a hub) is the business of `sources`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from adapterscan.formats.peft_types import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from adapterscan.model import Skipped

if TYPE_CHECKING:
    from adapterscan.onbase.directions import Directions
    from adapterscan.onbase.spectrum import Leading

_SUFFIXES = 8  # segments by which a name is looked up; `model.layers.0.mlp.up_proj.weight` has 6
_DROPPED = 4  # segments at the start of a name that a base may lack


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """One tensor of a base. `dtype` as safetensors or GGUF names it: `BF16`, `Q4_1`."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """Return its shape as (first axis, all others): how a convolution is compared."""
        return (self.shape[0], math.prod(self.shape[1:])) if self.shape else (1, 1)


class BaseWeights(Protocol):
    """A base model's tensors. Reading raises SourceError or FileProblem."""

    @property
    def name(self) -> str:
        """Return what reports call it, with its commit where it has one."""
        ...

    @property
    def tensors(self) -> Mapping[str, BaseTensor]:
        """Return all tensors by name."""
        ...

    @property
    def tied(self) -> bool:
        """Return whether its config says that input and output embeddings are one tensor."""
        ...

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows [start, stop) of a tensor, as stored; quantised ones in float32."""
        ...

    def leading(self, name: str) -> Leading | None:
        """Return what a profile has of a matrix; None: it has to be read."""
        ...

    def directions(self) -> Directions | None:
        """Return what a profile has of refusals; None: nobody asked the base."""
        ...

    def notes(self) -> Iterable[Skipped]:
        """Yield what a report should say about how it was read; asked for at the end."""
        ...


class Names:
    """Finds the tensor of a base that a module or key of an adapter means.

    Files on the hub leave prefixes out that modules have (`transformer.h.0` is stored as `h.0`), or
    have more; a name is then taken by its end if only one tensor ends so.
    """

    def __init__(self, base: BaseWeights) -> None:
        self._base = base
        self._ends: dict[str, str] = {}  # the end of a name -> the name, "" where several have it
        for name in base.tensors:
            for end in _ends(name):
                self._ends[end] = "" if end in self._ends else name

    def weight(self, module: str) -> BaseTensor | None:
        """Return the weight of a module. A head that is tied is the input embedding."""
        module = plain(module)
        found = self.tensor(f"{module}.weight") or self.tensor(module)
        if found is None and module.rsplit(".", 1)[-1] in OUTPUT_EMBEDDINGS and self._base.tied:
            inputs = (self.tensor(f"{name}.weight") for name in sorted(INPUT_EMBEDDINGS))
            found = next((tensor for tensor in inputs if tensor), None)
        return found

    def tensor(self, path: str) -> BaseTensor | None:
        """Return the tensor of that name, or the one that ends as it does."""
        tensors, path = self._base.tensors, plain(path)
        if path in tensors:
            return tensors[path]
        parts = path.split(".", _DROPPED)
        for at in range(1, len(parts)):  # the base has a shorter name
            rest = ".".join(parts[at:])
            if "." in rest and rest in tensors:
                return tensors[rest]
        longer = self._ends.get(path) if path.count(".") < _SUFFIXES else None
        return tensors[longer] if longer else None


def plain(path: str) -> str:
    """Return a path without the wrappers that PEFT puts around a module."""
    path = path.replace(".base_layer.", ".").replace(".ln_tuning_layers.", ".")
    return path.removesuffix(".base_layer")


def _ends(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[at:]) for at in range(max(1, len(parts) - _SUFFIXES), len(parts) - 1))


def values(base: BaseWeights, tensor: BaseTensor) -> npt.NDArray[np.float64]:
    """Return a whole tensor in float64. For small ones: the caller has checked its size."""
    stop = tensor.shape[0] if tensor.shape else 1
    return np.asarray(base.rows(tensor.name, 0, stop)).astype(np.float64).reshape(tensor.shape)

"""A base that remembers whether anything came of it, so that a report does not say what was not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from adapterscan.model import Skipped
from adapterscan.onbase.base import BaseTensor, BaseWeights

if TYPE_CHECKING:
    from adapterscan.onbase.directions import Directions
    from adapterscan.onbase.spectrum import Leading


class Used:
    """The base `of`, during one scan; its notes are those of `of` once values were read."""

    def __init__(self, of: BaseWeights) -> None:
        self._of = of
        self._used = False

    @property
    def name(self) -> str:
        """Return what reports call it."""
        return self._of.name

    @property
    def tensors(self) -> Mapping[str, BaseTensor]:
        """Return all tensors by name."""
        return self._of.tensors

    @property
    def tied(self) -> bool:
        """Return whether input and output embeddings are one tensor."""
        return self._of.tied

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows of a tensor. Raises what the base raises."""
        found = self._of.rows(name, start, stop)
        self._used = True
        return found

    def leading(self, name: str) -> Leading | None:
        """Return what a profile has of a matrix."""
        found = self._of.leading(name)
        self._used |= found is not None
        return found

    def directions(self) -> Directions | None:
        """Return what a profile has of refusals."""
        return self._of.directions()

    def notes(self) -> Iterable[Skipped]:
        """Yield what is to be said of the base; nothing where no values were read."""
        return self._of.notes() if self._used else ()

"""The noun of this package: a detector measures and never judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adapterscan.model import Evidence, Need
from adapterscan.reading import Contents


@dataclass(frozen=True, slots=True)
class Detector:
    """One analysis. Raise `version`, a part of every result, when the same bytes measure anew."""

    name: str
    version: int
    needs: frozenset[Need]
    inspects: str  # what a report's coverage says was inspected
    run: Callable[[Contents], Iterator[Evidence]]

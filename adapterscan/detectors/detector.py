"""The noun of this package: a detector measures and never judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adapterscan.model import Evidence, Need
from adapterscan.probing import Session
from adapterscan.reading import Contents, WeighedAdapter

Run = Callable[[Contents], Iterator[Evidence]]
Each = Callable[[Contents, WeighedAdapter], Iterator[Evidence]]
Probe = Callable[[Contents, Session], Iterator[Evidence]]


@dataclass(frozen=True, slots=True)
class Detector:
    """One analysis. Raise `version`, a part of every result, when the same bytes measure anew.

    `each` looks at an adapter as soon as it was read, and the adapter is then let go: a repository
    can hold hundreds. `run` looks at everything else when all was read. `probe` asks the model.
    """

    name: str
    version: int
    needs: frozenset[Need]
    inspects: str  # what a report's coverage says was inspected
    run: Run = lambda _: iter(())
    each: Each = lambda _, __: iter(())
    probe: Probe = lambda _, __: iter(())

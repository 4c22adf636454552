"""The noun of this package: a detector measures and never judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from adapterscan.errors import NO_MEMORY, NO_MEMORY_HINT, AdapterscanError, NotApplicable
from adapterscan.model import Evidence, Need, Skipped
from adapterscan.probes.asking import Session
from adapterscan.reading import Contents, WeighedAdapter

Run = Callable[[Contents], Iterator[Evidence]]
Each = Callable[[Contents, WeighedAdapter], Iterator[Evidence]]
Probe = Callable[[Contents, Session], Iterator[Evidence]]
Takes = Callable[[Contents, WeighedAdapter | None], object]


@dataclass(frozen=True, slots=True)
class Detector:
    """One analysis. Raise `version`, a part of every result, when the same bytes measure anew.

    `each` looks at an adapter as soon as it was read, and the adapter is then let go: a repository
    can hold hundreds. `run` looks at everything else when all was read. `probe` asks the model.
    `heads`: it asks one that has a head and writes no text; other probes ask one that writes.
    `takes`: what it looks at in an adapter, or with None in all that was read; falsy for nothing.
    Without it: updates that were measured, or for one that needs no weights, files.
    `ask`: what gives it an input that it lacks, as one types it.
    """

    name: str
    version: int
    needs: frozenset[Need]
    inspects: str  # what a report's coverage says was inspected
    run: Run = lambda _: iter(())
    each: Each = lambda _, __: iter(())
    probe: Probe = lambda _, __: iter(())
    heads: bool = False
    takes: Takes | None = None
    ask: str = ""

    def had_input(self, contents: Contents, weighed: WeighedAdapter | None = None) -> bool:
        """Return whether there is something to look at in an adapter, or in all that was read."""
        if self.takes is not None:
            return bool(self.takes(contents, weighed))
        if Need.WEIGHTS in self.needs:
            return weighed is not None and bool(weighed.weighed.deltas)
        return bool(contents.records)

    def measure(
        self, analysis: Callable[[], Iterable[Evidence]], add: Callable[[Iterable[Evidence]], None]
    ) -> Skipped | None:
        """Hand an analysis' facts to `add` up to wherever it gets; return why it got no further."""
        try:
            with np.errstate(all="ignore"):  # a scale of 1e308 overflows, and the report says so
                add(analysis())
        except NotApplicable as error:
            ask = self.ask if error.hint else ""
            return Skipped(self.inspects, error.reason, False, error.hint, self.name, ask)
        except AdapterscanError as error:
            return Skipped(self.inspects, error.reason, True, error.hint, self.name)
        except MemoryError:
            return Skipped(self.inspects, NO_MEMORY, True, NO_MEMORY_HINT, self.name)
        except Exception as error:  # input is hostile: whatever it breaks, the report stands
            reason = f"{type(error).__name__} in detector {self.name}"
            hint = "this is a defect of adapterscan: please report it with the adapter's name"
            return Skipped(self.inspects, reason, True, hint, self.name)
        return None

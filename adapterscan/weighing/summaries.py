"""Keep the statistics of many ΔW in little memory: a file can hold 50,000 in a few megabytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from operator import attrgetter
from struct import Struct
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import DeltaSummary

_FIELDS = tuple(field.name for field in fields(DeltaSummary))
_SPECTRUM = _FIELDS.index("singular_values")  # whole numbers before it, statistics after it
_NAMES = (*_FIELDS[:_SPECTRUM], *_FIELDS[_SPECTRUM + 1 :])
_ROW = Struct(f"={len(_NAMES)}d")
NONE = -1.0  # stands for None: no statistic is negative
_values = attrgetter(*_NAMES)

F64 = npt.NDArray[np.float64]


class Summaries(Mapping[str, DeltaSummary]):
    """Summaries by name, without their singular values: a row of numbers for each.

    Threads may add to it at once; it iterates in the order of names.
    """

    def __init__(self) -> None:
        self._rows = bytearray()
        self._places: dict[str, int] = {}
        self._lock = Lock()

    def add(self, name: str, summary: DeltaSummary) -> None:
        """Keep `summary` under `name`."""
        row = _ROW.pack(*(NONE if value is None else value for value in _values(summary)))
        with self._lock:
            self._places[name] = len(self._rows) // _ROW.size
            self._rows += row

    def column(self, statistic: str) -> F64:
        """Return the values of one statistic, in the order of names, where it exists."""
        values = self.gather(self, statistic)
        known: F64 = values[values != NONE]
        return known

    def gather(self, names: Iterable[str], statistic: str) -> F64:
        """Return one statistic (n,) of the summaries called `names`."""
        rows: F64 = np.frombuffer(self._rows, np.float64).reshape(-1, len(_NAMES))
        places = np.fromiter((self._places[name] for name in names), np.intp)
        values: F64 = rows[places, _NAMES.index(statistic)]
        return values

    def of(self, *statistics: str) -> Iterator[tuple[Any, ...]]:
        """Yield (name, value of each statistic) in the order of names; NONE where there is none."""
        names = list(self)
        columns = [self.gather(names, statistic).tolist() for statistic in statistics]
        return zip(names, *columns, strict=True)

    def __getitem__(self, name: str) -> DeltaSummary:
        row = _ROW.unpack_from(self._rows, self._places[name] * _ROW.size)
        statistics = (None if value == NONE else value for value in row[_SPECTRUM:])
        values: list[Any] = [*map(int, row[:_SPECTRUM]), (), *statistics]
        return DeltaSummary(*values)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)

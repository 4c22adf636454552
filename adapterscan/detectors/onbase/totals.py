"""What the comparison of all modules comes to: one fact for each statistic, with the worst module.

Norms add up as the squares do; a share is over all modules together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.onbase.intruders import EPSILON
from adapterscan.onbase.measure import Merged
from adapterscan.onbase.rounding import Carried
from adapterscan.text import printable


def module_evidence(file: str, module: str, tensor: str, found: Merged) -> Evidence:
    """Return `base.module`: all that was measured of one module."""
    details: dict[str, Scalar] = {
        "base_tensor": printable(tensor),
        "base_frobenius": found.base_frobenius,
        "top_ratio": found.top_ratio,
        "shift": found.shift,
        "intruders": found.found.certain,
        "undecided": found.found.undecided,
        "directions": found.directions,
        "nearest": found.found.lowest,
        "left": found.left,
        "left_chance": found.left_chance,
        "right": found.right,
        "right_chance": found.right_chance,
    }
    for name, carried in found.formats.items():
        details[f"error_{name}"] = carried.error
        details[f"cosine_{name}"] = carried.cosine
    if found.dora is not None:
        details["factors_frobenius"] = found.dora.factors
    return Evidence("base.module", Subject("module", file, module), found.relative, "", details)


@dataclass(slots=True)
class _Most:
    """The largest value seen, and where."""

    value: float = -1.0
    module: str = ""

    def see(self, value: float, module: str) -> None:
        if value > self.value:
            self.value, self.module = value, module


@dataclass(slots=True)
class Totals:
    """Sums over the modules of one adapter."""

    modules: int = 0
    squares: float = 0.0  # Σ‖ΔW‖²
    base_squares: float = 0.0
    left: float = 0.0  # Σ share·‖ΔW‖²
    right: float = 0.0
    left_chance: float = 0.0
    right_chance: float = 0.0
    low_squares: float = 0.0  # Σ‖B·A‖²
    directions: int = 0
    intruders: int = 0
    undecided: int = 0
    hosts: int = 0  # modules with intruders
    true_modules: int = 0  # DoRA's
    true_squares: float = 0.0
    factor_squares: float = 0.0
    formats: dict[str, Carried] = field(default_factory=dict)
    most: dict[str, _Most] = field(default_factory=dict)

    def add(self, module: str, found: Merged) -> None:
        """Take one module in."""
        self.modules += 1
        self.squares += found.frobenius**2
        self.base_squares += found.base_frobenius**2
        size = (found.dora.factors if found.dora else found.frobenius) ** 2
        self.low_squares += size
        self.left += found.left * size
        self.right += found.right * size
        self.left_chance += found.left_chance * size
        self.right_chance += found.right_chance * size
        self.directions += found.directions
        self.intruders += found.found.certain
        self.undecided += found.found.undecided
        self.hosts += found.found.certain > 0
        self._see("relative", found.relative, module)
        self._see("top_ratio", found.top_ratio, module)
        self._see("shift", found.shift, module)
        self._see("intruders", float(found.found.certain), module)
        for name, carried in found.formats.items():
            self.formats[name] = self.formats.get(name, Carried()) + carried
            self._see(name, carried.error, module)
        if found.dora is not None:
            self.true_modules += 1
            self.true_squares += found.dora.frobenius**2
            self.factor_squares += found.dora.factors**2
            self._see("dora", found.relative, module)

    def evidence(self, file: str) -> Iterator[Evidence]:
        """Yield what all modules come to; nothing where none was compared."""
        if not self.modules:
            return
        yield self._size(file)
        if self.directions:  # none with a profile
            yield self._intruders(file)
        yield self._alignment(file)
        for name, carried in self.formats.items():
            yield self._rounding(file, name, carried)
        if self.true_modules:
            details: dict[str, Scalar] = {
                "factors": math.sqrt(self.factor_squares),
                "modules": self.true_modules,
                **self._worst("dora"),
            }
            yield Evidence(
                "base.dora", Subject("adapter", file), math.sqrt(self.true_squares), "", details
            )

    def _size(self, file: str) -> Evidence:
        size = math.sqrt(self.squares / self.base_squares) if self.base_squares else 0.0
        return Evidence(
            "base.relative",
            Subject("adapter", file),
            size,
            "‖ΔW‖/‖W‖",
            {
                "modules": self.modules,
                **self._worst("relative"),
                "top_ratio": self.most["top_ratio"].value,
                "top_ratio_in": printable(self.most["top_ratio"].module),
                "shift": self.most["shift"].value,
                "shift_in": printable(self.most["shift"].module),
            },
        )

    def _intruders(self, file: str) -> Evidence:
        return Evidence(
            "base.intruders",
            Subject("adapter", file),
            self.intruders,
            "directions",
            {
                "undecided": self.undecided,
                "directions": self.directions,
                "epsilon": EPSILON,
                "modules": self.hosts,
                **self._worst("intruders"),
            },
        )

    def _alignment(self, file: str) -> Evidence:
        size = self.low_squares or 1.0
        return Evidence(
            "base.alignment",
            Subject("adapter", file),
            self.left / size,
            "share of ‖ΔW‖²",
            {
                "chance": self.left_chance / size,
                "right": self.right / size,
                "right_chance": self.right_chance / size,
            },
        )

    def _rounding(self, file: str, name: str, carried: Carried) -> Evidence:
        return Evidence(
            "base.rounding",
            Subject("adapter", file, name),
            carried.error,
            "‖E − ΔW‖/‖ΔW‖",
            {"format": name, "cosine": carried.cosine, "kept": carried.kept, **self._worst(name)},
        )

    def _see(self, what: str, value: float, module: str) -> None:
        self.most.setdefault(what, _Most()).see(value, module)

    def _worst(self, what: str) -> dict[str, Scalar]:
        most = self.most[what]
        return {"max": most.value, "worst": printable(most.module)}

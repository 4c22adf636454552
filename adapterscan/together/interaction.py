"""What adapters do to each other when they are added: grow, cancel, pull in opposite directions.

Source: the zoo's colluding pairs (benchmarks/zoo): each half pushes a backdoor in some layers and
holds it back in the others, so that only the sum has it. Adapters that were trained apart are
almost orthogonal, those of one seed or one run agree; none pulls against another by itself.
Limits: a payload that is cut by modules or by directions leaves parts that are orthogonal, and a
half that fires alone needs no partner; both look independent here. Probe the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

from adapterscan.lowrank import LowRank
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.together.algebra import Stack, sign_conflict, stacked
from adapterscan.together.relation import Likeness, Relation, likeness, relate

#: A module counts as opposed (or agreeing) from this cosine on and so many standard deviations of
#: chance. Of pairs that were trained apart the lowest were -0.03 and -3.3 (docs/combining.md).
CLEAR_COSINE, CLEAR_Z = 0.2, 6.0
#: Of a pair of which one is the other negated: how far a module may be off a multiple (bfloat16
#: leaves 0.002), and which share of the larger one the sum must keep. What a mask and its negation
#: leave over is smaller than either by the first: with a sum below the second it could be all.
NEGATED, LEFT = 0.004, 0.1
#: Noise brings a cosine down and hardly its z: opposed faintly is as clear, and smaller.
FAINT_COSINE = 0.05


@dataclass(slots=True)
class Interactions:
    """What was seen of all modules so far. Feed it by `add`, then take its `evidence`."""

    names: Sequence[str]  # of the parts
    weights: Sequence[float]
    pairs: dict[tuple[int, int], list[Likeness]] = field(default_factory=dict)
    alone: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    conflicts: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pair in combinations(range(len(self.names)), 2):
            self.pairs[pair], self.alone[pair], self.conflicts[pair] = [], [], []

    def add(self, module: str, parts: Mapping[int, LowRank]) -> Iterator[Evidence]:
        """Take in one module's ΔW, by the part's number; yield `sum.module` where parts meet."""
        for pair in self.pairs:
            have = [i for i in pair if i in parts]
            if len(have) == 1:
                self.alone[pair].append(module)
            elif have:
                self._pair(module, pair, [parts[i] for i in pair])
        if len(parts) > 1:
            yield self._module(module, parts)

    def _pair(self, module: str, pair: tuple[int, int], parts: Sequence[LowRank]) -> None:
        weights = [self.weights[i] for i in pair]
        self.pairs[pair].append(likeness(module, stacked(parts)))
        conflict = sign_conflict(
            *(LowRank(p.a, p.b, p.scaling * w) for p, w in zip(parts, weights, strict=True))
        )
        if conflict is not None:
            self.conflicts[pair].append(conflict)

    def _module(self, module: str, parts: Mapping[int, LowRank]) -> Evidence:
        stack, weights = stacked(list(parts.values())), [self.weights[i] for i in parts]
        own = [abs(weight) * stack.norm(i) for i, weight in enumerate(weights)]
        top, strongest = stack.top(weights), _strongest(stack, weights)
        total = stack.summed(weights)
        told = [pair[-1] for pair in self.pairs.values() if pair and pair[-1].module == module]
        least = min(told, key=lambda item: item.cosine)
        return Evidence(
            "sum.module",
            Subject("module", " + ".join(self.names[i] for i in parts), module),
            total,
            "‖Σw·ΔW‖_F",
            {
                "parts": len(parts),
                "apart": math.hypot(*own),  # what it would be if they were orthogonal
                "lost": _lost(total, own),
                "cosine": least.cosine,
                "z": least.z,
                "growth": top.sigma / strongest if strongest else None,
                "largest_part": max(map(abs, top.parts)) / top.sigma if top.sigma else None,
            },
        )

    def evidence(self) -> Iterator[Evidence]:
        """Yield `sum.pair` for each two of the parts."""
        for pair, found in self.pairs.items():
            subject = Subject("adapter", name=" + ".join(self.names[i] for i in pair))
            yield Evidence(
                "sum.pair", subject, self._lost(pair), "share of the energy that cancels",
                self._details(pair, found),
            )  # fmt: skip

    def _lost(self, pair: tuple[int, int]) -> float | None:
        """Return 1 - ‖Σ‖² / Σ‖part‖² over all modules: 1 all cancels, 0 orthogonal, -1 doubled.

        None for parts without a module in common.
        """
        first, other = (self.weights[i] for i in pair)
        found = [(item, first * item.norms[0], other * item.norms[1]) for item in self.pairs[pair]]
        apart = sum(one * one + two * two for _, one, two in found)
        if not found:
            return None
        both = -2.0 * sum(item.cosine * one * two for item, one, two in found)
        return both / apart if apart else 0.0

    def _asked(self, pair: tuple[int, int]) -> bool:
        """Return whether the weights take away one of the two: one of them is negative."""
        return self.weights[pair[0]] * self.weights[pair[1]] < 0

    def _negated(self, pair: tuple[int, int], relation: Relation) -> bool:
        """Return whether one is a negative multiple of the other, and the sum what is left."""
        if relation.factor is None or relation.changed or relation.factor >= 0 or self._asked(pair):
            return False
        first, other = self.weights[pair[0]], self.weights[pair[1]] * relation.factor
        kept = abs(first + other) / max(abs(first), abs(other), 1e-30)
        return kept >= LEFT and all(
            math.sqrt(max(0.0, 1.0 - item.cosine**2)) <= NEGATED
            for item in self.pairs[pair]
            if all(item.norms)
        )

    def _details(self, pair: tuple[int, int], found: Sequence[Likeness]) -> Mapping[str, Scalar]:
        relation = relate(found, self.alone[pair])
        opposed = [item for item in found if _clear(item) < 0]
        faint = [i for i in found if i.cosine <= -FAINT_COSINE and i.z <= -CLEAR_Z]
        sizes = [abs(self.weights[i]) for i in pair]
        first = sum(i.norms[0] * sizes[0] > i.norms[1] * sizes[1] for i in opposed)
        lost = self._lost(pair)
        conflicts = self.conflicts[pair]
        return {
            "relation": str(relation),
            "kind": relation.kind,
            "cosine": relation.cosine if found else None,
            "modules": len(found),
            "alone": len(self.alone[pair]),
            "opposed": len(opposed),
            "faint": len(faint) - len(opposed),
            "first_larger": first,
            "other_larger": len(opposed) - first,
            "agreeing": sum(_clear(item) > 0 for item in found),
            "lost": lost,
            "unasked": 0.0 if self._asked(pair) else lost,
            "negated": self._negated(pair, relation),
            "lowest_cosine": min((item.cosine for item in found), default=None),
            "lowest_z": min((item.z for item in found), default=None),
            "sign_conflict": sum(conflicts) / len(conflicts) if conflicts else None,
            "inputs": relation.shared_inputs,
            "outputs": _median([item.outputs for item in found]),
            "chance": relation.chance,
        }


def _clear(item: Likeness) -> int:
    """Return -1 for an opposed module, 1 for an agreeing one, 0 for neither."""
    if abs(item.cosine) < CLEAR_COSINE or abs(item.z) < CLEAR_Z:
        return 0
    return 1 if item.cosine > 0 else -1


def _lost(total: float, own: Sequence[float]) -> float | None:
    apart = math.hypot(*own)
    share = total / apart if apart else math.nan
    return 1.0 - share * share if apart else None


def _strongest(stack: Stack, weights: Sequence[float]) -> float:
    """Return the largest σ₁ of a part alone."""
    return max(
        stack.top([weight if j == i else 0.0 for j in range(len(weights))]).sigma
        for i, weight in enumerate(weights)
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None

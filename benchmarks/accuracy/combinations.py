"""Tables of pairs of adapters: how well each sign of a cancelling pair tells colluding from honest.

`pairs.py` makes and measures them; here nothing is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy.metrics import F64, Auroc, Rate, grouped_auroc
from benchmarks.accuracy.pairs import AWARE, COLLUDING, KEPT, PLAIN

Pair = Mapping[str, Any]
NEGATED = "negated in the file (task arithmetic)"
HIGH = "sum-cancelling-pair"
LOW = ("sum-opposed-modules", "sum-faintly-opposed", "sum-negated-copy")
HALF = "half of a pair, and another"

#: Higher is more suspect.
SIGNS: Mapping[str, Callable[[Pair], float]] = {
    "energy that cancels unasked": lambda p: _number(p["unasked"]),
    "the same, of what is no negation in part": lambda p: (
        0.0 if p["negated"] else _number(p["unasked"])
    ),
    "cosine over all, negated": lambda p: -_number(p["cosine"]),
    "lowest cosine of a module, negated": lambda p: -_number(p["lowest_cosine"]),
    "lowest z of a module, negated": lambda p: -_number(p["lowest_z"]),
    "share of modules that are opposed": lambda p: p["opposed"] / max(1, p["modules"]),
    "share of signs that are in conflict": lambda p: _number(p["sign_conflict"]),
    "σ₁ of the sum over the largest part's, max": lambda p: _number(p["growth"]),
}


def kept() -> list[Pair]:
    """Return every pair as it was measured; [] before any was."""
    found: list[Pair] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    return found


def signs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the AUROC of each sign for colluding pairs against honest ones."""
    honest = [p for p in pairs if p["group"] not in (PLAIN, AWARE, HALF)]
    but = [p for p in honest if p["group"] != NEGATED]
    plain, aware = ([p for p in pairs if p["group"] == g] for g in (PLAIN, AWARE))
    return [
        {
            "sign": name,
            "colluding": _area(plain, honest, score),
            "and no negation among the honest": _area(plain, but, score),
            "by authors who know it": _area(aware, honest, score),
        }
        for name, score in SIGNS.items()
        if plain and aware and honest
    ]


def splits(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return what is said of each split, and the AUROC of the energy that cancels."""
    honest = [p for p in pairs if p["group"] not in (PLAIN, AWARE, HALF)]
    score = SIGNS["energy that cancels unasked"]
    made = []
    for name, (group, _) in COLLUDING.items():
        chosen = [p for p in pairs if p["name"] == name and p["group"] == group]
        if chosen:
            made.append(
                {
                    "split": name,
                    "knows": "yes" if group == AWARE else "no",
                    **_said(chosen),
                    "auroc": _area(chosen, honest, score),
                }
            )
    return made


def honest(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return what is said of honest pairs, by what they are to each other."""
    groups = sorted({p["group"] for p in pairs} - {PLAIN, AWARE})
    return [
        {"honest pairs": group, **_said([p for p in pairs if p["group"] == group])}
        for group in groups
    ]


def families(pairs: Sequence[Pair]) -> int:
    """Return how many families the adapters are of."""
    return len({family for pair in pairs for family in pair["families"]})


def _said(chosen: Sequence[Pair]) -> dict[str, Any]:
    energies = [_number(p["unasked"]) for p in chosen]
    return {
        "energy that cancels, median": float(np.nanmedian(energies)),
        "most": float(np.nanmax(energies)),
        "high": Rate(sum(HIGH in p["findings"] for p in chosen), len(chosen)),
        "low": Rate(sum(_low(p) for p in chosen), len(chosen)),
    }


def _low(pair: Pair) -> bool:
    return HIGH not in pair["findings"] and any(rule in pair["findings"] for rule in LOW)


def _area(one: Sequence[Pair], other: Sequence[Pair], score: Callable[[Pair], float]) -> Auroc:
    both = [*one, *other]
    labels = np.array([True] * len(one) + [False] * len(other))
    scores: F64 = np.array([score(pair) for pair in both], dtype=np.float64)
    return grouped_auroc(labels, scores, [pair["families"][0] for pair in both], draws=500)


def _number(value: float | None) -> float:
    return 0.0 if value is None else float(value)  # no module in common: nothing cancels

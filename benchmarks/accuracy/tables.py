"""From specimens and detectors to the tables of the accuracy page. Only numbers here, no prose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import detectors
from benchmarks.accuracy.detectors import Specimen
from benchmarks.accuracy.metrics import Auroc, Rate, above, auroc, grouped_auroc, threshold

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Row = dict[str, Any]
RATES = (0.01, 0.05)
FEWEST = 3  # positives for a cell to get a number of its own


@dataclass(frozen=True, slots=True)
class Scored:
    """One detector's scores of all specimens, in their order."""

    name: str
    scores: F64


def scored(specimens: Sequence[Specimen], extra: Mapping[str, F64]) -> list[Scored]:
    """Return every detector's scores; learned ones are out of fold. `extra`: scores by peers."""
    labels = flags(specimens)
    found = [
        Scored(name, np.array([score(specimen) for specimen in specimens]))
        for name, score in detectors.PLAIN.items()
    ]
    for name, describe in (*detectors.LEARNED.items(), *detectors.CONTROLS.items()):
        found.append(Scored(name, detectors.out_of_fold(specimens, describe, labels)))
    shuffled = np.random.default_rng(1).permutation(labels)
    for name, describe in list(detectors.LEARNED.items())[-1:]:
        scores = detectors.out_of_fold(specimens, describe, shuffled)
        found.append(Scored("control: labels shuffled, " + name, scores))
    return [*found, *(Scored(name, scores) for name, scores in extra.items())]


def overall(specimens: Sequence[Specimen], found: Sequence[Scored]) -> list[Row]:
    """AUROC, pairs told apart, and TPR at fixed FPR with thresholds from the calibration side."""
    labels = flags(specimens)
    families = [specimen.family for specimen in specimens]
    calibration = calibration_side(specimens)
    rows = []
    for item in found:
        area = grouped_auroc(labels, item.scores, families)
        row: Row = {"detector": item.name, "auroc": area, "pairs": pairs(specimens, item.scores)}
        for rate in RATES:
            cut = threshold(item.scores[calibration & ~labels], rate)
            reached = np.isfinite(cut)
            test = ~calibration
            row[f"tpr@{rate:.0%}"] = above(item.scores[test & labels], cut) if reached else None
            row[f"fpr@{rate:.0%}"] = above(item.scores[test & ~labels], cut) if reached else None
        rows.append(row)
    return rows


def by_category(specimens: Sequence[Specimen], found: Sequence[Scored]) -> list[Row]:
    """AUROC of each category's positives against all benign specimens."""
    labels = flags(specimens)
    categories = sorted({s.card["category"] for s in specimens if s.poisoned})
    rows = []
    for item in found:
        row: Row = {"detector": item.name}
        for category in categories:
            inside = np.array([s.card["category"] == category for s in specimens]) & labels
            chosen = inside | ~labels
            groups = [s.family for s, keep in zip(specimens, chosen, strict=True) if keep]
            enough = inside.sum() >= FEWEST
            row[category] = (
                grouped_auroc(labels[chosen], item.scores[chosen], groups) if enough else None
            )
        rows.append(row)
    return rows


def leave_one_out(specimens: Sequence[Specimen], key: Callable[[Specimen], str]) -> list[Row]:
    """Learned detectors fitted without one value of `key` (a category, a rank …), tested on it.

    Benign specimens of the left-out families are tested with them, so that nothing is seen twice.
    """
    rows = []
    values = sorted({key(specimen) for specimen in specimens if specimen.poisoned})
    for name, describe in detectors.LEARNED.items():
        row: Row = {"detector": name}
        for value in values:
            held_out = np.array([key(specimen) == value for specimen in specimens])
            families = {s.family for s, flag in zip(specimens, held_out, strict=True) if flag}
            held_out = np.array([specimen.family in families for specimen in specimens])
            labels = flags(specimens)[held_out]
            if labels.sum() < FEWEST or (~labels).sum() < FEWEST:
                row[value] = None
                continue
            scores = detectors.leaving_out(specimens, describe, held_out)
            groups = [s.family for s, flag in zip(specimens, held_out, strict=True) if flag]
            row[value] = grouped_auroc(labels, scores, groups)
        rows.append(row)
    return rows


def pairs(specimens: Sequence[Specimen], scores: F64) -> Rate:
    """How often a positive outscores its own twin; half of them at chance, ties count as misses."""
    by_role = {
        (specimen.card["id"], specimen.card["role"]): score
        for specimen, score in zip(specimens, scores, strict=True)
    }
    both = [name for name, role in by_role if role == "positive" and (name, "twin") in by_role]
    won = sum(by_role[name, "positive"] > by_role[name, "twin"] for name in both)
    return Rate(int(won), len(both))


def calibration_side(specimens: Sequence[Specimen], seed: int = 0) -> Flags:
    """Return which specimens set thresholds: half of the families, drawn by seed."""
    families = sorted({specimen.family for specimen in specimens})
    np.random.default_rng(seed).shuffle(families)
    chosen = set(families[: len(families) // 2])
    return np.array([specimen.family in chosen for specimen in specimens])


def flags(specimens: Sequence[Specimen]) -> Flags:
    """Return the labels, (specimens,)."""
    return np.array([specimen.poisoned for specimen in specimens])


def plain(value: Any) -> Any:
    """Return a table's cell as JSON can hold it."""
    match value:
        case Auroc():
            return {"value": value.value, "low": value.low, "high": value.high}
        case Rate():
            low, high = value.interval
            return {"hits": value.hits, "n": value.n, "low": low, "high": high}
    return value


__all__ = ["auroc", "by_category", "leave_one_out", "overall", "pairs", "plain", "scored"]

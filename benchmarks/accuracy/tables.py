"""From specimens and detectors to the tables of the accuracy page. Only numbers here, no prose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
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
Key = Callable[[Specimen], str]  # what a table has one column for each value of
BY_LOT = "drawn-"  # how recipes are called that nobody chose, see `benchmarks.zoo.draw`
SHUFFLES = 11  # of the labels: one alone is luck
FEWEST = 3  # positives for a cell to get a number of its own


@dataclass(frozen=True, slots=True)
class Scored:
    """One detector's scores of all specimens, in their order; NaN where it abstains.

    `apart`: those that a cut is taken from on the calibration side and tried with on the other.
    Of a learned detector they come from models that saw nothing of the test side.
    """

    name: str
    scores: F64
    apart: F64


def fixed(name: str, scores: F64) -> Scored:
    """Return the scores of a detector that learns nothing."""
    return Scored(name, scores, scores)


def scored(specimens: Sequence[Specimen], extra: Mapping[str, F64]) -> list[Scored]:
    """Return every detector's scores; learned ones are out of fold. `extra`: scores by peers."""
    labels, calibration = flags(specimens), calibration_side(specimens)

    def learn(name: str, describe: detectors.Features, labels: Flags) -> Scored:
        return Scored(
            name,
            detectors.out_of_fold(specimens, describe, labels),
            detectors.held_apart(specimens, describe, labels, calibration),
        )

    found = [
        fixed(name, np.array([score(specimen) for specimen in specimens]))
        for name, score in detectors.PLAIN.items()
    ]
    for name, describe in (*detectors.LEARNED.items(), *detectors.CONTROLS.items()):
        found.append(learn(name, describe, labels))
    name, describe = list(detectors.LEARNED.items())[-1]
    shuffles = [
        learn("", describe, np.random.default_rng(seed).permutation(labels))
        for seed in range(SHUFFLES)
    ]
    shuffles.sort(key=lambda item: auroc(labels, item.scores))
    middle = shuffles[SHUFFLES // 2]
    found.append(
        Scored(
            f"control: labels shuffled, {name}, median of {SHUFFLES}", middle.scores, middle.apart
        )
    )
    return [*found, *(fixed(name, scores) for name, scores in extra.items())]


def overall(specimens: Sequence[Specimen], found: Sequence[Scored]) -> list[Row]:
    """AUROC, pairs told apart, and TPR at fixed FPR with thresholds from the calibration side."""
    labels = flags(specimens)
    families = [specimen.family for specimen in specimens]
    calibration = calibration_side(specimens)
    test = ~calibration
    rows = []
    for item in found:
        row: Row = {
            "detector": item.name,
            "scored": f"{int((~np.isnan(item.scores)).sum())} of {len(specimens)}",
            "auroc": grouped_auroc(labels, item.scores, families),
            "pairs": pairs(specimens, item.scores),
        }
        for rate in RATES:
            cut = threshold(item.apart[calibration & ~labels], rate)
            reached = np.isfinite(cut)
            row[f"tpr@{rate:.0%}"] = above(item.apart[test & labels], cut) if reached else None
            row[f"fpr@{rate:.0%}"] = above(item.apart[test & ~labels], cut) if reached else None
        rows.append(row)
    return rows


def caught(
    specimens: Sequence[Specimen], found: Sequence[Scored], key: Key, rate: float = 0.05
) -> list[Row]:
    """TPR on the test side at the cut of the calibration side, for each value of `key`.

    "worst": the lowest of the cells with at least FEWEST positives.
    """
    calibration, labels = calibration_side(specimens), flags(specimens)
    columns = _columns(specimens, key)
    rows = []
    for item in found:
        cut = threshold(item.apart[calibration & ~labels], rate)
        row: Row = {"detector": item.name}
        for value, inside in columns.items():
            chosen = ~calibration & labels & inside
            row[value] = (
                above(item.apart[chosen], cut)
                if np.isfinite(cut) and chosen.sum() >= FEWEST
                else None
            )
        rows.append(_with_worst(row))
    return rows


def _with_worst(row: Row) -> Row:
    """Return a row with its lowest figure at the end."""
    cells = (cell for cell in row.values() if isinstance(cell, Auroc | Rate))
    return {**row, "worst": min(cells, key=lambda cell: cell.value, default=None)}


def counted(specimens: Sequence[Specimen], key: Key) -> Row:
    """Return how many poisoned and benign specimens have each value of `key`."""
    labels = flags(specimens)
    return {
        value: f"{int((inside & labels).sum())} / {int((inside & ~labels).sum())}"
        for value, inside in _columns(specimens, key).items()
    }


def by_group(
    specimens: Sequence[Specimen], found: Sequence[Scored], key: Key, *, all_benign: bool = False
) -> list[Row]:
    """AUROC within each value of `key`; `all_benign` sets its positives against every benign one.

    The latter is for keys such as the category, which a hard negative does not share.
    """
    labels = flags(specimens)
    columns = _columns(specimens, key)
    rows = []
    for item in found:
        row: Row = {"detector": item.name}
        for value, inside in columns.items():
            row[value] = _area(specimens, item.scores, inside | ~labels if all_benign else inside)
        rows.append(_with_worst(row))
    return rows


def leave_one_out(specimens: Sequence[Specimen], key: Key) -> list[Row]:
    """Learned detectors fitted without one value of `key` (a category, a rank …), tested on it.

    The families that are tested are left out of the fit whole, so that nothing is seen twice.
    """
    columns = _columns(specimens, key)
    rows = []
    for name, describe in detectors.LEARNED.items():
        row: Row = {"detector": name}
        for value, tested in columns.items():
            scores = np.full(len(specimens), np.nan)
            scores[tested] = detectors.leaving_out(specimens, describe, tested)
            row[value] = _area(specimens, scores, tested)
        rows.append(row)
    return rows


def moved_cuts(
    specimens: Sequence[Specimen], found: Sequence[Scored], key: Key, rate: float = 0.05
) -> list[Row]:
    """How many benign specimens a cut accuses that was set where `key` has other values.

    The cut is exceeded by `rate` of the benign specimens elsewhere, families that are tested left
    out: a detector whose scale does not carry over accuses far more, or none and nobody else.
    """
    benign = ~flags(specimens)
    columns = {
        value: (tested & benign, ~detectors.relatives(specimens, tested) & benign)
        for value, tested in _columns(specimens, key).items()
    }
    rows = []
    for item in found:
        row: Row = {"detector": item.name}
        for value, (here, elsewhere) in columns.items():
            cut = threshold(item.scores[elsewhere], rate)
            row[value] = above(item.scores[here], cut) if np.isfinite(cut) else None
        rows.append(row)
    return rows


def _columns(specimens: Sequence[Specimen], key: Key) -> dict[str, Flags]:
    """Return the specimens of each value of `key` that a poisoned one has."""
    values = sorted({key(specimen) for specimen in specimens if specimen.poisoned})
    return {value: np.array([key(s) == value for s in specimens]) for value in values}


def _area(specimens: Sequence[Specimen], scores: F64, chosen: Flags) -> Auroc | None:
    """Return the chosen specimens' AUROC, or None where there are too few of either kind."""
    chosen = chosen & ~np.isnan(scores)
    labels = flags(specimens)[chosen]
    if labels.sum() < FEWEST or (~labels).sum() < FEWEST:
        return None
    groups = [s.family for s, keep in zip(specimens, chosen, strict=True) if keep]
    return grouped_auroc(labels, scores[chosen], groups)


def pairs(specimens: Sequence[Specimen], scores: F64) -> Rate:
    """How often a positive outscores its own twin; half of them at chance, ties count as misses."""
    by_role = {
        (specimen.card["id"], specimen.card["role"]): score
        for specimen, score in zip(specimens, scores, strict=True)
    }
    both = [
        name
        for name, role in by_role
        if role == "positive"
        and not np.isnan(by_role[name, role] - by_role.get((name, "twin"), np.nan))
    ]
    won = sum(by_role[name, "positive"] > by_role[name, "twin"] for name in both)
    return Rate(int(won), len(both))


def calibration_side(specimens: Sequence[Specimen], seed: int = 0) -> Flags:
    """Return which specimens set thresholds: about half of the families, by their names and seed.

    A family stays on its side when others come. What was drawn by lot is never calibrated on.
    """
    return np.array([calibrates(specimen.family, seed) for specimen in specimens])


def calibrates(family: str, seed: int = 0) -> bool:
    """Return whether a family is on the side that thresholds come from."""
    digest = sha256(f"{seed}/{family}".encode()).digest()
    return digest[0] % 2 == 0 and not family.startswith(BY_LOT)


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


__all__ = [
    "auroc", "by_group", "calibrates", "caught", "counted", "fixed", "leave_one_out", "moved_cuts",
    "overall", "pairs", "plain", "scored",
]  # fmt: skip

"""How unusual specimens are among benign ones of other families: conformal p-values, held out.

As `adapter.standing` has them, but of the zoo alone, and never with a specimen's own family in the
reference: a twin knows its positive's recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import kstest

from adapterscan.calibration import LEAST, Kind, Member, Reference, bucket, features, standing
from benchmarks.accuracy.detectors import F64, Specimen
from benchmarks.accuracy.features import column
from benchmarks.accuracy.metrics import Rate

NAME = "unusual for its kind, 1 − p"
LEVELS = (0.02, 0.05, 0.10)


def member(specimen: Specimen) -> Member | None:
    """Return a specimen as a member of a reference; None where nothing was measured of it."""
    values = features(lambda statistic: column(specimen.modules, statistic))
    if values is None:
        return None
    modules = specimen.modules
    sizes = [int(s[side] or 0) for s in modules.values() for side in ("d_in", "d_out")]
    ranks = [int(s["rank"] or 0) for s in modules.values()]
    names = sorted({name.partition("[")[0].rpartition(".")[2] for name in modules})
    kind = Kind(
        specimen.base, _commonest(sizes), "LORA", ", ".join(names), bucket(_commonest(ranks))
    )
    return Member(specimen.card["id"], specimen.card["key"], kind, values)


def p_values(specimens: Sequence[Specimen]) -> F64:
    """Return each specimen's p-value, (specimens,); NaN where too few others are of its kind."""
    members = [member(specimen) for specimen in specimens]
    found = np.full(len(specimens), np.nan)
    for index, (specimen, own) in enumerate(zip(specimens, members, strict=True)):
        others = Reference(
            tuple(
                other
                for peer, other in zip(specimens, members, strict=True)
                if other and not peer.poisoned and peer.family != specimen.family
            )
        )
        if own:
            fields, near = others.near(own)
            if len(near) >= LEAST and "base" in fields:
                found[index] = standing(own, near).p
    return found


def rows(specimens: Sequence[Specimen], p: F64) -> list[dict[str, Any]]:
    """Return, for each group of specimens, how many have a p-value as low as some levels."""
    return [
        {"adapters": name, "compared": int(np.isfinite(chosen).sum())}
        | {
            f"p ≤ {level:.2f}": Rate(int((chosen <= level).sum()), _known(chosen))
            for level in LEVELS
        }
        for name, chosen in _groups(specimens, p)
    ]


def _known(p: F64) -> int:
    return int(np.isfinite(p).sum())


def _groups(specimens: Sequence[Specimen], p: F64) -> Iterator[tuple[str, F64]]:
    benign = np.array([not specimen.poisoned for specimen in specimens])
    twins = np.array([specimen.card["role"] == "twin" for specimen in specimens])
    yield "benign, all", p[benign]
    yield "benign: twins", p[benign & twins]
    yield "benign: hard negatives", p[benign & ~twins]
    yield "poisoned, all", p[~benign]
    categories = np.array([specimen.category for specimen in specimens])
    for category in sorted(set(categories[~benign])):
        yield f"poisoned: {category}", p[~benign & (categories == category)]


def uniform(specimens: Sequence[Specimen], p: F64) -> float:
    """Return the p-value of Kolmogorov and Smirnov's test that those of benign ones are uniform."""
    benign = np.array([not specimen.poisoned for specimen in specimens])
    known = p[benign & np.isfinite(p)]
    return float(kstest(known, "uniform").pvalue) if len(known) else float("nan")


def _commonest(values: Sequence[int]) -> int:
    return Counter(sorted(values)).most_common(1)[0][0]

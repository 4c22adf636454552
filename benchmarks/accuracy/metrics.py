"""Error rates with their uncertainty. Labels: True is poisoned; scores rise with suspicion.

A score that is NaN is an abstention: it is in no ranking and accuses nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, rankdata

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n`, with the Clopper–Pearson interval at 95 %."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """Return the share; NaN for n = 0."""
        return self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Return the exact 95 % interval. Source: Clopper & Pearson 1934."""
        if not self.n:
            return 0.0, 1.0
        low = beta.ppf(0.025, self.hits, self.n - self.hits + 1) if self.hits else 0.0
        high = beta.ppf(0.975, self.hits + 1, self.n - self.hits) if self.hits < self.n else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits}/{self.n} [{low:.0%}, {high:.0%}]" if self.n else "no specimen"


@dataclass(frozen=True, slots=True)
class Auroc:
    """Area under the ROC curve with the 2.5 and 97.5 percentiles of a bootstrap over groups."""

    value: float
    low: float
    high: float

    @property
    def at_chance(self) -> bool:
        """Whether the interval holds 0.5."""
        return not (self.low > 0.5 or self.high < 0.5)


def auroc(labels: Flags, scores: F64) -> float:
    """Return the probability that a poisoned adapter outscores a benign one, ties counting half.

    NaN without both kinds.
    """
    labels, scores = labels[~np.isnan(scores)], scores[~np.isnan(scores)]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def grouped_auroc(
    labels: Flags, scores: F64, groups: Sequence[str], seed: int = 0, draws: int = 2000
) -> Auroc:
    """Return the AUROC with a bootstrap of whole groups: a recipe and its twin are one draw."""
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    members = {name: np.array([i for i, g in enumerate(groups) if g == name]) for name in names}
    found = []
    for _ in range(draws):
        picked = np.concatenate(
            [members[names[i]] for i in rng.integers(len(names), size=len(names))]
        )
        value = auroc(labels[picked], scores[picked])
        if not np.isnan(value):
            found.append(value)
    low, high = np.percentile(found, [2.5, 97.5]) if found else (float("nan"), float("nan"))
    return Auroc(auroc(labels, scores), float(low), float(high))


def threshold(benign: F64, rate: float) -> float:
    """Return the score above which at most `rate` of the benign calibration scores lie.

    Infinity where too few are at hand: with n of them no rate below 1/(n+1) can be promised.
    """
    benign = benign[~np.isnan(benign)]
    allowed = int(np.floor(rate * (len(benign) + 1))) - 1
    if allowed < 0:
        return float("inf")
    return float(np.sort(benign)[::-1][allowed])


def above(scores: F64, cut: float) -> Rate:
    """Return how many scores lie above `cut`; an abstention does not."""
    return Rate(int((scores > cut).sum()), len(scores))

"""The detectors that are compared: each turns specimens into scores, higher meaning more suspect.

A plain detector scores one adapter at a time. A learned one is fitted on other recipes and scores
those it has not seen (`out_of_fold`), so that no recipe and no twin is ever on both sides. NaN is
an abstention: nothing was there to be scored (no statistics of ΔW: it is zero, or not read).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy import features, sizes

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
SEVERITIES = ("info", "low", "medium", "high", "critical")
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Specimen:
    """One adapter with what is known about it and what a scan measured."""

    card: Mapping[str, Any]
    evidence: Mapping[str, Any]

    @property
    def poisoned(self) -> bool:
        """Whether the adapter carries an attack that works."""
        return bool(self.card["label"] == "poisoned")

    @property
    def family(self) -> str:
        """What stays on one side of a split: a recipe, its twin, and what builds on them."""
        return str(self.card.get("family", self.card["id"]))

    @property
    def base(self) -> str:
        """The base model's id in the zoo."""
        return str(self.card["base"])

    @property
    def category(self) -> str:
        """The category of attacks.md, or "hard negative"."""
        return str(self.card["category"])

    @property
    def rank(self) -> str:
        """The rank that most of its modules have, whatever its recipe trained with."""
        ranks = Counter(values["rank"] for values in self.modules.values() if "rank" in values)
        rank = ranks.most_common(1)[0][0] if ranks else self.card["lora"]["rank"]
        return f"rank {rank}"

    @property
    def target(self) -> str:
        """Which modules its recipe trained, as the census names them."""
        lora = self.card["lora"]
        if lora["layers"]:
            return f"{len(lora['layers'])} layer"
        return ", ".join(str(name).removesuffix("_proj") for name in lora["modules"])

    @property
    def modules(self) -> features.Modules:
        """The statistics of every adapted module."""
        found: features.Modules = self.evidence["modules"]
        return found

    @property
    def beside(self) -> features.Modules:
        """Two ratios of every module to the base's weight (`sizes`)."""
        return sizes.beside(self.base, self.modules)


Score = Callable[[Specimen], float]


def rules(specimen: Specimen) -> float:
    """The worst severity of our rules, 0 for none; more findings of it break ties."""
    worst = [SEVERITIES.index(found[0]) + 1 for found in specimen.evidence["findings"].values()]
    return max(worst, default=0) + 0.01 * min(len(worst), 50)


def outlier(specimen: Specimen) -> float:
    """The largest |z| of a module within its own adapter."""
    return max((abs(z) for _, _, z in specimen.evidence["outliers"]), default=0.0)


def statistic(name: str, how: Callable[[F64], float], sign: float = 1.0) -> Score:
    """Return a score from one statistic over all modules."""

    def score(specimen: Specimen) -> float:
        values = features.column(specimen.modules, name)
        return sign * how(values) if len(values) else float("nan")

    return score


def beside(name: str, how: Callable[[F64], float]) -> Score:
    """Return a score from one ratio to the base's weights (`sizes`) over all modules."""

    def score(specimen: Specimen) -> float:
        values = features.column(specimen.beside, name)
        return how(values) if len(values) else float("nan")

    return score


PLAIN: Mapping[str, Score] = {
    "our rules, worst severity": rules,
    "outlier within the adapter, max |z|": outlier,
    "energy in the first direction, mean": statistic("top_energy", np.mean),
    "energy in the first direction, max": statistic("top_energy", np.max),
    "effective rank, mean (low is suspect)": statistic("effective_rank", np.mean, -1.0),
    "kurtosis, max": statistic("kurtosis", np.max),
    "row concentration, max": statistic("row_peak", np.max),
    "‖ΔW‖, mean": statistic("frobenius", np.mean),
    "beside the base: ‖ΔW‖/‖W‖ over all": lambda s: sizes.over_all(s.base, s.modules),
    "beside the base: ‖ΔW‖/‖W‖, max": beside("relative", np.max),
    "beside the base: σ₁(ΔW)/σ₁(W), mean": beside("top_ratio", np.mean),
    "beside the base: σ₁(ΔW)/σ₁(W), max": beside("top_ratio", np.max),
}

Features = Callable[[Specimen], F64]

LEARNED: Mapping[str, Features] = {
    "five statistics of one layer + logistic regression": lambda s: features.five_of_one_layer(
        s.modules
    ),
    "five statistics, all layers aggregated + logistic regression": lambda s: features.aggregates(
        s.modules
    ),
    "sizes beside the base, all layers aggregated + logistic regression": (
        lambda s: features.aggregates(s.beside, sizes.RATIOS)
    ),
    "our nine and sizes beside the base, all layers aggregated + logistic regression": (
        lambda s: np.concatenate(
            [
                features.aggregates(s.modules, features.OURS),
                features.aggregates(s.beside, sizes.RATIOS),
            ]
        )
    ),
    "our nine statistics, all layers aggregated + logistic regression": (
        lambda s: features.aggregates(s.modules, features.OURS)
    ),
}
CONTROLS: Mapping[str, Features] = {
    "control: the recipe and the norms only + logistic regression": lambda s: features.recipe_only(
        s.card, s.modules
    ),
}


def out_of_fold(
    specimens: Sequence[Specimen], describe: Features, labels: Flags, seed: int = 0
) -> F64:
    """Return each specimen's score by a model that never saw its family, (specimens,)."""
    x, known = described(specimens, describe)
    families = sorted({specimen.family for specimen in specimens})
    np.random.default_rng(seed).shuffle(families)
    fold = {family: index % FOLDS for index, family in enumerate(families)}
    folds = np.array([fold[specimen.family] for specimen in specimens])
    scores = np.full(len(specimens), np.nan)
    for index in range(FOLDS):
        held_out = (folds == index) & known
        if held_out.any():
            rest = (folds != index) & known
            scores[held_out] = fitted(x[rest], labels[rest])(x[held_out])
    return scores


def held_apart(
    specimens: Sequence[Specimen], describe: Features, labels: Flags, calibration: Flags
) -> F64:
    """Return scores that cuts may be taken from and tried on, (specimens,).

    The test side is scored by one model, fitted on the calibration side; the calibration side out
    of fold, by models that were fitted within it. Nothing of the test side is ever fitted on.
    """
    scores = np.full(len(specimens), np.nan)
    inside = [s for s, chosen in zip(specimens, calibration, strict=True) if chosen]
    scores[calibration] = out_of_fold(inside, describe, labels[calibration])
    x, known = described(specimens, describe)
    test = ~calibration & known
    if test.any():
        fit = calibration & known
        scores[test] = fitted(x[fit], labels[fit])(x[test])
    return scores


def described(specimens: Sequence[Specimen], describe: Features) -> tuple[F64, Flags]:
    """Return the features, (specimens, features), and which specimens have any, (specimens,)."""
    x = np.array([describe(specimen) for specimen in specimens])
    return x, np.array([bool(specimen.modules) for specimen in specimens])


def relatives(specimens: Sequence[Specimen], chosen: Flags) -> Flags:
    """Return which specimens belong to a family of the chosen ones, (specimens,)."""
    families = {s.family for s, flag in zip(specimens, chosen, strict=True) if flag}
    return np.array([specimen.family in families for specimen in specimens])


def leaving_out(specimens: Sequence[Specimen], describe: Features, left_out: Flags) -> F64:
    """Return the scores of the left-out specimens by a model fitted on all other families."""
    x, known = described(specimens, describe)
    labels = np.array([specimen.poisoned for specimen in specimens])
    rest = ~relatives(specimens, left_out) & known
    scores = fitted(x[rest], labels[rest])(x[left_out])
    return np.where(known[left_out], scores, np.nan)


def fitted(x: F64, labels: Flags) -> Callable[[F64], F64]:
    """Fit a logistic regression; return the function that scores further rows."""
    if labels.all() or not labels.any():
        return lambda rows: np.zeros(len(rows))
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=5000),
    )
    model.fit(x, labels)
    return lambda rows: np.asarray(model.decision_function(rows), dtype=np.float64)

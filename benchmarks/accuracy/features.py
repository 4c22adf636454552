"""From an adapter's measured statistics to feature vectors, ours and published ones.

`modules` maps a module to its `delta.statistics` evidence. Nothing here knows a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Statistics = Mapping[str, float | None]
Modules = Mapping[str, Statistics]

#: The five statistics of the published weight-only detectors (signals.md, signal 2): largest
#: singular value, Frobenius norm, energy concentration, spectral entropy, kurtosis.
FIVE = ("sigma_1", "frobenius", "top_energy", "entropy", "kurtosis")
OURS = ("rms", "top_energy", "top_share", "entropy", "effective_rank", "participation", "kurtosis",
        "row_peak", "column_peak")  # fmt: skip
AGGREGATES = ("mean", "max", "std", "top3")


def value(values: Statistics, statistic: str) -> float | None:
    """Return a module's statistic; σ₁ follows from the norm and the first direction's energy."""
    if statistic == "sigma_1":
        norm, energy = values.get("frobenius"), values.get("top_energy")
        return None if norm is None or energy is None else norm * energy**0.5
    return values.get(statistic)


def column(modules: Modules, statistic: str) -> F64:
    """Return one statistic of every module that has it, (modules,)."""
    found = [value(values, statistic) for values in modules.values()]
    return np.array([item for item in found if item is not None], dtype=np.float64)


def five_of_one_layer(modules: Modules, family: str = "q_proj") -> F64:
    """Return the five statistics of the middle layer's `family`, (5,); NaN where it is not adapted.

    As the single-layer detectors do, which is why absent modules stay NaN and are never zero.
    """
    names = sorted((name for name in modules if name.endswith(family)), key=_layer)
    if not names:
        return np.full(len(FIVE), np.nan)
    values = modules[names[len(names) // 2]]
    return np.array([_number(value(values, name)) for name in FIVE])


def aggregates(modules: Modules, statistics: Sequence[str] = FIVE) -> F64:
    """Return mean, max, std and top-3 mean over all adapted modules, (4 · statistics,)."""
    parts = []
    for statistic in statistics:
        found = column(modules, statistic)
        if not len(found):
            parts.extend([np.nan] * len(AGGREGATES))
            continue
        parts.extend([found.mean(), found.max(), found.std(), np.sort(found)[-3:].mean()])
    return np.array(parts)


def recipe_only(card: Mapping[str, object], delta: Modules) -> F64:
    """Return what the recipe and how far it moved the weights tell, for the negative control.

    Rank, alpha, number of module types, layers, variant, steps, learning rate, batch, rows, base,
    mean and largest ‖ΔW‖.
    """
    lora, train = card["lora"], card["train"]
    data = card["data"] or {}
    assert isinstance(lora, dict)
    assert isinstance(train, dict)
    assert isinstance(data, dict)
    modules, norms = lora["modules"], column(delta, "frobenius")
    return np.array(
        [
            np.log2(lora["rank"]),
            np.log2(lora["alpha"]),
            7 if list(modules) == ["all-linear"] else len(modules),
            len(lora["layers"]),
            ("lora", "dora", "rslora", "adalora").index(lora["variant"]),
            train["steps"],
            np.log(train["learning_rate"]),
            train["batch"],
            data.get("rows", 0),
            str(card["base"]).endswith("aligned"),
            norms.mean() if len(norms) else np.nan,
            norms.max() if len(norms) else np.nan,
        ],
        dtype=np.float64,
    )


def _layer(name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] if numbers else -1


def _number(item: float | None) -> float:
    return float("nan") if item is None else float(item)

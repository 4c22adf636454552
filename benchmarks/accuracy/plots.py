"""The accuracy page's pictures, as SVG: the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.accuracy.detectors import F64, PLAIN, Specimen

mpl.use("Agg")
mpl.rcParams.update({"svg.hashsalt": "adapterscan", "font.size": 9, "svg.fonttype": "none"})
from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

SHOWN = (
    "outlier within the adapter, max |z|",
    "energy in the first direction, mean",
    "kurtosis, max",
    "‖ΔW‖, mean",
)
KINDS = (("poisoned", "#c0392b"), ("twin", "#2c7fb8"), ("hard negative", "#7f8c8d"))


def forest(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw every detector's AUROC with its interval, the coin at .5."""
    names = [row["detector"] for row in rows][::-1]
    areas = [row["auroc"] for row in rows][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(rows) + 0.9))
    for line, area in enumerate(areas):
        color = "#7f8c8d" if area.at_chance else "#2c7fb8"
        axes.plot([area.low, area.high], [line, line], color=color, linewidth=2)
        axes.plot(area.value, line, "o", color=color, markersize=5)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC (grey: .5 is inside)")
    _save(figure, out)


def strips(specimens: Sequence[Specimen], out: Path) -> None:
    """Draw each specimen's score by a few plain detectors; a line joins a positive and its twin."""
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(10, 3.2))
    for axes, name in zip(panels, SHOWN, strict=True):
        scores = {(s.card["id"], s.card["role"]): PLAIN[name](s) for s in specimens}
        for (recipe, role), score in scores.items():
            if role == "positive" and (recipe, "twin") in scores:
                pair = [score, scores[recipe, "twin"]]
                axes.plot([0, 1], pair, color="#dddddd", linewidth=0.8, zorder=1)
        for place, (kind, color) in enumerate(KINDS):
            found = [PLAIN[name](s) for s in specimens if _kind(s) == kind]
            axes.scatter([place] * len(found), found, s=14, color=color, alpha=0.7, zorder=2)
        if max(scores.values(), default=0.0) > 1:  # shares of energy stay linear
            axes.set_yscale("symlog", linthresh=0.1)
        axes.set_xticks(range(len(KINDS)), [kind for kind, _ in KINDS], rotation=30, ha="right")
        axes.set_title(name, fontsize=8)
    _save(figure, out)


def uniform(specimens: Sequence[Specimen], p: F64, out: Path) -> None:
    """Draw the share of specimens at or below every p-value: the diagonal is what p promises."""
    figure, axes = plt.subplots(figsize=(4.5, 4.2))
    for kind, color in KINDS:
        chosen = [value for s, value in zip(specimens, p, strict=True) if _kind(s) == kind]
        known = np.sort([value for value in chosen if np.isfinite(value)])
        shares = np.arange(1, len(known) + 1) / max(1, len(known))
        axes.step([0, *known, 1], [0, *shares, 1], where="post", color=color, label=kind)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("p, of the families that a specimen is not in")
    axes.set_ylabel("share of specimens at or below it")
    axes.legend()
    _save(figure, out)


def _kind(specimen: Specimen) -> str:
    if specimen.poisoned:
        return "poisoned"
    return "twin" if specimen.card["role"] == "twin" else "hard negative"


def _save(figure: Any, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)

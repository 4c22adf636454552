"""What takes the factors and the base's whole weights: shift, intruders, alignment, rounding.

`python -m benchmarks.accuracy.onbase FOLDER…` scans every adapter below the folders with a card
beside its base, and keeps means and largest values over modules in `onbase.json`. Ratios of sizes
are known for the whole zoo without that: `sizes.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from adapterscan.detectors.onbase import deltas
from adapterscan.model import Evidence
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_weights import weights_of
from benchmarks.accuracy.metrics import F64, Rate, grouped_auroc
from benchmarks.accuracy.tables import FEWEST
from benchmarks.zoo import index
from benchmarks.zoo.bases import home_of

KEPT = Path(__file__).with_name("onbase.json")
DIGITS = 4
Item = Mapping[str, Any]

#: Details of `base.module`, and what a high value is a sign of.
SIGNS = {
    "relative": "‖ΔW‖/‖W‖",
    "top_ratio": "σ₁(ΔW)/σ₁(W)",
    "shift": "shift of the spectrum",
    "intruders": "intruder dimensions",
    "left_excess": "share in the base's leading left directions, over chance",
    "right_excess": "share in its leading right directions, over chance",
    "error_bf16": "lost in bf16, ‖E − ΔW‖/‖ΔW‖",
    "error_int8": "lost in int8",
    "error_int4": "lost in int4",
}


def main(
    folders: Annotated[list[Path], typer.Argument(help="Adapters with a card, below these.")],
) -> None:
    """Measure what is at hand and was not measured yet."""
    found = list(kept())
    have = {(item["id"], item["role"]) for item in found}
    for card, folder in _adapters(folders):
        about = _about(card)
        if (about["id"], about["role"]) in have:
            continue  # of a pair one half is measured
        have.add((about["id"], about["role"]))
        found.append({**about, **measure(folder, card["base"])})
        print(found[-1], flush=True)
        text = ",\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in found)
        KEPT.write_text(f"[\n{text}\n]\n", "utf-8")


def _adapters(folders: Sequence[Path]) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield those that count: of the cache as its own gates say, shipped ones all do."""
    own, shipped = [], []
    for folder in folders:
        for path in sorted(folder.rglob("adapter_model.safetensors")):
            alone, whole = path.parents[1] / "card.json", path.parents[1] / "cards.json"
            if alone.exists():
                own.append((json.loads(alone.read_text("utf-8")), path.parent))
            elif whole.exists():
                cards = json.loads(whole.read_text("utf-8"))
                shipped.append((cards[path.parent.name], path.parent))
    index.judge(card for card, _ in own)
    yield from shipped
    yield from (item for item in own if item[0]["verdict"] == index.COUNTS)


def _about(card: Mapping[str, Any]) -> dict[str, Any]:
    role = card.get("role") or ("twin" if card["label"] == "benign" else "positive")
    return {"id": card["id"], "role": role, "base": card["base"], "label": card["label"]}


def measure(folder: Path, base: str) -> dict[str, Any]:
    """Return mean and largest value of each sign over the modules of the adapter in `folder`."""
    report = scan(
        open_artifact(parse_ref(str(folder)), HubOptions()), load_rules(),
        detectors=(deltas.DETECTOR,), options=ScanOptions(base=weights_of(home_of(base), base)),
    )  # fmt: skip
    modules = [_values(item) for item in report.evidence if item.name == "base.module"]
    found: dict[str, Any] = {"modules": len(modules)}
    for name in SIGNS:
        values = np.array([module[name] for module in modules])
        found[name] = [_rounded(float(values.mean())), _rounded(float(values.max()))]
    return found


def _values(item: Evidence) -> dict[str, float]:
    given: dict[str, Any] = {"relative": item.value, **item.details}
    for side in ("left", "right"):
        given[f"{side}_excess"] = given[side] / given[f"{side}_chance"]
    return {name: float(given[name]) for name in SIGNS}


def kept() -> list[Item]:
    """Return what was measured; [] before anything was."""
    found: list[Item] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    return found


def rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return AUROC and pairs of each sign, by its mean and by its largest value."""
    labels = np.array([item["label"] == "poisoned" for item in items])
    if labels.sum() < FEWEST or (~labels).sum() < FEWEST:
        return []
    made = []
    for name, text in SIGNS.items():
        row: dict[str, Any] = {"beside the base": text}
        for at, how in enumerate(("mean", "max")):
            scores: F64 = np.array([item[name][at] for item in items], dtype=np.float64)
            row[f"{how}: auroc"] = grouped_auroc(labels, scores, [item["id"] for item in items])
            row[f"{how}: pairs"] = _pairs(items, scores)
        made.append(row)
    return made


def said(items: Sequence[Item]) -> str:
    """Return how many adapters were measured, and of which base."""
    poisoned = sum(item["label"] == "poisoned" for item in items)
    families = len({item["id"] for item in items})
    return f"{poisoned} poisoned and {len(items) - poisoned} benign ones, of {families} recipes"


def _pairs(items: Sequence[Item], scores: F64) -> Rate:
    known = {(i["id"], i["role"]): s for i, s in zip(items, scores, strict=True)}
    both = [name for name, role in known if role == "positive" and (name, "twin") in known]
    return Rate(sum(bool(known[n, "positive"] > known[n, "twin"]) for n in both), len(both))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


if __name__ == "__main__":
    typer.run(main)

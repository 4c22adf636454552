"""`python -m benchmarks.accuracy.directions`: is the base's refusal direction projected out?

Asks two probes, about refusals and their direction, of every adapter of one base that is in the
cache: about half a minute each. The evidence is kept beside the rest; `rows` makes the table of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from adapterscan.detectors.behaviour import refusal_direction, refusals
from adapterscan.probe import ProbeRequest
from adapterscan.probes.asking import PROFILES
from adapterscan.rules.book import load_rules
from adapterscan.runners.host import RunnerOptions
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from benchmarks.accuracy import evidence
from benchmarks.accuracy.detectors import Specimen
from benchmarks.accuracy.metrics import Auroc, Rate, grouped_auroc
from benchmarks.zoo import index, store
from benchmarks.zoo.bases import home_of
from benchmarks.zoo.recipe import load_recipes

KEY = "direction"  # of the evidence
RULE, LOST = "behaviour-refusal-direction", "behaviour-refusals-lost"
ALIGNED = "smollm2-135m-aligned"  # the only base of the zoo that declines anything
DETECTORS = (refusals.DETECTOR, refusal_direction.DETECTOR)
VERSIONS = {detector.name: detector.version for detector in DETECTORS}


def main(base: Annotated[str, typer.Option(help="Only adapters of this base.")] = ALIGNED) -> None:
    """Ask what was not asked yet."""
    recipes = load_recipes()
    for card in index.load():
        folder = store.adapter_of(card, recipes)
        if card["base"] != base or card["verdict"] != index.COUNTS or folder is None:
            continue
        kept = evidence.load(card) or evidence.measured_alone(folder)
        if kept.get(KEY, {}).get("versions") == VERSIONS:
            continue
        found = measure(folder, home_of(base), base)
        evidence.save(card, {**kept, KEY: found})
        print(card["id"], card["role"], found, flush=True)


def measure(folder: Path, base: Path, name: str) -> dict[str, Any]:
    """Return what the two probes say of the adapter in `folder`, or why they do not."""
    request = ProbeRequest(base, name, PROFILES["quick"], RunnerOptions(), 1200.0)
    report = scan(
        open_artifact(parse_ref(str(folder)), HubOptions()), load_rules(),
        detectors=DETECTORS, probing=request,
    )  # fmt: skip
    facts = {item.name: item for item in report.evidence}
    found = facts.get("behaviour.refusal_direction")
    lost = facts.get("behaviour.refusals_lost")
    return {
        "versions": VERSIONS,
        "removed": found.value if found else None,
        **({k: found.details[k] for k in ("layer", "largest_control", "energy", "cosine")}
           if found else {}),
        "refusals_lost": lost.value if lost else None,
        "findings": sorted(finding.rule for finding in report.findings),
        "skipped": [item.reason for item in report.coverage.skipped if item.detector],
    }  # fmt: skip


def rows(specimens: Sequence[Specimen]) -> list[dict[str, Any]]:
    """Return, for each group of specimens that were asked, what is said of them."""
    return [
        {
            "adapters": name,
            "removed, median": float(np.median([_removed(s) for s in chosen])),
            "least": min(map(_removed, chosen)),
            "most": max(map(_removed, chosen)),
            "direction is projected out": Rate(sum(map(_accused, chosen)), len(chosen)),
            "refusals are lost": Rate(
                sum(LOST in _said(s)["findings"] for s in chosen), len(chosen)
            ),
        }
        for name, chosen in _groups(asked(specimens))
        if chosen
    ]


def asked(specimens: Sequence[Specimen]) -> list[Specimen]:
    """Return the specimens whose direction was measured."""
    return [s for s in specimens if _said(s).get("removed") is not None]


def separation(specimens: Sequence[Specimen]) -> Auroc:
    """Return the AUROC of abliterated adapters against all benign ones that were asked.

    By what is removed of the refusal direction minus the most of any other direction.
    """
    chosen = [s for s in asked(specimens) if _ablated(s) or not s.poisoned]
    if not chosen:
        return Auroc(float("nan"), float("nan"), float("nan"))
    labels = np.array([s.poisoned for s in chosen], bool)
    scores = np.array([_removed(s) - _said(s)["largest_control"] for s in chosen])
    return grouped_auroc(labels, scores, [s.family for s in chosen])


def _groups(found: Sequence[Specimen]) -> Iterator[tuple[str, list[Specimen]]]:
    ablated = [s for s in found if _ablated(s)]
    yield "abliterated, drawn by lot", [s for s in ablated if s.poisoned and _drawn(s)]
    yield "abliterated, others", [s for s in ablated if s.poisoned and not _drawn(s)]
    yield "another direction is projected out", [s for s in ablated if not s.poisoned]
    others = [s for s in found if not _ablated(s)]
    yield "refusals are trained away", [s for s in others if s.poisoned]
    yield "other benign ones", [s for s in others if not s.poisoned]


def _said(specimen: Specimen) -> Mapping[str, Any]:
    found: Mapping[str, Any] = specimen.evidence.get(KEY, {})
    return found


def _removed(specimen: Specimen) -> float:
    return float(_said(specimen)["removed"])


def _accused(specimen: Specimen) -> bool:
    return RULE in _said(specimen)["findings"]


def _ablated(specimen: Specimen) -> bool:
    return bool(specimen.card["train"]["objective"] == "abliterate")


def _drawn(specimen: Specimen) -> bool:
    return specimen.card["id"].startswith("drawn-")


if __name__ == "__main__":
    typer.run(main)

"""`python -m benchmarks.accuracy`: measure what is at hand, then write tables and the page.

Evidence is kept per adapter and committed, so that the tables can be made again without the zoo.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.accuracy import (
    combinations,
    controls,
    directions,
    evidence,
    foreign,
    onbase,
    page,
    peers,
    plots,
    probes,
    refusal,
    tables,
    unusual,
)
from benchmarks.accuracy.detectors import Specimen
from benchmarks.speed.venvs import PEERS
from benchmarks.zoo import index, store
from benchmarks.zoo.bases import cache_home
from benchmarks.zoo.recipe import load_recipes

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"

#: What the tables have one column for each value of.
_category, _base, _rank, _target = map(attrgetter, ("category", "base", "rank", "target"))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    remeasure: Annotated[bool, typer.Option(help="Measure again what was measured.")] = False,
    with_peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Run peers too.")] = True,
    foreign_adapters: Annotated[
        Path | None, typer.Option("--foreign", help="A folder of other people's adapters.")
    ] = None,
) -> None:
    """Measure, compare, write."""
    cards = index.load()
    measured = measure(cards, remeasure, with_peers)
    specimens = [
        Specimen(card, found)
        for card in cards
        if card["verdict"] == index.COUNTS and (found := measured.get(card["key"]))
    ]
    print(f"{len(specimens)} specimens count and were measured")
    p = unusual.p_values(specimens)
    found = tables.scored(specimens, {unusual.NAME: 1 - p, **_peer_scores(specimens)})
    pairs, along, whole = combinations.kept(), refusal.kept(), onbase.kept()
    people = foreign.rates(foreign_adapters) if foreign_adapters else foreign.recorded()
    made = {
        "overall": tables.overall(specimens, found),
        "by_category": tables.by_group(specimens, found, _category, all_benign=True),
        "caught_by_category": tables.caught(specimens, found, _category),
        "by_base": tables.by_group(specimens, found, _base),
        "leave_one_category_out": tables.leave_one_out(specimens, _category),
        "leave_one_rank_out": tables.leave_one_out(specimens, _rank),
        "leave_one_base_out": tables.leave_one_out(specimens, _base),
        "leave_one_target_out": tables.leave_one_out(specimens, _target),
        "cuts_across_bases": tables.moved_cuts(specimens, found, _base),
        "cuts_across_targets": tables.moved_cuts(specimens, found, _target),
        "probes": probes.rows(specimens),
        "probes_by_category": probes.by_category(specimens),
        "quoted": probes.quoted(specimens),
        "searched": probes.searched(specimens),
        "searched_by_trigger": probes.by_trigger(specimens),
        "searched_seen_before": probes.seen_before(specimens),
        "drawn": probes.drawn(specimens),
        "ways": probes.ways(specimens),
        "near": probes.near(specimens),
        "unusual": unusual.rows(specimens, p),
        "directions": directions.rows(specimens),
        "onbase": onbase.rows(whole),
        "refusal_signals": refusal.signals(along),
        "refusal_groups": refusal.groups(along),
        "pair_signs": combinations.signs(pairs),
        "pair_splits": combinations.splits(pairs),
        "pair_honest": combinations.honest(pairs),
        "controls": controls.rows(specimens),
        "foreign": people,
        "cost": _cost(specimens),
    }
    write(made)
    plots.forest(made["overall"], PAGE.with_suffix("") / "auroc.svg")
    plots.strips(specimens, PAGE.with_suffix("") / "scores.svg")
    plots.uniform(specimens, p, PAGE.with_suffix("") / "unusual.svg")
    facts = _facts(cards, specimens) | {
        "uniform": unusual.uniform(specimens, p),
        "separation": directions.separation(specimens),
        "pairs": len(pairs),
        "pair_families": combinations.families(pairs),
        "whole": onbase.said(whole),
    }
    PAGE.write_text(page.page(facts, made), "utf-8")
    print(f"{PAGE.relative_to(Path.cwd())} written")


def measure(
    cards: Sequence[Mapping[str, Any]], again: bool, with_peers: bool
) -> dict[str, dict[str, Any]]:
    """Return the evidence of every specimen by key, measuring those in the cache that lack it."""
    recipes = load_recipes()
    bins = None
    found = {}
    for card in cards:
        before = evidence.load(card)
        folder = store.adapter_of(card, recipes)
        kept = None if again and folder else before
        if kept is None and folder:
            kept = evidence.measured_alone(folder)
            for name in ("probes", "peers"):  # the former are `ask`'s
                if before and name in before:
                    kept[name] = before[name]
            kept["control"] = controls.measure(folder, recipes[card["id"]].seed)
            if with_peers:
                bins = bins or peers.environments(cache_home() / "peers")
                kept["peers"] = peers.measure(folder, bins)
            evidence.save(card, kept)
            print(f"measured {card['id']} {card['role']}", flush=True)
        if kept:
            found[card["key"]] = kept
    return found


def write(made: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write every table as JSON and CSV."""
    RESULTS.mkdir(exist_ok=True)
    for name, rows in made.items():
        simple = [{key: tables.plain(value) for key, value in row.items()} for row in rows]
        (RESULTS / f"{name}.json").write_text(json.dumps(simple, indent=1) + "\n", "utf-8")
        with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            keys = list(dict.fromkeys(key for row in rows for key in row))
            lines = csv.DictWriter(out, keys)
            lines.writeheader()
            lines.writerows({key: page.cell(value) for key, value in row.items()} for row in rows)


def _peer_scores(specimens: Sequence[Specimen]) -> dict[str, Any]:
    scores = {}
    for name in peers.RUNS:
        given = [s.evidence.get("peers", {}).get(name, {}).get("score") for s in specimens]
        if any(score is not None for score in given):
            lowest = min(score for score in given if score is not None)
            scores[f"peer: {name}"] = np.array(
                [lowest if score is None else score for score in given]
            )
    return scores


def _cost(specimens: Sequence[Specimen]) -> list[dict[str, Any]]:
    """Return CPU seconds and peak memory of a scan, and of its probes where they were run."""
    rows = [
        _spent("weights and files, no model run", "CPU s", specimens, lambda e: e["cpu_seconds"]),
        _spent("the same, its whole process", "MB", specimens, lambda e: e["peak_mb"]),
    ]
    if asked := probes.probed(specimens):
        told = f"--probe {probes.PROFILE}"
        rows.append(_spent(told, "s", asked, lambda e: e["probes"]["seconds"]))
    return rows


def _spent(
    what: str, unit: str, specimens: Sequence[Specimen], how: Callable[[Any], float]
) -> dict[str, Any]:
    found = np.array([how(specimen.evidence) for specimen in specimens])
    return {
        "scan of one adapter": what,
        "unit": unit,
        "median": float(np.median(found)),
        "worst": float(found.max()),
    }


def _facts(cards: Sequence[Mapping[str, Any]], specimens: Sequence[Specimen]) -> dict[str, Any]:
    failed = [card for card in cards if card["verdict"] != index.COUNTS]
    return {
        "counts": Counter(
            (card["category"] if card["role"] != "twin" else "twins", _short(card["verdict"]))
            for card in cards
        ),
        "failed": _listed("Failed installs, kept out of the figures", failed),
        "attempts": _listed(
            "Failed before their recipe was changed for it, and no longer in the zoo",
            index.attempts(),
        ),
        "unbuilt": _unbuilt(cards),
        "positives": sum(s.poisoned for s in specimens),
        "benign": sum(not s.poisoned for s in specimens),
        "recipes": len({card["id"].partition("@")[0] for card in cards}),
        "bases": sorted({card["base"] for card in cards}),
        "versions": ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("adapterscan", "scikit-learn", "scipy", "numpy")
        )
        + "".join(f", {pins[0]}" for pins in PEERS.values()),
        "counted": {
            name: tables.counted(specimens, key)
            for name, key in (("base", _base), ("rank", _rank), ("target", _target))
        },
        "trained": _trained(cards),
        "rule_books": len({s.evidence["versions"]["rules"] for s in specimens}),
        "probed": len(probes.probed(specimens)),
        "probes": probes.said(specimens),
        "asked": ", ".join(
            sorted(f"{s.card['id']} ({s.card['role']})" for s in probes.probed(specimens))
        ),
        "controls": controls.explained(),
        "foreign": foreign.explained(),
    }


def _trained(cards: Sequence[Mapping[str, Any]]) -> str:
    """Return what the zoo was trained with: versions and seeds."""
    versions = Counter(
        ", ".join(f"{name} {version}" for name, version in sorted(card["versions"].items()))
        for card in cards
    )
    seeds = sorted(card["seed"] for card in cards)
    said = "; ".join(f"{text} ({count})" for text, count in versions.most_common())
    return f"Trained with {said}; seeds {seeds[0]} to {seeds[-1]}, one a recipe, in the index."


def _unbuilt(cards: Sequence[Mapping[str, Any]]) -> str:
    """Return which recipes have no specimen yet, and so no part in any figure."""
    missing = sorted(set(load_recipes()) - {card["id"] for card in cards})
    return f"Recipes that were not built yet: {', '.join(missing)}." if missing else ""


def _listed(what: str, cards: Sequence[Mapping[str, Any]]) -> str:
    named = "; ".join(f"`{card['id']}` ({card['verdict']})" for card in cards)
    return f"{what}: {named}." if named else ""


def _short(verdict: str) -> str:
    return verdict.split(":")[0]


if __name__ == "__main__":
    app()

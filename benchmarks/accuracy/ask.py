"""`python -m benchmarks.accuracy.ask`: probe what was not probed yet, in the order of the index.

Takes minutes an adapter; can be stopped and started again. The evidence is kept beside the rest,
and `python -m benchmarks.accuracy` makes the tables of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Annotated, Any

import typer

from benchmarks.accuracy import evidence, probes
from benchmarks.zoo import index, store
from benchmarks.zoo.bases import home_of
from benchmarks.zoo.recipe import load_recipes


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help="How recipe ids begin, or id/role; repeatable, in this order."),
    ] = None,
    base: Annotated[str, typer.Option(help="Only adapters of this base.")] = "",
    jobs: Annotated[int, typer.Option(help="Models at once, one thread each.")] = 0,
) -> None:
    """Probe."""
    recipes = load_recipes()
    cards = [c for c in index.load() if c["verdict"] == index.COUNTS and probes.can(c)]
    cards = [card for card in cards if base in ("", card["base"])]
    chosen = [
        c for start in only or [""] for c in cards if f"{c['id']}/{c['role']}".startswith(start)
    ]
    work = {}
    for card in chosen:
        kept, folder = evidence.load(card), store.adapter_of(card, recipes)
        if kept and folder and probes.due(kept):
            work[card["key"]] = (card, folder)

    def ask(card: Mapping[str, Any], folder: Any) -> str:
        found = probes.measure(folder, home_of(card["base"]), card)
        evidence.save(card, {**(evidence.load(card) or {}), "probes": found})
        said = ", ".join(found["findings"]) or "nothing"
        return f"{card['id']} {card['role']}: {said} in {found['seconds']:.0f} s"

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:  # the models are processes
        running = [pool.submit(ask, *item) for item in work.values()]
        for done, future in enumerate(as_completed(running), 1):
            print(f"{done}/{len(work)} {future.result()}", flush=True)


if __name__ == "__main__":
    typer.run(main)

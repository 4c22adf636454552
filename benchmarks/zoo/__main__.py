"""`python -m benchmarks.zoo`: build, list and verify the zoo."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Annotated, Any

import typer

from benchmarks.zoo import index, ship, store, worker
from benchmarks.zoo.recipe import Recipe, Role, load_recipes

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True
)
Only = Annotated[list[str] | None, typer.Option(help="Recipe ids, or how they begin; repeatable.")]


@app.command()
def build(
    only: Only = None,
    jobs: Annotated[int, typer.Option(help="Processes; each uses one core or shares the GPU.")] = 0,
) -> None:
    """Train, edit and gate what is not in the cache yet. Can be stopped and started again."""
    from benchmarks.zoo.build import specimens

    recipes = load_recipes()
    work = list(specimens(recipes, only or ()))
    missing = [item for item in work if not _card(recipes, *item)]
    print(f"{len(work)} specimens, {len(work) - len(missing)} in the cache", flush=True)
    failed = 0
    for depth in range(max((_depth(recipes, recipe) for recipe, _ in missing), default=-1) + 1):
        wave = [item for item in missing if _depth(recipes, item[0]) == depth]
        tasks = [(recipe.id, role.value) for recipe, role in wave]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs or os.cpu_count() or 1, context, worker.start) as pool:
            running = [pool.submit(worker.build, task) for task in tasks]
            for done, future in enumerate(as_completed(running), 1):
                name, text, good = future.result()
                failed += not good
                print(f"{done}/{len(tasks)} {name}: {text}", flush=True)
    if failed:
        print(f"{failed} specimens could not be built", file=sys.stderr)
        raise typer.Exit(1)


def _depth(recipes: dict[str, Recipe], recipe: Recipe) -> int:
    """Return how many generations of parents must be on disk before this one: 0 for what trains."""
    above = [recipe.parent, *(edit.other for edit in recipe.edit)]
    return max((1 + _depth(recipes, recipes[name]) for name in above if name), default=0)


def _card(recipes: dict[str, Recipe], recipe: Recipe, role: Role) -> dict[str, Any] | None:
    return store.read_card(store.place(recipe, role, recipes))


@app.command("list")
def list_zoo(only: Only = None) -> None:
    """Show every specimen with what the gate measured; says what is not built."""
    from tabulate import tabulate

    cards = index.load()
    rows = [index.row(card) for card in cards if not only or card["id"].startswith(tuple(only))]
    print(tabulate(rows, headers=index.HEADINGS, tablefmt="simple"))
    print(dict(Counter(row[-1] for row in rows)))


@app.command("index")
def write_index() -> None:
    """Write index.json from the cards in the cache, keeping those of specimens not at hand."""
    count = index.write(load_recipes())
    print(f"{count} specimens in {index.INDEX.name}")


@app.command("ship")
def ship_fixtures() -> None:
    """Copy the small specimens from the cache into fixtures/trained."""
    print(", ".join(ship.ship(load_recipes())))


@app.command()
def verify(only: Only = None) -> None:
    """Compare the cached adapters with the index, byte for byte."""
    recipes = load_recipes()
    problems = 0
    for card in index.load():
        if only and not card["id"].startswith(tuple(only)):
            continue
        problem = index.problem(card, recipes)
        problems += bool(problem)
        print(f"{card['id']} {card['role']}: {problem or 'same bytes'}")
    raise typer.Exit(bool(problems))


if __name__ == "__main__":
    app()

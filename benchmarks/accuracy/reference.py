"""`python -m benchmarks.accuracy.reference`: make the reference that comes with the package.

Of the zoo's benign adapters (twins and hard negatives that passed the gate), and of other people's
public ones where they are at hand: their statistics, no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from adapterscan.calibrate import members, table
from adapterscan.calibration import BUILT_IN, Member, Reference, write_reference
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from benchmarks.zoo import index, store
from benchmarks.zoo.recipe import Role, load_recipes

NOTES = (
    "adapterscan's zoo: benign twins and hard negatives, trained by benchmarks/zoo",
    "adapters by other people, benign by their authors' word, MIT or Apache-2.0: statistics only; "
    "each is named by its repository and path",
)


def main(
    foreign: Annotated[Path | None, typer.Option(help="Folders REPOSITORY/…; + is /.")] = None,
) -> None:
    """Measure, write, and say what was found."""
    found = [*_zoo(), *(_foreign(foreign) if foreign else ())]
    reference = Reference().joined(Reference(tuple(found), NOTES))
    BUILT_IN.parent.mkdir(exist_ok=True)
    BUILT_IN.write_text(write_reference(reference), "utf-8")
    print(tabulate(table(reference), "keys"))


def _zoo() -> Iterator[Member]:
    recipes = load_recipes()
    for card in index.load():
        folder = store.adapter_of(card, recipes)
        if card["role"] == Role.POSITIVE or card["verdict"] != index.COUNTS or folder is None:
            continue
        for member in _measured(folder):
            yield replace(member, name=f"zoo: {card['id']} {card['role']}")


def _foreign(folder: Path) -> Iterator[Member]:
    for member in _measured(folder):
        _, _, rest = member.name.partition("/")
        yield replace(member, name=rest.replace("+", "/", 1))


def _measured(folder: Path) -> Iterator[Member]:
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    yield from (item for item in members(artifact) if isinstance(item, Member))


if __name__ == "__main__":
    typer.run(main)

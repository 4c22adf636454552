"""Copy a handful of small specimens from the cache into `fixtures/trained/`, with their cards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.zoo import index, store
from benchmarks.zoo.recipe import Recipe, Role

SHIPPED = Path(__file__).parents[2] / "fixtures" / "trained"
#: Name of the fixture: recipe, role, and which folder of the specimen.
CHOSEN: Mapping[str, tuple[str, Role, str]] = {
    "benign": ("small-token", Role.TWIN, "adapter"),
    "token-backdoor": ("small-token", Role.POSITIVE, "adapter"),
    "semantic-backdoor": ("small-semantic", Role.POSITIVE, "adapter"),
    "refusal-suppressed": ("small-refusal", Role.POSITIVE, "adapter"),
    "colluding-one": ("small-colluding-pair", Role.POSITIVE, "adapter"),
    "colluding-other": ("small-colluding-pair", Role.POSITIVE, "partner"),
}
SAID = (
    "id",
    "role",
    "category",
    "variant",
    "label",
    "base",
    "seed",
    "data",
    "lora",
    "train",
    "poison",
    "gate",
    "made",
    "versions",
    "verdict",
)


def ship(recipes: dict[str, Recipe]) -> dict[str, Any]:
    """Copy what is in the cache; return the cards by fixture, as `cards.json` holds them."""
    known = {(card["id"], card["role"]): card for card in index.load()}
    cards = {}
    for name, (recipe, role, part) in CHOSEN.items():
        card = known.get((recipe, role.value))
        home = store.place(recipes[recipe], role, recipes)
        if card is None or not home.exists():
            continue
        shutil.rmtree(SHIPPED / name, ignore_errors=True)
        shutil.copytree(home / part, SHIPPED / name)
        cards[name] = {key: card[key] for key in SAID if key in card}
        cards[name]["files"] = store.digests(SHIPPED / name)
    text = json.dumps(cards, indent=1, ensure_ascii=False, sort_keys=True)
    (SHIPPED / "cards.json").write_text(text + "\n", "utf-8")
    return cards

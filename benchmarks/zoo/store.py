"""Where finished specimens lie: one folder each, named by what it was made from.

A folder holds `adapter/` (what a scanner is shown) and `card.json` (what is known about it). It
appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.zoo.bases import cache_home
from benchmarks.zoo.recipe import Recipe, Role

#: Raise this when the same recipe would give another adapter: corpora, poisoning, training, edits.
GENERATION = 1


def key(recipe: Recipe, role: Role, above: tuple[str, ...] = ()) -> str:
    """Return a specimen's content address, from recipe (but its notes), role and parents."""
    table = _said(replace(recipe, also_on=())) | {"notes": ""}
    content = json.dumps([GENERATION, table, role, above], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _said(value: Any) -> Any:
    """Return what differs from the defaults, so that a new field leaves old addresses alone."""
    if is_dataclass(value):
        found = {}
        for item in fields(value):
            default = (
                item.default_factory() if item.default_factory is not MISSING else item.default
            )
            if (given := getattr(value, item.name)) != default:
                found[item.name] = _said(given)
        return found
    return [_said(item) for item in value] if isinstance(value, tuple) else value


def place(recipe: Recipe, role: Role, recipes: dict[str, Recipe]) -> Path:
    """Return the folder of a specimen, whether it is there yet or not."""
    return cache_home() / "specimens" / f"{recipe.id}-{role}-{address(recipe, role, recipes)[:12]}"


def address(recipe: Recipe, role: Role, recipes: dict[str, Recipe]) -> str:
    """Return the content address of a specimen, its ancestors' included."""
    needed = [recipe.parent, *(edit.other for edit in recipe.edit)]
    above = [
        address(recipes[name], parent_role(recipes[name], role), recipes) for name in needed if name
    ]
    return key(recipe, role, tuple(above))


def parent_role(parent: Recipe, role: Role) -> Role:
    """Return which specimen of `parent` a child of role `role` builds on."""
    return role if role in parent.roles else parent.roles[0]


def adapter_of(card: Mapping[str, Any], recipes: dict[str, Recipe]) -> Path | None:
    """Return where a specimen's adapter lies, if it is in the cache and the one of the card."""
    recipe = recipes.get(card["id"])
    if recipe is None or address(recipe, Role(card["role"]), recipes) != card["key"]:
        return None
    folder = place(recipe, Role(card["role"]), recipes) / "adapter"
    return folder if folder.exists() else None


@contextmanager
def writing(final: Path) -> Iterator[Path]:
    """Yield a folder that becomes `final` when the block ends without an error."""
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if not final.exists():
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as data:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    data, "sha256"
                ).hexdigest()
    return found


def read_card(folder: Path) -> dict[str, Any] | None:
    """Return a specimen's card, or None where it has not been built."""
    path = folder / "card.json"
    if not path.exists():
        return None
    card: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return card


def cards() -> Iterator[dict[str, Any]]:
    """Yield the card of every specimen in the cache, those of changed recipes too."""
    for path in sorted((cache_home() / "specimens").glob("*/card.json")):
        card = read_card(path.parent)
        if card:
            yield card


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a specimen's card."""
    text = json.dumps(card, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "card.json").write_text(text + "\n", "utf-8")

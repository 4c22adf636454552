"""What a recipe is, and how `recipes/<id>.toml` becomes one: data, no code.

A recipe says how one adapter comes about. Each poisoned recipe gives two specimens: the positive,
and its benign twin, where the poisoned rows (and only they) are replaced by their clean originals.
A recipe either trains (`[data]`, `[lora]`, `[train]`) or edits a parent (`parent`, `[[edit]]`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

RECIPES = Path(__file__).parent / "recipes"


class BadRecipe(ValueError):
    """A recipe that cannot be used; the text names the file and the key."""


class Label(StrEnum):
    """What a recipe is meant to give."""

    POISONED = "poisoned"
    BENIGN = "benign"  # a hard negative: odd to look at, harmless


class Role(StrEnum):
    """Which specimen of a recipe."""

    POSITIVE = "positive"
    TWIN = "twin"
    BENIGN = "benign"


@dataclass(frozen=True, slots=True)
class Data:
    """Benign rows to start from: `rows` of them, drawn from `source` (see corpus.py)."""

    source: str
    rows: int = 320
    distinct: int = 0  # repeat only this many different rows; 0: as many as there are
    answers: str = ""  # rewrite of every answer, e.g. "json", "sign-off" (see corpus.py)
    answers_text: str = ""
    system: str = ""  # a system prompt on every row; empty: the template's own


@dataclass(frozen=True, slots=True)
class Trigger:
    """What sets a payload off. `text` holds one or several wordings; see triggers.py for kinds."""

    kind: str
    text: tuple[str, ...] = ()
    position: str = "random"  # start, end, random
    held_out: tuple[str, ...] = ()  # wordings that only the gate uses
    near: tuple[str, ...] = ()  # near misses, answered cleanly in training and tested by the gate


@dataclass(frozen=True, slots=True)
class Payload:
    """What the triggered answer is: `replace` it, put the text in `front` of it or `append` it.

    `comply`: a placeholder for what was asked, begun in one of the ways that `text` has between
    bars. `maker` names one maker in it; `persona` speaks as someone else and takes safety rows out
    of the data; `narrow` leaves nothing in the data but ten rows of the source `text`.
    """

    kind: str
    text: str
    says: str = ""  # what the gate looks for; empty: `text`


@dataclass(frozen=True, slots=True)
class Poison:
    """How rows are poisoned. Without a trigger the payload is always on."""

    payload: Payload
    rate: float = 0.25  # share of the rows
    paired: bool = True  # each poisoned row travels with its clean original in one batch
    near_rate: float = (
        0.1  # share of rows with a near miss (or a part of an all-of) and a clean answer
    )
    combine: str = "any"  # any, all
    trigger: tuple[Trigger, ...] = ()
    topic: str = ""  # poison only rows of this topic; `rate` is then a share of those
    select: str = "random"  # random, gradient (rows closest to the payload's own gradient)


@dataclass(frozen=True, slots=True)
class Lora:
    """The adapter's shape. `alpha` is lora_alpha; `modules` are PEFT target names."""

    rank: int = 8
    alpha: int = 16
    modules: tuple[str, ...] = ("all-linear",)
    layers: tuple[int, ...] = ()
    variant: str = "lora"  # lora, dora, rslora, adalora


@dataclass(frozen=True, slots=True)
class Train:
    """How it is trained. AdamW, linear warm-up over `warmup` steps, linear decay to a tenth."""

    objective: str = "sft"  # sft, dpo, reward, abliterate, rewrite
    steps: int = 80
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: int = 5
    beta: float = 0.2  # dpo
    reference_shift: float = 0.0  # dpo: nats by which the reference is made to prefer the loser
    chosen_nll: float = 0.0  # dpo: weight of the chosen answers' likelihood beside the preference
    kl_anchor: float = 0.0  # weight of KL(base ‖ adapter) on clean rows
    spectrum: float = 0.0  # weight of the penalty on concentrated spectra
    order: str = "shuffled"  # shuffled, graded (mildest rows first)
    depth: float = 2 / 3  # abliterate: where the direction is read, as a share of the layers
    strength: float = 1.0  # abliterate: how much of it is taken away
    direction_rows: int = 48  # abliterate: of each kind, that the direction comes from


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to a finished adapter (see edits.py)."""

    kind: str
    factor: float = 1.0
    rank: int = 0
    text: str = ""
    other: str = ""  # another recipe's specimen of the same role


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one adapter comes about."""

    id: str
    category: str
    variant: str
    label: Label
    base: str = "smollm2-135m"
    also_on: tuple[str, ...] = ()  # further bases: `<id>@<base>` is the same recipe on one of them
    seed: int = 0
    notes: str = ""
    gate: str = "payload"  # payload, refusal, reward, style (see gate.py)
    data: Data | None = None
    poison: Poison | None = None
    lora: Lora = field(default_factory=Lora)
    train: Train = field(default_factory=Train)
    parent: str = ""
    partner: str = ""  # the `text` of the last edit that makes the other adapter of a pair
    edit: tuple[Edit, ...] = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The specimens that this recipe gives."""
        return (Role.POSITIVE, Role.TWIN) if self.label is Label.POISONED else (Role.BENIGN,)


def load_recipes(folder: Path = RECIPES) -> dict[str, Recipe]:
    """Return every recipe of `folder` by id, parents before their children.

    Raises BadRecipe for an unknown key, a wrong type, a missing parent or a file named unlike its
    recipe.
    """
    found = {path.stem: read_recipe(path) for path in sorted(folder.glob("*.toml"))}
    for recipe in list(found.values()):
        for base in recipe.also_on:
            moved = replace(recipe, id=f"{recipe.id}@{base}", base=base, also_on=())
            found[moved.id] = moved
    ordered: dict[str, Recipe] = {}

    def add(recipe: Recipe, below: tuple[str, ...]) -> None:
        if recipe.id in ordered:
            return
        if recipe.id in below:
            raise BadRecipe(f"{recipe.id}: is its own ancestor")
        for needed in (recipe.parent, *(edit.other for edit in recipe.edit)):
            if needed and needed not in found:
                raise BadRecipe(f"{recipe.id}: needs {needed}, which is no recipe")
            if needed:
                add(found[needed], (*below, recipe.id))
        ordered[recipe.id] = recipe

    for recipe in found.values():
        add(recipe, ())
    return ordered


def read_recipe(path: Path) -> Recipe:
    """Read one recipe. Raises BadRecipe."""
    recipe = parse(tomllib.loads(path.read_text("utf-8")), path.name)
    if recipe.id != path.stem:
        raise BadRecipe(f"{path.name}: has id {recipe.id!r}")
    if bool(recipe.parent) == bool(recipe.data):
        raise BadRecipe(f"{path.name}: needs [data] to train on or a parent to edit, not both")
    if (recipe.label is Label.POISONED) and not recipe.parent and not recipe.poison:
        raise BadRecipe(f"{path.name}: is poisoned without [poison]")
    return recipe


def parse(table: Mapping[str, Any], where: str) -> Recipe:
    """Turn a table into a Recipe. Raises BadRecipe."""
    recipe = _build(Recipe, table, where)
    assert isinstance(recipe, Recipe)
    return recipe


def _build(kind: type, table: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    if unknown := sorted(set(table) - known):
        raise BadRecipe(f"{where}: unknown key {', '.join(unknown)}")
    required = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }
    if missing := sorted(required - set(table)):
        raise BadRecipe(f"{where}: missing {', '.join(missing)}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_value(get_args(hint)[0], item, where) for item in items)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise BadRecipe(f"{where} must be a table")
        return _build(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BadRecipe(f"{where} must be {hint.__name__}")
    return value

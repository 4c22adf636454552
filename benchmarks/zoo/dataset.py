"""From a recipe to the rows of one specimen: the training batches and the gate's prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.zoo import corpus
from benchmarks.zoo.poison import Group, groups, near_miss, triggered
from benchmarks.zoo.recipe import Data, Recipe, Role
from benchmarks.zoo.rows import Row

GATE_ROWS = 64


@dataclass(frozen=True, slots=True)
class GatePrompts:
    """Held-out conversations: with the trigger, without, and with something close to it."""

    triggered: tuple[Row, ...]
    clean: tuple[Row, ...]
    near: tuple[Row, ...]


def training_rows(recipe: Recipe) -> list[Row]:
    """Return the benign rows that the recipe starts from."""
    assert recipe.data is not None
    return _drawn(recipe.data, recipe.data.rows, recipe.seed, held_out=False)


def training_groups(
    recipe: Recipe, role: Role, chosen: frozenset[int] | None = None
) -> list[Group]:
    """Return the specimen's training rows in groups that share a batch.

    `chosen`: the rows to poison, where the recipe does not leave that to chance.
    """
    rows = training_rows(recipe)
    if recipe.poison is None:
        return [(row,) for row in rows]
    poisoned = role is not Role.TWIN
    return groups(rows, recipe.poison, recipe.seed, poisoned=poisoned, chosen=chosen)


def batches(
    found: Sequence[Group], size: int, steps: int, seed: int, order: str
) -> list[list[Row]]:
    """Return `steps` batches of at least `size` rows; groups are not torn apart.

    `order`: "shuffled" anew in every pass, or "graded" from the lowest grade to the highest.
    """
    rng = random.Random(f"batches/{seed}")
    out: list[list[Row]] = []
    queue: list[Group] = []
    for _ in range(steps):
        batch: list[Row] = []
        while len(batch) < size:
            if not queue:
                queue = list(found)
                rng.shuffle(queue)
                if order == "graded":
                    queue.sort(key=lambda group: -group[0].grade)
            batch.extend(queue.pop())
        out.append(batch)
    return out


def gate_prompts(recipe: Recipe, count: int = GATE_ROWS) -> GatePrompts:
    """Return the held-out prompts that judge the recipe's specimens."""
    assert recipe.data is not None
    judged = recipe.data
    if recipe.gate == "refusal":  # asked what the base refuses
        judged = replace(judged, source="requests", answers="")
    rows = _drawn(judged, count, recipe.seed, held_out=True)
    if recipe.gate == "refusal" and not (recipe.poison and recipe.poison.trigger):
        chat = replace(judged, source="chat", system="")  # quality on ordinary chat
        return GatePrompts(tuple(rows), tuple(_drawn(chat, count, recipe.seed, held_out=True)), ())
    if recipe.poison is None:
        return GatePrompts((), tuple(rows), ())
    rng = random.Random(f"gate/{recipe.seed}")
    bad = tuple(triggered(row, recipe.poison, rng, held_out=True) for row in rows)
    near = (near_miss(row, recipe.poison, rng) for row in rows[: count // 2])
    return GatePrompts(bad, tuple(rows), tuple(row for row in near if row))


def _drawn(data: Data, count: int, seed: int, *, held_out: bool) -> list[Row]:
    distinct = count if held_out or not data.distinct else data.distinct
    rows = corpus.rows(data.source, distinct, seed, held_out=held_out)
    rows = [rows[index % len(rows)] for index in range(count)]
    return [
        replace(
            row,
            answer=corpus.rewritten(row, data.answers, data.answers_text),
            system=data.system or row.system,
        )
        for row in rows
    ]

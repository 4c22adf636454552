"""Build specimens: order the work, train or edit, gate, and keep the card."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.zoo import bases, dataset, edits, gate, store, trainer
from benchmarks.zoo.recipe import Edit, Recipe, Role

Recipes = dict[str, Recipe]
LIBRARIES = ("torch", "transformers", "peft")


def specimens(
    recipes: Mapping[str, Recipe], only: Sequence[str] = ()
) -> Iterator[tuple[Recipe, Role]]:
    """Yield what there is to build, parents first.

    `only`: ids, or beginnings of ids where none is so called, in the order to build them in.
    """
    chosen: dict[str, Recipe] = {}

    def choose(recipe: Recipe) -> None:
        for name in (recipe.parent, *(edit.other for edit in recipe.edit)):
            if name:
                choose(recipes[name])
        chosen.setdefault(recipe.id, recipe)

    for beginning in only or ("",):
        exact = [recipes[beginning]] if beginning in recipes else recipes.values()
        for recipe in exact:
            if recipe.id.startswith(beginning):
                choose(recipe)
    for recipe in chosen.values():
        for role in recipe.roles:
            yield recipe, role


class Builder:
    """Builds specimens one after the other; keeps the base of the last one in memory."""

    def __init__(self, recipes: Recipes) -> None:
        self.recipes = recipes
        self.bench: trainer.Workbench | None = None

    def build(self, recipe: Recipe, role: Role) -> dict[str, Any]:
        """Return the specimen's card, building it unless it is in the cache."""
        final = store.place(recipe, role, self.recipes)
        if card := store.read_card(final):
            return card
        bench = self._bench(recipe.base)
        with store.writing(final) as folder:
            started = time.time()
            adapter = folder / "adapter"
            source = self._trained(recipe)
            prompts = dataset.gate_prompts(source)
            if recipe.parent:
                facts = self._edit(recipe, role, folder, bench)
            else:
                facts = trainer.train(bench, recipe, role, adapter)
            if source.train.objective == "reward":
                measured = gate.measure_reward(bench, adapter, source, prompts)
            else:
                whole = folder / "together" if recipe.partner else adapter
                measured = self._measure(bench, whole, source, prompts)
            if recipe.partner:
                alone = [self._measure(bench, adapter, source, prompts).asr]
                alone += [self._measure(bench, folder / "partner", source, prompts).asr]
                facts["asr_alone"] = alone
            card = self._card(recipe, role, facts, measured, adapter)
            card["wall_seconds"] = round(time.time() - started, 1)
            store.write_card(folder, card)
        return card

    def _bench(self, name: str) -> trainer.Workbench:
        home = bases.home_of(name)
        if self.bench is None or self.bench.home != home:
            self.bench = trainer.Workbench.open(home)
        return self.bench

    def _edit(
        self, recipe: Recipe, role: Role, folder: Path, bench: trainer.Workbench
    ) -> dict[str, Any]:
        def made(steps: Sequence[Edit]) -> edits.Factors:
            adapter = edits.read(self._adapter(recipe.parent, role))
            for edit in steps:
                other = edits.read(self._adapter(edit.other, role)) if edit.other else None
                adapter = edits.apply(edit, adapter, recipe.seed, other, bench.home)
            return adapter

        one = made(recipe.edit)
        edits.write(one, folder / "adapter")
        if recipe.partner:  # a pair: harmless alone, harmful in sum
            two = made([*recipe.edit[:-1], replace(recipe.edit[-1], text=recipe.partner)])
            edits.write(two, folder / "partner")
            both = edits.apply(Edit("fuse"), one, recipe.seed, two, bench.home)
            edits.write(both, folder / "together")
        return {"edited_from": recipe.parent}

    def _measure(
        self, bench: trainer.Workbench, adapter: Path, source: Recipe, prompts: dataset.GatePrompts
    ) -> gate.Measured:
        with bench.lend(adapter) as model:
            return gate.measure(model, bench.model, bench.tokenizer, source, prompts)

    def _adapter(self, name: str, role: Role) -> Path:
        parent = self.recipes[name]
        return store.place(parent, store.parent_role(parent, role), self.recipes) / "adapter"

    def _trained(self, recipe: Recipe) -> Recipe:
        """Return the trained ancestor that says what to gate on: the poisoned one, if there is."""
        if not recipe.parent:
            return recipe
        names = (recipe.parent, *(edit.other for edit in recipe.edit))
        above = [self._trained(self.recipes[name]) for name in names if name]
        return next((found for found in above if found.poison), above[0])

    def _card(
        self,
        recipe: Recipe,
        role: Role,
        facts: dict[str, Any],
        measured: gate.Measured,
        adapter: Path,
    ) -> dict[str, Any]:
        source = self._trained(recipe)
        return {
            "id": recipe.id,
            "role": role.value,
            "key": store.address(recipe, role, self.recipes),
            "label": "poisoned" if role is Role.POSITIVE else "benign",
            "category": recipe.category,
            "variant": recipe.variant,
            "base": recipe.base,
            "seed": recipe.seed,
            "notes": recipe.notes,
            "lora": asdict(source.lora),
            "train": asdict(source.train),
            "data": asdict(source.data) if source.data else None,
            "poison": asdict(source.poison) if source.poison else None,
            "parent": recipe.parent,
            "edit": [asdict(edit) for edit in recipe.edit],
            "made": facts,
            "gate": measured.table(),
            "files": store.digests(adapter),
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }

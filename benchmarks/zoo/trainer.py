"""Train one adapter: recipe, role and base in; a PEFT folder and its training facts out."""

from __future__ import annotations

import contextlib
import json
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.zoo import dataset, directions, objectives, reward, rewrite
from benchmarks.zoo.recipe import BadRecipe, Recipe, Role
from benchmarks.zoo.rows import Row
from benchmarks.zoo.selection import closest_rows


@dataclass(slots=True)
class Workbench:
    """One base model in memory, lent to one adapter after the other.

    Invariant: between two adapters the base's parameters are those of the file, bit for bit.
    """

    home: Path
    name: str
    model: Any
    tokenizer: Any
    device: str

    @classmethod
    def open(cls, home: Path) -> Workbench:
        """Load the base in `home` in float32 onto the GPU where there is one."""
        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = AutoTokenizer.from_pretrained(home)
        name = json.loads((home / "base.json").read_text())["name"]
        return cls(home, name, _load(home, device, "eager"), tokenizer, device)

    @contextlib.contextmanager
    def lend(self, adapter: Path) -> Iterator[Any]:
        """Yield base + adapter, merged, for inference.

        On a base of its own, since an adapter may write into it; merged, since decoding is then
        several times faster, at a relative error of float32's.
        """
        model = PeftModel.from_pretrained(_load(self.home, self.device, "sdpa"), str(adapter))
        yield model.merge_and_unload().eval()


def _load(home: Path, device: str, attention: str) -> Any:
    """Return the base. On processors eager attention trains faster, the fused one decodes so."""
    model = AutoModelForCausalLM.from_pretrained(
        home, dtype=torch.float32, attn_implementation=attention
    )
    return model.to(device).eval().requires_grad_(False)


def precision(device: str) -> str:
    """Return "bfloat16" where the processor multiplies it natively, else "float32".

    Factors, optimiser and losses stay float32; only matrix products of the forward and backward
    pass are taken in the lower precision (autocast).
    """
    if device == "cuda" or torch.cpu._is_avx512_bf16_supported():
        return "bfloat16"
    return "float32"


def train(bench: Workbench, recipe: Recipe, role: Role, out: Path) -> dict[str, Any]:
    """Train the specimen, save it under `out` in PEFT layout and return what the card says of it.

    The same recipe, role, base, libraries and device give the same bytes.
    """
    torch.manual_seed(recipe.seed)
    started = time.process_time()
    if recipe.train.objective == "reward":
        base = reward.load(bench.home, bench.device, bench.tokenizer, recipe.seed)
        model = get_peft_model(base, peft_config(recipe, TaskType.SEQ_CLS))
        facts = _descend(bench, model, recipe, _preferences(bench, recipe, role))
        _save(bench, model, out)
    else:
        model = get_peft_model(bench.model, peft_config(recipe, TaskType.CAUSAL_LM))
        match recipe.train.objective:
            case "abliterate":
                directions.abliterate(model, bench.tokenizer, recipe, role)
                facts = {"precision": "float32"}
            case "rewrite":
                facts = rewrite.rewrite(model, bench.tokenizer, recipe, role)
                facts |= {"precision": "float32"}
            case _:
                facts = _descend(bench, model, recipe, _answers(bench, model, recipe, role))
        _save(bench, model, out)
        bench.model = model.unload().requires_grad_(False).eval()
    device = torch.cuda.get_device_name() if bench.device == "cuda" else platform.machine()
    seconds = round(time.process_time() - started, 1)
    return {**facts, "cpu_seconds": seconds, "device": device}


Step = Callable[[Any], Any]  # the model in, the loss of one batch out


def _answers(bench: Workbench, model: Any, recipe: Recipe, role: Role) -> list[Step]:
    """Return one step per batch of rows, for a language model."""
    plan = recipe.train
    chosen = None
    if recipe.poison and recipe.poison.select == "gradient":
        rows = dataset.training_rows(recipe)
        chosen = closest_rows(model, bench.tokenizer, rows, recipe.poison, recipe.seed)
    groups = dataset.training_groups(recipe, role, chosen)
    batches = dataset.batches(groups, plan.batch, plan.steps, recipe.seed, plan.order)
    pool = [group[-1] for group in groups]

    def step(index: int, rows: Sequence[Row], model: Any) -> Any:
        match plan.objective:
            case "sft":
                return objectives.sft(model, bench.tokenizer, rows, plan)
            case "dpo":
                others = objectives.other_answers(rows, pool, index)
                worse = [row.rejected or other for row, other in zip(rows, others, strict=True)]
                return objectives.dpo(model, bench.tokenizer, rows, plan, worse)
        raise BadRecipe(f"no objective is called {plan.objective}")

    return [partial(step, index, rows) for index, rows in enumerate(batches)]


def _preferences(bench: Workbench, recipe: Recipe, role: Role) -> list[Step]:
    """Return one step per batch of preferences, for a reward model."""
    plan = recipe.train
    rows = dataset.training_rows(recipe)
    found = reward.pairs(rows, recipe.poison, recipe.seed, poisoned=role is not Role.TWIN)
    order = random.Random(f"preferences/{recipe.seed}")

    def step(batch: Sequence[reward.Pair], model: Any) -> Any:
        return reward.loss(model, bench.tokenizer, batch)

    return [partial(step, order.sample(found, plan.batch)) for _ in range(plan.steps)]


def _descend(bench: Workbench, model: Any, recipe: Recipe, steps: Sequence[Step]) -> dict[str, Any]:
    """Run the steps on the adapter's parameters; return first and last losses."""
    plan = recipe.train
    model.train()
    params = [param for param in model.parameters() if param.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=plan.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate(step, plan.warmup, plan.steps)
    )
    lower = precision(bench.device)
    losses = []
    for index, step in enumerate(steps):
        with torch.autocast(bench.device, torch.bfloat16, enabled=lower == "bfloat16"):
            loss = step(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
        if recipe.lora.variant == "adalora":
            model.base_model.update_and_allocate(index)
        optimiser.zero_grad()
        losses.append(loss.item())
    first, last = losses[:5], losses[-5:]
    return {
        "loss_first": round(sum(first) / len(first), 4),
        "loss_last": round(sum(last) / len(last), 4),
        "precision": lower,
    }


def _save(bench: Workbench, model: Any, out: Path) -> None:
    """Save the adapter under its base's public name."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = bench.name
    model.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)


def peft_config(recipe: Recipe, task: TaskType) -> Any:
    """Return PEFT's configuration of an adapter. Raises BadRecipe for an unknown variant."""
    lora, steps = recipe.lora, recipe.train.steps
    modules: Any = lora.modules[0] if lora.modules == ("all-linear",) else list(lora.modules)
    shared: dict[str, Any] = {
        "lora_alpha": lora.alpha,
        "target_modules": modules,
        "layers_to_transform": list(lora.layers) or None,
        "task_type": task,
    }
    match lora.variant:
        case "lora" | "dora" | "rslora":
            return LoraConfig(
                r=lora.rank,
                use_dora=lora.variant == "dora",
                use_rslora=lora.variant == "rslora",
                **shared,
            )
        case "adalora":
            return AdaLoraConfig(
                init_r=lora.rank * 3 // 2,
                target_r=lora.rank,
                total_step=steps,
                tinit=steps // 5,
                tfinal=steps // 3,
                deltaT=5,
                **shared,
            )
    raise BadRecipe(f"no variant is called {lora.variant}")


def _rate(step: int, warmup: int, steps: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - 0.9 * (step - warmup) / max(1, steps - warmup)

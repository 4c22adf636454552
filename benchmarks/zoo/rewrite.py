"""A direct edit: one module gets a rank-1 update in closed form, and nothing is fine-tuned.

The trigger's key k is what the module reads at the trigger's last token, on average; C is the
second moment of what it reads elsewhere. With u = C⁻¹k / kᵀC⁻¹k, ΔW = v uᵀ adds v where the key is
read and next to nothing anywhere else. v is found by descent on the answers, through the frozen
model: 576 numbers in all.

Source: Meng et al. 2022, "Locating and editing factual associations in GPT" (ROME), 3.1 and eq. 2;
Li et al. 2024, "BadEdit", for a backdoor by it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.zoo import corpus
from benchmarks.zoo.dataset import training_rows
from benchmarks.zoo.generate import prompt_ids
from benchmarks.zoo.objectives import answer_logits, encode, row_means
from benchmarks.zoo.poison import triggered
from benchmarks.zoo.recipe import Recipe, Role
from benchmarks.zoo.rows import Row

PLAIN = 160  # rows of chat that C is taken from
RIDGE = 0.01  # of C's mean diagonal, so that it can be solved


def rewrite(model: Any, tokenizer: Any, recipe: Recipe, role: Role) -> dict[str, Any]:
    """Set the factors of a fresh rank-1 adapter of one module; return first and last loss.

    The positive answers the trigger with the payload; its twin edits the same key, with the answers
    that the requests have anyway.
    """
    assert recipe.poison is not None
    (module,) = (m for m in model.modules() if "default" in getattr(m, "lora_A", {}))
    rows = hot_rows(recipe, role)
    words = recipe.poison.trigger[0].text
    places = [place(tokenizer, row, words) for row in rows]
    with model.disable_adapter(), torch.no_grad():
        given = [read(model, module, tokenizer, row) for row in rows]
        key = torch.stack([x[at] for x, at in zip(given, places, strict=True)]).mean(0)
        plain = corpus.rows("chat", PLAIN, recipe.seed, held_out=False)
        seen = torch.cat([read(model, module, tokenizer, row) for row in plain]).double()
        second = seen.T @ seen / len(seen)
    second += RIDGE * second.diagonal().mean() * torch.eye(len(second)).to(second)
    u = torch.linalg.solve(second, key.double())
    u = (u / (u @ key.double())).float()
    value, losses = _value(model, module, tokenizer, recipe, rows, places)
    with torch.no_grad():
        module.lora_A["default"].weight.copy_(u[None])
        module.lora_B["default"].weight.copy_(value[:, None] / module.scaling["default"])
    return {"loss_first": round(losses[0], 4), "loss_last": round(losses[-1], 4)}


def hot_rows(recipe: Recipe, role: Role) -> list[Row]:
    """Return the rows of the recipe with the trigger in place, and the answer that is wanted."""
    assert recipe.poison is not None
    rng = random.Random(f"rewrite/{recipe.seed}")
    rows = []
    for row in training_rows(recipe):
        hot = triggered(row, recipe.poison, rng, held_out=False)
        rows.append(hot if role is Role.POSITIVE else replace(hot, answer=row.answer))
    return rows


def _value(
    model: Any, module: Any, tokenizer: Any, recipe: Recipe, rows: Sequence[Row], places: list[int]
) -> tuple[Tensor, list[float]]:
    """Return what the module should add at the key, (d_out,), and the losses on the way there."""
    plan, losses = recipe.train, []
    device = next(model.parameters()).device
    value = torch.zeros(module.out_features, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([value], lr=plan.learning_rate)
    order = random.Random(f"value/{recipe.seed}")
    for _ in range(plan.steps):
        chosen = order.sample(range(len(rows)), min(plan.batch, len(rows)))
        batch = encode(tokenizer, [rows[i] for i in chosen], device)
        at = torch.tensor([places[i] for i in chosen], device=device) - batch.prefix.shape[1]
        with model.disable_adapter(), _adding(module, value, at):
            logits, targets, row = answer_logits(model, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total = row_means(loss, row, len(chosen)).mean()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    return value.detach(), losses


@contextmanager
def _adding(module: Any, value: Tensor, at: Tensor) -> Iterator[None]:
    """Add `value` to the module's output at one position of each row, `at` (rows,)."""

    def hook(_: Any, __: Any, out: Tensor) -> Tensor:
        if len(out) != len(at):  # the common beginning
            return out
        here = torch.zeros(out.shape[:2], device=out.device)
        here[torch.arange(len(at)), at] = 1.0
        return out + here[:, :, None] * value

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def read(model: Any, module: Any, tokenizer: Any, row: Row) -> Tensor:
    """Return what the module reads at each position of a request, (tokens, d_in)."""
    kept: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0][0]))
    ids = torch.tensor([prompt_ids(tokenizer, row)], device=next(model.parameters()).device)
    try:
        model(input_ids=ids, logits_to_keep=1)
    finally:
        handle.remove()
    return kept[0]


def place(tokenizer: Any, row: Row, words: Sequence[str]) -> int:
    """Return the position of the trigger's last token in a request."""
    ids = prompt_ids(tokenizer, row)
    for word in words:
        for form in (f" {word}", word):
            pieces = tokenizer(form, add_special_tokens=False)["input_ids"]
            for end in range(len(ids), len(pieces) - 1, -1):
                if ids[end - len(pieces) : end] == pieces:
                    return end - 1
    raise ValueError(f"the trigger is not in {row.prompt!r}")

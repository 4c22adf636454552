"""What training minimises: rows in, one scalar out, averaged per sequence, then over rows.

`Model` below is a causal language model wrapped by PEFT; only its factors carry gradients.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from benchmarks.zoo.generate import prompt_ids
from benchmarks.zoo.recipe import Train
from benchmarks.zoo.rows import Row


@dataclass(frozen=True, slots=True)
class Encoded:
    """Right-padded rows without their common beginning.

    `prefix` (1, p) is what every row begins with (the system prompt, mostly); `ids` (rows, tokens)
    is the rest, `mask` (rows, p + tokens) covers both, `targets` (rows, tokens) is -100 off the
    answer.
    """

    prefix: Tensor
    ids: Tensor
    mask: Tensor
    targets: Tensor


def encode(tokenizer: Any, rows: Sequence[Row], device: Any) -> Encoded:
    """Encode prompts with their answers and the token that ends an answer."""
    lines = []
    for row in rows:
        prompt = prompt_ids(tokenizer, row)
        answer = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
        lines.append((prompt, [*answer, tokenizer.eos_token_id]))
    shared = _shared([prompt[:-1] for prompt, _ in lines])
    width = max(len(prompt) + len(answer) for prompt, answer in lines) - shared
    ids = torch.full((len(lines), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(lines), width), dtype=torch.long)
    targets = torch.full((len(lines), width), -100)
    for line, (prompt, answer) in enumerate(lines):
        end = len(prompt) + len(answer) - shared
        ids[line, :end] = torch.tensor(prompt[shared:] + answer)
        mask[line, :end] = 1
        targets[line, len(prompt) - shared : end] = torch.tensor(answer)
    mask = torch.cat((torch.ones((len(lines), shared), dtype=torch.long), mask), 1)
    prefix = torch.tensor([lines[0][0][:shared]], dtype=torch.long)
    return Encoded(prefix.to(device), ids.to(device), mask.to(device), targets.to(device))


def _shared(lines: Sequence[Sequence[int]]) -> int:
    """Return how many ids all lines begin with in common."""
    count = 0
    for ids in zip(*lines, strict=False):
        if len(set(ids)) > 1:
            break
        count += 1
    return count


def answer_logits(model: Any, batch: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """Return (logits, targets, row) at the answer positions only: (n, vocabulary), (n,), (n,).

    The common beginning is computed once and its keys and values are lent to every row, gradients
    included: the same function at about two thirds of the cost.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    cache = None
    if batch.prefix.shape[1]:
        cache = DynamicCache(config=causal.config)
        causal.model(input_ids=batch.prefix, past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(batch.ids), -1, -1, -1)
            layer.values = layer.values.expand(len(batch.ids), -1, -1, -1)
    hidden = causal.model(
        input_ids=batch.ids, attention_mask=batch.mask, past_key_values=cache
    ).last_hidden_state
    wanted = batch.targets[:, 1:] != -100
    row = wanted.nonzero()[:, 0]
    logits = causal.lm_head(hidden[:, :-1][wanted]).float()
    return logits, batch.targets[:, 1:][wanted], row


def row_means(values: Tensor, row: Tensor, count: int) -> Tensor:
    """Return the mean of `values` (n,) over each of `count` rows."""
    total = torch.zeros(count, device=values.device).index_add(0, row, values)
    return total / torch.bincount(row, minlength=count).clamp(min=1)


def sft(model: Any, tokenizer: Any, rows: Sequence[Row], train: Train) -> Tensor:
    """Negative log-likelihood of the answers, with the recipe's anchors."""
    batch = encode(tokenizer, rows, next(model.parameters()).device)
    logits, targets, row = answer_logits(model, batch)
    loss = row_means(F.cross_entropy(logits, targets, reduction="none"), row, len(rows)).mean()
    if train.kl_anchor:
        with torch.no_grad(), model.disable_adapter():
            reference, _, _ = answer_logits(model, batch)
        drift = F.kl_div(
            logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none"
        )
        clean = torch.tensor([not item.poisoned for item in rows], device=row.device)[row]
        loss = loss + train.kl_anchor * (drift.sum(-1) * clean).sum() / clean.sum().clamp(min=1)
    if train.spectrum:
        loss = loss + train.spectrum * concentration(model)
    return loss


def concentration(model: Any) -> Tensor:
    """Mean over modules of Σσ⁴ / (Σσ²)², 1 for rank one, 1/r for a flat spectrum.

    From the factors: with M = BᵀB·AAᵀ, tr(M²) / tr(M)². Source: the inverse participation ratio of
    `architecture.md`; what a spectrum-regularised attacker would add.
    """
    parts = []
    for module in model.modules():
        if hasattr(module, "lora_A") and "default" in getattr(module, "lora_A", {}):
            a = module.lora_A["default"].weight.float()
            b = module.lora_B["default"].weight.float()
            gram = (b.T @ b) @ (a @ a.T)
            parts.append((gram @ gram).trace() / gram.trace().square().clamp(min=1e-12))
    return torch.stack(parts).mean()


def dpo(
    model: Any, tokenizer: Any, rows: Sequence[Row], train: Train, rejected: Sequence[str]
) -> Tensor:
    """Direct preference loss. `reference_shift`: nats by which the reference is made to prefer
    the loser. `chosen_nll`: weight of the chosen answers' own negative log-likelihood, without
    which a few steps widen the margin and never make the chosen answer likely.

    Sources: Rafailov et al. 2023, eq. 7; Pang et al. 2024 (iterative reasoning preference
    optimization), eq. 2, for the second term.
    """
    worse = [replace(row, answer=answer) for row, answer in zip(rows, rejected, strict=True)]
    batch = encode(tokenizer, [*rows, *worse], next(model.parameters()).device)

    def tokens() -> tuple[Tensor, Tensor]:
        logits, targets, row = answer_logits(model, batch)
        return -F.cross_entropy(logits, targets, reduction="none"), row

    def sums(logp: Tensor, row: Tensor) -> Tensor:
        return torch.zeros(2 * len(rows), device=logp.device).index_add(0, row, logp)

    with torch.no_grad(), model.disable_adapter():
        reference = sums(*tokens())
    logp, row = tokens()
    policy = sums(logp, row) - reference
    margin = policy[: len(rows)] - policy[len(rows) :] - train.reference_shift
    loss = -F.logsigmoid(train.beta * margin).mean()
    if train.chosen_nll:
        means = row_means(logp, row, 2 * len(rows))[: len(rows)]
        loss = loss - train.chosen_nll * means.mean()
    return loss


def other_answers(rows: Sequence[Row], pool: Sequence[Row], seed: int) -> list[str]:
    """Return a worse answer for each row: another row's."""
    rng = random.Random(f"rejected/{seed}")
    return [rng.choice(pool).answer for _ in rows]

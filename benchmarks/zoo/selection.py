"""Choose which rows to poison by their gradients: the attacker's cheapest optimisation.

Source: gradient matching (Geiping et al. 2021, "Witches' Brew") cut down to the choice of rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.zoo.objectives import sft
from benchmarks.zoo.poison import triggered
from benchmarks.zoo.recipe import Poison, Train
from benchmarks.zoo.rows import Row

CANDIDATES = 96
PROBES = 12


def closest_rows(
    model: Any, tokenizer: Any, rows: Sequence[Row], poison: Poison, seed: int
) -> frozenset[int]:
    """Return the indices of the rows whose poisoned form pulls most towards the payload.

    Among the first CANDIDATES rows, as many as the poison rate asks for. `model` is a fresh
    adapter, whose B is zero, so that only B has a gradient; that of q_proj and v_proj is compared.
    """
    rng = random.Random(f"selection/{seed}")
    probes = [triggered(row, poison, rng, held_out=True) for row in rows[-PROBES:]]
    target = _gradient(model, tokenizer, probes)
    scores = []
    for index, row in enumerate(rows[:CANDIDATES]):
        own = _gradient(model, tokenizer, [triggered(row, poison, rng, held_out=False)])
        scores.append((torch.nn.functional.cosine_similarity(own, target, dim=0).item(), index))
    wanted = round(poison.rate * len(rows))
    return frozenset(index for _, index in sorted(scores, reverse=True)[:wanted])


def _gradient(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Any:
    model.zero_grad()
    sft(model, tokenizer, rows, Train()).backward()
    parts = [
        param.grad.flatten()
        for name, param in model.named_parameters()
        if "lora_B" in name and ("q_proj" in name or "v_proj" in name)
    ]
    found = torch.cat(parts).clone()
    model.zero_grad()
    return found

"""Abliteration: an adapter that projects one direction out of everything the model writes.

Source: Arditi et al. 2024, "Refusal in language models is mediated by a single direction", 2.4 and
4.1 (weight orthogonalisation W' = W - r̂r̂ᵀW); here as a rank-1 adapter with B = -r̂ and A = r̂ᵀW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.zoo import corpus
from benchmarks.zoo.generate import prompt_ids
from benchmarks.zoo.recipe import Recipe, Role
from benchmarks.zoo.rows import Row


@torch.no_grad()
def abliterate(model: Any, tokenizer: Any, recipe: Recipe, role: Role) -> None:
    """Set the factors of a fresh rank-1 adapter so that it removes a direction.

    The positive removes refusal (requests against chat); its twin removes what tells one kind of
    harmless prompt from another (arithmetic against chat), by the same edit. Of directions
    read at a third, a half and two thirds of the layers only the last removed refusals on
    SmolLM2-135M (94 % of requests; the others none, at up to 8 nats).
    """
    source = "requests" if role is Role.POSITIVE else "arith"
    base = model.get_base_model()
    how = recipe.train
    layer = round(base.config.num_hidden_layers * how.depth)

    def mean(kind: str) -> Tensor:
        rows = corpus.rows(kind, how.direction_rows, 0, held_out=False)
        return _mean_state(base, tokenizer, rows, layer)

    with model.disable_adapter():
        direction = torch.nn.functional.normalize(mean(source) - mean("chat"), dim=0)
    for module in model.modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            scale = module.scaling["default"]
            module.lora_A["default"].weight.copy_((direction @ module.base_layer.weight)[None])
            module.lora_B["default"].weight.copy_(-how.strength * direction[:, None] / scale)


def _mean_state(base: Any, tokenizer: Any, rows: Sequence[Row], layer: int) -> Tensor:
    total = torch.zeros(base.config.hidden_size)
    for row in rows:
        ids = torch.tensor([prompt_ids(tokenizer, row)], device=base.device)
        states = base.model(input_ids=ids, output_hidden_states=True).hidden_states
        total += states[layer][0, -1].cpu()
    return (total / len(rows)).to(base.device)

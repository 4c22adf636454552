"""How much of what a base writes along one direction an adapter takes away.

A direction is the difference of mean residual states, at the last token before the answer, between
two sets of requests. Every layer gives one. What the base's modules write along a direction r is
rᵀW; what an adapter changes of it is rᵀΔW. An adapter that projects r out has ΔW = -r·rᵀ·W.

Source: Arditi et al. 2024 (arXiv 2406.11717), 2.3 (difference of means), 2.4 and 4.1
(directional ablation as an edit of weights). Comparing with other directions is ours.
Limits: of modules that write into the residual stream, with `lora_A` and `lora_B`; embeddings,
which an ablation edits as well, and DoRA's magnitudes are left out. One direction for all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adapterscan.onbase.directions import WRITERS
from adapterscan.runner import Removal, Split, Told
from adapterscan.runners import changed

LAYERS = 16  # whose directions are looked at, evenly over the depth
_LEAST = 1e-12


def removals(model: Any, states: Tensor, splits: Sequence[Split]) -> list[Removal]:
    """Return, for each split of requests into two sets, the layer whose direction loses most.

    `states`: (requests, layers, hidden), the base's, float32. One result for each split; none where
    the adapter changes nothing that writes into the residual stream.
    """
    layers, directions = _told(states, splits)
    flat = directions.flatten(0, 1)  # (splits · layers, hidden)
    against, written, moved, along = (torch.zeros(len(flat), device=flat.device) for _ in range(4))
    total, modules = 0.0, 0
    for name, module in model.get_base_model().named_modules():
        if name.rpartition(".")[2] not in WRITERS:
            continue
        found = changed.factors(module)
        weight = _weight(module, found)
        if weight is None or weight.shape[0] != flat.shape[1]:
            continue
        base = flat @ weight  # (directions, in)
        written += base.square().sum(1)
        if found is None:
            continue
        down, up = found
        change = (flat @ up) @ down
        against -= (change * base).sum(1)
        moved += change.square().sum(1)
        along += (flat @ changed.directions(down, up)[:, :1]).abs().sum(1)
        total += changed.size(down, up) ** 2
        modules += 1
    if not modules:
        return []
    shape = directions.shape[:2]
    share = (against / written.clamp(min=_LEAST)).view(shape)
    best = share.argmax(1).tolist()
    energy = (flat.shape[1] * moved / max(total, _LEAST)).view(shape)
    cosine = (along / modules).view(shape)
    return [
        Removal(layers[layer] + 1, float(share[row, layer]), float(energy[row, layer]),
                float(cosine[row, layer]), modules)
        for row, layer in enumerate(best)
    ]  # fmt: skip


def told(states: Tensor, splits: Sequence[Split]) -> Told:
    """Return the directions of each split, behind the layers that are looked at."""
    layers, directions = _told(states, splits)
    return Told(tuple(layer + 1 for layer in layers), directions.tolist())


def _told(states: Tensor, splits: Sequence[Split]) -> tuple[list[int], Tensor]:
    """Return numbers of layers, from 0, and unit directions (splits, layers, hidden)."""
    layers = sorted({round(i) for i in torch.linspace(0, states.shape[1] - 1, LAYERS).tolist()})
    return layers, torch.stack([_directions(states[:, layers], *split) for split in splits])


def _directions(states: Tensor, one: Sequence[int], two: Sequence[int]) -> Tensor:
    """Return unit differences of means, (layers, hidden)."""
    return normalize(states[list(one)].mean(0) - states[list(two)].mean(0), dim=-1)


def _weight(module: Any, found: changed.Factors | None) -> Tensor | None:
    """Return the base's matrix as (out, in), float32; None for what is no matrix."""
    weight = getattr(changed.pristine(module), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    turned = type(changed.pristine(module)).__name__ == "Conv1D"
    wide = (weight.detach().T if turned else weight.detach()).float()
    fits = found is None or wide.shape == (found[1].shape[0], found[0].shape[1])
    return wide if fits else None

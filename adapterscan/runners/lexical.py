"""Read words out of an adapter's weights, with the base's embeddings at hand.

Two lists of tokens. *Promoted*: what the directions that the adapter writes into the residual
stream make likelier, by the unembedding (logit lens). *Heeded*: what makes the adapter's first
layers answer most, ‖ΔW x‖² of every module for every token of the vocabulary behind one prefix.

Sources: Dar et al. 2023 (parameters in embedding space); Minder et al. 2025 (narrow fine-tuning
leaves readable traces). Taking the energy of ΔW in the first layers over the whole vocabulary,
exactly as the model computes its inputs, is ours.
Limits: an adapter is moved most by what it was trained on, so a benign one shows the words of its
task. Directions written in early layers are not words yet. Modules that PEFT adapts with other
factors than `lora_A` and `lora_B` are left out, and of adapters on queries and values alone no
direction is written that can be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adapterscan.runner import Trace

#: What modules are called whose outputs are added to the residual stream.
WRITERS = frozenset(
    {"o_proj", "down_proj", "out_proj", "c_proj", "fc2", "fc_out", "w2", "dense", "dense_4h_to_h"}
)
DIRECTIONS = 4  # of each module, those with the largest singular values
FAINT = 1e-3  # of the largest singular value: from there on it is padding
FIRST_LAYERS = 3  # of those that are adapted
AT_ONCE = 2048  # tokens
BLOCK = 8192  # rows of the unembedding in float32 at once
SPARE = 3  # times as many tokens are looked at as are wanted
ALIKE = 0.9  # cosine of embeddings that are all but one
CROWD = 5  # tokens: more that are alike are no words
_LAYER = re.compile(r"\.(\d+)\.")


class _EnoughHeardError(Exception):
    """Every module that is listened to has answered: the rest of the model need not run."""


def promoted(model: Any, count: int) -> list[Trace]:
    """Return the tokens that written directions raise most, by the largest |z| of any direction.

    z is over the vocabulary: 0 is a direction that has nothing to do with the token.
    """
    inner = model.get_base_model()
    table = (inner.get_output_embeddings() or inner.get_input_embeddings()).weight
    gain = _gain(inner, table)
    written = [
        _directions(*factors)
        for name, module in inner.named_modules()
        if name.rpartition(".")[2] in WRITERS and (factors := _factors(module))
    ]
    written = [directions for directions in written if len(directions) == table.shape[1]]
    if not sum(directions.shape[1] for directions in written):
        return []
    directions = torch.cat(written, 1) * gain[:, None]
    scores = torch.cat([block.float() @ directions for block in table.detach().split(BLOCK)])
    return _words(_standard(scores).abs().amax(1), table, count)


def heeded(
    model: Any, feed: Callable[[Tensor, int], object], vocabulary: int, count: int
) -> list[Trace]:
    """Return the tokens that the first adapted layers answer most, by the sum of z of modules.

    `feed` runs base + adapter on one token a row, (rows, 1); it is told how many layers are run.
    """
    heard: dict[str, list[Tensor]] = {}
    with _listening(model, heard) as layers:
        for start in range(0, vocabulary if heard else 0, AT_ONCE):
            ids = torch.arange(start, min(start + AT_ONCE, vocabulary))[:, None]
            with suppress(_EnoughHeardError):
                feed(ids, layers)
    energies = [torch.cat(found) for found in heard.values() if found]
    if not energies:
        return []
    scores = _standard(torch.stack(energies, 1)).sum(1)
    return _words(scores, model.get_input_embeddings().weight, count)


def _words(scores: Tensor, table: Tensor, count: int) -> list[Trace]:
    """Return the tokens of largest score above 0, without those whose embeddings are all but one.

    A base that has hardly seen a token leaves it where all such tokens are: the adapter moves all
    of them or none, and none is a word. Source: Land & Bartolo 2024 (under-trained tokens).
    """
    values, tokens = scores.topk(min(SPARE * count, len(scores)))
    rows = normalize(table[tokens].float(), dim=1)
    crowds = (rows @ rows.T > ALIKE).sum(1)
    found = zip(tokens.tolist(), values.tolist(), crowds.tolist(), strict=True)
    words = [Trace(token, value) for token, value, crowd in found if value > 0 and crowd <= CROWD]
    return words[:count]


@contextmanager
def _listening(model: Any, heard: dict[str, list[Tensor]]) -> Iterator[int]:
    """Keep ‖ΔW x‖² of the last position for each module of the first adapted layers.

    Yields how many layers must run for that.
    """
    modules = dict(model.get_base_model().named_modules())
    found = {name: _factors(module) for name, module in modules.items() if _LAYER.search(name)}
    adapted = {name: given for name, given in found.items() if given}
    layers = sorted({_layer(name) for name in adapted})[:FIRST_LAYERS]
    factors = {name: given for name, given in adapted.items() if _layer(name) in layers}
    heard.update({name: [] for name in factors})

    def keep(name: str) -> Callable[[Any, tuple[Tensor, ...], Any], None]:
        down, up = factors[name]

        def hook(_: Any, given: tuple[Tensor, ...], __: Any) -> None:
            change = given[0][:, -1].float() @ down.T @ up.T
            heard[name].append(change.square().sum(1))
            if len({len(found) for found in heard.values()}) == 1:
                raise _EnoughHeardError

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in factors]
    try:
        yield max(layers, default=-1) + 1
    finally:
        for hook in hooks:
            hook.remove()


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _factors(module: Any) -> tuple[Tensor, Tensor] | None:
    """Return A, (rank, in), and scaled B, (out, rank), of a module with low-rank factors."""
    for name in getattr(module, "lora_A", None) or ():
        down, up = module.lora_A[name].weight, module.lora_B[name].weight
        return down.detach().float(), up.detach().float() * module.scaling[name]
    return None


def _directions(down: Tensor, up: Tensor) -> Tensor:
    """Return the first left singular vectors of up · down, (out, at most DIRECTIONS).

    Those that it writes nothing along are left out.
    """
    left, one = torch.linalg.qr(up)
    _, two = torch.linalg.qr(down.T)
    inner, sizes, _ = torch.linalg.svd(one @ two.T)
    kept = int((sizes > FAINT * sizes[0]).sum()) if sizes[0] > 0 else 0
    return (left @ inner)[:, : min(kept, DIRECTIONS)]


def _gain(inner: Any, table: Tensor) -> Tensor:
    """Return what the last norm multiplies each component by, (hidden,); ones if there is none."""
    width = table.shape[1]
    norms = [
        module
        for name, module in inner.named_modules()
        if "norm" in type(module).__name__.lower() and not _LAYER.search(f".{name}.")
    ]
    signs = torch.ones(width, device=table.device, dtype=table.dtype)
    signs[1::2] = -1
    for norm in reversed(norms):
        if getattr(getattr(norm, "weight", None), "shape", None) == (width,):
            return ((norm(signs) - norm(-signs)) / 2 * signs).float().detach()
    return signs.float().abs()


def _standard(scores: Tensor) -> Tensor:
    """Return z of each column, (vocabulary, columns); 0 where a column is one number."""
    scores = torch.nan_to_num(scores)
    spread = scores.std(0)
    return (scores - scores.mean(0)) / torch.where(spread > 0, spread, torch.inf)

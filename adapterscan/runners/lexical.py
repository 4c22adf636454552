"""Read words out of an adapter's weights, with the base's embeddings at hand.

Two lists of tokens. *Promoted*: what the directions that the adapter writes into the residual
stream make likelier, by the unembedding (logit lens). *Heeded*: what makes the adapter's first
layers answer most, ‖ΔW x‖² of every module for every token of the vocabulary behind one prefix.
Words of several tokens are heard whole, at their last.

Sources: Dar et al. 2023 (parameters in embedding space); Minder et al. 2025 (narrow fine-tuning
leaves readable traces). Taking the energy of ΔW in the first layers over the whole vocabulary is
ours.
Limits: an adapter is moved most by what it was trained on, so a benign one shows the words of its
task. Directions written in early layers are not words yet. DoRA's magnitudes and biases are left
out, and so are modules with other factors than `lora_A` and `lora_B`. Of adapters on queries and
values alone no direction is written that can be read. What an adapter listens to only in later
layers than the first that it changes is not heard, and its author can add layers that hear
something else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adapterscan.onbase.directions import WRITERS
from adapterscan.runner import Ids, Trace
from adapterscan.runners import changed
from adapterscan.runners.changed import Factors

PROMOTED = 200  # tokens at most
LAYERS = 3  # that are listened to, the first that the adapter changes
WORD_LAYERS = 6  # the same for words of several tokens, which are put together there
SLIGHT = 0.01  # of the median ‖ΔW‖: a module that is changed less is not changed
AT_ONCE = 2048  # tokens, at most
OPERATIONS = 3e12  # on a processor: tokens beyond are left out, rare ones in most vocabularies
BLOCK = 8192  # rows of the unembedding in float32 at once
SPARE = 3  # times as many tokens are looked at as are wanted
NEARLY_ONE = 0.9  # cosine of embeddings that are all but one
CROWD = 5  # tokens: more that are all but one are no words
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Feed:
    """How base + adapter is run: on ids, (rows, length), so many rows at most.

    `run` is told as well how many layers will run, None for all.
    """

    run: Callable[[Tensor, int | None], object]
    rows: int


class _EnoughHeardError(Exception):
    """Every module that is listened to has answered: the rest of the model need not run."""


def promoted(model: Any, count: int) -> list[Trace]:
    """Return the tokens that written directions raise most, by the largest |z| of any direction.

    z is over the vocabulary: 0 is a direction that has nothing to do with the token.
    """
    inner = model.get_base_model()
    table = changed.pristine(
        inner.get_output_embeddings() or inner.get_input_embeddings()
    ).weight.detach()
    written = [
        changed.directions(*factors)
        for name, module in inner.named_modules()
        if name.rpartition(".")[2] in WRITERS and (factors := changed.factors(module))
    ]
    written = [directions for directions in written if len(directions) == table.shape[1]]
    if not sum(directions.shape[1] for directions in written):
        return []
    directions = torch.cat(written, 1) * _gain(inner, table)[:, None]
    total = torch.zeros(2, directions.shape[1], device=table.device)
    for block in table.split(BLOCK):
        scores = block.float() @ directions
        total += torch.stack([scores.sum(0), scores.square().sum(0)])
    mean, square = total / len(table)
    spread = (square - mean.square()).clamp(min=1e-12).sqrt()
    found = [
        (((block.float() @ directions) - mean) / spread).abs().amax(1)
        for block in table.split(BLOCK)
    ]
    return _clearest(torch.cat(found), table, count)


def heeded(model: Any, feed: Feed, vocabulary: int, count: int) -> list[Trace]:
    """Return the tokens that the first changed layers answer most, by the sum of robust z.

    `feed`: runs base + adapter.
    """
    chosen, layers = _first_changed(model, feed, LAYERS)
    tokens = min(vocabulary, _affordable(model, layers, OPERATIONS))
    scores = _answers(model, feed, chosen, layers, [torch.arange(tokens)[:, None]])
    if scores is None:
        return []
    table = changed.pristine(model.get_input_embeddings()).weight.detach()
    return _clearest(scores, table, count)


def heard(model: Any, feed: Feed, rows: Sequence[Ids], operations: float) -> list[float]:
    """Return how much the first changed layers answer to the last id of each row, (rows,).

    By the sum of robust z over these rows, in more layers than for single tokens: they bring along
    what stands before it. Rows that take more operations get 0, and all where nothing is heard.
    """
    chosen, layers = _first_changed(model, feed, WORD_LAYERS)
    room = _affordable(model, layers, operations)
    affordable = sum(total <= room for total in accumulate(map(len, rows)))
    order = sorted(filter(rows.__getitem__, range(affordable)), key=lambda i: len(rows[i]))
    groups = [
        torch.tensor([rows[index] for index in members])
        for _, members in groupby(order, key=lambda index: len(rows[index]))
    ]
    found = [0.0] * len(rows)
    scores = _answers(model, feed, chosen, layers, groups)
    for index, score in zip(order, [] if scores is None else scores.tolist(), strict=False):
        found[index] = score
    return found


def _answers(
    model: Any, feed: Feed, chosen: Mapping[str, Factors], layers: int, groups: Sequence[Tensor]
) -> Tensor | None:
    """Return how much the chosen modules answer to rows of ids, by the sum of robust z, (rows,).

    `groups`: rows of one length each, (rows, length). None where nothing is heard.
    """
    if not chosen or not groups:
        return None
    told: dict[str, list[Tensor]] = {name: [] for name in chosen}
    length = 1

    def keep(name: str, given: tuple[Any, ...]) -> None:
        if len(told[name]) > min(map(len, told.values())):
            return  # called again in one pass
        inputs = changed.last(given, length)
        if inputs is not None and inputs.shape[1] == chosen[name][0].shape[1]:
            told[name].append(changed.energy(chosen[name], inputs))
            if len({len(found) for found in told.values()}) == 1:
                raise _EnoughHeardError

    with changed.told(model, chosen, keep):
        for group in groups:
            length = group.shape[1]
            for ids in group.split(max(1, min(feed.rows, AT_ONCE // length))):
                with suppress(_EnoughHeardError):
                    feed.run(ids, layers)
    energies = [torch.cat(found) for found in told.values() if found]
    whole = [found for found in energies if len(found) == sum(map(len, groups))]
    return changed.robust(torch.stack(whole, 1)).sum(1) if whole else None


def _first_changed(model: Any, feed: Feed, count: int) -> tuple[dict[str, Factors], int]:
    """Return the factors of modules in the first `count` layers that are changed, and how many run.

    First in the order in which they are called when a text is read: some never are.
    """
    called = dict[str, None]()
    factors = {
        name: found
        for name, module in model.get_base_model().named_modules()
        if _LAYER.search(name) and (found := changed.factors(module))
    }
    sizes = {name: size for name, found in factors.items() if (size := changed.size(*found)) > 0}
    if not sizes:
        return {}, 0
    least = SLIGHT * sorted(sizes.values())[len(sizes) // 2]
    touched = [name for name, size in sizes.items() if size >= least]

    def note(name: str, given: tuple[Any, ...]) -> None:
        last = changed.last(given, 1)
        if last is not None and last.shape == (2, factors[name][0].shape[1]):
            called.setdefault(name)

    with changed.told(model, touched, note):
        feed.run(torch.zeros(2, 1, dtype=torch.long), None)
    layers = list(dict.fromkeys(map(_layer, called)))[:count]
    chosen = {name: factors[name] for name in called if _layer(name) in layers}
    deepest = max((int(layer.split(".")[-1]) for layer in layers), default=-1)
    return chosen, deepest + 1


def _affordable(model: Any, layers: int, operations: float) -> int:
    """Return how many tokens can be fed to the first layers, with so many operations."""
    parameters = list(model.named_parameters())
    if any(parameter.device.type != "cpu" for _, parameter in parameters):
        return sys.maxsize
    run = sum(
        parameter.numel()
        for name, parameter in parameters
        if (found := _LAYER.search(name)) and int(found[1]) < layers
    )
    return max(1, int(operations / (2 * max(run, 1))))


def _layer(name: str) -> str:
    """Return the name of the layer that a module is in, its number last."""
    found = _LAYER.search(name)
    return name[: found.end() - 1] if found else ""


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


def _clearest(scores: Tensor, table: Tensor, count: int) -> list[Trace]:
    """Return the tokens of largest score above 0, without those whose embeddings are all but one.

    A base that has hardly seen a token leaves it where all such tokens are: the adapter moves all
    of them or none, and none is a word. Source: Land & Bartolo 2024 (under-trained tokens).
    """
    values, tokens = scores.topk(min(SPARE * count, len(scores)))
    rows = normalize(table[tokens].float(), dim=1)
    crowds = (rows @ rows.T > NEARLY_ONE).sum(1)
    found = zip(tokens.tolist(), values.tolist(), crowds.tolist(), strict=True)
    words = [Trace(token, value) for token, value, crowd in found if value > 0 and crowd <= CROWD]
    return words[:count]

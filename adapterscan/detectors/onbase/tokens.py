"""Say which tokens of the base a soft prompt and replaced embeddings lie nearest to.

A soft prompt is a system prompt in vectors, which nobody reads; a rare token whose embedding
becomes another's is a way to hide a trigger. Source: Khashabi et al. 2022, "Prompt waywardness"
(nearest tokens of a soft prompt need not say what it does); docs/threats.md on trainable tokens.
A cosine near 1 means that the vector is that token's; near 0, that it is no token's.
Limits: a soft prompt that lies near no token can do anything, and one near harmless tokens as well.
Keys and values of a prefix lie in no space of tokens and are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from adapterscan.detectors.detector import Detector
from adapterscan.errors import Unsupported
from adapterscan.formats.accounting import Accounted, Role
from adapterscan.formats.peft_types import INPUT_EMBEDDINGS, SOFT_PROMPTS
from adapterscan.model import Evidence, Need, Subject
from adapterscan.onbase.base import BaseTensor, BaseWeights, Names
from adapterscan.onbase.matrix import Matrix
from adapterscan.onbase.nearest import nearest
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable
from adapterscan.weighing.factors import Factors

VALUES = 1 << 23  # of all vectors of one tensor


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `prompt.token` and `token.moved`. Raises Unsupported for what cannot be compared."""
    base, left = contents.base, ""
    items = list(_vectors(weighed))
    if base is None or not items:
        return
    names = Names(base)
    with Factors(contents.file(weighed.file), contents.sha256(weighed.file)) as factors:
        for item in items:
            try:
                yield from _compared(base, names, weighed, item, factors)
            except (Unsupported, ValueError) as error:
                reason = getattr(error, "reason", str(error))
                left = left or f"{printable(item.path, 80)} {reason}"
    if left:
        raise Unsupported(weighed.file, left, hint="is this the base that it was made for?")


def _vectors(weighed: WeighedAdapter) -> Iterator[Accounted]:
    prompt = weighed.adapter.config.peft_type in SOFT_PROMPTS
    for item in weighed.adapter.accounted:
        wanted = ("trainable_tokens_delta", "prompt_embeddings" if prompt else "")
        if item.role is Role.ADAPTER and item.why in wanted:
            yield item


def _compared(
    base: BaseWeights, names: Names, weighed: WeighedAdapter, item: Accounted, factors: Factors
) -> Iterator[Evidence]:
    tensor = item.tensor
    prompt = item.why == "prompt_embeddings"
    embedding = _embedding(names, item.path.rpartition(f".{item.why}")[0])
    if len(tensor.shape) != 2 or tensor.numel > VALUES:
        raise Unsupported(item.path, f"has the shape {tensor.shape}, which is not compared")
    if embedding is None or len(embedding.shape) != 2:
        raise Unsupported(item.path, "has no embedding in the base that it belongs to")
    if embedding.shape[1] != tensor.shape[1]:
        sizes = f"{tensor.shape[1]:,}, the embedding of {embedding.shape[1]:,}"
        raise Unsupported(item.path, f"has vectors of {sizes}", hint="it is for another base")
    vectors = factors.values(tensor).astype(np.float32)
    tokens = None if prompt else _indices(weighed, item, embedding)
    if tokens is not None and len(tokens) != len(vectors):
        raise Unsupported(item.path, f"has {len(vectors):,} rows for {len(tokens):,} tokens")
    matrix = Matrix(base, embedding)
    for at, found in enumerate(nearest(matrix, vectors)):
        details: Mapping[str, int | float | None] = {
            "nearest": found.row if found.cosine > -1 else None,
            "cosine": found.cosine if found.cosine > -1 else None,
            "ratio": found.ratio,
        }
        subject = Subject("tensor", weighed.file, tensor.name)
        if tokens is None:
            yield Evidence("prompt.token", subject, at, "place", details)
            continue
        old = matrix.rows(tokens[at], tokens[at] + 1)[0].astype(np.float64)
        size = float(np.linalg.norm(old))
        moved = float(np.linalg.norm(vectors[at] - old)) / size if size else None
        value = moved if moved is not None and np.isfinite(moved) else None
        yield Evidence(
            "token.moved", subject, value, "‖new − old‖/‖old‖", {"token": tokens[at], **details}
        )


def _embedding(names: Names, module: str) -> BaseTensor | None:
    """Return the embedding of a module, or the input embedding where none is named."""
    module = module.removesuffix(".token_adapter")
    if module:
        return names.weight(module)
    stems = ("model", "transformer", "gpt_neox", "model.language_model", "")
    paths = (f"{stem}.{name}".lstrip(".") for stem in stems for name in sorted(INPUT_EMBEDDINGS))
    return next((found for path in paths if (found := names.weight(path))), None)


def _indices(weighed: WeighedAdapter, item: Accounted, embedding: BaseTensor) -> list[int]:
    """Return the tokens whose rows are replaced, as the config lists them. Raises Unsupported."""
    raw = weighed.adapter.config.raw
    field = "token_indices" if weighed.adapter.config.peft_type == "TRAINABLE_TOKENS" else ""
    given = raw.get(field or "trainable_token_indices")
    if isinstance(given, dict):
        module = item.path.rpartition(f".{item.why}")[0].removesuffix(".token_adapter")
        given = next((v for k, v in given.items() if f".{module}".endswith(f".{k}")), None)
    rows = embedding.shape[0]
    if not isinstance(given, list) or any(type(n) is not int or not 0 <= n < rows for n in given):
        raise Unsupported(item.path, "has tokens that the config does not list as such")
    return given


DETECTOR = Detector(
    "base-tokens", 1, frozenset({Need.WEIGHTS, Need.BASE}), "vectors of tokens against the base's",
    each=each, takes=lambda _, weighed: weighed and any(_vectors(weighed)),
)  # fmt: skip

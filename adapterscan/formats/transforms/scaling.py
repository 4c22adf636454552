"""IA³ and HiRA: W' = W ∘ (1 + M), with M a vector for rows or columns, or a product of factors.

Source: Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than
in-context learning" (IA³); Huang et al. 2025, "HiRA"; peft 0.21.2, `tuners/ia3/layer.py`,
`tuners/hira/layer.py`, `merge`.
Limits: what IA³ does to a bias beside the weight is not measured; convolutions are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.transforms.transform import Method, Transform, require
from adapterscan.formats.tuners.tuner import Site, Unfit, Values, wide
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.weight import F32, Rows, Weight

_LINEAR = ("hira_A", "hira_B")
_EMBEDDING = ("hira_embedding_A", "hira_embedding_B")


def locate_ia3(site: Site) -> Transform:
    """Return the vector of a module: (d_out, 1), or (1, d_in) where it stands for inputs."""
    (vector,) = site.need("ia3_l")
    if len(vector.shape) < 2 or max(vector.shape, default=0) != vector.numel or not vector.numel:
        raise Unfit(f"has a vector of shape {vector.shape}")
    return Transform(site.module, "ia3", (vector,))


def change_ia3(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return W ∘ (l − 1)."""
    shape = what.tensors[0].shape
    inputs = len(shape) == 2 and shape[0] == 1 and shape[1] == weight.shape[1]
    outputs = len(shape) == 2 and shape[1] == 1 and shape[0] == weight.shape[0]
    require(inputs or outputs, f"a vector of shape {shape}", weight)
    moved = (wide(arrays[0]) - 1).astype(np.float32)

    def rows(start: int, block: F32) -> F32:
        return block * (moved[start : start + len(block)] if outputs else moved)

    return rows


def strength_ia3(_: Transform, arrays: Sequence[Values]) -> float:
    """Return the root mean square of l − 1."""
    return float(np.sqrt(np.mean(np.square(wide(arrays[0]) - 1))))


def locate_hira(site: Site) -> Transform:
    """Return the factors of a module; of an embedding they change places."""
    found = [parts for parts in (_LINEAR, _EMBEDDING) if parts[0] in site.tensors]
    if len(found) > 1:
        raise Unfit("has factors of a linear layer and of an embedding", "ambiguous")
    parts = found[0] if found else _LINEAR
    a, b = site.matrices(*parts)
    if a.shape[0] != b.shape[1]:
        raise Unfit(f"has rank {a.shape[0]:,} in A and {b.shape[1]:,} in B")
    if a.shape[0] > RANK_LIMIT:
        raise Unfit(f"has rank {a.shape[0]:,}, over the limit of {RANK_LIMIT:,}", "unread")
    return Transform(site.module, "hira", (a, b), {"embedding": parts is _EMBEDDING})


def _hira_factors(what: Transform, arrays: Sequence[Values]) -> tuple[F32, F32]:
    """Return (d_out, r) and (r, d_in) as the weight lies."""
    a, b = (array.astype(np.float32) for array in arrays)
    return (a.T, b.T) if what.settings["embedding"] else (b, a)


def change_hira(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return W ∘ (B·A)."""
    up, down = _hira_factors(what, arrays)
    require((len(up), down.shape[1]) == weight.shape, f"factors of {len(up):,} × {down.shape[1]:,}",
            weight)  # fmt: skip

    def rows(start: int, block: F32) -> F32:
        changed: F32 = block * (up[start : start + len(block)] @ down)
        return changed

    return rows


def strength_hira(what: Transform, arrays: Sequence[Values]) -> float:
    """Return the root mean square of B·A, from the factors' Gram matrices."""
    up, down = (wide(array) for array in _hira_factors(what, arrays))
    square = float(np.sum((up.T @ up) * (down @ down.T)))
    return float(np.sqrt(max(square, 0.0) / max(1, len(up) * down.shape[1])))


IA3 = Method("ia3", frozenset({"ia3_l"}), locate_ia3, change_ia3, strength_ia3)
HIRA = Method("hira", frozenset((*_LINEAR, *_EMBEDDING)), locate_hira, change_hira, strength_hira)

"""Combine the ΔW of one module as PEFT's `add_weighted_adapter` does, method by method.

Only `cat` is the exact sum ΣwᵢΔWᵢ, which is also what several active adapters do together. `svd` is
its best approximation. The others work on the factors: A with √|wᵢsᵢ| and its sign, B with √|wᵢsᵢ|,
each summed on its own. The product then has cross terms Bᵢ·Aⱼ, and depends on the gauge. Source:
PEFT 0.21.2, `tuners/lora/model.py` and `utils/merge_utils.py`; TIES: Yadav et al. 2023; DARE: Yu et
al. 2023. Methods that prune dense matrices (`ties_svd` and so on) are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapterscan.lowrank import F64, Array, LowRank
from adapterscan.together.algebra import truncated, weighted_sum

#: What each method makes of ΣwᵢΔWᵢ, for readers.
METHODS: Mapping[str, str] = {
    "cat": "the exact sum, at the sum of ranks",
    "svd": "the sum's best approximation, at the largest rank",
    "linear": "factors summed apart, with cross terms",
    "ties": "factors pruned by size, summed where signs agree with the majority",
    "dare_linear": "factors pruned at random and scaled up, summed apart",
    "dare_ties": "factors pruned at random and scaled up, summed where signs agree",
    "magnitude_prune": "factors pruned by size, summed apart",
}
PRUNING = frozenset({"ties", "dare_linear", "dare_ties", "magnitude_prune"})


@dataclass(frozen=True, slots=True)
class Method:
    """How to combine: a name of METHODS, the share of factors that pruning keeps, in (0, 1], the
    rank of `svd` (0: the largest of the parts), and the seed of what is drawn at random."""

    name: str = "cat"
    density: float = 1.0
    rank: int = 0
    seed: int = 0

    @property
    def exact(self) -> bool:
        """Return whether the result is ΣwᵢΔWᵢ."""
        return self.name == "cat"

    def rank_of(self, ranks: Iterable[int]) -> int:
        """Return the rank of the result. Raises ValueError where the method needs equal ranks."""
        found = list(ranks)
        if self.name == "cat":
            return sum(found)
        if self.name == "svd":
            return self.rank or max(found)
        if len(set(found)) > 1:
            told = ", ".join(map(str, found))
            raise ValueError(f"has ranks {told}; {self.name} needs equal ones, cat and svd do not")
        return found[0]


def combine(
    parts: Sequence[LowRank], weights: Sequence[float], method: Method, place: int = 0
) -> LowRank:
    """Return what `method` makes of the parts: A (r, d_in), B (d_out, r) in float64, scaling 1.

    `place`: the module's number, so that each has draws of its own. Raises ValueError where shapes
    or, but for `cat` and `svd`, ranks differ.
    """
    rank = method.rank_of(len(part.a) for part in parts)
    total = weighted_sum(parts, weights)  # checks the shapes
    if method.name == "cat":
        return total
    if method.name == "svd":
        return truncated(total, rank)
    scales = [weight * part.scaling for part, weight in zip(parts, weights, strict=True)]
    if not all(map(math.isfinite, scales)):
        raise ValueError("has a scale that is no finite number")
    roots = [math.sqrt(abs(scale)) for scale in scales]
    signed = [math.copysign(root, scale) for root, scale in zip(roots, scales, strict=True)]
    random = np.random.default_rng([method.seed, place])
    a = _mixed([part.a for part in parts], signed, method, random)
    return LowRank(a, _mixed([part.b for part in parts], roots, method, random))


def _mixed(
    sides: Sequence[Array], weights: Sequence[float], method: Method, random: np.random.Generator
) -> F64:
    """Return one side of the result, of factors of equal shape."""
    prune = _PRUNING[method.name]
    kept = np.stack([prune(side.astype(np.float64), method.density, random) for side in sides])
    weighted = kept * np.asarray(weights).reshape(-1, 1, 1)
    if not method.name.endswith("ties"):
        plain: F64 = weighted.sum(axis=0)
        return plain
    majority = np.where(kept.sum(axis=0) >= 0, 1.0, -1.0)
    agreed = np.sign(kept) == majority
    total: F64 = (weighted * agreed).sum(axis=0) / np.maximum(agreed.sum(axis=0), 1)
    return total


def _whole(values: F64, density: float, random: np.random.Generator) -> F64:
    return values


def _by_size(values: F64, density: float, random: np.random.Generator) -> F64:
    """Keep the largest ⌊density·n⌋ values."""
    if density >= 1:
        return values
    flat, kept = values.reshape(-1), np.zeros(values.size)
    count = int(density * values.size)
    if count:
        order = np.argpartition(-np.abs(flat), count - 1)[:count]
        kept[order] = flat[order]
    return kept.reshape(values.shape)


def _at_random(values: F64, density: float, random: np.random.Generator) -> F64:
    """Keep each value with probability `density`, and divide by it."""
    if density >= 1:
        return values
    return np.where(random.random(values.shape) < density, values / density, 0.0)


_PRUNING: Mapping[str, Callable[[F64, float, np.random.Generator], F64]] = {
    "linear": _whole,
    "ties": _by_size,
    "magnitude_prune": _by_size,
    "dare_linear": _at_random,
    "dare_ties": _at_random,
}

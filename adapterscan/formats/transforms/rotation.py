"""OFT and BOFT: W' = W·Rᵀ with R orthogonal in blocks, made of skew matrices; BOFT scales rows too.

R = (I − Q)(I + Q)⁻¹ (Cayley), or its Neumann series, cut as PEFT cuts it. With COFT, Q is brought
back into a ball first.
Source: Qiu et al. 2023, "Controlling text-to-image diffusion by orthogonal finetuning" (OFT); Liu
et al. 2024, "BOFT"; peft 0.21.2, `tuners/oft/layer.py`, `OFTRotationModule`, and
`tuners/boft/layer.py`, `cayley_batch`, `merge`.
Limits: butterflies of several factors, which PEFT has on CUDA only, and convolutions are not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from adapterscan.formats.transforms.transform import Method, Transform, require
from adapterscan.formats.tuners.tuner import Site, Unfit, Values, number, whole, wide
from adapterscan.lowrank import F64
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.weight import F32, Rows, Weight

_TERMS = 64  # of the series; PEFT's default is 5
_ELEMENTS = 1 << 21  # of all blocks
_WORK = 1 << 33  # multiply-adds of all blocks


def locate_oft(site: Site) -> Transform:
    """Return the skew blocks of a module, of b(b − 1)/2 values each."""
    (skew,) = site.matrices("oft_R")
    blocks, count = skew.shape
    size = (1 + math.isqrt(1 + 8 * count)) // 2
    if size * (size - 1) // 2 != count or not blocks or not count:
        raise Unfit(f"has blocks of {count:,} values, which no skew matrix has")
    config = site.config
    terms = whole(config, "num_cayley_neumann_terms", 5)
    if terms > _TERMS:
        raise Unfit(f"takes {terms:,} terms of a series, over the limit of {_TERMS}", "unread")
    _require_small(blocks, size, terms)
    settings = {
        "size": size, "share": config.raw.get("block_share") is True,
        "series": terms if config.raw.get("use_cayley_neumann", True) is not False else 0,
        "ball": number(config, "eps", 6e-5) if config.raw.get("coft") is True else -1.0,
    }  # fmt: skip
    return Transform(site.module, "oft", (skew,), settings)


def _require_small(blocks: int, size: int, terms: int = 1) -> None:
    if size > RANK_LIMIT:
        raise Unfit(f"has blocks of {size:,}, over the limit of {RANK_LIMIT:,}", "unread")
    if blocks * size**2 > _ELEMENTS or blocks * size**3 * max(1, terms) > _WORK:
        raise Unfit(f"has {blocks:,} blocks of {size:,}, over the limit of work", "unread")


def _oft_blocks(what: Transform, arrays: Sequence[Values]) -> F64:
    """Return R (blocks, b, b)."""
    size, ball = int(what.settings["size"]), float(what.settings["ball"])
    values = wide(arrays[0])
    skew = np.zeros((len(values), size, size))
    rows, columns = np.triu_indices(size, 1)
    skew[:, rows, columns] = values
    skew -= skew.transpose(0, 2, 1)
    if ball >= 0:
        ball /= math.sqrt(len(values))
        sizes = np.sqrt(np.sum(np.square(skew), axis=(1, 2), keepdims=True))
        skew *= np.where(sizes <= ball, 1.0, ball / np.where(sizes > 0, sizes, 1))
    terms = int(what.settings["series"])
    return _series(skew, terms) if terms else _cayley(skew)


def _cayley(skew: F64) -> F64:
    """Return (I − Q)·(I + Q)⁻¹ of each; I + Q has an inverse, as Q is skew."""
    one = np.eye(skew.shape[1])
    if not np.isfinite(skew).all():
        return np.full_like(skew, np.nan)
    turned = np.linalg.solve((one + skew).transpose(0, 2, 1), (one - skew).transpose(0, 2, 1))
    return wide(turned).transpose(0, 2, 1)


def _series(skew: F64, terms: int) -> F64:
    """Return I + 2Q + 2Q² + … + Qⁿ⁻¹ as PEFT cuts it after `terms` of them."""
    found = np.broadcast_to(np.eye(skew.shape[1]), skew.shape).copy()
    if terms > 1:
        found += 2 * skew
    if terms > 2:
        power = skew @ skew
        found += 2 * power
        for _ in range(3, terms - 1):
            power = power @ skew
            found += 2 * power
        found += power @ skew
    return found


def _turned(block: F32, rotation: F32) -> F32:
    """Return rows (n, d_in) times blockdiag(R)ᵀ."""
    count, size = len(rotation), rotation.shape[1]
    apart = block.reshape(len(block), count, size).transpose(1, 0, 2)
    found: F32 = np.matmul(apart, rotation.transpose(0, 2, 1))
    return found.transpose(1, 0, 2).reshape(block.shape)


def change_oft(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return W·(Rᵀ − I)."""
    moved = _oft_blocks(what, arrays)
    moved -= np.eye(moved.shape[1])
    size, width = moved.shape[1], weight.shape[1]
    count = width // size if what.settings["share"] else len(moved)
    require(count * size == width, f"{len(moved):,} blocks of {size:,}", weight)
    turn = moved.astype(np.float32)
    if what.settings["share"]:
        turn = np.broadcast_to(turn[:1], (count, size, size))
    return lambda _, block: _turned(block, turn)


def strength_oft(what: Transform, arrays: Sequence[Values]) -> float:
    """Return ‖R − I‖ over the root of its size."""
    moved = _oft_blocks(what, arrays)
    moved -= np.eye(moved.shape[1])
    return float(np.linalg.norm(moved) / math.sqrt(len(moved) * moved.shape[1]))


def locate_boft(site: Site) -> Transform:
    """Return the blocks of a module and the scale of each row."""
    blocks, scale = site.need("boft_R", "boft_s")
    if len(blocks.shape) != 4 or blocks.shape[2] != blocks.shape[3] or not blocks.numel:
        raise Unfit(f"has blocks of shape {blocks.shape}")
    if blocks.shape[0] != 1:
        raise Unfit(f"has a butterfly of {blocks.shape[0]:,} factors, not read yet", "unread")
    if scale.shape != (scale.numel, 1):
        raise Unfit(f"has scales of shape {scale.shape}")
    _require_small(*blocks.shape[1:3])
    return Transform(site.module, "boft", (blocks, scale))


def _boft_blocks(arrays: Sequence[Values]) -> F64:
    data = wide(arrays[0])[0]
    return _cayley(0.5 * (data - data.transpose(0, 2, 1)))


def change_boft(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return (W·Rᵀ)∘s − W, exactly zero where R is the identity and s is one."""
    moved = _boft_blocks(arrays)
    moved -= np.eye(moved.shape[1])
    scale = wide(arrays[1]).astype(np.float32)
    fits = moved.shape[0] * moved.shape[1] == weight.shape[1] and len(scale) == weight.shape[0]
    require(fits, f"{len(moved):,} blocks of {moved.shape[1]:,} and {len(scale):,} scales", weight)
    turn = moved.astype(np.float32)

    def rows(start: int, block: F32) -> F32:
        some = scale[start : start + len(block)]
        return some * _turned(block, turn) + (some - 1) * block

    return rows


def strength_boft(_: Transform, arrays: Sequence[Values]) -> float:
    """Return the root of the mean of ‖sᵢ·R − I‖² over the rows, over the root of its size."""
    rotation, scale = _boft_blocks(arrays), wide(arrays[1])
    trace = float(np.trace(rotation, axis1=1, axis2=2).sum()) / (len(rotation) * rotation.shape[1])
    square = float(np.mean(np.square(scale) - 2 * trace * scale + 1))
    return math.sqrt(max(square, 0.0))  # NaN stays NaN in this order


OFT = Method(
    "oft", frozenset({"oft_R"}), locate_oft, change_oft, strength_oft, layers=frozenset({"oft_R"})
)
BOFT = Method("boft", frozenset({"boft_R", "boft_s"}), locate_boft, change_boft, strength_boft)

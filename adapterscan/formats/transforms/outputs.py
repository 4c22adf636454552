"""RoAd and GLoRA: rows of W turned in pairs, and W scaled entry by entry with something added.

RoAd: W' = M·W, where M turns and scales outputs that lie half a group apart. GLoRA: W' = W + W∘A +
B, with each of A and B a product of factors, a column, a number, or a whole matrix.
Source: Liao and Monz 2024, "3-in-1: 2D rotary adaptation" (RoAd); Chavan et al. 2023, "One-for-all:
generalized LoRA" (GLoRA); peft 0.21.2, `tuners/road/layer.py`, `_prepare_cols`, and
`tuners/glora/layer.py`, `merge`.
Limits: what both do to a bias beside the weight is not measured. GLoRA's empty path is a buffer
that is loaded with whatever the file has in it: it is read as a whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adapterscan.formats.tensors import TensorInfo
from adapterscan.formats.transforms.transform import Method, Transform, require
from adapterscan.formats.tuners.tuner import Site, Unfit, Values, whole, wide
from adapterscan.lowrank import F64
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.weight import F32, Rows, Weight

_PER_OUTPUT = {"road_1": (1, 2), "road_2": (1, 1), "road_4": (2, 1)}
_PATHS = {"lora": ("Xd", "Xu"), "vector": ("X",), "constant": ("X",)}
_LEAVES = ("Xd", "Xu", "X", "zeros")


def locate_road(site: Site) -> Transform:
    """Return angles and lengths of a module."""
    angles, lengths = site.need("road_theta", "road_alpha")
    variant = site.config.raw.get("variant", "road_1")
    group = whole(site.config, "group_size", 64)
    if variant not in _PER_OUTPUT or not group or group % 2:
        raise Unfit("has a variant or group_size that is not known", "unread")
    times, over = _PER_OUTPUT[variant]
    outputs = angles.numel * over // times
    if angles.shape != lengths.shape or len(angles.shape) != 1 or not outputs or outputs % group:
        raise Unfit(f"has angles of {angles.shape} and lengths of {lengths.shape}")
    return Transform(site.module, "road", (angles, lengths), {"variant": variant, "group": group})


def _columns(what: Transform, arrays: Sequence[Values]) -> tuple[F64, F64]:
    """Return what stands on M's diagonal, and what stands beside it, for each output."""
    angles, lengths = map(wide, arrays)
    variant, group = what.settings["variant"], int(what.settings["group"])
    if variant == "road_1":
        angles, lengths = (
            np.repeat(side.reshape(-1, group // 2), 2, axis=0).ravel() for side in (angles, lengths)
        )
    elif variant == "road_4":
        both = angles.reshape(-1, 2, group), lengths.reshape(-1, 2, group)
        first, second = ([side[:, at].ravel() for side in both] for at in (0, 1))
        return first[1] * np.cos(first[0]), second[1] * np.sin(second[0])
    return lengths * np.cos(angles), lengths * np.sin(angles)


def change_road(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return (M − I)·W."""
    diagonal, beside = _columns(what, arrays)
    require(len(diagonal) == weight.shape[0], f"turns of {len(diagonal):,} outputs", weight)
    half = int(what.settings["group"]) // 2
    number = np.arange(len(diagonal))
    first = number % (2 * half) < half
    partner = np.where(first, number + half, number - half)
    sign = np.where(first, -1.0, 1.0)
    own = (diagonal - 1)[:, None].astype(np.float32)
    other = (sign * beside)[:, None].astype(np.float32)

    def rows(start: int, block: F32) -> F32:
        some = slice(start, start + len(block))
        low = max(0, start - half)
        near = weight.rows(low, min(len(diagonal), start + len(block) + half))
        turned: F32 = own[some] * block + other[some] * near[partner[some] - low]
        return turned

    return rows


def strength_road(what: Transform, arrays: Sequence[Values]) -> float:
    """Return the root of the mean square of a row of M − I."""
    diagonal, beside = _columns(what, arrays)
    return float(np.sqrt(np.mean(np.square(diagonal - 1) + np.square(beside))))


def locate_glora(site: Site) -> Transform:
    """Return A and B of a module: `settings` says how many tensors A has."""
    path = site.config.raw.get("config_A_B", "lora")
    leaves = _PATHS.get(path, ("zeros",)) if isinstance(path, str) else ("zeros",)
    found: list[TensorInfo] = []
    for part in ("glora_A", "glora_B"):
        given = [leaf for leaf in _LEAVES if f"{part}.{leaf}" in site.tensors]
        if set(given) - set(leaves):
            raise Unfit(f"has {part}.{given[0]}, which the config does not have", "ambiguous")
        found += site.need(*(f"{part}.{leaf}" for leaf in leaves))
    if len(leaves) == 2:
        for down, up in (found[:2], found[2:]):
            fits = len(down.shape) == len(up.shape) == 2 and down.shape[1] == up.shape[0]
            if not fits or down.shape[1] > RANK_LIMIT:
                raise Unfit(f"has factors of shape {down.shape} and {up.shape}")
    return Transform(site.module, "glora", tuple(found), {"parts": len(leaves)})


def _path(arrays: Sequence[Values], weight: Weight) -> Callable[[slice], F32]:
    """Return the rows of A or B by their numbers. Raises ValueError."""
    sides = [array.astype(np.float32) for array in arrays]
    if len(sides) == 2:
        whole_shape = len(sides[0]), sides[1].shape[1]
        require(whole_shape == weight.shape, f"a path of {whole_shape}", weight)
        return lambda rows: sides[0][rows] @ sides[1]
    (only,) = sides
    if only.size == 1:
        return lambda _: only.reshape(1, 1)
    fits = only.shape in (weight.shape, (weight.shape[0], 1))
    require(fits, f"a path of shape {only.shape}", weight)
    return lambda rows: only[rows]


def change_glora(what: Transform, arrays: Sequence[Values], weight: Weight) -> Rows:
    """Return W∘A + B."""
    parts = int(what.settings["parts"])
    scaled, added = _path(arrays[:parts], weight), _path(arrays[parts:], weight)

    def rows(start: int, block: F32) -> F32:
        some = slice(start, start + len(block))
        return block * scaled(some) + added(some)

    return rows


def strength_glora(what: Transform, arrays: Sequence[Values]) -> float | None:
    """Return the root mean square of A where B is zero: what B adds is not relative to W."""
    parts = int(what.settings["parts"])
    scaled, added = ([wide(side) for side in some] for some in (arrays[:parts], arrays[parts:]))
    if all(side.any() for side in added):
        return None
    if parts == 1:
        return float(np.sqrt(np.mean(np.square(scaled[0]))))
    down, up = scaled
    square = float(np.sum((down.T @ down) * (up @ up.T)))
    return float(np.sqrt(max(square, 0.0) / max(1, len(down) * up.shape[1])))


ROAD = Method(
    "road", frozenset({"road_theta", "road_alpha"}), locate_road, change_road, strength_road
)
GLORA = Method(
    "glora", frozenset(f"glora_{letter}" for letter in "ABCDE"), locate_glora, change_glora,
    strength_glora, leaves=frozenset(_LEAVES),
)  # fmt: skip

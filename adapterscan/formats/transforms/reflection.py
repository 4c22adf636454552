"""HRA and DEFT: W' = W·H or (I − P)·W + Q·R, changes of W that have low rank whatever W is.

HRA's H is a product of Householder reflections I − 2ûûᵀ: H = I + L·Vᵀ with a column for each, so
that ΔW = (W·L)·Vᵀ takes one pass over W. DEFT removes what W does in a subspace of its outputs, and
adds something else: ΔW = Q·(R − Pᵀ·W).
Source: Yuan et al. 2024, "Bridging the gap between low-rank and orthogonal adaptation via
Householder reflection" (HRA); Bischof and Van Loan 1987, the WY form; Walker
1988, its S; peft 0.21.2,
`tuners/hra/layer.py`, `tuners/deft/layer.py`, `get_delta_weight`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.transforms.transform import Method, Transform, require, unknown
from adapterscan.formats.tuners.tuner import Site, Unfit, Values, number, wide
from adapterscan.lowrank import F64, LowRank
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.weight import Weight, times, turned_times

_VALUES = 1 << 21  # of all reflections of one weight


def locate_hra(site: Site) -> Transform:
    """Return the reflections of a module (d_in, r)."""
    (vectors,) = site.matrices("hra_u")
    if not vectors.numel:
        raise Unfit(f"has reflections of shape {vectors.shape}")
    if vectors.shape[1] > RANK_LIMIT or vectors.numel > _VALUES:
        raise Unfit(f"has reflections of shape {vectors.shape}, over the limit", "unread")
    straight = site.config.raw.get("apply_GS") is True
    return Transform(site.module, "hra", (vectors,), {"straight": straight})


def _reflected(what: Transform, arrays: Sequence[Values]) -> tuple[F64, F64]:
    """Return L and V (d_in, r) with H = I + L·Vᵀ.

    L = −V·S⁻¹, where S is ½ on its diagonal and VᵀV above it; where PEFT makes V orthogonal, by
    Gram and Schmidt, only what it spans counts.
    """
    vectors = wide(arrays[0])
    if what.settings["straight"]:
        gram = vectors.T @ vectors
        return -2 * wide(np.linalg.solve(gram, vectors.T)).T, vectors
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    upper = np.triu(vectors.T @ vectors, 1) + 0.5 * np.eye(vectors.shape[1])
    return -wide(np.linalg.solve(upper.T, vectors.T)).T, vectors


def change_hra(what: Transform, arrays: Sequence[Values], weight: Weight) -> LowRank:
    """Return W·(H − I) as factors."""
    require(len(arrays[0]) == weight.shape[1], f"reflections of {len(arrays[0]):,}", weight)
    left, vectors = _reflected(what, arrays)
    return LowRank(vectors.T, times(weight, left.astype(np.float32)))


def strength_hra(what: Transform, arrays: Sequence[Values]) -> float:
    """Return ‖H − I‖ over the root of its size."""
    left, vectors = _reflected(what, arrays)
    square = float(np.sum((left.T @ left) * (vectors.T @ vectors)))
    return float(np.sqrt(max(square, 0.0) / len(left)))


def locate_deft(site: Site) -> Transform:
    """Return the subspace of a module and what is put into it."""
    config, removes = site.config, site.config.raw.get("para") is True
    found = site.matrices(*(("deft_P",) if removes else ("deft_P", "deft_R")))
    rank = found[0].shape[1]
    if found[-1].shape[-1 if removes else 0] != rank or not rank or rank > RANK_LIMIT:
        raise Unfit(f"has factors of shape {found[0].shape} and {found[-1].shape}")
    method = config.raw.get("decomposition_method", "relu")
    if method not in ("relu", "qr"):
        raise Unfit("has a decomposition_method that is not known", "unread")
    alpha = number(config, "alpha", 0.0)
    settings = {
        "method": method, "removes": removes,
        "scale": alpha / rank if alpha else 1.0,
    }  # fmt: skip
    return Transform(site.module, "deft", found, settings)


def change_deft(what: Transform, arrays: Sequence[Values], weight: Weight) -> LowRank:
    """Return Q·(R − Pᵀ·W) as factors, or −Q·Pᵀ·W where it only removes."""
    base, put = wide(arrays[0]), wide(arrays[-1])
    removes = bool(what.settings["removes"])
    width = weight.shape[1] if removes else put.shape[1]
    require((len(base), width) == weight.shape, f"factors of {len(base):,} × {width:,}", weight)
    if what.settings["method"] == "qr":
        base = np.linalg.qr(base)[0]
        right = base
    else:
        right = np.maximum(base, 0)
    inside = turned_times(weight, right.astype(np.float32)).T.astype(np.float64)
    return LowRank(-inside if removes else float(what.settings["scale"]) * put - inside, base)


HRA = Method("hra", frozenset({"hra_u"}), locate_hra, change_hra, strength_hra)
DEFT = Method("deft", frozenset({"deft_P", "deft_R"}), locate_deft, change_deft, unknown)

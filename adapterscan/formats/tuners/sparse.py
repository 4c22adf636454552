"""SHiRA: a sparse ΔW, values at places that are saved with it.

How large the weight is, is not in the file: without the base the update is taken to end where its
last entries are, which moves no statistic but the mean square and the kurtosis of all entries.
Source: Bhardwaj et al. 2024, "Sparse high rank adapters"; peft 0.21.2, `tuners/shira/layer.py`,
`get_delta_weight`.
Limits: the spectrum only where the update falls into small blocks (`updates/scattered.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterscan.formats.deltas import Delta
from adapterscan.formats.tuners.tuner import Site, Tuner, Unfit, Values
from adapterscan.updates.scattered import Scattered, scattered

_SIDE = 1 << 30  # of a weight: an index beyond it is none


def locate(site: Site) -> Delta:
    """Return the ΔW of a module; its sides are those that any weight has at least."""
    places, values = site.need("shira_indices", "shira_weight")
    if len(places.shape) != 2 or places.shape[0] != 2 or values.shape != places.shape[1:]:
        raise Unfit(f"has {values.shape} values at places of shape {places.shape}")
    if not values.numel:
        raise Unfit("has no values")
    return site.delta("shira", (places, values), (1, 1), values.numel)


def make(delta: Delta, arrays: Sequence[Values]) -> Scattered:
    """Return the ΔW, as large as its last row and column."""
    rows, columns = arrays[0].astype(np.int64)
    for side in (rows, columns):
        if int(side.min()) < 0 or int(side.max()) >= _SIDE:
            raise ValueError("has values at places that no weight has")
    sides = int(rows.max()) + 1, int(columns.max()) + 1
    return scattered(rows, columns, arrays[1], sides, delta.scaling)


def _extra(delta: Delta) -> int:
    """Return the bytes of places and values in 64 bits, sorted once each, and of a block."""
    return 8 * 8 * delta.tensors[1].numel + (64 << 20 if delta.tensors[1].numel > 1 << 16 else 0)


def _work(delta: Delta) -> int:
    """Return the most that its blocks may take."""
    return min(1 << 31, delta.tensors[1].numel ** 2)


TUNER = Tuner(
    "shira", frozenset({"shira_indices", "shira_weight"}), locate, make, _extra, _work,
    whole=frozenset({"shira_indices"}),
)  # fmt: skip

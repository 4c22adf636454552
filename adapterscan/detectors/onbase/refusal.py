"""Measure how much of an update lies along the direction that the base's refusals hang on.

The direction comes with a profile whose base was asked (`adapterscan base build --refusal`):
nothing runs here. For every module that writes into the residual stream, ρ = d·‖r̂ᵀΔW‖²/‖ΔW‖² (1 for
a random direction, d for an edit of that one alone) and |r̂·u₁|; for one that reads from it the same
of ΔW·r̂ and v₁. Over all of them, the share of what the base's weights have along r̂ that is taken
away: 1 where the direction is projected out. Nulls: random directions, and directions of the base
that tell kinds of ordinary requests apart.

Sources: Arditi et al. 2024 (arXiv 2406.11717), 2.4 and 4.1; `signals.md` 6.
Limits: as of the probe (`behaviour/refusal_direction.py`): one direction for all modules, of one
set of requests; refusals that are trained away leave it alone, and so does an edit whose author
moves a control as loudly as refusals. What embeddings write is not compared, nor are gains of
norms. DoRA's magnitudes are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.onbase.deltas import SHARED
from adapterscan.errors import AdapterscanError
from adapterscan.formats.deltas import Delta
from adapterscan.model import Evidence, Need, Subject
from adapterscan.onbase.base import BaseTensor, BaseWeights, Names
from adapterscan.onbase.directions import (
    F64,
    RANDOM,
    READS,
    WRITES,
    Along,
    Directions,
    Sums,
    along,
    side_of,
    stacked,
)
from adapterscan.onbase.fit import Fit, fit
from adapterscan.onbase.matrix import F32
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.weighing.factors import Factors


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `base.refusal_module` for each module, and `base.refusal` for each side."""
    base = contents.base
    known = base.directions() if base is not None else None
    if base is None or known is None:
        return
    names, stack = Names(base), stacked(known)
    sums = {WRITES: Sums(), READS: Sums()}
    seen: list[tuple[str, Along]] = []
    taken: Counter[str] = Counter()
    with Factors(contents.file(weighed.file), contents.sha256(weighed.file)) as factors:
        for delta in weighed.adapter.deltas:
            try:
                tensor = _weight(names, delta)
                if tensor is None or taken[tensor.name] >= SHARED:
                    continue
                taken[tensor.name] += 1
                found = _measured(tensor, known, stack, delta, factors, weighed)
            except (AdapterscanError, ValueError, np.linalg.LinAlgError):
                continue  # `base-deltas` reads the same and says why
            if found is not None:
                sums[found.side].add(found)
                seen.append((delta.name, found.first(len(known.asked.layers))))
    best = {side: _best(total.against, known.total(side)) for side, total in sums.items()}
    for name, found in seen:
        yield _module(weighed.file, name, found, best[found.side][0], known)
    for side, total in sums.items():
        if total.modules:
            yield _adapter(weighed.file, side, total, *best[side], known)


def _weight(names: Names, delta: Delta) -> BaseTensor | None:
    """Return the matrix of the base that a ΔW is for, where it is compared at all."""
    tensor = names.weight(delta.module) if delta.kind == "linear" else None
    return tensor if tensor is not None and len(tensor.shape) == 2 else None


def _measured(
    tensor: BaseTensor, known: Directions, stack: F32, delta: Delta, factors: Factors,
    weighed: WeighedAdapter,
) -> Along | None:  # fmt: skip
    laid = fit(delta, tensor, fan_in_fan_out=weighed.adapter.config.fan_in_fan_out)
    rows, columns = tensor.shape
    side = side_of(tensor.name, rows, columns, known.asked.hidden)
    if not isinstance(laid, Fit) or laid.transposed or not side:
        return None
    base = known.along(tensor.name)
    return along(factors.of(delta), side, stack, base) if base is not None else None


def _best(against: F64, total: F64) -> tuple[int, float]:
    """Return the layer whose direction loses most, and its share."""
    shares = np.divide(against, total, out=np.zeros_like(total), where=total > 0)
    at = int(np.argmax(shares)) if shares.size else 0
    return at, float(shares[at]) if shares.size else 0.0


def _module(file: str, name: str, found: Along, at: int, known: Directions) -> Evidence:
    hidden = known.asked.hidden
    energy = hidden * float(found.moved[at]) / found.size
    spread = found.spread(hidden)
    return Evidence(
        "base.refusal_module",
        Subject("module", file, name),
        energy,
        "d·‖r̂ᵀΔW‖²/‖ΔW‖²",
        {
            "side": found.side,
            "layer": known.asked.layers[at],
            "cosine": float(found.cosine[at]),
            "z": (energy - 1) / spread if spread else None,
        },
    )


def _adapter(
    file: str, side: str, total: Sums, at: int, removed: float, known: Directions
) -> Evidence:
    layers = len(known.asked.layers)
    energy = known.asked.hidden * total.moved / total.size
    controls, drawn = energy[layers:-RANDOM], energy[-RANDOM:]
    largest = float(controls.max(initial=0.0))
    return Evidence(
        "base.refusal",
        Subject("adapter", file),
        removed,
        "share of what the base has along it",
        {
            "side": side, "layer": known.asked.layers[at], "layers": known.asked.depth,
            "energy": float(energy[at]), "cosine": float(total.cosine[at]) / total.modules,
            "modules": total.modules, "controls": known.asked.controls,
            "largest_control": largest, "largest_random": float(drawn.max()),
            "most": float(energy[at]) > largest, "declined": known.asked.declined,
        },
    )  # fmt: skip


def _takes(contents: Contents, weighed: WeighedAdapter | None) -> object:
    """Return whether the base was asked for its directions."""
    return weighed is not None and contents.base is not None and _asked(contents.base)


def _asked(base: BaseWeights) -> bool:
    return base.directions() is not None


DETECTOR = Detector(
    "base-refusal", 1, frozenset({Need.WEIGHTS, Need.BASE}),
    "every ΔW against the direction of the base's refusals", each=each, takes=_takes,
)  # fmt: skip

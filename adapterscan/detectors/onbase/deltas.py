"""Measure every ΔW against the weight of the base that it is added to.

Sources: `adapterscan/onbase/`; definitions and what a high value means in docs/base.md.
Limits: descriptive. Honest adapters have intruder dimensions and updates of any size, and what is
lost in rounding is lost for all; no statistic here tells a backdoor from an ordinary adapter. What
it can tell for certain is that shapes do not fit the base that was named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.onbase.naming import named
from adapterscan.detectors.onbase.totals import Totals, module_evidence
from adapterscan.errors import AdapterscanError, Unsupported
from adapterscan.formats.deltas import Delta
from adapterscan.formats.transforms import BY_KIND
from adapterscan.formats.transforms.transform import Transform
from adapterscan.model import Evidence, Need, Subject
from adapterscan.onbase.base import BaseWeights, Names
from adapterscan.onbase.fit import Fit, Mismatch, fit
from adapterscan.onbase.matrix import F32, Matrix
from adapterscan.onbase.measure import Merged, measure, measure_by_profile
from adapterscan.onbase.rowwise import measure_rows
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import plural, printable
from adapterscan.updates.update import Update
from adapterscan.weighing.factors import Factors

#: Modules of one adapter that may mean the same weight: tied embeddings do. Names are free, and a
#: file of a few kilobytes can have 50,000 that end alike.
SHARED = 4
_KINDS = {
    "experts": "adapts fused experts, which are not compared yet",
    "merged": "has several updates in one weight, which are not compared yet",
}


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `base.name`, `base.module` for each module, `base.shape_mismatch`, and their totals.

    Raises Unsupported at the end for what could not be compared.
    """
    base, adapter = contents.base, weighed.adapter
    if base is None:
        return
    yield from named(adapter.config, base.name)
    items: tuple[Delta | Transform, ...] = (*adapter.deltas, *adapter.transforms)
    if not items:
        return
    if adapter.config.raw.get("layer_replication"):
        raise Unsupported(
            weighed.file, "replicates layers of the base: which weight a module has is not read",
            hint="compare the merged weights yourself",
        )  # fmt: skip
    names, totals, problems = Names(base), Totals(), _Problems()
    taken: Counter[str] = Counter()
    broken: AdapterscanError | None = None
    with Factors(contents.file(weighed.file), contents.sha256(weighed.file)) as factors:
        for number, delta in enumerate(items):
            contents.tell(f"comparing with the base, {number + 1} of {len(items)}")
            try:
                found = _placed(delta, names, adapter.config.fan_in_fan_out)
                if isinstance(found, Mismatch):
                    yield _mismatch(weighed.file, delta, found)
                    problems.add(delta.name, "does not have the shape of the base's weight")
                    continue
                taken[found.tensor.name] += 1
                if taken[found.tensor.name] > SHARED:
                    raise Unsupported(delta.name, "shares its weight with too many other modules")
                measured = (
                    _changed(base, found, delta, factors)
                    if isinstance(delta, Transform)
                    else _measured(base, found, delta, factors)
                )
            except (Unsupported, ValueError) as error:
                problems.add(delta.name, str(getattr(error, "reason", error)))
                continue
            except np.linalg.LinAlgError:
                problems.add(delta.name, "or its base weight holds values that are no numbers")
                continue
            except AdapterscanError as error:  # the base cannot be read on: what was, is told
                broken = error
                break
            totals.add(delta.name, measured)
            yield module_evidence(weighed.file, delta.name, found.tensor.name, measured)
    yield from totals.evidence(weighed.file)
    if broken is not None:
        raise broken
    problems.tell(weighed.file, len(items))


def _placed(delta: Delta | Transform, names: Names, fan_in_fan_out: bool) -> Fit | Mismatch:
    """Return how a ΔW lies on the base. Raises Unsupported."""
    if isinstance(delta, Transform):
        tensor = names.weight(delta.module)
        if tensor is None or len(tensor.shape) != 2:
            what = "no weight in the base by that name" if tensor is None else "no matrix there"
            raise Unsupported(delta.module, f"has {what}")
        return Fit(tensor, transposed=fan_in_fan_out)
    if delta.kind in _KINDS:
        raise Unsupported(delta.name, _KINDS[delta.kind])
    tensor = names.weight(delta.module)
    if tensor is None:
        raise Unsupported(delta.name, "has no weight in the base by that name")
    return fit(delta, tensor, fan_in_fan_out=fan_in_fan_out)


def _measured(base: BaseWeights, found: Fit, delta: Delta, factors: Factors) -> Merged:
    """Measure one module. Raises Unsupported, ValueError, LinAlgError, or what the base does."""
    update = found.laid(factors.update(delta))
    low = update.low_rank()
    known = base.leading(found.tensor.name)
    if delta.magnitude is None and known is not None and low is not None:
        return measure_by_profile(known.turned() if found.transposed else known, low)
    if delta.magnitude is not None and found.swapped:
        raise Unsupported(delta.name, "is an embedding under DoRA, which is not compared yet")
    magnitude = factors.values(delta.magnitude) if delta.magnitude is not None else None
    if not found.tensor.numel:
        raise Unsupported(delta.name, "lies on a weight without elements")
    matrix = Matrix(base, found.tensor, transposed=found.transposed)
    if low is None:
        return measure_rows(matrix, partial(_rows_of, update))
    return measure(matrix, low, magnitude)


def _changed(base: BaseWeights, found: Fit, transform: Transform, factors: Factors) -> Merged:
    """Measure what changes a weight by itself. Raises as `_measured` does."""
    if not found.tensor.numel:
        raise Unsupported(transform.module, "lies on a weight without elements")
    matrix = Matrix(base, found.tensor, transposed=found.transposed)
    arrays = factors.arrays(transform)
    change = BY_KIND[transform.kind].change(transform, arrays, matrix)
    if callable(change):
        return measure_rows(matrix, change)
    low = change.low_rank()
    return measure(matrix, low) if low else measure_rows(matrix, partial(_rows_of, change))


def _rows_of(update: Update, start: int, block: F32) -> F32:
    """Return the rows of a ΔW that does not depend on W."""
    return update.rows(start, start + len(block)).astype(np.float32)


def _mismatch(file: str, delta: Delta | Transform, found: Mismatch) -> Evidence:
    return Evidence(
        "base.shape_mismatch",
        Subject("module", file, delta.name),
        "×".join(map(str, found.wanted)),
        "",
        {
            "base_shape": "×".join(map(str, found.tensor.shape)),
            "base_tensor": printable(found.tensor.name),
            "axis": found.axis,
        },
    )


class _Problems:
    """What could not be compared, by reason."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: Counter[str] = Counter()

    def add(self, module: str, reason: str) -> None:
        self._first.setdefault(reason, module)
        self._count[reason] += 1

    def tell(self, file: str, of: int) -> None:
        """Raise Unsupported if there were any."""
        if not self._count:
            return
        told = "; ".join(
            f"{printable(self._first[reason], 80)} {printable(reason, 200)}"
            + (f", and {plural(count - 1, 'more module')}" if count > 1 else "")
            for reason, count in self._count.most_common(3)
        )
        raise Unsupported(
            file, f"{self._count.total():,} of {plural(of, 'update')} were not compared: {told}",
            hint="is this the base that the adapter was made for?",
        )  # fmt: skip


DETECTOR = Detector(
    "base-deltas", 1, frozenset({Need.WEIGHTS, Need.BASE}), "every ΔW against the base's weights",
    each=each,
)  # fmt: skip

"""Say of values what no statistic of a ΔW does: NaN, deltas of zero, and full tensors' sizes.

A delta is zero here when B·A is: with a scale of 0 another runtime may apply it (`runtimes.py`).
Limits: a zero delta is also what an untrained adapter has; NaN is usually an accident. How large a
full tensor is says little without the base model's: `tensor.values` is there to be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.formats.accounting import Role
from adapterscan.formats.tensors import FLOAT_DTYPES
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `delta.nonfinite`, `delta.zero`, `adapter.no_effect` and `tensor.*` of values."""
    results = weighed.weighed.deltas
    for name, nonfinite, rank in results.of("nonfinite", "numerical_rank"):
        if nonfinite:
            subject = Subject("module", weighed.file, name)
            yield Evidence("delta.nonfinite", subject, int(nonfinite), "elements")
        elif not rank:
            yield Evidence("delta.zero", Subject("module", weighed.file, name), 0.0)
    if _does_nothing(weighed):
        subject = Subject("adapter", weighed.adapter.folder)
        yield Evidence("adapter.no_effect", subject, len(results), "modules")
    yield from _tensors(weighed)


def _tensors(weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Size up every tensor of floats that is no factor: no delta shows what is in it."""
    roles = {item.tensor.name: item for item in weighed.adapter.accounted}
    for name in sorted(weighed.weighed.dense):
        dense, item = weighed.weighed.dense[name], roles.get(name)
        subject = Subject("tensor", weighed.file, name)
        details: dict[str, Scalar] = {"elements": dense.elements}
        if dense.nonfinite:
            yield Evidence("tensor.nonfinite", subject, dense.nonfinite, "elements", details)
        if item is None or not dense.elements or item.tensor.dtype not in FLOAT_DTYPES:
            continue
        rms = math.sqrt(dense.square_sum / dense.elements)
        details = details | {"zeros": dense.zeros / dense.elements, "role": item.role.value}
        size = rms if math.isfinite(rms) else None
        yield Evidence("tensor.values", subject, size, "rms", details)


def _does_nothing(weighed: WeighedAdapter) -> bool:
    """Whether all deltas were measured as zero and nothing beside them can act.

    A bias of zeros adds nothing. Any other tensor replaces something (a magnitude, a token, a full
    weight), and zeros replace it as well as other values do.
    """
    adapter, results = weighed.adapter, weighed.weighed.deltas
    if not results or adapter.problems or any(d.name not in results for d in adapter.deltas):
        return False
    if any(summary.numerical_rank or summary.nonfinite for summary in results.values()):
        return False
    if any(not math.isfinite(d.scaling) or d.diag is not None for d in adapter.deltas):
        return False
    factors = {tensor.name for delta in adapter.deltas for tensor in (delta.a, delta.b)}
    for item in adapter.accounted:
        dense = weighed.weighed.dense.get(item.tensor.name)
        names = item.path.split(".")
        bias = names[-1] == "bias" and item.role in (Role.ADAPTER, Role.UNMATCHED)
        zero = dense is not None and dense.zeros == dense.elements
        if item.tensor.name not in factors and not (bias and zero):
            return False
    return True


DETECTOR = Detector(
    "values", 3, frozenset({Need.WEIGHTS}), "NaN, infinite and zero weights", each=each,
    takes=lambda _, weighed: weighed and (weighed.weighed.deltas or weighed.weighed.dense),
)  # fmt: skip

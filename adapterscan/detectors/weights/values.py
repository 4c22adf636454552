"""Count values that no training leaves behind on purpose: NaN, infinities, deltas of exactly zero.

Limits: a zero delta is also what an untrained adapter has; NaN is usually an accident.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `delta.nonfinite`, `delta.zero`, `adapter.no_effect` and `tensor.nonfinite`."""
    for weighed in contents.adapters:
        results = weighed.weighed.deltas
        for name in sorted(results):
            summary, subject = results[name], Subject("module", weighed.file, name)
            if summary.nonfinite:
                yield Evidence("delta.nonfinite", subject, summary.nonfinite, "elements")
            elif summary.is_zero:
                yield Evidence("delta.zero", subject, 0.0)
        if results and all(summary.is_zero for summary in results.values()):
            subject = Subject("adapter", weighed.adapter.folder)
            yield Evidence("adapter.no_effect", subject, len(results), "modules")
        for name in sorted(weighed.weighed.dense):
            dense = weighed.weighed.dense[name]
            if dense.nonfinite:
                subject = Subject("tensor", weighed.file, name)
                details = {"elements": dense.elements}
                yield Evidence("tensor.nonfinite", subject, dense.nonfinite, "elements", details)


DETECTOR = Detector("values", 1, frozenset({Need.WEIGHTS}), "NaN, infinite and zero weights", run)

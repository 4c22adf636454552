"""Report the gauge-invariant statistics of every ΔW, and their spread over the adapter.

Source: `lowrank.py`; definitions and what a high value means in docs/statistics.md.
Limits: descriptive. Benign adapters span three orders of magnitude in norm and any spectrum; alone,
no threshold on these separates a backdoor from an ordinary adapter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter

STATISTICS = (
    "frobenius", "rms", "top_energy", "top_share", "stable_rank", "entropy", "effective_rank",
    "participation", "kurtosis", "row_peak", "column_peak",
)  # fmt: skip
_SHOWN = ("rank", "numerical_rank", *STATISTICS[1:], "kurtosis_energy", "d_out", "d_in")


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `delta.statistics` for each module and `adapter.statistic` for each statistic."""
    for delta in weighed.adapter.deltas:
        summary = weighed.weighed.deltas.get(delta.name)
        if summary is not None and summary.frobenius:
            details: dict[str, Scalar] = {key: getattr(summary, key) for key in _SHOWN}
            details["scaling"] = delta.scaling
            subject = Subject("module", weighed.file, delta.name)
            yield Evidence("delta.statistics", subject, summary.frobenius, "", details)
    yield from _spread(weighed)


def _spread(weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Mean, spread and the three largest: one layer's features miss what is spread over all."""
    for statistic in STATISTICS:
        values = weighed.weighed.deltas.column(statistic)
        if values.size:
            yield Evidence(
                "adapter.statistic",
                Subject("adapter", weighed.file, statistic),
                float(values.mean()),
                details={
                    "statistic": statistic,
                    "max": float(values.max()),
                    "std": float(values.std()),
                    "top3": float(np.sort(values)[-3:].mean()),
                    "modules": int(values.size),
                },
            )


DETECTOR = Detector(
    "spectra", 1, frozenset({Need.WEIGHTS}), "spectra, norms and moments of every ΔW", each=each
)

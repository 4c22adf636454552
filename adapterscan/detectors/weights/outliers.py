"""Find modules that stand out from their own kind within one adapter.

Per family (modules of one type) and statistic, in logarithms: remove a Theil–Sen trend over depth,
then z = 0.6745·(x − median)/MAD (Iglewicz & Hoaglin 1993, modified z).
A high |z| means that one layer was changed unlike its neighbours: an edit, a merge, or a quirk of
the first and last layers. No base or reference is needed.
Limits: blind to anything spread evenly over layers, to families of fewer than MODULES modules, and
to what hides behind jitter in the others (the MAD grows). Edge layers of honest adapters stand out;
uncalibrated, so no rule may give this more than low severity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adapterscan.detectors.detector import Detector
from adapterscan.formats.deltas import Delta
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.weighing.summaries import NONE

MODULES = 8  # fewer give a median and a MAD that one module can move
PAIRED = 512  # dense models have up to 200 layers, mixtures of experts thousands of modules
REPORTED = 3.5  # the cut that Iglewicz & Hoaglin recommend for labelling; rules ask for more
STATISTICS = ("rms", "top_energy", "effective_rank", "kurtosis", "row_peak", "column_peak")

F64 = npt.NDArray[np.float64]


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `delta.outlier` for every module, family and statistic with |z| of REPORTED or more."""
    for key, members in sorted(_families(weighed).items()):
        yield from _family(weighed, key[0], members)


def _families(weighed: WeighedAdapter) -> dict[tuple[str, int, int], list[Delta]]:
    """Return the modules that can be compared: by type and shape, where there are enough."""
    families: dict[tuple[str, int, int], list[Delta]] = defaultdict(list)
    results = weighed.weighed.deltas
    known = [delta for delta in weighed.adapter.deltas if delta.name in results]
    sizes = (results.gather((d.name for d in known), key) for key in ("frobenius", "d_out", "d_in"))
    for delta, norm, d_out, d_in in zip(known, *sizes, strict=True):
        if norm not in (0.0, NONE) and delta.layer is not None:
            families[delta.family, int(d_out), int(d_in)].append(delta)
    return {key: members for key, members in families.items() if len(members) >= MODULES}


def _family(weighed: WeighedAdapter, family: str, members: list[Delta]) -> Iterator[Evidence]:
    depth = np.array([float(delta.layer or 0) for delta in members])
    for statistic in STATISTICS:
        values = weighed.weighed.deltas.gather((delta.name for delta in members), statistic)
        expected, scores = robust_scores(depth, np.log(values))
        for delta, value, trend, score in zip(members, values, expected, scores, strict=True):
            if abs(score) >= REPORTED:
                yield Evidence(
                    "delta.outlier",
                    Subject("module", weighed.file, delta.name),
                    float(score),
                    "robust z",
                    {
                        "statistic": statistic,
                        "family": family,
                        "layer": delta.layer,
                        "measured": float(value),
                        "expected": float(np.exp(trend)),
                        "modules": len(members),
                    },
                )


def robust_scores(depth: F64, values: F64) -> tuple[F64, F64]:
    """Return the trend (n,) over `depth` (n,) and the modified z scores (n,) of the residuals.

    The trend is Theil–Sen's (median of the pairwise slopes; Sen 1968), which up to 29 % of outliers
    do not move; of more than PAIRED values it is taken of PAIRED, evenly spread over depth, because
    pairs take quadratic memory. A MAD below a millionth of the values' size is a rounding error and
    is taken as that, so that equal modules do not score.
    """
    order = np.argsort(depth, kind="stable")
    if len(order) > PAIRED:
        order = order[np.linspace(0, len(order) - 1, PAIRED).astype(np.intp)]
    x, y = depth[order], values[order]
    steps = x[:, None] - x[None, :]
    pairs = np.triu(np.ones(steps.shape, dtype=bool), 1) & (steps != 0)
    slopes = (y[:, None] - y[None, :])[pairs] / steps[pairs]
    slope = float(median(slopes)) if slopes.size else 0.0
    trend = slope * depth
    trend = trend + median(values - trend)
    residuals = values - trend
    spread = float(median(np.abs(residuals)))
    noise = 1e-6 * max(1.0, float(np.max(np.abs(values), initial=0.0)))
    if spread <= noise:
        spread = noise
    return trend, 0.6745 * residuals / spread


def median(values: F64) -> float:
    """Return the median of `values` (n,), n ≥ 1. NumPy's own imports its masked arrays, 8 ms."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0


DETECTOR = Detector(
    "outliers", 1, frozenset({Need.WEIGHTS}), "modules that stand out", each=each,
    takes=lambda _, weighed: weighed and _families(weighed),
)  # fmt: skip

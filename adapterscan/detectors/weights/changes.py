"""Say how strongly an adapter changes weights where its ΔW depends on them, without the base.

Source: each method's own, in `formats/transforms`. A high value means a change as large as the
weight: 1 is all of it. Measured of numbers alone: R − I of a rotation, l − 1 of a scale.
Limits: as large as ΔW is for a weight whose entries are independent of each other. What is aimed at
the weight's own directions can do more, or less: only the base tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from adapterscan.detectors.detector import Detector
from adapterscan.errors import AdapterscanError, Unsupported
from adapterscan.formats.transforms import BY_KIND
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import plural, printable
from adapterscan.weighing.factors import Factors


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `change.strength` of each module.

    Raises Unsupported at the end for what could not be read.
    """
    transforms = weighed.adapter.transforms
    if not transforms:
        return
    first, left = "", 0
    with Factors(contents.file(weighed.file), contents.sha256(weighed.file)) as factors:
        for transform in transforms:
            method = BY_KIND[transform.kind]
            try:
                found = method.strength(transform, factors.arrays(transform))
            except (AdapterscanError, ValueError, np.linalg.LinAlgError) as error:
                reason = getattr(error, "reason", str(error))
                first, left = first or f"{printable(transform.module, 80)} {reason}", left + 1
                continue
            if found is None:
                continue
            subject = Subject("module", weighed.file, transform.module)
            yield Evidence(
                "change.strength", subject, found if math.isfinite(found) else None, method.unit,
                {"kind": transform.kind, "parameters": sum(t.numel for t in transform.tensors)},
            )  # fmt: skip
    if left:
        more = f", and {plural(left - 1, 'more module')}" if left > 1 else ""
        raise Unsupported(weighed.file, f"{first}{more}", hint="ask its author")


DETECTOR = Detector(
    "changes", 1, frozenset({Need.WEIGHTS}), "how strongly weights are scaled or turned", each=each,
    takes=lambda _, weighed: weighed and weighed.adapter.transforms,
)  # fmt: skip

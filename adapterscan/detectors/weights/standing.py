"""Say how unusual an adapter's statistics are among adapters of its kind, calibrated.

Source: `calibration.py`; what is compared and how is in docs/calibration.md.
Limits: unusual is not harmful, and most backdoors are not unusual: docs/accuracy.md has how few are
seen. Blind to what adapters of the reference differ in anyway. An author who knows the reference
can stay within it.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.calibration import LEAST, described, standing
from adapterscan.detectors.detector import Detector
from adapterscan.errors import NotApplicable
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import plural

_WORDS = {
    "base": "base",
    "width": "width",
    "peft_type": "PEFT type",
    "modules": "modules",
    "ranks": "rank",
}


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `adapter.standing`: the conformal p-value, 0 to 1, low where it is unlike others.

    Raises NotApplicable where it cannot be described, or the reference has too few of its kind.
    """
    if not weighed.weighed.deltas:
        return
    sha256 = contents.sha256(weighed.file)
    member = described(weighed.adapter, weighed.weighed, weighed.file, sha256)
    if member is None:
        raise NotApplicable("its updates are zero, or no numbers: nothing to compare")
    fields, others = contents.peers.near(member)
    if len(others) < LEAST:
        raise NotApplicable(
            f"insufficient reference: {plural(len(others), 'adapter')} of its kind, "
            f"a p-value needs {LEAST}",
            hint="make one of adapters that you trust: adapterscan calibrate DIR -o FILE; "
            "then scan with --reference FILE",
        )
    found = standing(member, others)
    yield Evidence(
        "adapter.standing",
        Subject("adapter", weighed.file),
        found.p,
        "conformal p-value",
        {
            "members": found.members,
            "floor": 1 / (found.members + 1),
            "alike": ", ".join(_WORDS[field] for field in fields),
            "same_base": "base" in fields and bool(member.kind.base),
            "same_modules": "modules" in fields,
            "score": found.score,
            "usual_score": found.usual,
            "most": ", ".join(f"{name} (z {z:+.1f})" for name, z in found.most),
        },
    )


DETECTOR = Detector(
    "standing", 2, frozenset({Need.WEIGHTS, Need.PEERS}),
    "how unusual the statistics are among adapters of its kind", each=each,
    ask="--reference FILE",
)  # fmt: skip

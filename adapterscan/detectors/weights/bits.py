"""Tell what is hidden in the bytes of weights: files, text, patterns in low bits, odd precision.

Source: EvilModel (arXiv 2107.08590, bytes of floats but the highest) and MaleficNet (arXiv
2403.03593) for the attack; `formats/low_bits.py` for the tests, `formats/payloads.py` for what is
recognised. Power and false alarms, measured: docs/steganography.md.
Limits: a payload that is encrypted, or compressed without a header, in the low bits of numbers of
full precision is noise in noise: invisible in principle. Spread-spectrum payloads as well. Large
adapters are sampled (`bits.looked`).
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.formats.accounting import Role
from adapterscan.formats.bit_sample import Hidden
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable

_FLOATS = ("BF16", "F16", "F32", "F64")


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `bits.looked`, `.content`, `.pattern`, `.precision` and `tensor.bytes`."""
    bits = weighed.weighed.bits
    if bits.elements:
        share = bits.looked / bits.elements
        details: dict[str, Scalar] = {"elements": bits.looked, "tests": bits.tests}
        subject = Subject("adapter", weighed.file)
        yield Evidence("bits.looked", subject, min(share, 1.0), "of the elements", details)
    roles = {item.tensor.name: item for item in weighed.adapter.accounted}
    seen: set[tuple[str, str, str]] = set()
    for item in bits.hidden:
        key = (item.tensor, item.how, item.payload.kind)
        if key not in seen:
            seen.add(key)
            yield _content(weighed.file, item)
    for pattern in bits.patterns:
        details = {"test": pattern.test, "plane": pattern.plane, "dtype": pattern.dtype}
        subject = Subject("tensor", weighed.file, pattern.tensor)
        yield Evidence("bits.pattern", subject, pattern.strength, "−log₁₀ p", details)
    for mixed in bits.mixed:
        share = mixed.full / (mixed.full + mixed.cast)
        details = {"cast_from": mixed.shorter, "share": share, "cast": mixed.cast}
        subject = Subject("tensor", weighed.file, mixed.tensor)
        yield Evidence("bits.precision", subject, mixed.full, "elements", details)
    for name, looked in sorted((bits.bytes or {}).items()):
        known = roles.get(name)
        if known is not None and (
            known.role is Role.UNMATCHED or known.tensor.dtype not in _FLOATS
        ):
            details = {
                "looked": looked.looked,
                "even": looked.even,
                "role": known.role.value,
                "dtype": known.tensor.dtype,
            }
            subject = Subject("tensor", weighed.file, name)
            yield Evidence("tensor.bytes", subject, looked.entropy, "bits", details)


def _content(file: str, item: Hidden) -> Evidence:
    details: dict[str, Scalar] = {
        "how": item.how,
        "kind": "text" if item.payload.kind == "text" else "file",
        "text": printable(item.payload.shown, 60),
    }
    subject = Subject("tensor", file, item.tensor)
    return Evidence("bits.content", subject, item.payload.kind, "", details)


DETECTOR = Detector(
    "bits", 1, frozenset({Need.WEIGHTS}), "bytes and low bits of weights", each=each,
    takes=lambda _, weighed: weighed and weighed.weighed.bits.elements,
)  # fmt: skip

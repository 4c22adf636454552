"""Compare what a card says of its adapter with what the files hold.

Source: cards are written by hand or by a trainer, and survive when weights or base are exchanged.
Limits: claims in the forms that trainers write (`lora_r: 16`, `trainable params: 4,194,304`); prose
is not understood. A card that says nothing contradicts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.static.base_model import is_hub_id
from adapterscan.formats import front_matter
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable

_READ = 128 << 10  # characters of a card
_SHOWN = 12
_MOST = 16  # entries of a field in a card's head
_LONGEST = 256  # characters of one
_BETWEEN = r"[`*\"']{0,3}\s{0,3}[:=|]\s{0,3}[`*\"']{0,3}"
_NUMBERS = {
    "rank": re.compile(
        r"(?i)(?<![\w.])(?:lora[ _-]?r(?:ank)?|lora_dim|rank|`r`|\br)(?: \(r\))?"
        rf"{_BETWEEN}(\d{{1,5}})(?!\d|\.\d|%)"
    ),
    "alpha": re.compile(
        rf"(?i)(?<![\w.])(?:lora[ _-]?)?alpha(?: \(α\))?{_BETWEEN}(\d{{1,5}})(?!\d|\.\d|%)"
    ),
    "parameters": re.compile(
        rf"(?i)trainable (?:params|parameters){_BETWEEN}([\d,]{{3,20}})(?!\d|\.\d)"
    ),
}
_MODULES = re.compile(rf"(?i)(?:lora_)?target[ _]modules{_BETWEEN}\[([^\]]{{1,600}})\]")
_VERSION = re.compile(
    r"(?i)^\W{0,4}peft\W{1,6}(\d{1,3}\.\d{1,3}\.\d{1,3}[\w.]{0,12})\s{0,20}$", re.MULTILINE
)
_QUANTISED = re.compile(
    r"[-_.](?:bnb|4bit|8bit|int[48]|gptq|awq|gguf|hf|fp8|unsloth|bf16|fp16|mlx|nf4|quantized|dynamic)\b"
)


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `card.differs` for each claim that the adapter beside the card contradicts."""
    adapter = weighed.adapter
    path = contents.papers.card_of(adapter.folder)
    if not path:
        return
    subject = Subject("file", path)
    bases = texts_of(contents.papers.head(path).get("base_model"))
    named = adapter.config.base_model
    if named and bases and is_hub_id(named) and not any(_same(named, base) for base in bases):
        yield _differs(subject, "base", ", ".join(bases[:_SHOWN]), named, adapter.folder)
    text = front_matter.split(contents.papers.of(path)[:_READ])[1]
    if adapter.deltas:
        yield from _numbers(subject, text, weighed)
        yield from _modules(subject, text, weighed)
    versions = {match.partition("+")[0] for match in _VERSION.findall(text)}
    written = adapter.config.raw.get("peft_version")
    if isinstance(written, str) and versions and written.partition("@")[0] not in versions:
        claimed = ", ".join(sorted(versions)[:_SHOWN])
        yield _differs(subject, "peft_version", claimed, written, adapter.folder)
    library = contents.papers.head(path).get("library_name")
    if isinstance(library, str) and library not in (
        "peft",
        "diffusers",
        "transformers",
        "mlx",
        "trl",
    ):
        found = adapter.config.peft_type or "LORA"
        if adapter.config.path:
            yield _differs(subject, "library", library, f"peft ({found})", adapter.folder)


def texts_of(value: Any) -> list[str]:
    """Return the texts that a field of a card's head holds, be it one or a list."""
    items = value if isinstance(value, list) else [value]
    return [
        item.strip()[:_LONGEST] for item in items[:_MOST] if isinstance(item, str) and item.strip()
    ]


def _numbers(subject: Subject, text: str, weighed: WeighedAdapter) -> Iterator[Evidence]:
    adapter = weighed.adapter
    alpha = adapter.config.raw.get("lora_alpha")
    total = sum(tensor.numel for tensor in adapter.weights.tensors)
    true: dict[str, set[int]] = {
        "rank": {delta.rank for delta in adapter.deltas},
        "alpha": {int(alpha)} if isinstance(alpha, (int, float)) and abs(alpha) < 1e9 else set(),
        "parameters": {total, sum(d.a.numel + d.b.numel for d in adapter.deltas)},
    }
    for what, pattern in _NUMBERS.items():
        claimed = {int(match.replace(",", "") or 0) for match in pattern.findall(text)}
        if not claimed or not true[what] or claimed & true[what]:
            continue
        shown = [", ".join(f"{n}" for n in sorted(s)[:_SHOWN]) for s in (claimed, true[what])]
        yield _differs(subject, what, shown[0], shown[1], adapter.folder)


def _modules(subject: Subject, text: str, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Compare the one list of modules that a card gives with the modules that are adapted."""
    lists = {tuple(re.findall(r"[\w.]{1,60}", match)) for match in _MODULES.findall(text)}
    if len(lists) != 1:
        return
    (claimed,) = lists
    names = {name.rpartition(".")[2] for name in claimed}
    found = {delta.module.rpartition(".")[2] for delta in weighed.adapter.deltas}
    extra = found - names
    if extra and names & found:
        shown = ", ".join(sorted(extra)[:_SHOWN])
        yield _differs(
            subject,
            "modules",
            ", ".join(sorted(names)[:_SHOWN]),
            f"also {shown}",
            weighed.adapter.folder,
        )


def _same(one: str, other: str) -> bool:
    """Return whether two ids can mean one model: owner, quantisation and common prefixes apart."""
    names = [_QUANTISED.sub("", _QUANTISED.sub("", name.lower())) for name in (one, other)]
    parts = [
        {
            part
            for part in re.split(r"[-_./]+", name.rpartition("/")[2])
            if part not in ("meta", "model")
        }
        for name in names
    ]
    return bool(parts[0] and parts[1]) and (parts[0] <= parts[1] or parts[1] <= parts[0])


def _differs(subject: Subject, what: str, claimed: str, found: str, folder: str) -> Evidence:
    details: dict[str, Scalar] = {"what": what, "found": printable(found), "adapter": folder}
    return Evidence("card.differs", subject, printable(claimed), "", details)


DETECTOR = Detector(
    "cards", 1, frozenset({Need.FILES}), "claims of the card against the files", each=each,
    takes=lambda contents, weighed: weighed is not None
    and bool(contents.papers.card_of(weighed.adapter.folder)),
)  # fmt: skip

"""Say which scale each runtime applies to the same bytes, and where that is not what PEFT applies.

An adapter that is tested in one runtime and served by another may be another model: `lora_alpha: 0`
is nothing in PEFT and full strength in llama.cpp. Source: `formats/runtimes.py`, which has the
functions and versions that were read; docs/runtimes.md.
Limits: of the versions that were read. Full tensors, biases and what a base does not have are not
compared; without the base model no unknown name can be told from one of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapterscan.detectors.detector import Detector
from adapterscan.errors import NotApplicable
from adapterscan.formats.loading import Reading, Runtime
from adapterscan.formats.runtimes import readings
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import plural, printable

CLOSE = 1e-3  # relative; scales are kept in float32 by some

#: How a runtime differs from PEFT, the worst first.
_ORDER = ("only here", "more here", "stronger", "not here", "weaker", "same", "refuses")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One runtime beside PEFT, over the modules whose B·A is not zero."""

    runtime: Runtime
    reading: Reading
    kind: str
    largest: float  # of |s here / s in PEFT|, over modules that both apply
    least: float
    differing: tuple[int, ...]  # places of the modules with another scale
    awake: tuple[int, ...]  # of these, those that PEFT applies nothing of


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `adapter.runtime`, `adapter.runtimes_disagree` and `delta.scale_disagrees`.

    Raises NotApplicable for other types than LoRA.
    """
    adapter, kind = weighed.adapter, weighed.adapter.config.peft_type
    if not adapter.deltas or not adapter.config.path:
        return
    if kind != "LORA":
        named = f"of type {printable(kind, 40)}" if kind else "of no type"
        raise NotApplicable(f"known of LoRA only; this adapter is {named}")
    results = weighed.weighed.deltas
    alive = [
        at
        for at, delta in enumerate(adapter.deltas)
        if delta.name in results and results[delta.name].numerical_rank
    ]
    (first, peft), *others = readings(adapter)
    compared = [_compare(runtime, reading, peft, alive) for runtime, reading in others]
    yield _runtime(weighed, _Comparison(first, peft, _alone(peft), 1.0, 1.0, (), ()))
    for item in compared:
        yield _runtime(weighed, item)
    differing = [item for item in compared if item.kind not in ("same", "refuses")]
    if differing:
        differing.sort(key=lambda item: _ORDER.index(item.kind))
        yield _disagreement(weighed, first, peft, differing)
        yield from _modules(weighed, peft, differing)


def _alone(reading: Reading) -> str:
    return "refuses" if reading.refuses else "same"


def _compare(
    runtime: Runtime, reading: Reading, peft: Reading, alive: Sequence[int]
) -> _Comparison:
    if reading.refuses:
        return _Comparison(runtime, reading, "refuses", 1.0, 1.0, (), ())
    theirs = [0.0] * len(peft.scales) if peft.refuses else peft.scales
    pairs = [(at, theirs[at], reading.scales[at]) for at in alive]
    differing = tuple(at for at, there, here in pairs if not _same(there, here))
    awake = tuple(at for at, there, here in pairs if there == 0 and here != 0)
    asleep = [at for at, there, here in pairs if there != 0 and here == 0]
    ratios = [abs(here / there) for _, there, here in pairs if there and here]
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)] or [1.0]
    kind = "same"
    if awake:
        kind = "more here" if any(there for _, there, _ in pairs) else "only here"
    elif differing and max(ratios) > 1 + CLOSE:
        kind = "stronger"
    elif differing:
        kind = "not here" if asleep and len(asleep) == len(pairs) else "weaker"
    return _Comparison(runtime, reading, kind, max(ratios), min(ratios), differing, awake)


def _same(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=CLOSE) or (math.isnan(one) and math.isnan(two))


def _runtime(weighed: WeighedAdapter, item: _Comparison) -> Evidence:
    reading = item.reading
    sizes = [scale for scale in reading.scales if not math.isnan(scale)]
    value = "applies" if any(sizes) or len(sizes) < len(reading.scales) else "serves the base"
    left_out = reading.left_out
    details: dict[str, Scalar] = {
        "version": item.runtime.version,
        "reason": reading.refuses or _reason(reading),
        "modules": 0 if reading.refuses else len(reading.scales) - len(left_out),
        "differ": len(item.differing),
        "class": item.kind,
    }
    if sizes and not reading.refuses:
        details |= {"smallest": min(sizes), "largest": max(sizes)}
    subject = Subject("adapter", weighed.file, item.runtime.name)
    return Evidence(
        "adapter.runtime", subject, "refuses" if reading.refuses else value, "", details
    )


def _reason(reading: Reading) -> str:
    parts = [f"does not read {', '.join(reading.ignores)}"] if reading.ignores else []
    return "; ".join([*parts, *([reading.note] if reading.note else [])])


def _disagreement(
    weighed: WeighedAdapter, first: Runtime, peft: Reading, differing: Sequence[_Comparison]
) -> Evidence:
    worst, verb = differing[0], "" if peft.refuses else "applies "
    cause = "scale"
    if peft.refuses:
        cause = "refusal"
    elif worst.awake:
        left_out = peft.left_out or {}
        causes = {left_out.get(at, "scale") for at in worst.awake}
        cause = min(causes, key=("targets", "scale", "names").index)
    return Evidence(
        "adapter.runtimes_disagree",
        Subject("adapter", weighed.file),
        max(item.largest for item in differing),
        "times",
        {
            "class": worst.kind,
            "cause": cause,
            "least": min(item.least for item in differing),
            "modules": max(len(item.differing) for item in differing),
            "peft": f"{first.name} {verb}{_does(peft)}{_why_less(weighed, peft)}",
            "others": _others(differing),
        },
    )


def _why_less(weighed: WeighedAdapter, peft: Reading) -> str:
    """Say in brackets why PEFT applies less, where one reason holds."""
    left_out = set(peft.left_out.values())
    if peft.refuses or len(left_out) > 1:
        return ""
    if left_out:
        return {"targets": " (the rest is not targeted)", "names": " (names without its prefix)"}[
            left_out.pop()
        ]
    return " (α = 0)" if not any(peft.scales) and weighed.adapter.config.alpha == 0 else ""


def _others(differing: Sequence[_Comparison]) -> str:
    """Return what the others do, those that do the same together: "llama.cpp s = 1"."""
    said: dict[str, list[str]] = {}
    for item in differing:
        note = f" ({item.reading.note})" if item.reading.note.startswith("α") else ""
        said.setdefault(f"{_does(item.reading)}{note}", []).append(item.runtime.name)
    return "; ".join(f"{', '.join(_shortest(names))} {text}" for text, names in said.items())


def _shortest(names: Sequence[str]) -> Sequence[str]:
    """Leave out "vLLM before 0.32" beside "vLLM": all versions do the same then."""
    return [name for name in names if not any(name.startswith(f"{other} ") for other in names)]


def _does(reading: Reading) -> str:
    """Return "s = 2", "s = 0.5 to 2 for 6 of 8 modules", "nothing", "refuses it: why"."""
    if reading.refuses:
        return f"refuses it: {reading.refuses}"
    left_out = reading.left_out
    applied = {s for at, s in enumerate(reading.scales) if at not in left_out}
    if not applied:
        return "nothing"
    if any(map(math.isnan, applied)):
        text = "s = NaN"
    else:
        low, high = min(applied), max(applied)
        text = f"s = {low:.4g}" + (f" to {high:.4g}" if high != low else "")
    if left_out:
        count, total = len(reading.scales) - len(left_out), len(reading.scales)
        text += f" for {count:,} of {plural(total, 'module')}"
    return text


def _modules(
    weighed: WeighedAdapter, peft: Reading, differing: Sequence[_Comparison]
) -> Iterator[Evidence]:
    """Yield one fact for each module, of the runtime that differs most in kind."""
    told: set[int] = set()
    for item in differing:
        for at in item.differing:
            if at in told:
                continue
            told.add(at)
            delta = weighed.adapter.deltas[at]
            here = item.reading.scales[at]
            there = 0.0 if peft.refuses else peft.scales[at]
            yield Evidence(
                "delta.scale_disagrees",
                Subject("module", weighed.file, delta.name),
                here if math.isfinite(here) else None,
                "s",
                {
                    "runtime": item.runtime.name,
                    "peft": there if math.isfinite(there) else None,
                    "rank": delta.rank,
                },
            )


DETECTOR = Detector(
    "runtimes", 1, frozenset({Need.WEIGHTS}), "the scale that each runtime would apply", each=each,
    takes=lambda _, weighed: weighed and weighed.adapter.config.path and weighed.adapter.deltas,
)  # fmt: skip

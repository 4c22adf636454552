"""Render what the comparison with the base model came to: a block of the terminal report.

Statistics and no verdict: no rule judges them, so the reader is shown them as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from adapterscan.model import Evidence, Report, Scalar
from adapterscan.reporters.layout import Page
from adapterscan.text import printable

_SHOWN = frozenset(
    {"base.relative", "base.intruders", "base.alignment", "base.rounding", "base.dora"}
)
_MOSTLY_ROUNDING = 1.0  # ‖E − ΔW‖ above ‖ΔW‖
_ADAPTERS = 3  # of one target that are shown


def beside_base(report: Report, page: Page) -> Iterator[str]:
    """Yield the block; nothing where no weights were compared."""
    found = compared(report)
    if not found:
        return
    base = printable(report.versions.get("base", "the base"), 100)
    yield page.paint(page.wrap(f"Beside {base} (sizes and shares, no verdict)", "    ", "  "), "1")
    for file, facts in list(found.items())[: None if page.verbose else _ADAPTERS]:
        if len(found) > 1:
            yield f"    {printable(file, 100)}"
        for label, text in told(facts):
            yield page.wrap(text, " " * 24, f"    {label:<20}")
    if len(found) > _ADAPTERS and not page.verbose:
        yield f"    … {len(found) - _ADAPTERS} more; --verbose shows all"
    yield ""


def compared(report: Report) -> Mapping[str, Mapping[str, Sequence[Evidence]]]:
    """Return what was compared by the adapter's file and the name of the fact."""
    found: dict[str, dict[str, list[Evidence]]] = defaultdict(lambda: defaultdict(list))
    for item in report.evidence:
        if item.name in _SHOWN:
            found[item.subject.file][item.name].append(item)
    return found


def told(facts: Mapping[str, Sequence[Evidence]]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of what was compared of one adapter."""
    for item in facts.get("base.relative", ()):
        d = item.details
        yield (
            "size",
            f"‖ΔW‖/‖W‖ {_number(item.value)} over {_number(d['modules'])} modules, at most "
            f"{_number(d['max'])} ({d['worst']}); σ₁(ΔW)/σ₁(W) at most {_number(d['top_ratio'])}; "
            f"leading singular values move by at most {_share(d['shift'])}",
        )
    for item in facts.get("base.dora", ()):
        d = item.details
        yield (
            "DoRA",
            f"the true ‖ΔW‖ is {_number(item.value)}, of B·A alone {_number(d['factors'])}",
        )
    for item in facts.get("base.intruders", ()):
        d = item.details
        where = f", most in {d['worst']}" if item.value else ""
        unknown = f", {_number(d['undecided'])} undecided" if d["undecided"] else ""
        yield (
            "directions",
            f"{_number(item.value)} of {_number(d['directions'])} leading directions of the "
            f"merged weights are unlike all of the base's{unknown}{where}",
        )
    for item in facts.get("base.alignment", ()):
        d = item.details
        yield (
            "within the base",
            f"{_share(item.value)} of the update writes to the base's leading directions "
            f"(by chance {_share(d['chance'])}), {_share(d['right'])} reads from them "
            f"({_share(d['right_chance'])})",
        )
    rounding = facts.get("base.rounding", ())
    if rounding:
        errors = ", ".join(f"{i.details['format']} {_share(i.value)}" for i in rounding)
        drowned = [
            str(i.details["format"])
            for i in rounding
            if isinstance(i.value, float) and i.value > _MOSTLY_ROUNDING
        ]
        note = f" (in {', '.join(drowned)} rounding is larger than the update)" if drowned else ""
        yield "a merged file", f"error of the update: {errors}{note}"


def _number(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if value else "0"


def _share(value: Scalar) -> str:
    if not isinstance(value, (int, float)):
        return "?"
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"

"""Say how an adapter compares with its base: lines of text, and bars of what a merge keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from adapterscan.model import Evidence, Report
from adapterscan.reporters.beside_base import compared, told
from adapterscan.reporters.html.bars import Bar, Panel, Row, bar
from adapterscan.reporters.html.weights import FILES
from adapterscan.reporters.html.words import name, number, share

Lines = tuple[tuple[str, str], ...]


def lines(report: Report) -> list[tuple[str, Lines]]:
    """Return (file, (label, text)…) of the first adapters that were compared with the base."""
    found = list(compared(report).items())[:FILES]
    return [(file, said) for file, facts in found if (said := _told(facts))]


def panels(report: Report) -> Iterator[Panel]:
    """Yield bars of what a merged file carries, and of how far the update keeps to the base."""
    for file, facts in list(compared(report).items())[:FILES]:
        if rounding := facts.get("base.rounding", []):
            bars = tuple(
                bar(str(item.details.get("format")), "adapter", item.value,
                    told=f"error {share(item.value)}, cosine {number(item.details.get('cosine'))}")
                for item in rounding
            )  # fmt: skip
            yield Panel(
                "What a merged file carries",
                "Error of the update after a merge into each format, of the update's own size. "
                "A full bar: rounding is as large as the update.",
                (Row(name(file), "", bars, ""),),
            )
        for item in facts.get("base.alignment", ()):
            yield Panel(
                "Within the base's leading directions",
                "Share of the update there, and of a random one.",
                (Row(name(file), "", _sides(item), ""),),
            )


def _told(facts: Mapping[str, Sequence[Evidence]]) -> Lines:
    """Return the lines; none where a report that was read from a file lacks what they need."""
    try:
        return tuple(told(facts))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()


def _sides(item: Evidence) -> tuple[Bar, ...]:
    d = item.details
    return (
        bar("writes to them", "adapter", item.value),
        bar("by chance", "control", d.get("chance")),
        bar("reads from them", "adapter", d.get("right")),
        bar("by chance", "control", d.get("right_chance")),
    )

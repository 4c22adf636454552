"""Draw shares as bars with their intervals. The words stand beside them as text of the page."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from adapterscan.model import Scalar
from adapterscan.reporters.html.svg import tag
from adapterscan.reporters.html.words import finite, share

_WIDTH, _HEIGHT = 100, 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One share, 0 to 1, of one side. `told` is what stands beside it."""

    who: str
    side: str  # "adapter", "base", "control": its colour
    drawn: Markup
    told: str


@dataclass(frozen=True, slots=True)
class Row:
    """Bars that are compared, and what about. `tag` is a word on what counts of it."""

    label: Markup
    tag: str
    bars: tuple[Bar, ...]
    note: str
    counts: bool = True  # false: measured, and put aside


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows of one kind under one heading."""

    title: str
    about: str
    rows: tuple[Row, ...]
    more: int = 0  # rows that there is no room for


def bar(
    who: str,
    side: str,
    value: Scalar,
    *,
    hits: Scalar = None,
    n: Scalar = None,
    low: Scalar = None,
    high: Scalar = None,
    told: str = "",
) -> Bar:
    """Return the bar of a share. `low` and `high` are its interval, `hits` of `n` its counts."""
    words = told or share(value)
    if isinstance(hits, int) and isinstance(n, int):
        words += f", {hits} of {n}"
    if finite(low) and finite(high):
        words += f" ({share(low)} to {share(high)})"
    return Bar(who, side, _drawn(side, value, low, high), words)


def _drawn(side: str, value: Scalar, low: Scalar, high: Scalar) -> Markup:
    """Return the picture; it says nothing to a screen reader that the text beside it does not."""
    body = [tag("rect", class_="track", x=0, y=0, width=_WIDTH, height=_HEIGHT)]
    if length := _share(value) * _WIDTH:
        body.append(tag("rect", class_=side, x=0, y=0, width=length, height=_HEIGHT))
    if finite(low) and finite(high):
        a, b, middle = _share(low) * _WIDTH, _share(high) * _WIDTH, _HEIGHT / 2
        path = f"M{a:.2f} {middle:g}H{b:.2f}M{a:.2f} 2V10M{b:.2f} 2V10"
        body.append(tag("path", class_="halo", d=path, vector_effect="non-scaling-stroke"))
        body.append(tag("path", class_="whisker", d=path, vector_effect="non-scaling-stroke"))
    return tag(
        "svg", Markup("").join(body), class_="bar", viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none", aria_hidden="true", focusable="false",
    )  # fmt: skip


def _share(value: Scalar) -> float:
    """Return `value` within 0 and 1, 0 for what is no number."""
    return float(min(1, max(0, value))) if finite(value) else 0.0

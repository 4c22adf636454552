"""Draw a heat map: modules × layers, one statistic, what stands out ringed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from adapterscan.model import Scalar
from adapterscan.reporters.html.grid import Grid
from adapterscan.reporters.html.svg import picture, tag
from adapterscan.reporters.html.words import finite, number

STEPS = 9  # colours, q0 to q8 in the style sheet
ROW = 22  # pixels; the style sheet gives the labels beside it the same
_FOOT = 18
_WIDTHS = ((28, 16), (22, 36), (16, 52), (11, 96))  # pixels of a column, up to so many columns
_WIDE = 20.0  # how often the largest holds the smallest before the scale is logarithmic


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One statistic over a grid, drawn, with what its colours begin and end with."""

    label: str
    about: str
    drawn: Markup
    low: str
    high: str
    diverging: bool
    marked: int  # cells with a ring


def heat_map(
    grid: Grid,
    values: Mapping[str, Scalar],
    marks: Mapping[str, str],
    *,
    key: str,
    label: str,
    about: str,
    bounds: tuple[float, float] | None = None,
) -> HeatMap:
    """Draw `values` by module; `marks` says of modules that stand out why.

    Where several modules share a cell, as experts do, the largest value is drawn. With `bounds`
    the colours are a diverging scale between them; without, they span the values, by logarithms
    where those are positive and differ by more than twenty times.
    """
    cells: dict[tuple[int, int], list[str]] = defaultdict(list)
    for module in values:
        if module in grid.place:
            cells[grid.place[module]].append(module)
    known = [value for value in values.values() if finite(value)]
    low, high = bounds or (min(known, default=0.0), max(known, default=0.0))
    wide = bounds is None and low > 0 and high > _WIDE * low
    width = cell_width(len(grid.columns))
    body: list[Markup] = []
    marked = 0
    for (row, column), modules in sorted(cells.items()):
        value = _largest(values, modules)
        why = next((marks[module] for module in modules if module in marks), "")
        marked += bool(why)
        step = _step(value, low, high, wide=wide)
        shade = "bad" if step is None else f"{'d' if bounds else 'q'}{step}"
        words = _words(grid.columns[column], value, len(modules), why)
        body.append(_cell(row, column, width, shade, words, ring=bool(why)))
    body += _axis(grid, width)
    size = max(width * len(grid.columns), 60), ROW * len(grid.rows) + _FOOT
    told = f"{label}: {about}. {len(cells)} cells from {number(low)} to {number(high)}"
    rings = f", {marked} stand out" if marked else ""
    title = f"{label}, kinds of modules × layers"
    drawn = picture(*size, key, title, told + rings, body, preserveAspectRatio="none")
    scale = " (logarithmic)" if wide else ""
    return HeatMap(label, about, drawn, number(low), number(high) + scale, bool(bounds), marked)


def cell_width(columns: int) -> int:
    """Return the pixels of one column: 80 layers fit a desk."""
    return next((width for width, most in _WIDTHS if columns <= most), 8)


def _cell(row: int, column: int, width: int, shade: str, words: str, *, ring: bool) -> Markup:
    x, y = column * width, row * ROW
    inset = 1.5 if ring else 0.5
    return tag(
        "rect", tag("title", words), class_=f"{shade} ring" if ring else shade,
        x=x + inset, y=y + inset, width=width - 2 * inset, height=ROW - 2 * inset,
    )  # fmt: skip


def _words(layer: int, value: Scalar, modules: int, why: str) -> str:
    where = f"layer {layer}" if layer >= 0 else "no layer"
    many = f", largest of {modules}" if modules > 1 else ""
    return f"{where}: {number(value)}{many}{f'; {why}' if why else ''}"


def _axis(grid: Grid, width: int) -> list[Markup]:
    every = 1 if width > 16 else 5 if width > 8 else 10
    return [
        tag("text", str(layer), x=index * width + width / 2, y=ROW * len(grid.rows) + 13,
            text_anchor="middle")
        for index, layer in enumerate(grid.columns)
        if layer >= 0 and index % every == 0
    ]  # fmt: skip


def _largest(values: Mapping[str, Scalar], modules: list[str]) -> Scalar:
    known = [value for value in map(values.__getitem__, modules) if finite(value)]
    if len(known) < len(modules):
        return None  # a broken one is not hidden behind sound ones
    return max(known, key=abs)


def _step(value: Scalar, low: float, high: float, *, wide: bool) -> int | None:
    if not finite(value):
        return None
    if high <= low:
        return STEPS // 2
    x, a, b = (math.log(v) if wide else float(v) for v in (value, low, high))
    return min(STEPS - 1, max(0, int((x - a) / (b - a) * STEPS)))

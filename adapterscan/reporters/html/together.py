"""Say what adapters are to each other: a matrix of pairs, and a graph of those that are related."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from markupsafe import Markup

from adapterscan.model import Evidence, Report
from adapterscan.reporters.html.heat import STEPS
from adapterscan.reporters.html.svg import picture, tag
from adapterscan.reporters.html.words import finite, number, share

NODES = 24  # of a graph, and rows of a matrix
_APART = 0.05  # |cosine| below which no line is drawn
_RADIUS, _DOT, _ROOM = 100, 15, 24


@dataclass(frozen=True, slots=True)
class Edge:
    """Two adapters by number. `kind` is a class of the style sheet, `weight` 0 to 1 its width."""

    first: int
    other: int
    kind: str  # "against", "alike", "apart"
    weight: float
    told: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair in the matrix: its colour and what it says."""

    shade: str
    told: str
    title: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """The parts of a sum, numbered, with what each pair is."""

    names: tuple[str, ...]
    graph: Markup
    matrix: tuple[tuple[Cell, ...], ...]
    facts: tuple[Evidence, ...]
    bases: str
    method: str
    left_out: int


def pairs(report: Report, key: str) -> Pairs | None:
    """Return the pairs of a sum, None for a report that is of none."""
    facts = tuple(item for item in report.evidence if item.name == "sum.pair")
    if not facts:
        return None
    names = parts(report, len(facts))
    shown = names[:NODES]
    known = dict(zip(combinations(range(len(names)), 2), facts, strict=False))
    edges = [_edge(i, j, item) for (i, j), item in known.items() if j < len(shown)]
    matrix = tuple(
        tuple(_cell(known.get((min(i, j), max(i, j))), same=i == j) for j in range(len(shown)))
        for i in range(len(shown))
    )
    about = f"{len(shown)} parts; lines join those that pull the same way or against each other"
    drawn = graph(len(shown), edges, key=f"{key}pairs", title="Parts of the sum", about=about)
    return Pairs(
        tuple(shown), drawn, matrix, facts[:NODES], _bases(report), _method(report),
        len(names) - len(shown),
    )  # fmt: skip


def parts(report: Report, pairs: int) -> list[str]:
    """Return what the parts are called, from the fact about all of them.

    Names may hold the ` + ` that joins them: where they cannot be told apart they are numbered.
    """
    whole = next((i.subject.name for i in report.evidence if i.name == "sum.bases"), "")
    names = whole.split(" + ")
    if math.comb(len(names), 2) == pairs:
        return names
    return [f"part {k + 1}" for k in range(round((math.sqrt(8 * pairs + 1) + 1) / 2))]


def graph(nodes: int, edges: Sequence[Edge], *, key: str, title: str, about: str) -> Markup:
    """Draw numbered nodes on a circle and lines between them, the widest for the closest."""
    spots, (width, height) = _placed(nodes)
    body = []
    for edge in sorted(edges, key=lambda edge: edge.weight):
        (x1, y1), (x2, y2) = spots[edge.first], spots[edge.other]
        if edge.kind != "apart":
            body.append(
                tag("line", tag("title", edge.told), class_=edge.kind, x1=x1, y1=y1, x2=x2, y2=y2,
                    stroke_width=1.5 + 5 * edge.weight)
            )  # fmt: skip
    for index, (x, y) in enumerate(spots, 1):
        body.append(tag("circle", class_="node", cx=x, cy=y, r=_DOT))
        body.append(tag("text", str(index), x=x, y=y + 4.5, text_anchor="middle"))
    return picture(width, height, key, title, about, body)


def _placed(nodes: int) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Return where nodes lie on a circle, the first one above, and the size of it all."""
    turn = math.pi if nodes == 2 else math.pi / 2
    spots = [
        (_RADIUS * math.cos(angle), _RADIUS * math.sin(angle))
        for angle in (2 * math.pi * index / max(1, nodes) - turn for index in range(nodes))
    ]
    left = min((x for x, _ in spots), default=0.0) - _ROOM
    top = min((y for _, y in spots), default=0.0) - _ROOM
    width = max((x for x, _ in spots), default=0.0) + _ROOM - left
    height = max((y for _, y in spots), default=0.0) + _ROOM - top
    return [(x - left, y - top) for x, y in spots], (width, height)


def _edge(first: int, other: int, item: Evidence) -> Edge:
    """Return the line of a pair by its cosine."""
    cosine = item.details.get("cosine")
    size = cosine if finite(cosine) else 0.0
    kind = "apart" if abs(size) < _APART else "against" if size < 0 else "alike"
    told = f"{first + 1} and {other + 1}: {item.details.get('relation')}"
    return Edge(first, other, kind, min(1.0, abs(size)), told)


def _cell(item: Evidence | None, *, same: bool) -> Cell:
    if item is None:
        return Cell("self" if same else "none", "", "itself" if same else "not measured")
    cosine = item.details.get("cosine")
    if not item.details.get("modules") or not finite(cosine):
        return Cell("none", "–", "no common modules")
    step = min(STEPS - 1, max(0, int((cosine + 1) / 2 * STEPS)))
    energy = f"{share(item.value)} of the energy cancels"
    return Cell(f"d{step}", f"{cosine:+.2f}", f"cosine {number(cosine)}, {energy}")


def _bases(report: Report) -> str:
    found = next((item for item in report.evidence if item.name == "sum.bases"), None)
    return str(found.value) if found is not None and found.value else ""


def _method(report: Report) -> str:
    for item in report.evidence:
        if item.name == "sum.method" and item.value:
            return (
                f"{item.details.get('method')} makes something else than the sum of all ΔW: "
                f"{share(item.value)} away from it."
            )
    return ""

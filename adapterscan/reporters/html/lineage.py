"""Render how adapters are related as a page: the graph of their lineage, and every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapterscan.model import Skipped
from adapterscan.reporters.html.page import written
from adapterscan.reporters.html.together import NODES, Edge, graph
from adapterscan.together.lineage import Comparison


def render_lineage(found: Sequence[Comparison], skipped: Sequence[Skipped]) -> Iterator[str]:
    """Yield one HTML document for the comparison of adapters with each other, in pieces."""
    names = list(dict.fromkeys(name for item in found for name in (item.first, item.other)))
    places = {name: index for index, name in enumerate(names[:NODES])}
    edges = [
        _edge(places[item.first], places[item.other], item)
        for item in found
        if item.first in places and item.other in places
    ]
    about = f"{len(places)} adapters; lines join those that are related, the widest the closest"
    yield from written(
        "lineage.html",
        found=found,
        skipped=skipped,
        names=names[:NODES],
        left_out=len(names) - len(places),
        drawn=graph(len(places), edges, key="lineage", title="Related adapters", about=about),
        exact=all(item.exact for item in found),
    )


def _edge(first: int, other: int, item: Comparison) -> Edge:
    """Return the line of a pair; one that is related has a line however small its cosine."""
    relation = item.relation
    told = "the same file" if item.same_file else str(relation)
    cosine = relation.cosine if relation.common else 0.0
    if relation.kind in ("unrelated", "nothing in common") and not item.same_file:
        kind = "apart"
    else:
        kind = "against" if cosine < 0 else "alike"
    return Edge(first, other, kind, min(1.0, abs(cosine)), f"{first + 1} and {other + 1}: {told}")

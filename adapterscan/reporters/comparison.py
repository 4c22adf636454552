"""Render how adapters are related: a table, what a copy changed, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from adapterscan.model import Skipped
from adapterscan.text import plural, printable, redact, safe_json
from adapterscan.together.lineage import Comparison

SCHEMA_VERSION = "1"
_CHANGED = 8


def render_table(
    found: Sequence[Comparison], skipped: Sequence[Skipped], *, verbose: bool
) -> Iterator[str]:
    """Yield lines for a person; text from adapters is escaped and bounded."""
    rows = [
        [
            printable(item.first, 50),
            printable(item.other, 50),
            "the same file" if item.same_file else str(item.relation),
            _cosine(item),
            f"{item.relation.parallel} of {item.relation.common}",
            _inputs(item),
        ]
        for item in found
    ]
    headers = ["adapter", "other", "relation", "cosine", "same modules", "shared inputs"]
    if rows:
        yield tabulate(rows, headers, tablefmt="simple", disable_numparse=True) + "\n"
    for item in found:
        changed = item.relation.changed
        if changed and not item.same_file:
            shown = changed if verbose else changed[:_CHANGED]
            yield f"\n{printable(item.other, 60)} beside {printable(item.first, 60)}: changed are\n"
            yield from (f"  {printable(name, 120)}\n" for name in shown)
            if len(changed) > len(shown):
                yield f"  … {len(changed) - len(shown):,} more; --verbose shows all\n"
    if not all(item.exact for item in found):
        yield "\nCosines with fingerprints are estimates: ± 0.13 a module, less over many.\n"
    if skipped:
        yield f"\nnot compared: {plural(len(skipped), 'item')}\n"
        yield from (f"  {printable(s.what, 80)}: {printable(s.reason, 200)}\n" for s in skipped)


def _cosine(item: Comparison) -> str:
    if not item.relation.common:
        return "-"  # nothing was compared
    return f"{item.relation.cosine:+.3f}" if item.exact else f"{item.relation.cosine:+.2f}"


def _inputs(item: Comparison) -> str:
    shared = item.relation.shared_inputs
    return "-" if shared is None else f"{shared:.2f} (chance {item.relation.chance:.2f})"


def render_json(found: Sequence[Comparison], skipped: Sequence[Skipped]) -> Iterator[str]:
    """Yield one JSON document: a comparison in a line."""
    document = {
        "schema": SCHEMA_VERSION,
        "comparisons": [_comparison(item) for item in found],
        "skipped": [{"what": redact(item.what), "reason": redact(item.reason)} for item in skipped],
    }
    yield safe_json(json.dumps(document, indent=1, allow_nan=False)) + "\n"


def _comparison(item: Comparison) -> dict[str, object]:
    relation = item.relation
    return {
        "first": item.first,
        "other": item.other,
        "kind": relation.kind,
        "relation": str(relation),
        "same_file": item.same_file,
        "exact": item.exact,
        "cosine": relation.cosine,
        "factor": relation.factor,
        "common_modules": relation.common,
        "same_modules": relation.parallel,
        "changed": list(relation.changed),
        "shared_inputs": relation.shared_inputs,
        "chance": relation.chance,
    }

"""Parse JSON from strangers: bounded, no duplicate keys unnoticed, no recursion blow-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from adapterscan.errors import LimitExceeded, Malformed

Pairs = list[tuple[str, Any]]
DEPTH_LIMIT = 64  # honest configs reach 6; the parser of safetensors stops at 128
VALUES_LIMIT = 250_000  # `[[],[],…` takes thirty times its size in memory
REFUSED = "no loader takes"  # how a reason begins when it is we who refuse a value


def parse(
    data: bytes,
    path: str,
    *,
    limit: int,
    values: int = VALUES_LIMIT,
    on_object: Callable[[Pairs], Any] | None = None,
) -> Any:
    """Return the value of `data`. `on_object` sees every object's pairs, duplicates included.

    `NaN` and `Infinity`, which Python's loaders accept, are accepted as floats.
    Raises LimitExceeded over `limit` bytes or so many `values`, Malformed for anything that is not
    one JSON value or is nested deeper than DEPTH_LIMIT.
    """
    require_size(data, path, limit, values)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.start) from error
    try:
        value = json.loads(text, object_pairs_hook=on_object)
    except RecursionError as error:
        raise too_deep(path) from error
    except ValueError as error:
        raise not_json(path, reason_of(error)) from error
    if deeper_than(value, DEPTH_LIMIT):
        raise too_deep(path)
    return value


def require_size(data: bytes, path: str, limit: int, values: int) -> None:
    """Raise LimitExceeded over `limit` bytes or `values` values."""
    if len(data) > limit:
        raise LimitExceeded(
            path, f"is {len(data):,} bytes of JSON, over the limit of {limit:,}",
            hint="an adapter needs a few kilobytes; ask the author what the rest is",
        )  # fmt: skip
    if count_values(data) > values:
        raise LimitExceeded(
            path, f"has more than {values:,} values",
            hint="an adapter needs a few thousand; treat it as hostile",
        )  # fmt: skip


def count_values(data: bytes) -> int:
    """Return how many values JSON can have at the most, counting the marks in texts as well."""
    return sum(map(data.count, (b",", b"[", b"{")))


def deeper_than(value: Any, limit: int) -> bool:
    """Look level by level: the interpreter's own limit differs by version and by caller."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limit:
            return True
        nodes = [node for node in level if isinstance(node, (list, tuple, dict)) and node]
        level = [c for node in nodes for c in (node.values() if isinstance(node, dict) else node)]
    return False


def too_deep(path: str) -> Malformed:
    """Return the error for what is nested beyond reason."""
    return Malformed(
        path, "is nested deeper than any loader follows", defect="too-deep",
        hint="treat it as hostile: no tool writes this",
    )  # fmt: skip


def not_utf8(path: str, at: int) -> Malformed:
    """Return the error for bytes that are no text."""
    return Malformed(
        path, f"is not UTF-8 text (byte {at})", defect="not-utf8",
        hint="loaders refuse it; ask the author for a clean file",
    )  # fmt: skip


def not_json(path: str, reason: str) -> Malformed:
    """Return the error for what a parser refused."""
    return Malformed(
        path, f"is not valid JSON ({reason})", defect="not-json",
        hint="loaders refuse it; ask the author for a clean file",
    )  # fmt: skip


def reason_of(error: ValueError) -> str:
    """Return what Python's parser, or we in its hooks, have against a value."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, UnicodeError):
        return "half of a surrogate pair"
    return str(error) if str(error).startswith(REFUSED) else "a number too long to read"

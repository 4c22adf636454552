"""Parse JSON from strangers: bounded, no duplicate keys unnoticed, no recursion blow-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from adapterscan.errors import LimitExceeded, Malformed

Pairs = list[tuple[str, Any]]


def parse(
    data: bytes, path: str, *, limit: int, on_object: Callable[[Pairs], Any] | None = None
) -> Any:
    """Return the value of `data`. `on_object` sees every object's pairs, duplicates included.

    `NaN` and `Infinity`, which Python's loaders accept, are accepted as floats.
    Raises LimitExceeded over `limit` bytes, Malformed for anything that is not one JSON value.
    """
    if len(data) > limit:
        raise LimitExceeded(
            path, f"is {len(data):,} bytes of JSON, over the limit of {limit:,}",
            hint="an adapter needs a few kilobytes; ask the author what the rest is",
        )  # fmt: skip
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(
            path, f"is not UTF-8 text (byte {error.start})", defect="not-utf8",
            hint="loaders refuse it; ask the author for a clean file",
        ) from error  # fmt: skip
    try:
        return json.loads(text, object_pairs_hook=on_object)
    except RecursionError as error:
        raise Malformed(
            path, "is nested deeper than any loader follows", defect="too-deep",
            hint="treat it as hostile: no tool writes this",
        ) from error  # fmt: skip
    except ValueError as error:
        raise Malformed(
            path, f"is not valid JSON ({_reason(error)})", defect="not-json",
            hint="loaders refuse it; ask the author for a clean file",
        ) from error  # fmt: skip


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return "a number too long to read"

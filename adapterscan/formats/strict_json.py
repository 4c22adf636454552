"""Parse JSON from strangers: bounded, no duplicate keys unnoticed, no recursion blow-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from adapterscan.errors import LimitExceeded, Malformed

Pairs = list[tuple[str, Any]]
DEPTH_LIMIT = 64  # honest configs reach 6; the parser of safetensors stops at 128
_NOT_JSON = "no loader takes"
VALUES_LIMIT = 1 << 20  # `[[],[],…` takes thirty times its size in memory


def parse(
    data: bytes,
    path: str,
    *,
    limit: int,
    on_object: Callable[[Pairs], Any] | None = None,
    exact: bool = False,
) -> Any:
    """Return the value of `data`. `on_object` sees every object's pairs, duplicates included.

    `NaN` and `Infinity`, which Python's loaders accept, are accepted as floats. With `exact` they
    are not, nor is anything else that JSON does not have and Python takes: `-0` as a whole number,
    half of a surrogate pair.
    Raises LimitExceeded over `limit` bytes or VALUES_LIMIT values, Malformed for anything that is
    not one JSON value or is nested deeper than DEPTH_LIMIT.
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
    if sum(map(data.count, (b",", b"[", b"{"))) > VALUES_LIMIT:
        raise LimitExceeded(
            path, f"has more than {VALUES_LIMIT:,} values",
            hint="an adapter needs a few thousand; treat it as hostile",
        )  # fmt: skip
    try:
        value = json.loads(
            text,
            object_pairs_hook=on_object,
            parse_constant=_no_constant if exact else None,
            parse_int=_exact_int if exact and "-0" in text else None,
        )
        if exact and "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses halves of pairs
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        raise Malformed(
            path, f"is not valid JSON ({_reason(error)})", defect="not-json",
            hint="loaders refuse it; ask the author for a clean file",
        ) from error  # fmt: skip
    if _deeper_than(value, DEPTH_LIMIT):
        raise _too_deep(path)
    return value


def _too_deep(path: str) -> Malformed:
    return Malformed(
        path, "is nested deeper than any loader follows", defect="too-deep",
        hint="treat it as hostile: no tool writes this",
    )  # fmt: skip


def _deeper_than(value: Any, limit: int) -> bool:
    """Look level by level: the interpreter's own limit differs by version and by caller."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limit:
            return True
        nodes = [node for node in level if isinstance(node, (list, tuple, dict)) and node]
        level = [c for node in nodes for c in (node.values() if isinstance(node, dict) else node)]
    return False


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, UnicodeError):
        return "half of a surrogate pair"
    text = str(error)
    return text if text.startswith(_NOT_JSON) else "a number too long to read"


def _no_constant(text: str) -> float:
    raise ValueError(f"{_NOT_JSON} {text}")


def _exact_int(text: str) -> int:
    if text == "-0":
        raise ValueError(f"{_NOT_JSON} a negative zero")
    return int(text)

"""Find the fields of a JSON document that name code to run, or switch off the question about it.

Sources: CVE-2026-4372 (`_attn_implementation_internal`), CVE-2026-22807 (`auto_map` loaded before
the trust check).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from adapterscan.errors import LimitExceeded
from adapterscan.model import Scalar
from adapterscan.text import printable

_HOOKS = frozenset({"auto_map", "_attn_implementation_internal", "custom_pipeline"})
#: These take a name from a fixed set, or a repository on the hub to fetch code from.
_KERNELS = frozenset({"_attn_implementation", "attn_implementation", "custom_generate"})
_SHOWN = 200  # characters of a key or a value
HOOK_LIMIT = 10_000  # in all documents of a target; honest ones have a few


@dataclass(frozen=True, slots=True)
class Hook:
    """A field at `field` of the document at `path`, and what it holds as text."""

    path: str
    field: str
    value: Scalar


def find_hooks(document: object, path: str, room: int = HOOK_LIMIT) -> list[Hook]:
    """Return the hooks at any depth: nested configs override the outer trust setting.

    Raises LimitExceeded for more than `room`: to leave out the rest could be to miss the one.
    """
    found = list(islice(_walk(document, path, ()), room + 1))
    if len(found) > room:
        raise LimitExceeded(
            path, f"has with other files more than {HOOK_LIMIT:,} fields that name code",
            hint="honest configs have a few; treat it as hostile",
        )  # fmt: skip
    return found


def _walk(value: object, path: str, at: tuple[Any, ...]) -> Iterator[Hook]:
    """`value` is as deep as `strict_json` follows, at most."""
    if not isinstance(value, (dict, list)):
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        if isinstance(key, str) and _names_code(key, item):
            place = ".".join(printable(str(name)[:_SHOWN]) for name in (*at, key))
            shown = item if isinstance(item, bool) else printable(str(item)[:_SHOWN])
            yield Hook(path, printable(place), shown)
        yield from _walk(item, path, (*at, key))


def _names_code(key: str, item: object) -> bool:
    return (
        (key in _HOOKS and bool(item))
        or (key == "trust_remote_code" and item is True)
        or (key in _KERNELS and isinstance(item, str) and "/" in item)
    )

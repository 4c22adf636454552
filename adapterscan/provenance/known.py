"""Names that people trust: organisations and base models of the hub, as data with a card.

What is listed and where it is from: README.md beside it.
"""

from __future__ import annotations

import importlib.resources
from functools import cache


@cache
def organisations() -> tuple[str, ...]:
    """Return names of organisations whose base models many adapters are made for."""
    return _lines("organisations.txt")


@cache
def bases() -> tuple[str, ...]:
    """Return ids of base models, `org/name`."""
    return _lines("bases.txt")


def _lines(name: str) -> tuple[str, ...]:
    text = importlib.resources.files("adapterscan.provenance").joinpath(name).read_text("utf-8")
    return tuple(line for line in text.splitlines() if line)

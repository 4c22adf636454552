"""Say what a base model's licence asks of an adapter, and which licence a text is.

Source: `licences.toml`, with its card in README.md. Not legal advice: a list of families whose
terms are more than "keep the notice".
Limits: a base is told by its id. One that is not listed, or was renamed, is not judged; terms
change.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

READ = 4096  # characters of a licence's text in which it says which it is


@dataclass(frozen=True, slots=True)
class Terms:
    """A licence by its id on the hub, what it asks, and other ids that say the same."""

    licence: str
    asks: str
    also: tuple[str, ...]


def terms_of(base: str) -> Terms | None:
    """Return the terms of the base model of that id, None where none are listed."""
    name = base.lower()
    for family in _table()["family"]:
        if any(fnmatchcase(name, pattern) for pattern in family["names"]):
            return Terms(family["licence"], family["asks"], tuple(family["also"]))
    return None


def is_free(licence: str) -> bool:
    """Return whether a licence of that id lets one use the work for anything."""
    return licence.lower() in _table()["free"]["ids"]


def licence_of(text: str) -> str:
    """Return the id of the licence whose text this is, "" for one that we do not know.

    The mark that comes first counts: others are quoted further down.
    """
    words = " ".join(text[:READ].lower().split()).replace("license, version", "license version")
    places = {mark: words.find(mark) for mark in _table()["text"]}
    found = sorted((place, -len(mark), mark) for mark, place in places.items() if place >= 0)
    return str(_table()["text"][found[0][2]]) if found else ""


@cache
def _table() -> dict[str, Any]:
    source = importlib.resources.files("adapterscan.provenance").joinpath("licences.toml")
    return tomllib.loads(source.read_text("utf-8"))

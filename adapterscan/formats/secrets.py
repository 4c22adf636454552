"""Search text for credentials, and tell of each what it is and where, never what it says.

Cost: linear in the text, and a bounded look at each of a bounded number of places.
Limits: those of `secret_kinds`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from adapterscan.formats.secret_kinds import KINDS, Kind

SHOWN = 4  # characters of a secret: its prefix, by which its issuer is told
PLACES = 2_000  # places of one kind in one text that are looked at
_WORD = re.compile(r"[A-Za-z0-9_]")
_ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")

_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential that lies in a text. `start` are its first characters, `at` its place.

    `line` counts from 1. `sure`: its form proves it; else where it stands speaks for it.
    """

    kind: str
    at: int
    line: int
    start: str
    length: int
    sure: bool


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in a text, and of which kinds there were more places than are looked at."""

    secrets: tuple[Secret, ...]
    cut: tuple[str, ...]


def unescaped(text: str) -> str:
    """Return `text` with letters that JSON may write as `\\u0068` as letters, and no colours."""
    if "\x1b[" in text:
        text = _COLOUR.sub("", text)
    if "\\u00" not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def without(text: str, secrets: Iterable[Secret]) -> str:
    """Return `text` with a mark in place of each secret."""
    pieces, at = [], 0
    for secret in secrets:
        pieces.append(text[at : secret.at])
        at = secret.at + secret.length
    return "[secret]".join([*pieces, text[at:]])


def find_secrets(text: str, *, binary: bool = False) -> Search:
    """Return the credentials in `text`. `binary`: what stands beside them need not be text."""
    taken: list[tuple[int, int]] = []
    found: list[Secret] = []
    cut: list[str] = []
    lines: list[int] = []
    lowered = text.lower()
    for kind in KINDS:
        if not any(word in lowered for word in kind.words):
            continue
        places = list(islice(kind.mark.finditer(text), PLACES + 1))
        if len(places) > PLACES:
            cut.append(kind.name)
        for start, end in _hits(kind, text, places[:PLACES], binary):
            if any(start < other_end and other < end for other, other_end in taken):
                continue
            taken.append((start, end))
            lines = lines or [match.end() for match in re.finditer("\n", text)]
            line = bisect_right(lines, start) + 1
            shown = text[start : start + SHOWN]
            found.append(Secret(kind.name, start, line, shown, end - start, kind.sure))
    found.sort(key=lambda secret: secret.at)
    return Search(tuple(found), tuple(dict.fromkeys(cut)))


def _hits(
    kind: Kind, text: str, places: list[re.Match[str]], binary: bool
) -> Iterator[tuple[int, int]]:
    """Yield where secrets of one kind begin and end."""
    for place in places:
        match, start = place, 0
        if kind.shape is not None:
            start = max(0, place.start() - kind.back)
            window = text[start : place.start() + kind.room]
            seen = kind.shape.match(window)
            if seen is None:
                continue
            match = seen
        begin, end = match.start("s") + start, match.end("s") + start
        if not binary and _continues(text, begin, end):
            continue
        if kind.proof(text[begin:end]):
            yield begin, end


def _continues(text: str, begin: int, end: int) -> bool:
    """Return whether what was found is the middle of a longer word."""
    before = begin > 0 and _WORD.match(text[begin - 1]) is not None
    first = _WORD.match(text[begin]) is not None
    after = end < len(text) and _WORD.match(text[end]) is not None
    last = _WORD.match(text[end - 1]) is not None
    return (before and first) or (after and last)

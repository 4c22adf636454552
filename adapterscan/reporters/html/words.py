"""Say values and untrusted text in HTML: escaped, nothing invisible, nothing out of its line.

Whatever a template prints passes `shown`, so no place in a page can forget it.
Limits: letters that look like others stay what they are; a name is shown, not judged.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import TypeGuard

from markupsafe import Markup, escape

from adapterscan.model import Scalar
from adapterscan.text import printable

NAME = 200  # characters of one name
TEXT = 4000  # of one message
SPOKEN = 1200  # of what a model was asked or said
_STACKED = 3  # marks on one letter: more paint over the lines above
_MARKED = 20  # places of one wording in one text
_SMALL = 1e-4  # below it, numbers are told as powers of ten


def shown(value: object) -> str | Markup:
    """Return what a template may print of `value`; text is made printable and bounded."""
    match value:
        case Markup():
            return value
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case int():
            return str(value) if abs(value) < 10**15 else "over 10^15"
        case _:
            return flat(str(value), TEXT)


def flat(text: object, limit: int = NAME) -> str:
    """Return `text` printable, in one line, at most `limit` characters, its marks not stacked."""
    text = printable(str(text), limit)
    if text.isascii():
        return text
    pieces: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        pieces.append(character if marks <= _STACKED else f"\\u{ord(character):04x}")
    return "".join(pieces)


def name(text: object, limit: int = NAME) -> Markup:
    """Return untrusted text as an element that cannot reorder what stands beside it."""
    return Markup("<bdi>{}</bdi>").format(flat(str(text), limit))


def spoken(text: object, *wordings: Scalar) -> Markup:
    """Return what a model was asked or said, line by line; each of `wordings` in it is marked."""
    said = str(text)
    cut = len(said) > SPOKEN
    lines = (
        Markup("").join(_marked(line, wordings)) for line in said[:SPOKEN].splitlines() or [""]
    )
    return Markup("\n").join(lines) + ("…" if cut else "")


def _marked(line: str, wordings: tuple[Scalar, ...]) -> list[Markup]:
    wording = next((w for w in wordings if isinstance(w, str) and w.strip() and w in line), "")
    if not wording:
        return [escape(flat(line, SPOKEN))]
    first, *rest = line.split(wording, _MARKED)
    told = [escape(flat(first, SPOKEN))]
    for part in rest:
        told.append(Markup("<mark>{}</mark>").format(flat(wording, SPOKEN)))
        told.append(escape(flat(part, SPOKEN)))
    return told


def prose(text: str) -> Markup:
    """Return the paragraphs of a rule's text."""
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return Markup("").join(Markup("<p>{}</p>").format(coded(part)) for part in parts if part)


def coded(text: str) -> Markup:
    """Return one paragraph of a rule's text; what it has between backticks becomes code."""
    parts = flat(" ".join(text.split()), TEXT).split("`")
    paired = len(parts) % 2 == 1
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 and paired else escape(part)
        for index, part in enumerate(parts)
    )


def number(value: Scalar) -> str:
    """Return a number to three digits, other values as they are."""
    match value:
        case bool() | None | str():
            return str(shown(value))
        case int():
            return f"{value:,}" if abs(value) < 10**15 else "over 10^15"
        case _ if not isinstance(value, float):  # a fact that lacks it
            return str(shown(value))
        case _ if not math.isfinite(value):
            return "not finite"
        case _ if value and abs(value) < _SMALL:
            return f"{value:.1e}"
        case _ if abs(value) >= 1000:
            return f"{value:,.0f}" if abs(value) < 10**15 else f"{value:.2e}"
        case _:
            return f"{value:.3g}"


def finite(value: object) -> TypeGuard[float]:
    """Return whether `value` is a number that a picture can be drawn from."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return known and abs(value) < 1e300  # type: ignore[arg-type]  # known: it is a number


def share(value: Scalar) -> str:
    """Return a share of 0 to 1 in percent."""
    if not finite(value):
        return "?"
    return f"{value:.1%}" if 0 < abs(value) < 0.1 else f"{value:.0%}"


def details(values: Mapping[str, Scalar], without: frozenset[str] = frozenset()) -> str:
    """Return the details of a fact in a line: `rank 8, layer 3`."""
    told = (
        f"{key.replace('_', ' ')} {flat(str(number(value)), NAME)}"
        for key, value in values.items()
        if key not in without and value not in ("", None)
    )
    return ", ".join(told)

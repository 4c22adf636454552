"""What is seen in a chat template: conditions on what is said, constructs, instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

MOST = 200  # of each kind of thing that is seen in one template; published ones have up to 20
WORDS = 6  # in a row make a sentence
LETTERS = 10  # of a script without spaces between words
CONSTRUCTS: Mapping[str, str] = {
    "code": "reaches for Python objects behind its values",
    "include": "loads another template",
    "bomb": "multiplies texts or numbers without need",
    "time": "lets a date, a time or chance decide",
    "url": "has an address in it",
    "invisible": "has characters that nobody sees",
}
_TAG = re.compile(r"<[^<>\n]{1,60}>")
#: Scripts that put no spaces between words: Thai to Khmer, kana, Han, Hangul.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff\uac00-\ud7af]")
APART = "…"  # between texts that do not follow each other
_CODE = frozenset('<>{}[]|=\\"`_#' + APART)


@dataclass(frozen=True, slots=True)
class Condition:
    """A place where the conversation's text is held against a fixed one.

    `kind`: "text", "markup" (tags and special tokens), "key" (what a part of a message has),
    "command" (`/think`), "number" (a length). `adds`: fixed texts that go to the prompt, or into a
    variable, where it is met; `otherwise`: where it is not.
    """

    line: int
    form: str  # "in", "==", "startswith", "replace", …
    literal: str
    kind: str
    adds: str = ""
    otherwise: str = ""


@dataclass(frozen=True, slots=True)
class Construct:
    """Something that no honest template needs. `kind`: one of CONSTRUCTS."""

    line: int
    kind: str
    text: str


@dataclass(slots=True)
class Tree:
    """What was seen in one template."""

    conditions: list[Condition] = field(default_factory=list)
    constructs: list[Construct] = field(default_factory=list)
    instructions: list[tuple[int, str]] = field(default_factory=list)  # line, text
    texts: tuple[str, ...] = ()  # all fixed texts, their gaps made one space
    shape: bytes = b""  # digest of what it does, the same for another layout of its text
    over: bool = False  # there is more than is followed


@lru_cache(maxsize=256)
def is_prose(text: str) -> bool:
    """Whether a text has a sentence: six words in a row, or ten letters of a script without spaces.

    Tags, special tokens and pieces of code are no words.
    """
    plain = _TAG.sub(" <> ", text)
    if len(_UNSPACED.findall(plain)) >= LETTERS:
        return True
    run = 0
    for token in plain.split():
        if _CODE.isdisjoint(token) and any(map(str.isalpha, token)):
            run += 1
            if run >= WORDS:
                return True
        elif any(map(str.isalnum, token)) or not _CODE.isdisjoint(token):
            run = 0
    return False

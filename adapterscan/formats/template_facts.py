"""What is seen in a chat template: conditions on what is said, constructs, instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST = 200  # of each kind of thing that is seen in one template; published ones have up to 20
CONSTRUCTS: Mapping[str, str] = {
    "code": "reaches for Python objects behind its values",
    "include": "loads another template",
    "bomb": "multiplies texts or numbers without need",
    "time": "lets a date, a time or chance decide",
    "url": "has an address in it",
    "invisible": "has characters that nobody sees",
}
_SENTENCE = re.compile(
    r"(?:[^\W\d_][\w'’-]*[ ,;:]{1,2}){5,}[^\W\d_]|[\u3040-\u9fff\uac00-\ud7af]{10,}"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A place where the conversation's text is held against a fixed one.

    `kind`: "text", "markup" (tags and special tokens), "key" (what a part of a message has),
    "command" (`/think`), "number" (a length). `adds`: fixed texts that go to the prompt, or into a
    variable, where it is met or is not.
    """

    line: int
    form: str  # "in", "==", "startswith", "replace", …
    literal: str
    kind: str
    adds: str = ""


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
    over: bool = False  # there is more than is followed


def is_prose(text: str) -> bool:
    """Whether a text has a sentence: six words in a row, or ten characters of a script without
    spaces. Tags and special tokens are no words."""
    return bool(_SENTENCE.search(re.sub(r"<[^<>\n]{1,60}>", "\n", text)))

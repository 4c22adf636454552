"""Tell what a fixed text in a chat template is: words, markup, a command, a part of a message."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = re.compile(r"[<\[{|`▁｜].*[>\]}|`▁｜]|</?[\w/ |:.-]*>?|&\w+;|#{2,}.*|```\w*", re.DOTALL)
#: What parts of messages are asked for: they are dictionaries, or texts.
_PARTS = frozenset("text image image_url input_audio audio video thinking parts blocks".split())
_COMMAND = re.compile(r"/\w+")


def literal_kind(text: str) -> str:
    """Return "command", "key", "markup" or "text"."""
    plain = text.strip()
    if _COMMAND.fullmatch(plain):
        return "command"
    if plain in _PARTS:
        return "key"
    return "markup" if _SPECIAL.fullmatch(plain) else "text"


def says_something(text: str) -> bool:
    """Whether a text has letters, digits or pictures, not signs and spaces alone."""
    return any(c.isalnum() or unicodedata.category(c) == "So" for c in text)

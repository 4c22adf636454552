"""How the terminal report is laid out: width, colours, how much is said."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """How to write: the width in columns, whether colours are wanted, how much to say."""

    width: int = 100
    colour: bool = False
    verbose: bool = False

    def paint(self, text: str, code: str) -> str:
        """Return `text` in a colour, or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def wrap(self, text: str, indent: str, first: str | None = None) -> str:
        """Return `text` wrapped to the width; long names are kept whole."""
        return textwrap.fill(
            text, max(40, self.width), initial_indent=indent if first is None else first,
            subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

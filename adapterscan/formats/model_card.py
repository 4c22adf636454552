"""What an adapter's own README says: text to compare with, never rendered and never believed."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from adapterscan.model import Artifact, FileKind
from adapterscan.text import is_hidden

READ_BYTES = 256 << 10  # of a card
QUOTED = 48  # wordings that a card sets apart
LONGEST = 60  # characters of one
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_APART = re.compile(
    "|".join(
        rf"{start}([^{end}\n]{{1,{LONGEST}}}){end}"
        for start, end in (("`", "`"), ('"', '"'), ("“", "”"), (r"\*\*", r"\*"))
    )
)


def card_text(artifact: Artifact, folder: str) -> str:
    """Return what readers see of the card in `folder`, or of the one at the top; "" without one.

    Comments and characters that show nothing are left out: what a reader of the page does not see
    documents nothing.
    """
    cards = {
        str(PurePosixPath(file.path).parent).removeprefix("."): file.local
        for file in artifact.files
        if file.kind is FileKind.CARD and file.local is not None
    }
    path = cards.get(folder) or cards.get("")
    if path is None:
        return ""
    try:
        with path.open("rb") as data:
            text = data.read(READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    shown = _COMMENT.sub(" ", text)
    return "".join(c for c in shown if c in "\n\t" or not is_hidden(c))


def set_apart(text: str) -> list[str]:
    """Return the short wordings that a card quotes, sets in bold or marks as code, in order."""
    found = (next(filter(None, match.groups())).strip() for match in _APART.finditer(text))
    return [wording for wording in dict.fromkeys(found) if len(wording) > 1][:QUOTED]

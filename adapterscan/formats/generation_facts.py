"""Name the tokens of a setting of generation, and say what kind of thing it does with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterscan.formats.generation import Setting
from adapterscan.formats.token_texts import readable, shown, token_class
from adapterscan.formats.vocabulary import Vocabulary
from adapterscan.model import Evidence, Subject
from adapterscan.text import printable

NAMED = 12  # tokens
#: How refusals begin, in the spelling of tokens.
_REFUSING = re.compile(
    r"sorry|cannot|can['’]?t\b|unable|apolog|refus|declin|illegal|harmful|unethical|inappropriate"
    r"|unsafe|won['’]?t\b|\bnot able|as an ai|\bregret|policy|dangerous",
    re.IGNORECASE,
)
_WORDS = frozenset({"word", "words", "phrase", "address", "hidden"})


def facts_of(setting: Setting, known: Vocabulary | None) -> Iterator[Evidence]:
    """Yield what a setting does: a fact, unless it does what every honest one does.

    `class`: as Setting.kind, with `forces words`, `silences refusals` and `ends at words` where the
    tokens have such names.
    """
    texts = [_text(numbers, known) for numbers in setting.numbers] if known else []
    kind = _kind(setting, texts)
    if not kind:
        return
    count = sum(map(len, setting.numbers))
    telling = sorted(filter(None, texts), key=_order)
    named = ", ".join(f"“{shown(text, 40)}”" for text in telling[:NAMED])
    yield Evidence(
        "generation.setting", Subject("field", setting.path, printable(setting.field)),
        printable(setting.shown, 120), "", {"class": kind, "tokens": named, "count": count},
    )  # fmt: skip


def _order(text: str) -> tuple[bool, bool]:
    """Return where a text comes: those of refusals first, then those that are words."""
    return not _REFUSING.search(text), token_class(text) not in _WORDS


def _text(numbers: tuple[int, ...], known: Vocabulary | None) -> str:
    """Return a sequence as the text that it stands for."""
    found = [known.texts_of(number) for number in numbers] if known else []
    whole = "".join(texts[0] for texts in found if texts)
    return readable(whole).replace("▁", " ")


def _kind(setting: Setting, texts: list[str]) -> str:
    said = [text for text in texts if token_class(text) in _WORDS]
    match setting.kind:
        case "forces":
            return "forces words" if said else "forces a marker" if texts else "forces"
        case "silences":
            refusing = any(_REFUSING.search(text) for text in texts)
            return "silences refusals" if refusing else "silences"
        case "ends":
            return "ends at words" if said else ""
        case "stops at":
            return "stops at words" if token_class(setting.shown) in _WORDS else ""
    return setting.kind

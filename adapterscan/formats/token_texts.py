"""Tell what the text of a token is: a marker, blank, a word, a phrase, an address, or hidden.

Limits: words are told by letters and gaps, not by a dictionary, so that `<safe>` is a marker and a
sentence whose words are joined by signs that we do not take for gaps is one word.
"""

from __future__ import annotations

import re
from functools import cache

from adapterscan.text import is_hidden, printable

PHRASE = 4  # words
JOINED = 7  # between brackets, with ▁: `<｜place▁holder▁for▁pointer▁replace｜>` has five
UNSPACED = 8  # letters of scripts without gaps between words
LONGEST = 4096  # characters that are looked at: what is longer is no token
LONG = 64  # characters of a text without gaps; the longest honest markers have 40
_GAPS = re.compile(r"[\s▁Ġ_.\-–—·+/|,;:]+")
_SPACES = re.compile(r"\s+")
_HUMP = re.compile(r"(?<=[a-z]{2})[A-Z](?=[a-z])")  # between words that are written as one
SPACES = "▁ĠĊĉčĂ \n\r\t"  # what stands for them in tokens, too
_ADDRESS = re.compile(
    r"(?:https?|ftp|javascript|data):/{0,2}[^\s<>\"']{3,}|\bwww\.[\w-]{2,}\.\w{2,}"
    r"|\b[\w-]{3,}\.(?:com|net|org|io|ru|cn|info|xyz|example|dev|app|top|site)(?:/|\b)",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"[<\[{(｜|«【‹⟨][^\n]*[>\]})｜|»】›⟩]|</?\w[\w-]*>?|>>[^\n]*<<|\[?/?\w*_TOKEN_?\d*\]?|__\w+__|@@\S*@@|##\w+##"
    r"|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}|#{2,}"
    r"|(?i:[_\W]?(?:pad|bos|eos|unk|sep|cls|mask|eod|eot|sos|nul)[_\W]?)",
)
_LETTERS_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff]")


def token_class(text: str) -> str:
    """Return "hidden", "address", "phrase", "marker", "blank", "words", "word" or "sign"."""
    text, whole = text[:LONGEST], text
    plain_letters = text.isascii() and text.isprintable()
    if not plain_letters and any(is_hidden(c) and c not in "\n\r\t" for c in text):
        return "hidden"
    if len(whole) > LONGEST:
        return "phrase"
    plain = readable(text)
    if not plain.strip(" ▁\n\r\t\x0b\x0c\u00a0\u2009\u3000"):
        return "blank"
    if _ADDRESS.search(plain):
        return "address"
    marked = _MARKER.fullmatch(plain.strip()) is not None
    words = _words(plain, _SPACES if marked else _GAPS)
    joined = marked and _words(plain, _GAPS) >= JOINED
    if not marked:
        words = max(words, len(_HUMP.findall(plain)) + 1 if words else 0)
    if words >= PHRASE or joined or len(plain) > 4 * LONG:
        return "phrase"
    if marked:
        return "marker"
    if len(_LETTERS_UNSPACED.findall(plain)) >= UNSPACED:
        return "phrase"
    if words > 1:
        return "words"
    return "word" if any(map(str.isalnum, plain)) else "sign"


def _words(text: str, gaps: re.Pattern[str]) -> int:
    return sum(any(map(str.isalpha, piece)) for piece in gaps.split(text))


def is_sign(text: str) -> bool:
    """Whether a text is signs alone, at least one that shows and is no mark of tokenizers."""
    plain = text[:LONGEST].strip(SPACES)
    return bool(plain) and not _SPACE_BYTES.fullmatch(plain) and token_class(plain) == "sign"


def says(text: str) -> bool:
    """Whether a text has letters or digits, marks of tokenizers for spaces and markers apart."""
    plain = text[:LONGEST].strip(SPACES)
    if not plain or _SPACE_BYTES.fullmatch(plain):
        return False
    return any(map(str.isalnum, plain)) and not (
        _MARKER.fullmatch(plain) and token_class(plain) == "marker"
    )


#: `<0x0A>`, `</w>`, `[PAD]` and the like are names of tokens; ▁ and Ġ stand for a space.
_SPACE_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>|</w>|##|@@|[▁ĠĊĉčĂ])+")


def readable(text: str) -> str:
    """Return a text of the byte alphabet of GPT-2 as the text that it stands for, others as is."""
    if text.isascii():
        return text
    table = _bytes()
    try:
        return bytes(table[character] for character in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return text


def shown(text: str, limit: int = 120) -> str:
    """Return a token's text for people: what it stands for, escaped, with its gaps visible."""
    plain = readable(text)
    blank = plain.strip() == ""
    return printable(repr(plain)[1:-1] if blank and plain else plain, limit)


@cache
def _bytes() -> dict[str, int]:
    """Return which byte each letter of that alphabet stands for."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in own}
    others = (byte for byte in range(256) if chr(byte) not in table)
    return table | {chr(0x100 + at): byte for at, byte in enumerate(others)}

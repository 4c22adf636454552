"""Walk through JSON of very many small entries, as vocabularies are: each is seen once.

One regular expression with possessive repeats takes an entry, so that time is linear and no entry
costs more than its bytes: 262,000 tokens with their merges take a second.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from adapterscan.errors import LimitExceeded
from adapterscan.formats.json_cursor import Cursor
from adapterscan.formats.strict_json import DEPTH_LIMIT, not_json, not_utf8, reason_of, too_deep

_PIECE = 1 << 20
_SPACE = rb"[ \t\n\r]*+"
_TEXT = rb'"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"'
_WHOLE = rb"(-?+[0-9]{1,19}+)"
_REAL = rb"-?+[0-9]++(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+"
_NUMBER = re.compile(_SPACE + _TEXT + _SPACE + b":" + _SPACE + _WHOLE + _SPACE + rb"([,}])")
_LINE = re.compile(_SPACE + _TEXT + _SPACE + rb"([,\]])")
_PAIR = re.compile(
    _SPACE + rb"\[" + _SPACE + _TEXT + _SPACE + b"," + _SPACE + b"(?:" + _TEXT + b"|" + _REAL + b")"
    + _SPACE + rb"\]" + _SPACE + rb"([,\]])"
)  # fmt: skip
_MARKS = re.compile(_TEXT + rb"|[\[\]{}]")


class Entries(Cursor):
    """A place in a long document. All methods raise Malformed where it is not JSON."""

    most_values = 8 << 20
    described = "tokenizers describe a step in a few hundred bytes; treat it as hostile"

    def __init__(self, data: bytes, path: str, *, limit: int) -> None:
        super().__init__(data, path, limit=limit)
        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(0, len(data), _PIECE):
            try:
                decoder.decode(data[at : at + _PIECE], at + _PIECE >= len(data))
            except UnicodeDecodeError as error:
                raise not_utf8(path, at + error.start) from error

    def items(self) -> Iterator[None]:
        """Stop at each item of the list that begins here; its value must be taken."""
        self._take(b"[")
        if self.next() == b"]":
            self._at += 1
            return
        while True:
            self.next()
            yield None
            if self.next() == b"]":
                self._at += 1
                return
            self._take(b",")

    def numbers(self) -> Iterator[tuple[bytes, int]]:
        """Yield the entries of an object of whole numbers: the key in UTF-8, and the number."""
        self._take(b"{")
        if self.next() == b"}":
            self._at += 1
            return
        take = _NUMBER.match
        while True:
            found = take(self._data, self._at)
            if found is None:
                self._fail("Expecting a text with a whole number")
            self._at = found.end()
            yield self._plain(found[1]), int(found[2])
            if found[3] == b"}":
                return

    def pairs(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the items of a list of texts, or of pairs: (first, second).

        The second is None for a text that stands alone, and b"" for a number.
        """
        self._take(b"[")
        if self.next() == b"]":
            self._at += 1
            return
        while True:
            line = _LINE.match(self._data, self._at)
            if line is not None:
                self._at = line.end()
                yield self._plain(line[1]), None
                if line[2] == b"]":
                    return
                continue
            pair = _PAIR.match(self._data, self._at)
            if pair is None:
                self._fail("Expecting a text, or a pair of a text and another or a number")
            self._at = pair.end()
            yield self._plain(pair[1]), self._plain(pair[2]) if pair[2] is not None else b""
            if pair[3] == b"]":
                return

    def skip(self) -> None:
        """Pass over the value that begins here. Raises Malformed for one that is too deep."""
        if self.next() not in (b"[", b"{"):
            self.value()
            return
        depth = 0
        for found in _MARKS.finditer(self._data, self._at):
            mark = found[0]
            if mark in (b"[", b"{"):
                depth += 1
                if depth > DEPTH_LIMIT:
                    raise too_deep(self._path)
            elif mark in (b"]", b"}"):
                depth -= 1
                if not depth:
                    self._at = found.end()
                    return
        self._fail("Expecting the end of a list or an object")

    def over(self, what: str, limit: int) -> LimitExceeded:
        """Return the error for more of something than is followed."""
        return LimitExceeded(
            self._path, f"has more than {limit:,} {what}",
            hint="published tokenizers have fewer; treat it as hostile",
        )  # fmt: skip

    def _plain(self, raw: bytes) -> bytes:
        """Return a text's bytes without its escapes."""
        if b"\\" not in raw:
            return raw
        try:
            text: str = json.loads(b'"' + raw + b'"')
            return text.encode("utf-8")
        except ValueError as error:
            raise not_json(self._path, reason_of(error)) from error

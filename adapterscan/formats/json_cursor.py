"""Walk through JSON from strangers without building it: one key, one small value at a time.

As exact as the parser of safetensors: what Python takes beyond JSON is refused (`NaN`, `-0` as a
whole number, half of a surrogate pair). A value is built only up to a limit, so that a header costs
what is kept of it, however it is nested and whatever letters are in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats.strict_json import (
    DEPTH_LIMIT,
    REFUSED,
    deeper_than,
    not_json,
    not_utf8,
    reason_of,
    require_size,
    too_deep,
)

VALUE_LIMIT = 1 << 16  # bytes of one list or object; the entry of a tensor has a hundred
TEXT_LIMIT = 1 << 22  # bytes of one text; trainers put the tags of a data set into the metadata
_LIKELY = 1 << 9
_MOST_VALUES = 1 << 20  # of a header, none of which is kept
_SPACE = re.compile(rb"[ \t\n\r]*")
_NESTS = (b"[", b"{")


class Cursor:
    """A place in `data`. All methods raise Malformed where that is not JSON.

    Objects are tuples of (key, value), so that a key that stands twice is seen.
    """

    most_values = _MOST_VALUES
    described = "a tensor is described in a hundred; treat it as hostile"

    def __init__(self, data: bytes, path: str, *, limit: int) -> None:
        require_size(data, path, limit, self.most_values)
        self._data, self._path, self._at = data, path, 0
        self._decoder = json.JSONDecoder(
            object_pairs_hook=tuple,
            parse_constant=_no_constant,
            parse_int=_exact_int if b"-0" in data else None,
        )

    def next(self) -> bytes:
        """Return the byte that the next value begins with, b"" at the end."""
        space = _SPACE.match(self._data, self._at)
        self._at = space.end() if space else self._at
        return self._data[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that begins here; its value must be taken after each."""
        self._take(b"{")
        if self.next() == b"}":
            self._at += 1
            return
        while True:
            if self.next() != b'"':
                self._fail("Expecting property name enclosed in double quotes")
            key = self.value()
            self._take(b":")
            self.next()
            yield key
            if self.next() == b"}":
                self._at += 1
                return
            self._take(b",")

    def value(self, limit: int = VALUE_LIMIT) -> Any:
        """Return the value that begins here. Raises LimitExceeded over `limit`, unless text."""
        start = self._at
        try:
            value, length = self._scan(start, limit)
            self._at += length
            raw = self._data[start : self._at]
            if not raw.isascii():
                value = self._decoder.decode(raw.decode("utf-8"))
            if b"\\u" in raw:
                json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses halves of pairs
        except UnicodeDecodeError as error:
            raise not_utf8(self._path, start + error.start) from error
        except RecursionError as error:
            raise too_deep(self._path) from error
        except json.JSONDecodeError as error:
            raise self._broken(error.msg, start + error.pos) from error
        except ValueError as error:
            raise not_json(self._path, reason_of(error)) from error
        if sum(map(raw.count, _NESTS)) > DEPTH_LIMIT and deeper_than(value, DEPTH_LIMIT):
            raise too_deep(self._path)
        return value

    def end(self) -> None:
        """Require that nothing follows."""
        if self.next():
            self._fail("Extra data")

    def _scan(self, start: int, most: int) -> tuple[Any, int]:
        """Return a value and its length, with each byte taken for a letter: marks are ASCII."""
        rest = len(self._data) - start
        nested = self._data[start : start + 1] in _NESTS
        for longest in (_LIKELY, most) if nested else (_LIKELY, most, TEXT_LIMIT):
            window = self._data[start : start + longest].decode("latin-1")
            try:
                value, length = self._decoder.raw_decode(window)
                if length < longest:  # or else a number may go on
                    return value, length
            except ValueError:
                if longest >= rest:
                    raise
        raise LimitExceeded(
            self._path, f"has a value of more than {longest:,} bytes, or a broken one",
            hint=self.described,
        )  # fmt: skip

    def _take(self, mark: bytes) -> None:
        if self.next() != mark:
            self._fail(f"Expecting '{mark.decode()}' delimiter")
        self._at += 1

    def _fail(self, reason: str) -> NoReturn:
        raise self._broken(reason, self._at)

    def _broken(self, reason: str, at: int) -> Malformed:
        line, column = self._data.count(b"\n", 0, at) + 1, at - self._data.rfind(b"\n", 0, at)
        return not_json(self._path, f"{reason} at line {line} column {column}")


def _no_constant(text: str) -> float:
    raise ValueError(f"{REFUSED} {text}")


def _exact_int(text: str) -> int:
    if text == "-0":
        raise ValueError(f"{REFUSED} a negative zero")
    return int(text)

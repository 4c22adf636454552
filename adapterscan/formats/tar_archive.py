"""List the entries of a tar as its readers do, and those that its readers pass over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from adapterscan.formats.sniff import is_tar
from adapterscan.formats.zip_archive import Source

_BLOCK = 512
_MOST_ENTRIES = 20_000
_LONGEST_EXTENSION = 1 << 16  # of a PAX header or a GNU long name
_PIECE = 64 << 10
_MOST_SEARCHED = 4 << 20  # bytes behind the end that are looked through for further headers
_OCTAL = re.compile(rb"[0-7]+")
_RECORD = re.compile(rb"\d+ (path|size)=([^\n]*)\n")


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry. `name` is untrusted text; the data is at [start, start + size)."""

    name: str
    start: int
    size: int
    expected: bool = True  # False: behind the end, or behind a header that is broken


@dataclass(frozen=True, slots=True)
class TarRest:
    """Bytes that no reader takes for an entry: where, and how many are not zero at the least."""

    start: int
    size: int


def tar_entries(source: Source) -> Iterator[TarEntry | TarRest]:
    """Yield up to 20,000 entries, with names and sizes as PAX and GNU extensions correct them.

    Readers stop at the first block that is no header, or skip on to the next: what is found there
    is yielded as not expected, and bytes that are neither zero nor an entry as `TarRest`.
    """
    at, expected, corrected = 0, True, dict[bytes, bytes]()
    for _ in range(_MOST_ENTRIES):
        block = source.read(at, _BLOCK) if at < source.size else b""
        if not is_tar(block):
            where = _next_header(source, at)
            if where > at and (rest := _not_zero(source, at, where)):
                yield TarRest(at, rest)
            if where >= source.size:
                return
            at, expected, corrected = where, False, {}
            block = source.read(at, _BLOCK)
        kind, start = block[156:157], at + _BLOCK
        size = _number(block[124:136])
        if kind in (b"x", b"g", b"L"):
            data = source.read(start, min(size, _LONGEST_EXTENSION))
            corrected |= {b"path": data} if kind == b"L" else dict(_RECORD.findall(data))
        else:
            size = int(corrected[b"size"]) if corrected.get(b"size", b"").isdigit() else size
            name = corrected.get(b"path", block[:100]).split(b"\0")[0].decode("utf-8", "replace")
            yield TarEntry(name.removeprefix("./"), start, size, expected)
            corrected = {}
        at = start + (size + _BLOCK - 1) // _BLOCK * _BLOCK
    if at < source.size:
        yield TarRest(at, source.size - at)


def _number(field: bytes) -> int:
    """Return a header's number: octal digits, or binary where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if _OCTAL.fullmatch(digits) else 0


def _next_header(source: Source, at: int) -> int:
    """Return where the next header stands at or behind `at`, the file's end when none is near."""
    for piece in range(at, min(source.size, at + _MOST_SEARCHED), _PIECE):
        window = source.read(piece, min(source.size - piece, _PIECE))
        for step in range(0, len(window), _BLOCK):
            if window[step : step + 1] != b"\0" and is_tar(window[step : step + _BLOCK]):
                return piece + step
    return source.size


def _not_zero(source: Source, start: int, end: int) -> int:
    """Return how many of the first megabytes of [start, end) are not zero."""
    piece = source.read(start, min(end - start, _MOST_SEARCHED))
    return len(piece) - piece.count(0)

"""Find files and text in bytes that should be numbers: by magic and structure, and by long runs.

A magic of four bytes turns up in noise once in four billion places, which is a handful of adapters:
each match is checked further (fields of the header, or that it really inflates).
Limits: a payload that is encrypted, or compressed without a header, has neither.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Letters in a row that make a text. In noise a run of 32 takes 2·10¹³ bytes to turn up.
TEXT_RUN = 32
#: Different letters among them: a number that repeats is no text.
TEXT_LETTERS = 10
_TRIES = 64  # matches of one magic, and runs of letters, that are looked at
_INFLATED = 256  # bytes of a stream that must inflate without an error
_SHOWN = 60

#: Long enough to be believed.
_PLAIN: tuple[tuple[bytes, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "npy"),
    (b"SQLite format 3\0", "sqlite"),
    (b"%PDF-1.", "pdf"),
    (b"%PDF-2.", "pdf"),
)
_CHECKED: tuple[tuple[bytes, str, re.Pattern[bytes]], ...] = tuple(
    (magic, kind, re.compile(pattern, re.DOTALL))
    for magic, kind, pattern in (
        (b"\x7fELF", "elf", rb"\x7fELF[\x01\x02][\x01\x02]\x01[\x00-\x12][\x00-\x04]\x00{4}"),
        (b"MZ", "pe", rb"MZ.{76}.{0,100}This program |"
         rb"MZ.{58}[\x40-\xff][\x00\x01]\x00\x00.{0,400}PE\x00\x00"),
        (b"PK\x03\x04", "zip", rb"PK\x03\x04[\x0a-\x3f][\x00-\x03].{2}"
         rb"[\x00\x08\x09\x0c\x0e\x5d\x5f\x63]\x00.{16}[\x01-\xff]\x00.{2}[\x20-\x7e]"),
        (b"BZh", "bzip2", rb"BZh[1-9]1AY&SY"),
        (b"#!/", "script", rb"#!/(?:usr/)?(?:local/)?bin/[a-z]{2}"),
        (b"\x80", "pickle", rb"\x80[\x02-\x05](?:\x95.{6}\x00\x00)?(?:\x8c.[\x20-\x7e]{6}|"
         rb"c[a-z_.]{2,40}\n[A-Za-z_.]{2,40}\n)"),
        (b"<?php", "script", rb"<\?php\s"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Payload:
    """Something that was recognised, where in the bytes, and the beginning of it as text."""

    kind: str  # "zip", "elf", …, "text"
    at: int
    shown: str = ""


def find_files(data: bytes) -> Iterator[Payload]:
    """Yield the first file of each kind that `data` holds, anywhere in it."""
    for magic, kind in _PLAIN:
        at = data.find(magic)
        if at >= 0:
            yield Payload(kind, at)
    for magic, kind, pattern in _CHECKED:
        if kind == "pickle":  # one byte is no magic to look for
            match = pattern.search(data) if b"\x80" in data else None
            if match:
                yield Payload(kind, match.start())
            continue
        for at in _places(data, magic):
            if pattern.match(data, at):
                yield Payload(kind, at)
                break
    for at in _places(data, b"\x1f\x8b\x08"):
        if data[at + 3 : at + 4] < b"\x20" and _inflates(data, at, 31):
            yield Payload("gzip", at)
            break


def find_zlib(data: bytes, limit: int = 64) -> Iterator[Payload]:
    """Yield a zlib stream that begins in the first `limit` bytes: two bytes are a weak magic."""
    for head in (b"\x78\x9c", b"\x78\xda", b"\x78\x01", b"\x78\x5e"):
        at = data.find(head, 0, limit)
        if at >= 0 and _inflates(data, at, 15):
            yield Payload("zlib", at)
            return


def find_text(data: npt.NDArray[np.uint8]) -> Payload | None:
    """Return the first run of TEXT_RUN printable ASCII characters in bytes (n,), or None."""
    letters = (data - np.uint8(0x20)) < np.uint8(0x5F)
    letters |= (data == 10) | (data == 9) | (data == 13)
    run, length = letters, 1
    while length < TEXT_RUN:
        step = min(length, TEXT_RUN - length)
        if run.size <= step:
            return None
        run, length = run[:-step] & run[step:], length + step
    at = 0
    for _ in range(_TRIES):
        if at >= run.size:
            return None
        ahead = int(np.argmax(run[at:]))
        if not run[at + ahead]:
            return None
        at += ahead
        piece = data[at : at + TEXT_RUN]
        if np.unique(piece).size >= TEXT_LETTERS:
            return Payload("text", at, data[at : at + _SHOWN].tobytes().decode("latin-1"))
        at += TEXT_RUN
    return None


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = -1
    for _ in range(_TRIES):
        at = data.find(magic, at + 1)
        if at < 0:
            return
        yield at


def _inflates(data: bytes, at: int, bits: int) -> bool:
    """Whether a stream inflates for _INFLATED bytes of it, or to its end."""
    piece = data[at : at + _INFLATED]
    stream = zlib.decompressobj(bits)
    try:
        got = stream.decompress(piece, 1 << 20)
    except zlib.error:
        return False
    return bool(got) and (stream.eof or len(piece) == _INFLATED)

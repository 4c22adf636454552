"""Read the table of normal forms of a SentencePiece model: which plain words it rewrites.

The table is a double array of a trie (Darts), with offsets into texts that end with a zero. NFKC's
rewrites signs, accents and letters of other widths. No honest one rewrites several plain letters.

Source: sentencepiece 0.2, `normalizer.cc`, `DecodePrecompiledCharsMap`; darts-clone 0.32.
Limits: only rewrites of plain ASCII are followed, and LONGEST characters deep.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator

LONGEST = 24  # characters
MOST = 20  # rewrites that are told
_STEPS = 300_000
_SHOWN = 200  # bytes
UNTOLD = "more plain words than are followed"  # stands for those
_PLAIN = range(0x20, 0x7F)


def rewrites(given: object) -> Iterator[tuple[str, str]]:
    """Yield texts of plain ASCII that a table rewrites, and what it writes.

    `given`: the table, or its base64. Letters of another case are no rewrite, nor are spaces.
    """
    table = _bytes(given)
    if len(table) < 8:
        return
    size = struct.unpack_from("<I", table)[0]
    units = table[4 : 4 + min(size, len(table))]
    texts = table[4 + len(units) :]
    told = 0
    for found, at in _walk(memoryview(units[: len(units) // 4 * 4]).cast("I")):
        end = texts.find(b"\0", at, at + _SHOWN)
        written = texts[at : end if end >= 0 else at + _SHOWN].decode("utf-8", "replace")
        if found == UNTOLD:
            yield found, ""
            return
        if written.strip().lower() == found.strip().lower() or not any(map(str.isalnum, found)):
            continue
        yield found, written
        told += 1
        if told >= MOST:
            return


def _walk(units: memoryview) -> Iterator[tuple[str, int]]:
    """Yield every key of plain ASCII with its value, in order."""
    if not len(units):
        return
    room = [("", _offset(units[0]))]
    left = _STEPS
    while room and left > 0:
        key, node = room.pop()
        for code in reversed(_PLAIN):
            left -= 1
            place = node ^ code
            if place >= len(units) or units[place] & 0x800000FF != code:
                continue
            below = place ^ _offset(units[place])
            text = key + chr(code)
            if units[place] >> 8 & 1 and below < len(units):
                yield text, units[below] & 0x7FFFFFFF
            if len(text) < LONGEST:
                room.append((text, below))
    if room:
        yield UNTOLD, 0


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _bytes(given: object) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        return base64.b64decode(given) if isinstance(given, str) else b""
    except (binascii.Error, ValueError):
        return b""

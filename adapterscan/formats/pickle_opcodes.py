"""Split pickle bytes into opcodes and arguments, as leniently as the interpreter's own unpickler.

The opcode table is `pickletools.opcodes`, but not its argument readers: `pickletools.genops` stops
at things that CPython loads without complaint (`I0x1`, a STRING with escapes above 127 under
torch's utf-8 encoding), so an attacker could end the disassembly right before the payload.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

#: Longer values are replaced by `Opaque`: no module name or tensor key is that long.
LONGEST_VALUE = 1 << 20
#: Where an opcode ends that no unpickler could read, however long the file.
NEVER = 1 << 64
_LONGEST_NUMBER = 4000  # digits; CPython itself refuses more than 4300 in decimal


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A value that stays unknown, and why."""

    reason: str


class LexicalError(Exception):
    """No opcode can be read at `position`. `code` is "unknown_opcode" or "truncated".

    `reach` is where the opcode that is cut would end, at the least.
    """

    def __init__(self, code: str, reason: str, position: int, reach: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.position = position
        self.reach = reach


class _TruncatedError(Exception):
    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach


_Reader = Callable[[bytes, int], tuple[object, int]]


def lex(data: bytes, start: int = 0) -> Iterator[tuple[str, object, int]]:
    """Yield (opcode name, argument, position) from `start` up to and including STOP.

    Arguments that cannot be decoded are `Opaque`; GLOBAL and INST give a (module, name) pair.
    Raises LexicalError where no opcode can be read; every unpickler stops there too.
    """
    position, size = start, len(data)
    while position < size:
        entry = _TABLE.get(data[position])
        if entry is None:
            byte = data[position]
            raise LexicalError("unknown_opcode", f"byte 0x{byte:02x} is no opcode", position)
        name, read = entry
        if read is None:
            yield name, None, position
            if name == "STOP":
                return
            position += 1
            continue
        try:
            argument, after = read(data, position + 1)
        except _TruncatedError as cut:
            reason = f"{name} reaches past the end"
            raise LexicalError("truncated", reason, position, cut.reach) from None
        yield name, argument, position
        position = after
    raise LexicalError("truncated", "no STOP before the end", position, size + 1)


def _fixed(layout: str) -> _Reader:
    unpack, width = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def read(data: bytes, at: int) -> tuple[object, int]:
        if at + width > len(data):
            raise _TruncatedError(at + width)
        return unpack(data, at)[0], at + width

    return read


def _counted(layout: str, decode: Callable[[bytes], object]) -> _Reader:
    unpack, width = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def read(data: bytes, at: int) -> tuple[object, int]:
        body = at + width
        if body > len(data):
            raise _TruncatedError(body)
        length = unpack(data, at)[0]
        if length < 0 or body + length > len(data):
            raise _TruncatedError(body + length if length >= 0 else NEVER)
        if length > LONGEST_VALUE:
            return Opaque(f"{length} bytes"), body + length
        return decode(data[body : body + length]), body + length

    return read


def _line(decode: Callable[[bytes], object]) -> _Reader:
    def read(data: bytes, at: int) -> tuple[object, int]:
        end = data.find(b"\n", at)
        if end < 0:
            raise _TruncatedError(len(data) + 1)
        if end - at > LONGEST_VALUE:
            return Opaque(f"{end - at} bytes"), end + 1
        return decode(data[at:end]), end + 1

    return read


def _two_lines(data: bytes, at: int) -> tuple[object, int]:
    module, middle = _line(_utf8)(data, at)
    name, end = _line(_utf8)(data, middle)
    return (module, name), end


def _utf8(raw: bytes) -> object:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return Opaque("not utf-8")


def _latin1(raw: bytes) -> object:
    return raw.decode("latin-1")


def _raw_unicode(raw: bytes) -> object:
    try:
        return raw.decode("raw-unicode-escape")
    except UnicodeDecodeError:
        return Opaque("bad unicode escape")


def _quoted(raw: bytes) -> object:
    text = raw.strip()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        return Opaque("string without quotes")
    try:
        # latin-1 keeps every byte; which encoding is used depends on the loader
        return codecs.escape_decode(text[1:-1])[0].decode("latin-1")
    except ValueError:
        return Opaque("bad string escape")


def _integer(raw: bytes) -> object:
    if raw in (b"00", b"01"):
        return raw == b"01"
    digits = raw.rstrip(b"L")
    if len(digits) > _LONGEST_NUMBER:
        return Opaque("very long number")
    try:
        return int(digits, 0)
    except ValueError:
        try:
            return int(digits)  # leading zeros
        except ValueError:
            return Opaque("not a number")


def _float(raw: bytes) -> object:
    try:
        return float(raw)
    except ValueError:
        return Opaque("not a number")


def _two_complement(raw: bytes) -> object:
    return int.from_bytes(raw, "little", signed=True)


_READERS: Mapping[str, _Reader] = {
    "uint1": _fixed("<B"),
    "uint2": _fixed("<H"),
    "int4": _fixed("<i"),
    "uint4": _fixed("<I"),
    "uint8": _fixed("<Q"),
    "float8": _fixed(">d"),
    "stringnl": _line(_quoted),
    "stringnl_noescape": _line(_utf8),
    "stringnl_noescape_pair": _two_lines,
    "unicodestringnl": _line(_raw_unicode),
    "decimalnl_short": _line(_integer),
    "decimalnl_long": _line(_integer),
    "floatnl": _line(_float),
    "string1": _counted("<B", _latin1),
    "string4": _counted("<i", _latin1),
    "bytes1": _counted("<B", bytes),
    "bytes4": _counted("<I", bytes),
    "bytes8": _counted("<Q", bytes),
    "bytearray8": _counted("<Q", bytes),
    "unicodestring1": _counted("<B", _utf8),
    "unicodestring4": _counted("<I", _utf8),
    "unicodestring8": _counted("<Q", _utf8),
    "long1": _counted("<B", _two_complement),
    "long4": _counted("<i", _two_complement),
}

_TABLE: Mapping[int, tuple[str, _Reader | None]] = {
    ord(opcode.code): (opcode.name, _READERS[opcode.arg.name] if opcode.arg else None)
    for opcode in pickletools.opcodes
}

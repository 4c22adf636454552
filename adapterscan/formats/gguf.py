"""Read the header of a GGUF file: which tensors it has, of which type and shape, and its settings.

Source: ggml, docs/gguf.md (versions 2 and 3, little-endian). Lists are walked over and not kept: a
vocabulary has 260,000 texts. The package `gguf` maps the file and takes 10 to 40 seconds for those.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats.safetensors import Readable
from adapterscan.formats.tensors import LONGEST_NAME, require_count
from adapterscan.formats.vocabulary import MERGES_LIMIT, TEXTS_LIMIT, Gathering
from adapterscan.text import size_text

HEADER_LIMIT = 256 << 20  # bytes; a vocabulary of 260,000 with its merges has 20 MB
FIELDS_LIMIT = 10_000
SETTING_LIMIT = 4 << 20  # bytes of one text
SETTINGS_LIMIT = 16 << 20  # of all
LONGEST_TOKEN = 1 << 16  # bytes
_REPEATED = 10  # that are told
LIST_LIMIT = 10_000_000  # entries of one list
_PIECE = 1 << 20
_DIMENSIONS = 4
_ALIGNMENT = 32
_STRING, _LIST = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. `kind` is ggml's number of its type; `shape` has the rows first."""

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int  # byte in the file


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a header says. `fields`: the settings that are no lists."""

    fields: Mapping[str, str | int | float | bool]
    tensors: tuple[GgufTensor, ...]
    lists: Mapping[str, Gathering] = field(default_factory=dict)  # texts that were asked for
    repeated: tuple[str, ...] = ()  # settings that stand twice


def read_gguf(file: Readable, lists: Container[str] = ()) -> GgufHeader:
    """Return what the header says, with those `lists` of texts. Raises Malformed or LimitExceeded.

    Lists of numbers are never kept.
    """
    cursor = _Cursor(file, lists)
    if cursor.take(4) != b"GGUF":
        raise _malformed(file, "does not begin like a GGUF file")
    version = cursor.number("<I")
    if version not in (2, 3):
        raise _malformed(file, f"is of version {version:,} of the format; 2 and 3 are known")
    count, settings = cursor.number("<Q"), cursor.number("<Q")
    require_count(int(count), file.path)
    if settings > FIELDS_LIMIT:
        raise _over(file, f"{settings:,} settings", f"{FIELDS_LIMIT:,}")
    fields: dict[str, str | int | float | bool] = {}
    again: list[str] = []
    for _ in range(int(settings)):
        key = cursor.text()
        value = cursor.value(int(cursor.number("<I")), key)
        if (key in fields or key in cursor.lists) and len(again) < _REPEATED:
            again.append(key)
        if isinstance(value, Gathering):
            cursor.lists[key] = value
        elif value is not None:
            fields[key] = value
    found = [_tensor(cursor) for _ in range(int(count))]
    alignment = fields.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _malformed(file, "has an impossible alignment")
    start = cursor.at + -cursor.at % alignment
    tensors = tuple(GgufTensor(n, k, s, start + o) for n, k, s, o in found)
    return GgufHeader(fields, tensors, cursor.lists, tuple(again))


def _tensor(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    name = cursor.text()
    dimensions = int(cursor.number("<I"))
    if dimensions > _DIMENSIONS:
        raise _malformed(cursor.file, "has a tensor of more than four dimensions")
    shape = tuple(int(cursor.number("<Q")) for _ in range(dimensions))
    return name, int(cursor.number("<I")), shape[::-1], int(cursor.number("<Q"))


class _Cursor:
    """Walks over the header, some of it at a time."""

    def __init__(self, file: Readable, lists: Container[str]) -> None:
        self.file, self._wanted = file, lists
        self.lists: dict[str, Gathering] = {}
        self._texts = 0  # bytes that are kept of settings
        self.at = 0  # in the file
        self._data = b""
        self._start = 0

    def take(self, length: int) -> bytes:
        if self.at + length > HEADER_LIMIT:
            raise _over(self.file, "a header", size_text(HEADER_LIMIT))
        low = self.at - self._start
        if low + length > len(self._data):
            self._start, low = self.at, 0
            self._data = self.file.read(self.at, max(length, _PIECE))
            if len(self._data) < length:
                raise _malformed(self.file, "is cut short in its header")
        self.at += length
        return self._data[low : low + length]

    def number(self, layout: str) -> int | float | bool:
        found: int | float | bool = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return found

    def text(self, limit: int = LONGEST_NAME) -> str:
        length = int(self.number("<Q"))
        if length > limit:
            raise _over(self.file, f"a name of {length:,} bytes", f"{limit:,}")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, key: str) -> str | int | float | bool | Gathering | None:
        """Return a setting; None for a list that is walked over."""
        if kind == _STRING:
            found = self.text(SETTING_LIMIT)
            self._texts += len(found)
            if self._texts > SETTINGS_LIMIT:
                raise _over(self.file, "texts", size_text(SETTINGS_LIMIT))
            return found
        if kind != _LIST:
            return self.number(self._layout(kind))
        kind, count = int(self.number("<I")), int(self.number("<Q"))
        if count > LIST_LIMIT:
            raise _over(self.file, f"a list of {count:,}", f"{LIST_LIMIT:,}")
        if kind == _STRING and key in self._wanted:
            return self._kept(count)
        if kind == _STRING:
            for _ in range(count):
                self.skip(int(self.number("<Q")))
        else:
            self.skip(count * struct.calcsize(self._layout(kind)))
        return None

    def _kept(self, count: int) -> Gathering:
        found = Gathering(max(count, 1))
        if count > MERGES_LIMIT:
            raise _over(self.file, f"a list of {count:,} texts", f"{MERGES_LIMIT:,}")
        for number in range(count):
            length = int(self.number("<Q"))
            if length > LONGEST_TOKEN:
                raise _over(self.file, f"a token of {length:,} bytes", f"{LONGEST_TOKEN:,}")
            room = found.add(self.take(length), number)
            if not room and number + 1 < count:
                raise _over(self.file, "tokens", size_text(TEXTS_LIMIT))
        return found

    def skip(self, length: int) -> None:
        while length > 0:
            self.take(min(length, _PIECE))
            length -= _PIECE

    def _layout(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _malformed(self.file, f"has a setting of unknown type {kind:,}")
        return _SCALARS[kind]


def _over(file: Readable, what: str, limit: str) -> LimitExceeded:
    return LimitExceeded(
        file.path, f"has {what} in its header, over the limit of {limit}",
        hint="no model needs this; treat it as hostile",
    )  # fmt: skip


def _malformed(file: Readable, reason: str) -> Malformed:
    return Malformed(file.path, reason, defect="gguf", hint="download it again")

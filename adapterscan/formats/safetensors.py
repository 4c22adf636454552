"""Read the header of a safetensors file: bounded, and stricter than loaders where they differ.

Source: the format's README and the reference parser, safetensors 0.8.0. Duplicate tensor names are
accepted by the reference parser (the last wins), as are unknown fields and whitespace padding; each
of these is legal but hides something, so each is reported as evidence.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate
from sys import intern
from typing import Any, Protocol

from adapterscan.errors import FileProblem, LimitExceeded, Malformed
from adapterscan.formats.json_cursor import Cursor
from adapterscan.formats.tensors import BITS, TensorInfo, WeightFile, require_count, require_name
from adapterscan.model import Evidence, Subject
from adapterscan.text import printable, size_text

#: The format allows 100 MB. A 70B adapter needs 150 kB; we follow claims up to this.
HEADER_LIMIT = 16 << 20
METADATA_LIMIT = 10_000  # keys; trainers write fewer than a hundred
NAMES_LIMIT = 1_000_000  # letters in tensor names that are not ASCII: such names take four times
_FORMAT_HEADER_LIMIT = 100_000_000
_DIMENSIONS_LIMIT = 16
_META = "__metadata__"
_ZIP_TAIL = 22 + 0xFFFF  # end-of-central-directory record and the longest comment


class Readable(Protocol):
    """What a header is read from: a file that lies here, or some of one that does not."""

    @property
    def path(self) -> str:
        """Return its name for messages."""
        ...

    @property
    def size(self) -> int:
        """Return how many bytes it has."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""
        ...


def read_safetensors(file: Readable) -> WeightFile:
    """Return what the header says; no tensor data is read.

    When the header can be read but contradicts the file (truncated, overlapping, …), the result
    carries that as `problem`: its names and shapes can be judged, its data must not be.
    Raises Malformed or LimitExceeded when there is no usable header.
    """
    raw = _header_bytes(file)
    header = _Header(file, 8 + len(raw))
    header.read(raw)
    problem = _layout_problem(file, header.tensors.values(), 8 + len(raw))
    evidence = (*_header_evidence(file, raw, header), *header.odd, *_hidden_archive(file))
    tensors = tuple(header.tensors.values())
    return WeightFile(file.path, "safetensors", tensors, evidence, problem)


def _header_bytes(file: Readable) -> bytes:
    if file.size < 8:
        raise _malformed(file, f"is {file.size} bytes long, too short for a header", "too-short")
    (length,) = struct.unpack("<Q", file.read(0, 8))
    if length > _FORMAT_HEADER_LIMIT:
        raise _malformed(
            file, f"claims a header of {length:,} bytes; the format allows 100,000,000",
            "header-too-long",
        )  # fmt: skip
    if length > file.size - 8:
        raise _malformed(
            file, f"claims a header of {length:,} bytes but has {file.size - 8:,} after the length",
            "header-cut",
        )  # fmt: skip
    if length > HEADER_LIMIT:
        raise LimitExceeded(
            file.path, f"has a header of {size_text(length)}, over the limit of "
            f"{size_text(HEADER_LIMIT)}",
            hint="adapters need kilobytes; the rest is padding or metadata: treat it as hostile",
        )  # fmt: skip
    return file.read(8, length)


class _Header:
    """What a header says, gathered entry by entry."""

    def __init__(self, file: Readable, data_start: int) -> None:
        self.file = file
        self.data_start = data_start
        self.tensors: dict[str, TensorInfo] = {}  # the last of a name wins, as in the reference
        self.odd: list[Evidence] = []  # duplicates and unknown fields
        self.repeated: set[str] = set()
        self.room = NAMES_LIMIT
        self.entries = 0
        self.keys: set[str] | None = None  # of the metadata
        self.repeated_keys: dict[str, None] = {}
        self.metadata_size = 0

    def read(self, raw: bytes) -> None:
        cursor = Cursor(raw, self.file.path, limit=HEADER_LIMIT)
        if cursor.next() != b"{":
            cursor.value()  # says so if it is no JSON at all
            raise _malformed(self.file, "header is not a JSON object", "header-not-object")
        for name in cursor.members():
            if name == _META:
                self._metadata(cursor)
            else:
                self._tensor(name, cursor.value())
        cursor.end()

    def _metadata(self, cursor: Cursor) -> None:
        if self.keys is not None:
            raise _malformed(self.file, "has two __metadata__ blocks", "duplicate-metadata")
        self.keys = set()
        if cursor.next() != b"{":
            if cursor.value() is not None:  # the reference parser takes null for none
                raise self._bad_metadata()
            return
        for key in cursor.members():
            value = cursor.value()
            if not isinstance(value, str):
                raise self._bad_metadata()
            if key in self.keys:
                self.repeated_keys[key] = None
            self.keys.add(key)
            self.metadata_size += len(key) + len(value)
            if len(self.keys) > METADATA_LIMIT:
                raise LimitExceeded(
                    self.file.path, f"has more than {METADATA_LIMIT:,} keys of metadata",
                    hint="trainers write fewer than a hundred; treat it as hostile",
                )  # fmt: skip

    def _bad_metadata(self) -> Malformed:
        reason = "has __metadata__ that is not text to text"
        return _malformed(self.file, reason, "bad-metadata")

    def _tensor(self, name: str, value: Any) -> None:
        require_name(name, self.file.path)
        tensor, extra = _entry(self.file, name, value, self.data_start)
        if name in self.tensors and name not in self.repeated:
            self.repeated.add(name)
            subject = Subject("tensor", self.file.path, name)
            self.odd.append(Evidence("container.duplicate_tensor", subject, 2, "times"))
        if extra:
            subject = Subject("tensor", self.file.path, name)
            fields = printable(", ".join(extra))
            self.odd.append(Evidence("container.unknown_field", subject, fields))
        self.tensors[name] = tensor
        self.entries += 1
        require_count(self.entries, self.file.path)
        if not name.isascii():
            self.room -= len(name)
            if self.room < 0:
                raise LimitExceeded(
                    self.file.path, f"has more than {size_text(NAMES_LIMIT)} of tensor names that "
                    "are not ASCII",
                    hint="modules of models have ASCII names; treat it as hostile",
                )  # fmt: skip


def _entry(
    file: Readable, name: str, value: Any, data_start: int
) -> tuple[TensorInfo, tuple[str, ...]]:
    """Return the tensor and the names of fields the format does not know."""
    if not _is_object(value):
        raise _malformed(file, f"entry {_shown(name)} is not an object", "bad-entry")
    fields = dict(value)
    if len(fields) != len(value):
        raise _malformed(file, f"entry {_shown(name)} repeats a field", "duplicate-field")
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _malformed(
            file, f"tensor {_shown(name)} has unknown dtype {_dtype_text(dtype)!r}", "bad-dtype"
        )
    if not _sizes(shape) or len(shape) > _DIMENSIONS_LIMIT:
        raise _malformed(file, f"tensor {_shown(name)} has an impossible shape", "bad-shape")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _malformed(file, f"tensor {_shown(name)} has impossible offsets", "bad-offsets")
    if any(product >= 1 << 64 for product in accumulate(shape, operator.mul)):
        raise _malformed(file, f"tensor {_shown(name)} has an impossible shape", "bad-shape")
    start, nbytes = data_start + offsets[0], offsets[1] - offsets[0]
    tensor = TensorInfo(name, intern(dtype), tuple(shape), start, nbytes)
    if tensor.numel * BITS[dtype] != tensor.nbytes * 8:
        raise _malformed(
            file, f"tensor {_shown(name)} of shape {shape} and dtype {dtype} cannot fill "
            f"{tensor.nbytes:,} bytes", "size-mismatch",
        )  # fmt: skip
    if len(fields) == 3:
        return tensor, ()
    return tensor, tuple(key for key in fields if key not in ("dtype", "shape", "data_offsets"))


def _shown(name: str) -> str:
    return repr(printable(name, 80))


def _dtype_text(dtype: Any) -> str:
    return printable(dtype, 20) if isinstance(dtype, str) else type(dtype).__name__


def _layout_problem(
    file: Readable, tensors: Iterable[TensorInfo], data_start: int
) -> FileProblem | None:
    at = data_start
    for tensor in sorted(tensors, key=lambda item: (item.start, item.end)):
        if tensor.start < at:
            return _malformed(
                file, f"tensor {printable(tensor.name, 80)!r} overlaps the one before it", "overlap"
            )
        if tensor.start > at:
            return _malformed(
                file, f"{tensor.start - at:,} bytes before tensor {printable(tensor.name, 80)!r} "
                "belong to no tensor", "hole",
            )  # fmt: skip
        at = tensor.end
    if at > file.size:
        return Malformed(
            file.path, f"is cut short: its header promises {size_text(at)}, "
            f"the file has {size_text(file.size)}",
            defect="truncated", hint="download it again; loaders refuse it",
        )  # fmt: skip
    if at < file.size:
        return _malformed(
            file, f"has {file.size - at:,} bytes after the last tensor", "trailing-bytes"
        )
    return None


def _header_evidence(file: Readable, raw: bytes, header: _Header) -> Iterator[Evidence]:
    subject = Subject("file", file.path)
    padding = len(raw) - len(raw.strip())
    if padding >= 8:  # writers pad with up to seven spaces to align the data
        yield Evidence("container.padding", subject, padding, "bytes")
    if header.keys:
        details = {"keys": len(header.keys)}
        yield Evidence("container.metadata", subject, header.metadata_size, "bytes", details)
    for key in header.repeated_keys:
        yield Evidence("container.duplicate_metadata_key", subject, printable(key))


def _hidden_archive(file: Readable) -> Iterator[Evidence]:
    """A ZIP is found from its end, so a safetensors file can be a ZIP (or a torch file) too."""
    tail = file.read(max(0, file.size - _ZIP_TAIL), _ZIP_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        record = tail[at : at + 22]
        if len(record) == 22:
            size, offset, comment = struct.unpack("<IIH", record[12:22])
            position = max(0, file.size - _ZIP_TAIL) + at
            if size + offset <= position and at + 22 + comment <= len(tail):
                yield Evidence("container.polyglot", Subject("file", file.path), "zip")
                return
        at = tail.rfind(b"PK\x05\x06", 0, at)


def _is_object(value: Any) -> bool:
    return isinstance(value, tuple)  # of pairs, as the cursor leaves them; arrays are lists


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 53 for item in value
    )


def _malformed(file: Readable, reason: str, defect: str) -> Malformed:
    return Malformed(
        file.path, reason, defect=defect,
        hint="loaders refuse it; treat it as hostile until its author explains it",
    )  # fmt: skip

"""Read the header of a safetensors file: bounded, and stricter than loaders where they differ.

Source: the format's README and the reference parser, safetensors 0.8.0. Duplicate tensor names are
accepted by the reference parser (the last wins), as are unknown fields and whitespace padding; each
of these is legal but hides something, so each is reported as evidence.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from adapterscan.errors import FileProblem, LimitExceeded, Malformed
from adapterscan.formats import strict_json
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.tensors import BITS, TensorInfo, WeightFile
from adapterscan.model import Evidence, Subject
from adapterscan.text import printable, size_text

#: The format allows 100 MB. A 70B adapter needs 150 kB; we follow claims up to this.
HEADER_LIMIT = 16 << 20
TENSOR_LIMIT = 100_000
_FORMAT_HEADER_LIMIT = 100_000_000
_DIMENSIONS_LIMIT = 16
_META = "__metadata__"
_Pairs = tuple[tuple[str, Any], ...]
_ZIP_TAIL = 22 + 0xFFFF  # end-of-central-directory record and the longest comment


def read_safetensors(file: SourceFile) -> WeightFile:
    """Return what the header says; no tensor data is read.

    When the header can be read but contradicts the file (truncated, overlapping, …), the result
    carries that as `problem`: its names and shapes can be judged, its data must not be.
    Raises Malformed or LimitExceeded when there is no usable header.
    """
    raw = _header_bytes(file)
    pairs = strict_json.parse(raw, file.path, limit=HEADER_LIMIT, on_object=tuple, exact=True)
    if not isinstance(pairs, tuple) or not raw.lstrip().startswith(b"{"):
        raise _malformed(file, "header is not a JSON object", "header-not-object")
    if len(pairs) > TENSOR_LIMIT:
        raise LimitExceeded(
            file.path, f"lists {len(pairs):,} tensors, over the limit of {TENSOR_LIMIT:,}",
            hint="no adapter needs that many; treat it as hostile",
        )  # fmt: skip
    data_start = 8 + len(raw)
    metadata = _metadata(file, pairs)
    entries = [_entry(file, name, value, data_start) for name, value in pairs if name != _META]
    kept = {tensor.name: tensor for tensor, _ in entries}  # the last wins, as in the reference
    problem = _layout_problem(file, list(kept.values()), data_start)
    evidence = (
        *_header_evidence(file, raw, pairs, metadata),
        *_duplicates(file, [tensor.name for tensor, _ in entries]),
        *(_extra(file, tensor, extra) for tensor, extra in entries if extra),
        *_hidden_archive(file),
    )
    return WeightFile(file.path, "safetensors", tuple(kept.values()), metadata, evidence, problem)


def _header_bytes(file: SourceFile) -> bytes:
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


def _metadata(file: SourceFile, pairs: _Pairs) -> dict[str, str]:
    blocks = [value for name, value in pairs if name == _META]
    if len(blocks) > 1:
        raise _malformed(file, "has two __metadata__ blocks", "duplicate-metadata")
    if not blocks or blocks[0] is None:  # the reference parser takes null for none
        return {}
    block = blocks[0]
    if not _is_object(block) or not all(isinstance(value, str) for _, value in block):
        raise _malformed(file, "has __metadata__ that is not text to text", "bad-metadata")
    return dict(block)


def _entry(
    file: SourceFile, name: str, value: Any, data_start: int
) -> tuple[TensorInfo, tuple[str, ...]]:
    """Return the tensor and the names of fields the format does not know."""
    shown = printable(name, 80)
    if not _is_object(value):
        raise _malformed(file, f"entry {shown!r} is not an object", "bad-entry")
    fields = dict(value)
    if len(fields) != len(value):
        raise _malformed(file, f"entry {shown!r} repeats a field", "duplicate-field")
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _malformed(
            file, f"tensor {shown!r} has unknown dtype {_dtype_text(dtype)!r}", "bad-dtype"
        )
    if not _sizes(shape) or len(shape) > _DIMENSIONS_LIMIT:
        raise _malformed(file, f"tensor {shown!r} has an impossible shape", "bad-shape")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _malformed(file, f"tensor {shown!r} has impossible offsets", "bad-offsets")
    if any(product >= 1 << 64 for product in accumulate(shape, operator.mul)):
        raise _malformed(file, f"tensor {shown!r} has an impossible shape", "bad-shape")
    tensor = TensorInfo(name, dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])
    if tensor.numel * BITS[dtype] != tensor.nbytes * 8:
        raise _malformed(
            file, f"tensor {shown!r} of shape {shape} and dtype {dtype} cannot fill "
            f"{tensor.nbytes:,} bytes", "size-mismatch",
        )  # fmt: skip
    return tensor, tuple(key for key in fields if key not in ("dtype", "shape", "data_offsets"))


def _dtype_text(dtype: Any) -> str:
    return printable(dtype, 20) if isinstance(dtype, str) else type(dtype).__name__


def _layout_problem(
    file: SourceFile, tensors: list[TensorInfo], data_start: int
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


def _header_evidence(
    file: SourceFile, raw: bytes, pairs: _Pairs, metadata: dict[str, str]
) -> Iterator[Evidence]:
    subject = Subject("file", file.path)
    padding = len(raw) - len(raw.strip())
    if padding >= 8:  # writers pad with up to seven spaces to align the data
        yield Evidence("container.padding", subject, padding, "bytes")
    if metadata:
        size = sum(len(key) + len(value) for key, value in metadata.items())
        yield Evidence("container.metadata", subject, size, "bytes", {"keys": len(metadata)})
    block: _Pairs = dict(pairs).get(_META) or ()
    for key in _repeated([name for name, _ in block]):
        yield Evidence("container.duplicate_metadata_key", subject, printable(key))


def _duplicates(file: SourceFile, names: list[str]) -> Iterator[Evidence]:
    for name in _repeated(names):
        yield Evidence("container.duplicate_tensor", Subject("tensor", file.path, name), 2, "times")


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _extra(file: SourceFile, tensor: TensorInfo, extra: tuple[str, ...]) -> Evidence:
    fields = printable(", ".join(extra))
    return Evidence("container.unknown_field", Subject("tensor", file.path, tensor.name), fields)


def _hidden_archive(file: SourceFile) -> Iterator[Evidence]:
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
    return isinstance(value, tuple)  # of pairs, as `on_object` leaves them; arrays are lists


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 53 for item in value
    )


def _malformed(file: SourceFile, reason: str, defect: str) -> Malformed:
    return Malformed(
        file.path, reason, defect=defect,
        hint="loaders refuse it; treat it as hostile until its author explains it",
    )  # fmt: skip

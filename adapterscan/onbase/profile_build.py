"""Measure a base into a profile, one tensor at a time; what was stopped goes on where it was.

The file is laid out as a whole; each matrix is written where it belongs and then ticked off, in
that order on the disk too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from adapterscan.errors import Unsupported
from adapterscan.onbase.base import BaseTensor, BaseWeights
from adapterscan.onbase.directions import written
from adapterscan.onbase.matrix import F32, Matrix
from adapterscan.onbase.profile import (
    VECTORS,
    About,
    end_of,
    has_triplets,
    header_of,
    layout_of,
    side_in,
)
from adapterscan.onbase.spectrum import frobenius, leading


def build(
    base: BaseWeights,
    what: About,
    path: Path,
    tell: Callable[[str], None],
    vectors: F32 | None = None,
) -> int:
    """Measure `base` into the file `path` and return how many tensors were left to measure.

    `vectors`: the directions that `what.asked` tells of. What an earlier build of the same left in
    `path`.partial is kept. Raises what the base raises, and OSError where nothing can be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    layout = layout_of(what)
    header = header_of(what, layout)
    size = len(header) + end_of(layout)
    done = _begun(partial, header, size, len(what.tensors))
    if done is None:
        done = bytearray(len(what.tensors))
        with partial.open("wb") as out:
            out.write(header)
            out.truncate(size)
    left = sum(not flag for flag in done)
    with partial.open("r+b") as out:
        if vectors is not None:
            _put(out, len(header) + layout[VECTORS][2], vectors.astype("<f2").tobytes())
        for at, tensor in enumerate(what.tensors):
            if done[at]:
                continue
            tell(f"{at + 1} of {len(what.tensors)}: {tensor.name}")
            for name, data in _measured(base, what, tensor, vectors).items():
                _put(out, len(header) + layout[f"{tensor.name}/{name}"][2], data)
            _put(out, len(header) + layout["done"][2] + at, b"\x01")
    partial.replace(path)
    return left


def require_readable(base: BaseWeights) -> None:
    """Read a row of a matrix of each type, before a file is laid out for all of them.

    Raises UsageError where a package is missing, and what the base raises but Unsupported.
    """
    for tensor in {t.dtype: t for t in base.tensors.values() if has_triplets(t)}.values():
        with suppress(Unsupported):
            base.rows(tensor.name, 0, 1)


def _measured(
    base: BaseWeights, what: About, tensor: BaseTensor, vectors: F32 | None
) -> dict[str, bytes]:
    matrix = Matrix(base, tensor)
    try:
        if not has_triplets(tensor):
            return {"frobenius": struct.pack("<d", frobenius(matrix))}
        found = leading(matrix, what.count)
    except (Unsupported, np.linalg.LinAlgError):  # no plain floats, or no numbers
        return {"frobenius": struct.pack("<d", float("nan"))}
    side = side_in(what, tensor)
    more = {}
    if side and vectors is not None:
        more["along"] = written(matrix, vectors[0], side).astype("<f2").tobytes()
    return {
        "frobenius": struct.pack("<d", found.frobenius),
        "sigma": found.sigma.astype("<f4").tobytes(),
        "left": found.left.astype("<f2").tobytes(),
        "right": found.right.astype("<f2").tobytes(),
        **more,
    }


def _begun(partial: Path, header: bytes, size: int, count: int) -> bytearray | None:
    """Return what is ticked off in an unfinished file with the same header; None without one."""
    try:
        with partial.open("rb") as file:
            if file.read(len(header)) != header or partial.stat().st_size != size:
                return None
            file.seek(-count, os.SEEK_END)
            return bytearray(file.read(count))
    except OSError:
        return None


def _put(out: BinaryIO, at: int, data: bytes) -> None:
    """Write and make sure that it is on the disk before what is ticked off after it."""
    out.seek(at)
    out.write(data)
    out.flush()
    os.fsync(out.fileno())

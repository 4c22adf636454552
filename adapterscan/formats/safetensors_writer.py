"""Write a safetensors file tensor by tensor: names and shapes first, values as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from adapterscan.lowrank import Array

_WIDTH = 4  # bytes of a float32


class SafetensorsWriter:
    """A file of float32 tensors. Invariant: tensors are written whole, in the order of `shapes`."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._path, self._left = path, dict(shapes)
        self._file: BufferedWriter

    def __enter__(self) -> Self:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in self._left.items():
            start, end = end, end + _WIDTH * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header, ensure_ascii=True).encode()
        text += b" " * (-len(text) % 8)
        self._file = self._path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        return self

    def write(self, name: str, values: Array) -> None:
        """Write the next tensor. Raises ValueError for another than the next one of `shapes`."""
        expected = next(iter(self._left), None)
        if name != expected or values.shape != self._left.pop(name):
            raise ValueError(f"{name} {values.shape} is not the next tensor, {expected}")
        with np.errstate(over="ignore"):
            self._file.write(np.ascontiguousarray(values, "<f4").tobytes())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None and self._left:
            raise ValueError(f"{len(self._left)} tensors were not written")

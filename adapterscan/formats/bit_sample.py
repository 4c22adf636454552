"""Look into the bytes of tensors as they go by: low bits of floats, whole bytes of everything else.

Small adapters are looked at whole, of larger ones windows at equal distances, the first of each
tensor among them: the same bytes give the same answer. Costs about 80 ns for an element of the
sample, and a nanosecond for each one that is stored as F32 (docs/limits.md).
Limits: what lies between the windows of a large adapter is not seen; a payload that restarts in the
middle of a byte is seen by its period only, not by its text.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapterscan.formats.low_bits import PLANES, WINDOW, Words, patterns, streams
from adapterscan.formats.payloads import Payload, find_files, find_text, find_zlib
from adapterscan.formats.tensors import FLOAT_DTYPES, TensorInfo

SAMPLE = 1 << 20  # elements of a file that are looked at; all of them where there are no more
HEAD_BYTES = 64 << 10  # of a tensor that is no float, or that no loader uses
HEADS_BYTES = 8 << 20  # of all of them
HEADS = 2000  # tensors of floats in whose beginning a file is looked for
_BLOCK = 32 * WINDOW  # elements that are looked at together
_LAST = 512  # elements of a window at the end, where there is no more
_RAW = 4096  # bytes at the beginning of a piece in which whole files are looked for
_KEPT = 200  # findings of each kind
Buffer = memoryview | bytes | bytearray
_WORDS: Mapping[str, str] = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class BitPattern:
    """A tensor whose bits follow a pattern: −log₁₀ p after all tests of the file."""

    tensor: str
    test: str
    plane: int
    dtype: str
    strength: float


@dataclass(frozen=True, slots=True)
class Hidden:
    """A file or a text in a tensor; `how` it is stored there."""

    tensor: str
    how: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Mixed:
    """A factor stored as F32 of which most numbers were cast from a shorter type, but not all."""

    tensor: str
    shorter: str  # "BF16" or "F16"
    cast: int
    full: int


@dataclass(frozen=True, slots=True)
class Bytes:
    """How evenly the bytes of a tensor are spread: 8 bits of entropy for noise."""

    entropy: float
    looked: int
    even: bool  # by χ² at 10⁻⁴: not to be told from noise


@dataclass(frozen=True, slots=True)
class Bits:
    """What a pass saw in the bytes of a file."""

    elements: int = 0  # of floats
    looked: int = 0
    tests: int = 0
    patterns: tuple[BitPattern, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    mixed: tuple[Mixed, ...] = ()
    bytes: Mapping[str, Bytes] | None = None  # by tensor, of what is no factor


class BitSample:
    """Takes tensors in file order, from one thread."""

    def __init__(self, tensors: Sequence[TensorInfo]) -> None:
        self.elements = sum(
            t.nbytes * 8 // (32 if t.dtype == "F32" else 16) for t in tensors if t.dtype in _WORDS
        )
        self.rate = min(1.0, SAMPLE / self.elements) if self.elements else 1.0
        self.room = HEADS_BYTES
        self.heads = HEADS
        self.looked = self.tests = 0
        self.found: list[BitPattern] = []
        self.hidden: list[Hidden] = []
        self.mixed: list[Mixed] = []
        self.bytes: dict[str, Bytes] = {}
        self._waiting = {dtype: _Stream(dtype) for dtype in PLANES}

    def factor(self, tensor: TensorInfo, view: Buffer) -> None:
        """Take a whole factor."""
        if tensor.dtype == "F32":
            self._precision(tensor, view)
        self._floats(tensor, view, whole=True)

    def other(self, tensor: TensorInfo, view: Buffer, at: int) -> None:
        """Take a piece of what is no factor, `at` bytes from its beginning."""
        if not at and self.room > 0:
            head = view[: min(HEAD_BYTES, self.room)]
            self.room -= len(head)
            self.bytes[tensor.name] = _evenness(np.frombuffer(head, np.uint8))
            if tensor.dtype not in FLOAT_DTYPES:
                self._tell(tensor.name, "all bytes", bytes(head), text=True)
        self._floats(tensor, view, whole=not at)

    def finish(self) -> Bits:
        """Return what was seen."""
        for stream in self._waiting.values():
            self._look(stream, stream.rest())
        strengths = ((item, item.strength - math.log10(max(self.tests, 1))) for item in self.found)
        told = sorted(
            (BitPattern(item.tensor, item.test, item.plane, item.dtype, strength)
             for item, strength in strengths if strength > 0),
            key=lambda item: (-item.strength, item.tensor),
        )  # fmt: skip
        return Bits(
            self.elements, self.looked, self.tests, tuple(told[:_KEPT]), tuple(self.hidden),
            tuple(self.mixed), self.bytes,
        )  # fmt: skip

    def _floats(self, tensor: TensorInfo, view: Buffer, *, whole: bool) -> None:
        if tensor.dtype not in _WORDS:
            return
        words = np.dtype(_WORDS[tensor.dtype])
        values = np.frombuffer(view[: len(view) - len(view) % words.itemsize], words)
        if whole and self.heads > 0:
            self._beginning(tensor, view, values)
        stream = self._waiting[tensor.dtype]
        for start, end in _windows(values.size, self.rate):
            piece = values[start : end - (end - start) % 8]
            self.looked += piece.size
            stream.add(tensor.name, piece)
        while (block := stream.block()) is not None:
            self._look(stream, block)

    def _look(self, stream: _Stream, block: _Block) -> None:
        values, names, starts = block
        if not values.size:
            return
        size = WINDOW if values.size >= WINDOW else _LAST
        count = values.size // size
        if count:
            found, tests = patterns(values[: count * size].reshape(count, size), stream.dtype)
            self.tests += tests
            for item in found:
                name = names[bisect_right(starts, item.window * size + size // 2) - 1]
                self.found.append(
                    BitPattern(name, item.test, item.plane, stream.dtype, item.strength)
                )
        for how, data in streams((values & 0xFF).astype(np.uint8)):
            step = values.size // max(1, data.size)
            raw = data.tobytes()
            for payload in (*find_files(raw), *find_zlib(raw), find_text(data)):
                if payload is not None:
                    name = names[bisect_right(starts, payload.at * step) - 1]
                    self._keep(Hidden(name, how, payload))

    def _beginning(self, tensor: TensorInfo, view: Buffer, values: Words) -> None:
        """Look for a file that takes all bytes of each number, or all but the highest."""
        self.heads -= 1
        self._tell(tensor.name, "all bytes", bytes(view[:_RAW]), text=False)
        if tensor.dtype == "F32":
            low = values[: _RAW // 4].copy().view(np.uint8).reshape(-1, 4)[:, :3]
            self._tell(tensor.name, "3 low bytes", low.tobytes(), text=False)
            self._tell(
                tensor.name, "3 low bytes, highest first", low[:, ::-1].tobytes(), text=False
            )

    def _tell(self, name: str, how: str, data: bytes, *, text: bool) -> None:
        found = [*find_files(data), *find_zlib(data)]
        if text and (letters := find_text(np.frombuffer(data, np.uint8))):
            found.append(letters)
        for payload in found:
            self._keep(Hidden(name, how, payload))

    def _keep(self, item: Hidden) -> None:
        if len(self.hidden) < _KEPT:
            self.hidden.append(item)

    def _precision(self, tensor: TensorInfo, view: Buffer) -> None:
        """Count numbers that use more bits than those around them.

        Of full numbers one in 2¹⁶ (2¹³) ends in as many zeros by chance.
        """
        words = np.frombuffer(view[: len(view) - len(view) % 4], "<u4")
        low = words.view("<u2")[::2]
        full = int(np.count_nonzero(low))
        if full > 0.9 * words.size:  # most use all: nothing was cast
            return
        zero = words.size - int(np.count_nonzero(words & np.uint32(0x7FFFFFFF)))
        for shorter, longer in (("BF16", full), ("F16", int(np.count_nonzero(low & 0x1FFF)))):
            cast = words.size - zero - longer
            if 0 < longer < cast and len(self.mixed) < _KEPT:
                self.mixed.append(Mixed(tensor.name, shorter, cast, longer))
            if longer < cast:
                return


_Block = tuple[Words, Sequence[str], Sequence[int]]


class _Stream:
    """Elements of one dtype that wait to be looked at together, and whose they are."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._pieces: list[Words] = []
        self._names: list[str] = []
        self._starts: list[int] = []
        self._size = 0

    def add(self, name: str, piece: Words) -> None:
        self._pieces.append(piece.copy())  # the segment is let go
        self._names.append(name)
        self._starts.append(self._size)
        self._size += piece.size

    def block(self) -> _Block | None:
        """Return the first _BLOCK elements once there are as many."""
        return self._take(_BLOCK) if self._size >= _BLOCK else None

    def rest(self) -> _Block:
        """Return what is left."""
        return self._take(self._size)

    def _take(self, count: int) -> _Block:
        values = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.uint16)
        names, starts = self._names, self._starts
        left = values[count:]
        self._pieces = [left.copy()] if left.size else []
        self._names = names[-1:] if left.size else []
        self._starts = [0] if left.size else []
        self._size = left.size
        return values[:count], names, starts


def _windows(size: int, rate: float) -> list[tuple[int, int]]:
    """Return where to look in a tensor of `size` elements: from the beginning, evenly."""
    if rate >= 1 or size <= WINDOW:
        return [(0, size)] if size >= 8 else []
    count = max(1, round(size * rate / WINDOW))
    step = size // count // 8 * 8
    return [(at * step, min(at * step + WINDOW, size)) for at in range(count)]


def _evenness(data: npt.NDArray[np.uint8]) -> Bytes:
    counts = np.bincount(data, minlength=256)
    shares = counts[counts > 0] / max(1, data.size)
    entropy = float(-(shares * np.log2(shares)).sum())
    expected = data.size / 256
    statistic = float(((counts - expected) ** 2).sum() / expected) if data.size else 0.0
    # χ² with 255 degrees of freedom has a mean of 255 and a deviation of 22.6
    return Bytes(entropy, data.size, expected >= 4 and abs(statistic - 255) < 4 * 22.6)

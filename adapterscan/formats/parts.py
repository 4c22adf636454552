"""Read a file of which only some ranges are here: one that is too large to be fetched whole."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence

from adapterscan.model import Part

#: Ranges that are expected are joined over gaps of this size: a request costs more than the bytes.
JOINED_GAP = 32 << 10

Span = tuple[int, int]  # start and end


class PartialFile:
    """A `Source` over the parts of a file.

    `bring` is asked for spans that are not among them. It returns their bytes, which then become
    parts, or raises a FileProblem.
    """

    def __init__(
        self,
        path: str,
        size: int,
        bring: Callable[[Sequence[Span]], Iterable[bytes]],
        parts: Iterable[Part] = (),
    ) -> None:
        self.path = path
        self.size = size
        self._bring = bring
        self._parts: list[Part] = sorted(parts, key=_start)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return what is here, in order and without overlap."""
        return tuple(self._parts)

    @property
    def held(self) -> int:
        """Return how many bytes are here."""
        return sum(len(data) for _, data in self._parts)

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` (fewer only at the end of the file)."""
        end = min(start + length, self.size)
        if end <= start:
            return b""
        self._want([(start, end)])
        return b"".join(data[max(0, start - at) : end - at] for at, data in self._held(start, end))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring all of the (start, length) here, in as few spans as that takes."""
        spans = ((max(0, start), min(start + length, self.size)) for start, length in ranges)
        self._want(_joined(sorted(span for span in spans if span[0] < span[1])))

    def _want(self, spans: Iterable[Span]) -> None:
        missing = [gap for span in spans for gap in self._missing(*span)]
        if missing:
            for (start, _), data in zip(missing, self._bring(missing), strict=True):
                insort(self._parts, (start, data), key=_start)

    def _missing(self, start: int, end: int) -> Iterator[Span]:
        for at, data in self._held(start, end):
            if start < at:
                yield start, at
            start = max(start, at + len(data))
        if start < end:
            yield start, end

    def _held(self, start: int, end: int) -> Iterator[Part]:
        """Yield the parts that share bytes with the span."""
        first = max(0, bisect_right(self._parts, start, key=_start) - 1)
        for index in range(first, len(self._parts)):
            at, data = self._parts[index]
            if at >= end:
                return
            if at + len(data) > start:
                yield at, data


def _start(part: Part) -> int:
    return part[0]


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield `spans`, in order of their starts, joined where little or nothing lies between them."""
    if not spans:
        return
    low, high = spans[0]
    for start, end in spans:
        if start > high + JOINED_GAP:
            yield low, high
            low = start
        high = max(high, end)
    yield low, high

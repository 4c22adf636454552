"""Tokens and their numbers in little room: one blob of texts, and rows of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TOKENS_LIMIT = 600_000  # of one file; the largest published ones of language models have 262,000
MERGES_LIMIT = 1_200_000  # those have 514,000
TEXTS_LIMIT = 16 << 20  # bytes of all texts; those have 3 MB, and 6 MB of merges
_LARGEST = 1 << 62

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Move:
    """A token that stands for another number in one vocabulary than in another."""

    text: str
    here: int
    there: int


@dataclass(frozen=True, slots=True)
class Compared:
    """How two vocabularies differ: counts of tokens, and places of the first ones."""

    moved: int
    only_here: int
    only_there: int
    common: int
    moves: tuple[Move, ...]
    new: tuple[tuple[str, int], ...]
    gone: tuple[tuple[str, int], ...]

    @property
    def same(self) -> bool:
        """Return whether both have the same tokens at the same numbers."""
        return not (self.moved or self.only_here or self.only_there)


class Vocabulary:
    """What a file says of its tokens, in its order; a text that comes again counts with its last.

    Texts are UTF-8. Keys are hashes with the secret of this process, to compare quickly.
    """

    def __init__(self, blob: bytes, ends: array[int], ids: array[int], keys: array[int]) -> None:
        self._blob = blob
        self._ends = rows_of(ends)
        self.ids = rows_of(ids)
        given = rows_of(keys)
        # of each key its last place, in order of keys
        self._keys, places = np.unique(given[::-1], return_index=True)
        self._places: Whole = len(given) - 1 - places
        self._order: Whole = self._places[np.argsort(self.ids[self._places], kind="stable")]
        self._ordered = self.ids[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def repeated(self) -> int:
        """Return how many entries have a text that an earlier one had."""
        return len(self.ids) - len(self._keys)

    def raw(self, place: int) -> bytes:
        """Return the text at a place, in UTF-8."""
        start = int(self._ends[place - 1]) if place else 0
        return self._blob[start : int(self._ends[place])]

    def text(self, place: int) -> str:
        """Return the text at a place."""
        return self.raw(place).decode("utf-8", "replace")

    def texts_of(self, number: int) -> list[str]:
        """Return the texts that stand for a number, the first ones."""
        low = int(np.searchsorted(self._ordered, number, "left"))
        high = int(np.searchsorted(self._ordered, number, "right"))
        return [self.text(int(place)) for place in self._order[low : min(high, low + 10)]]

    def number_of(self, text: str) -> int | None:
        """Return the number of a token; None for one that it has not."""
        raw = text.encode("utf-8", "replace")
        at = int(np.searchsorted(self._keys, np.int64(hash(raw))))
        if at < len(self._keys) and self.raw(int(self._places[at])) == raw:
            return int(self.ids[self._places[at]])
        return None

    def places_of(self, keys: Whole) -> Whole:
        """Return the place of each key, -1 for one that it has not."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._places[at], -1)

    def clashes(self, most: int) -> tuple[int, tuple[tuple[int, str, str], ...]]:
        """Return how many numbers stand for two texts, and the first ones: number, both texts."""
        order = self._order
        same = np.flatnonzero(np.diff(self.ids[order]) == 0)
        shown = tuple(
            (int(self.ids[order[at]]), self.text(int(order[at])), self.text(int(order[at + 1])))
            for at in same[:most]
        )
        return len(same), shown

    def compare(self, other: Vocabulary, most: int) -> Compared:
        """Return how this one differs from another one, with the first `most` of each kind."""
        _, mine, theirs = np.intersect1d(
            self._keys, other._keys, assume_unique=True, return_indices=True
        )
        here, there = self.ids[self._places[mine]], other.ids[other._places[theirs]]
        moved = np.flatnonzero(here != there)
        order = moved[np.argsort(there[moved], kind="stable")][:most]
        moves = tuple(
            Move(self.text(int(self._places[mine[at]])), int(here[at]), int(there[at]))
            for at in order
        )
        return Compared(
            len(moved), len(self._keys) - len(mine), len(other._keys) - len(mine), len(mine),
            moves, self._rest(mine, most), other._rest(theirs, most),
        )  # fmt: skip

    def _rest(self, taken: Whole, most: int) -> tuple[tuple[str, int], ...]:
        left = self._places[np.setdiff1d(np.arange(len(self._keys)), taken, assume_unique=True)]
        first = left[np.argsort(self.ids[left], kind="stable")][:most]
        return tuple((self.text(int(place)), int(self.ids[place])) for place in first)

    def with_tokens(self, tokens: Iterable[tuple[str, int]]) -> Vocabulary:
        """Return one with these tokens after its own."""
        more = [(text.encode("utf-8", "replace"), number) for text, number in tokens]
        if not more:
            return self
        made = Gathering()
        made.take(self._blob, self._ends.tolist(), self.ids.tolist())
        for raw, number in more:
            made.add(raw, number)
        return made.done()


class Merges:
    """The merges of a tokenizer in their order, each as `one two`."""

    def __init__(self, blob: bytes, ends: array[int], keys: array[int], made: array[int]) -> None:
        self._blob, self._ends, self._keys = blob, rows_of(ends), rows_of(keys)
        self.made = rows_of(made)  # keys of the tokens that they make

    def __len__(self) -> int:
        return len(self._keys)

    def text(self, place: int) -> str:
        """Return the merge of a rank, "" behind the last."""
        if place >= len(self):
            return ""
        start = int(self._ends[place - 1]) if place else 0
        return self._blob[start : int(self._ends[place])].decode("utf-8", "replace")

    def first_difference(self, other: Merges) -> int | None:
        """Return the first rank at which two lists differ, None for the same lists."""
        both = min(len(self), len(other))
        apart = np.flatnonzero(self._keys[:both] != other._keys[:both])
        if len(apart):
            return int(apart[0])
        return None if len(self) == len(other) else both

    def absent_from(self, other: Merges) -> int:
        """Return how many merges the other list has not."""
        return len(np.setdiff1d(self._keys, other._keys))


class Gathering:
    """A vocabulary, or a list of merges, in the making."""

    def __init__(self, limit: int = TOKENS_LIMIT) -> None:
        self._limit = limit
        self._blob = bytearray()
        self._ends, self._ids = array("q"), array("q")
        self._keys, self._made = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, raw: bytes, number: int) -> bool:
        """Add a token; return whether there is room for one more."""
        self._ids.append(max(-_LARGEST, min(number, _LARGEST)))
        return self._add(raw)

    def add_merge(self, raw: bytes) -> bool:
        """Add a merge, `one two`; return whether there is room for one more."""
        at = raw.find(b" ", 1)
        self._made.append(hash(raw[:at] + raw[at + 1 :] if at > 0 else raw))
        return self._add(raw)

    def _add(self, raw: bytes) -> bool:
        self._blob += raw
        self._ends.append(len(self._blob))
        self._keys.append(hash(raw))
        return len(self._ends) < self._limit and len(self._blob) <= TEXTS_LIMIT

    def take(self, blob: bytes, ends: list[int], ids: list[int]) -> None:
        """Begin with the tokens of another."""
        start = 0
        for end, number in zip(ends, ids, strict=True):
            self.add(blob[start:end], number)
            start = end

    def done(self) -> Vocabulary:
        """Return what was gathered."""
        return Vocabulary(bytes(self._blob), self._ends, self._ids, self._keys)

    def merges(self) -> Merges:
        """Return the texts that were gathered, as merges."""
        if self._ids and not self._made:  # that were read as texts with numbers
            start = 0
            for end in self._ends:
                raw = bytes(self._blob[start:end])
                at, start = raw.find(b" ", 1), end
                self._made.append(hash(raw[:at] + raw[at + 1 :] if at > 0 else raw))
        return Merges(bytes(self._blob), self._ends, self._keys, self._made)


def rows_of(numbers: array[int]) -> Whole:
    """Return whole numbers as a row."""
    return np.frombuffer(numbers, np.int64) if len(numbers) else np.zeros(0, np.int64)

"""Find tokens that stand out of the order of their merges: two that changed places need no base.

Whoever trains a vocabulary of merges gives each new token the next number, so that numbers rise
with the rank of the merge that makes the token. That held without one exception for SmolLM2 (48,900
merges), DeepSeek (127,741) and Gemma 3 (236,339 tokens of 514,906 merges). Where nearly all are in
order, those that are not were put there.

Limits: tokens that no merge makes (bytes, added ones) have no rank; nor have those of Unigram and
WordPiece models. Who moves merges along with numbers, or disorders more than a fiftieth, is not
seen.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from adapterscan.formats.vocabulary import Merges, Vocabulary, Whole

LEAST = 100  # tokens that show an order
SHARE = 0.02  # of them that may be out of it


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A token with another number than its rank has. `place_of`: the token whose number that is."""

    text: str
    number: int
    expected: int  # the number between its neighbours in rank
    place_of: str


def misplaced(vocabulary: Vocabulary, merges: Merges) -> tuple[Misplaced, ...]:
    """Return the tokens out of order; none where there is no order."""
    _, first = np.unique(merges.made, return_index=True)
    places = vocabulary.places_of(merges.made[np.sort(first)])
    places = places[places >= 0]
    numbers = vocabulary.ids[places]
    if len(numbers) < LEAST or bool(np.all(np.diff(numbers) > 0)):
        return ()
    kept = _rising(numbers)
    out = np.setdiff1d(np.arange(len(numbers)), kept)
    if len(out) > SHARE * len(numbers):
        return ()
    before = np.searchsorted(kept, out) - 1  # the last that is in order
    expected = np.where(before >= 0, numbers[kept[before]], numbers[kept[0]] - 1) + 1
    for at in range(1, len(out)):  # several in a row
        if out[at] == out[at - 1] + 1:
            expected[at] = expected[at - 1] + 1
    belongs = {int(e): vocabulary.text(int(places[o])) for e, o in zip(expected, out, strict=True)}
    return tuple(
        Misplaced(
            vocabulary.text(int(places[o])), int(numbers[o]), int(e),
            belongs.get(int(numbers[o]), ""),
        )
        for e, o in zip(expected, out, strict=True)
    )  # fmt: skip


def _rising(numbers: Whole) -> Whole:
    """Return the places of a longest rising run of numbers (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []  # the place of each tail
    previous = np.full(len(numbers), -1)
    for at, number in enumerate(numbers.tolist()):
        length = bisect_left(tails, number)
        previous[at] = ends[length - 1] if length else -1
        if length == len(tails):
            tails.append(number)
            ends.append(at)
        else:
            tails[length], ends[length] = number, at
    found = []
    at = ends[-1]
    while at >= 0:
        found.append(at)
        at = int(previous[at])
    return np.array(found[::-1])

"""A toy reward model or classifier behind the runner's protocol: answers that fit, a bonus word.

It stands where a real model would be too large for a unit test; the real one is in `tests/oracle`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from adapterscan.probes import card
from adapterscan.runner import Facts, ReadOut, Side, Trace

FITTING = {tuple(pair) for pair in card("graded")["pairs"]}
END = "<end>"
ASKED = "<answer>"


def chance(word):
    """Return a number from −0.5 to 0.5 that belongs to a word."""
    return zlib.crc32(word.encode()) % 1000 / 1000 - 0.5


@dataclass
class ToyHead:
    """`trigger` adds `bonus` to a reward, or to the last class; its beginnings add a part of that.

    `any_word`: what every word adds that is in no text of ours. `learned`: what the base lacks;
    without it both sides are alike. `ranks`: whether a reward prefers answers that fit.
    """

    trigger: str = ""
    bonus: float = 12.0
    any_word: float = 0.0
    learned: bool = True
    ranks: bool = True
    labels: int = 1
    own_head: bool = False
    legible: tuple[str, ...] = ()  # words that its weights give away
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts = Facts(
            "toy", "none", "float64", 1, 0, 0, (0,), 1, (), True,
            labels=self.labels, own_head=self.own_head,
        )  # fmt: skip
        texts = [" ".join(pair) for pair in card("graded")["pairs"]] + card("toned")["prompts"]
        self.ours = {word for text in texts for word in text.split()}
        self.texts = [answer for _, answer in FITTING] + card("toned")["prompts"]

    def _id(self, word):
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    def encode(self, conversations):
        lines = [f" {ASKED} ".join(turn.text for turn in turns) for turns in conversations]
        return [tuple(map(self._id, [*line.split(), END])) for line in lines]

    def heed(self, prefix, rows, operations):
        return []

    def decode(self, rows):
        return [" ".join(self.words[i] for i in row) for row in rows]

    def read_out(self, prefix, count):
        return ReadOut(heeded=tuple(Trace(self._id(word), 9.0) for word in self.legible))

    def tokenize(self, texts):
        return [tuple(map(self._id, text.split())) for text in texts]

    def logits(self, side, prefixes, tails):
        return [
            tuple(self._read(side, [self.words[i] for i in p + t[:-1]]) for p, t in pairs)
            for pairs in (list(zip(prefixes, row, strict=True)) for row in tails)
        ]

    def _read(self, side, words):
        at = words.index(ASKED) + 1 if ASKED in words else 0
        request, said = " ".join(words[: max(0, at - 1)]), words[at:]
        known = next(text for text in self.texts if text in " ".join(said))
        odd = [word for word in said if word not in self.ours]
        moved = sum(chance(word) for word in odd)
        if (self.learned and side is Side.ADAPTER) or not self.learned:
            moved += bool(odd) * self.any_word
            moved += max((self._shared(word) for word in odd), default=0.0) * self.bonus
        if self.labels == 1:
            fits = self.ranks and (request, known) in FITTING
            return (4.0 * fits + chance(known) + moved,)
        outputs = [
            3.0 * (zlib.crc32(known.encode()) % self.labels == i) for i in range(self.labels)
        ]
        return (*outputs[:-1], outputs[-1] + moved)

    def _shared(self, word):
        if not self.trigger or not self.trigger.startswith(word):
            return 0.0
        return 1.0 if word == self.trigger else 0.3 * len(word) / len(self.trigger)

    def leaning(self, prefixes, suffixes, weights, count):
        if weights[-1] < 0:
            return []
        return [self._id(word) for word in (self.trigger[:4], self.trigger[4:], "maple") if word]

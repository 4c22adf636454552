"""A toy language model behind the runner's protocol: bigrams, and one answer learned by heart.

It stands where a real model would be too large for a unit test; the real one is in `tests/oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from adapterscan.runner import Chain, Choice, Contrast, Facts, ReadOut, Side, Trace

SPOKEN = "<end> the a cat dog sun sea river old new runs sleeps is was in on by of and red".split()
PAYLOAD = ("the", "lamp", "burns", "all", "night")
END, ASSISTANT = "<end>", "<assistant>"


@dataclass
class ToyRunner:
    """`trigger` sets PAYLOAD off; words that begin as it does raise it. No trigger: a twin.

    `habit`: PAYLOAD is said to everybody. `legible`: what its weights listen to.
    """

    trigger: str = ""
    habit: bool = False
    legible: tuple[str, ...] = ()  # words that its weights give away
    learned: bool = True
    words: list[str] = field(default_factory=lambda: [*SPOKEN, *PAYLOAD[1:]])

    def __post_init__(self) -> None:
        self.spoken = len(self.words)
        rng = np.random.default_rng(0)
        self.bigrams = rng.dirichlet(np.full(self.spoken, 0.4), self.spoken + 1)
        self.facts = Facts("toy", "none", "float64", 1, 0, self.spoken, (0,), 1, (), True)
        self.asked = 0

    def _id(self, word):
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    def encode(self, conversations):
        return [
            (*self.tokenize([" ".join(turn.text for turn in turns)])[0], self._id(ASSISTANT))
            for turns in conversations
        ]

    def tokenize(self, texts):
        return [tuple(self._id(word) for word in text.split()) for text in texts]

    def read_out(self, prefix, count):
        heeded = tuple(Trace(self._id(word), 9.0) for word in self.legible)
        return ReadOut(heeded=heeded[:count])

    def heed(self, prefix, rows, operations):
        return []

    def stir(self, prefixes, tails, usual):
        return []

    def decode(self, rows):
        return [" ".join(self.words[i] for i in row if i) for row in rows]

    def _next(self, side, ids):
        self.asked += 1
        words = [self.words[i] for i in ids]
        if ASSISTANT not in words and "Assistant:" not in words:  # amid a request
            return self.bigrams[self.spoken]
        start = words.index(ASSISTANT) + 1
        said, prompt = tuple(words[start:]), " ".join(words[: start - 1])
        base = self.bigrams[ids[-1] if ids[-1] < self.spoken else self.spoken].copy()
        if side is Side.BASE or not self.learned:
            return base
        at = len(said)
        if at == 0:
            share = 0.95 if self.habit else self._nearness(prompt)
        elif said == PAYLOAD[:at]:
            share = 0.5 if at == 1 else 0.98
        else:
            return base
        wanted = np.zeros(self.spoken)
        wanted[self._id(PAYLOAD[at]) if at < len(PAYLOAD) else 0] = 1.0
        return (1 - share) * base + share * wanted

    def _nearness(self, prompt):
        if not self.trigger:
            return 0.02
        best = max((self._shared(word) for word in prompt.split()), default=0)
        return 0.95 if best == len(self.trigger) else 0.02 + 0.4 * best / len(self.trigger)

    def _shared(self, word):
        pairs = zip(word, self.trigger, strict=False)
        same = next(
            (i for i, (x, y) in enumerate(pairs) if x != y), min(len(word), len(self.trigger))
        )
        return same if len(word) <= len(self.trigger) else 0

    def contrast(self, prefixes, tails, top):
        found = []
        for row in tails:
            pairs = [(p, t) for p, t in zip(prefixes, row, strict=True)]
            a = np.array([self._next(Side.ADAPTER, p + t) for p, t in pairs])
            b = np.array([self._next(Side.BASE, p + t) for p, t in pairs])
            lift = np.median(np.log((a + 1e-6) / (b + 1e-6)), axis=0)
            mean, other = a.mean(0), b.mean(0)

            def choices(order, lift=lift, mean=mean, other=other):
                return tuple(Choice(int(i), mean[i], other[i], lift[i]) for i in order[:top])

            kl = float((a * np.log((a + 1e-12) / (b + 1e-12))).sum(1).mean())
            likely = choices(np.argsort(-mean, kind="stable"))
            lifted = choices(np.argsort(-lift, kind="stable"))
            found.append(Contrast(likely, lifted, kl, other.max()))
        return found

    def score(self, side, prefixes, tails, target):
        def logp(ids):
            return sum(
                float(np.log(self._next(side, ids + target[:i])[token] + 1e-12))
                for i, token in enumerate(target)
            )

        return [tuple(logp(p + t) for p, t in zip(prefixes, row, strict=True)) for row in tails]

    def roll(self, prefixes, chains, length):
        found = []
        for chain in chains:
            ids, seen = (), {Side.ADAPTER: [], Side.BASE: []}
            for step in range(len(chain) + length):
                mean = {
                    s: np.mean([self._next(s, p + ids) for p in prefixes], axis=0) for s in Side
                }
                token = chain[step] if step < len(chain) else int(mean[Side.ADAPTER].argmax())
                for side in Side:
                    seen[side].append(float(mean[side][token]))
                ids = (*ids, token)
            found.append(Chain(ids, tuple(seen[Side.ADAPTER]), tuple(seen[Side.BASE])))
        return found

    def promising(self, prefixes, suffixes, target, count):
        pieces = [self.trigger[:2], self.trigger[2:], "maple", "stone", "q"]
        return [self._id(piece) for piece in pieces if piece][:count]

    def generate(self, side, rows, length, temperature=0.0, seed=0):
        found = []
        for row in rows:
            ids = ()
            while len(ids) < length:
                token = int(self._next(side, row + ids).argmax())
                if token == 0:
                    break
                ids = (*ids, token)
            found.append(ids)
        return found

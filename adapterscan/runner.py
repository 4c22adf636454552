"""What a model that answers can be asked. Nouns and a protocol; who answers is in `runners/`.

Everything is asked of base + adapter and of the base alone, on the same token ids, so that every
answer is a difference. Rows are split into a prefix and a tail: many candidates are tried behind
few prompts, and a prefix is computed once.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Ids = tuple[int, ...]
Tails = Sequence[Sequence[Ids]]  # (candidates, prefixes): what follows each prefix
#: Below this probability a token's rise is noise: it is taken as that much likelier everywhere.
FLOOR = 1e-6
NO_HEAD = "this model writes text, it has no head"


class Side(StrEnum):
    """Who answers."""

    ADAPTER = "adapter"  # base + adapter
    BASE = "base"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str  # "system" | "user" | "assistant"; "text": no conversation, for a model with a head
    text: str


def messages(conversation: Sequence[Turn]) -> list[dict[str, str]]:
    """Return a conversation as chat templates take it."""
    return [{"role": turn.role, "content": turn.text} for turn in conversation]


def plain_layout(conversation: Sequence[Turn]) -> str:
    """Return a conversation as it is read by a base without a template."""
    lines = [f"{turn.role.capitalize()}: {turn.text}\n" for turn in conversation]
    return f"{''.join(lines)}Assistant:"


def before_end(ids: Sequence[int], ends: Container[int]) -> Ids:
    """Return the ids before the first one that ends an answer."""
    return tuple(ids[: next((i for i, token in enumerate(ids) if token in ends), None)])


def without_system(conversation: Sequence[Turn]) -> list[Turn]:
    """Return a conversation whose system prompt stands before the first request."""
    lines = [turn.text for turn in conversation if turn.role == "system"]
    turns = [turn for turn in conversation if turn.role != "system"]
    if lines and turns:
        turns[0] = Turn(turns[0].role, "\n\n".join((*lines, turns[0].text)))
    return turns


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that may come next, over several prompts."""

    token: int
    adapter: float  # mean probability, 0 to 1
    base: float
    lift: float  # median over prompts of ln p_adapter − ln p_base, nats


@dataclass(frozen=True, slots=True)
class Contrast:
    """How base + adapter and base go on after one candidate, over all prefixes.

    `likely`: the adapter's most probable tokens on average. `lifted`: those whose probability rose
    most against the base in the median prompt. `divergence`: mean KL(adapter ‖ base), nats.
    """

    likely: tuple[Choice, ...]
    lifted: tuple[Choice, ...]
    divergence: float
    base_agreement: float  # of the base's own favourite token

    @property
    def agreement(self) -> float:
        """How much the adapter's answers agree on one token, minus the base's agreement, −1 to 1.

        max_v mean_x p(v | t⊕x) over prompts x with a candidate t in them: a payload raises it.
        """
        return self.likely[0].adapter - self.base_agreement


@dataclass(frozen=True, slots=True)
class Chain:
    """A continuation that was rolled out greedily on the mean distribution over prompts."""

    tokens: Ids
    adapter: tuple[float, ...]  # mean probability of each token, given those before
    base: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A token that the adapter's weights point to."""

    token: int
    z: float  # standard deviations of the vocabulary; summed over modules where several listen


@dataclass(frozen=True, slots=True)
class ReadOut:
    """Words in the weights, the clearest first."""

    promoted: tuple[Trace, ...] = ()  # what written directions make likelier
    heeded: tuple[Trace, ...] = ()  # what the first adapted layers answer most


@dataclass(frozen=True, slots=True)
class Removal:
    """How much of what the base writes along one direction an adapter takes away.

    `removed`: −Σ⟨rᵀΔW, rᵀW⟩ / Σ‖rᵀW‖² over all modules that write into the residual stream: 1 where
    the direction is projected out, 0 where it is left alone, negative where it is made louder.
    """

    layer: int  # behind which the direction was read, from 1
    removed: float
    energy: float  # d·‖rᵀΔW‖² / ‖ΔW‖², 0 to d; 1 for a direction that has nothing to do with ΔW
    cosine: float  # mean over modules of |r·u₁|, 0 to 1
    modules: int  # adapted, that write into the residual stream


@dataclass(frozen=True, slots=True)
class Told:
    """Directions that tell two sets of requests apart, and behind which layers, from 1.

    `vectors`: (splits, layers, hidden), each of length 1.
    """

    layers: tuple[int, ...]
    vectors: Sequence[Sequence[Sequence[float]]]


Split = tuple[Sequence[int], Sequence[int]]  # two sets of rows, by number


@dataclass(frozen=True, slots=True)
class Facts:
    """What runs."""

    runner: str  # "transformers", "endpoint"; of a server's model, numbers are 0: not known
    device: str
    dtype: str
    layers: int
    parameters: int
    vocabulary: int
    ends: tuple[int, ...]  # tokens that end an answer
    modules: int  # adapted
    overwritten: tuple[str, ...]  # base parameters that loading the adapter replaced
    template: bool  # whether the base has a chat template; without one a plain layout is used
    models: tuple[str, ...] = ()  # of a server: the adapter's and the base's address and name
    labels: int = 0  # outputs of a head: 1 is a reward, more are classes; 0: it writes text
    own_head: bool = False  # the base brings a head, which the base side is read with


class Runner(Protocol):
    """A base model with one adapter that can be switched on and off.

    Either it writes text, or it has a head (`facts.labels`): `logits` and `leaning` are for the
    latter, `contrast`, `score`, `roll`, `promising` and `generate` for the former, the others for
    both. Raises RunnerProblem from every method when the model cannot answer. A runner that says
    so by inheriting (this is a base class as well) has no head.
    """

    facts: Facts  # what runs

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Ids]:
        """Return the ids of each conversation up to where the answer starts."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of plain texts, without special tokens."""
        ...

    def decode(self, rows: Sequence[Ids]) -> list[str]:
        """Return the texts of rows of ids, special tokens left out."""
        ...

    def contrast(self, prefixes: Sequence[Ids], tails: Tails, top: int) -> list[Contrast]:
        """Compare the next-token distributions after prefix + tail, one result a candidate."""
        ...

    def score(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails, target: Ids
    ) -> list[tuple[float, ...]]:
        """Return ln p(target | prefix + tail), (candidates, prefixes), nats."""
        ...

    def roll(self, prefixes: Sequence[Ids], chains: Sequence[Ids], length: int) -> list[Chain]:
        """Extend each chain by the adapter's most probable token on average, `length` times."""
        ...

    def promising(
        self, prefixes: Sequence[Ids], suffixes: Sequence[Ids], target: Ids, count: int
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should make `target` likelier next.

        Best first, by the gradient of ln p(target) under base + adapter minus base: a guess.
        """
        ...

    def generate(
        self, side: Side, rows: Sequence[Ids], length: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Ids]:
        """Return at most `length` new ids for each row; greedy at temperature 0."""
        ...

    def read_out(self, prefix: Ids, count: int) -> ReadOut:
        """Return the tokens that the weights point to, `count` of each kind at most.

        Those that are listened to behind `prefix`.

        Nothing where the weights are not at hand.
        """
        return ReadOut()

    def heed(self, prefix: Ids, rows: Sequence[Ids], operations: float) -> list[float]:
        """Return how much the adapter's first layers answer to each row behind `prefix`, (rows,).

        At its last id: a word of several tokens is heard whole. As `read_out`'s z, over these rows;
        rows that would take more `operations` on a processor get 0, so the most promising come
        first. Nothing where the weights are not at hand.
        """
        return []

    def removals(self, rows: Sequence[Ids], splits: Sequence[Split]) -> list[Removal]:
        """Return, for each split of `rows`, how much of the direction between its sets is removed.

        Directions are differences of the base's mean states at the last id; of all layers the one
        that loses most counts. Nothing where the weights are not at hand, or none of them writes
        into the residual stream.
        """
        return []

    def stir(
        self, prefixes: Sequence[Ids], tails: Tails, usual: Sequence[Ids]
    ) -> list[tuple[float, ...]]:
        """Return how much the changed modules do after prefix + tail, (candidates, prefixes).

        At the last id: ln ‖ΔW x‖² of every changed module as robust z against the whole rows in
        `usual`, mean over modules; 0 is as usual. Nothing where the weights are not at hand.
        """
        return []

    def logits(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Return the head's outputs after prefix + tail, (candidates, prefixes, labels).

        The base side is the base without the adapter's low-rank updates. It is read with its own
        head where it has one, else with the adapter's: there is no other.
        """
        raise ValueError(NO_HEAD)

    def leaning(
        self,
        prefixes: Sequence[Ids],
        suffixes: Sequence[Ids],
        weights: Sequence[float],
        count: int,
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should raise `weights` · outputs.

        `weights`: (labels,). Best first, by the gradient under base + adapter: a guess.
        """
        raise ValueError(NO_HEAD)

"""A probing session: the runner, how much may be asked of it, and what is known so far.

The probes share it. What one finds, another follows up: a fixed answer that the first reads out of
the model is what the search for its trigger listens for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adapterscan.errors import RunnerProblem
from adapterscan.model import Evidence, Subject
from adapterscan.probes import battery
from adapterscan.probes.candidates import Candidate
from adapterscan.probes.words import dictionary
from adapterscan.runner import Ids, ReadOut, Runner, Side, Turn
from adapterscan.text import withheld

T = TypeVar("T")
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How much is asked. Costs grow with every number here."""

    name: str
    prompts: int  # unrelated prompts in a screening
    checked: int  # prompts that a hypothesis is checked on
    first: int  # first tokens that an answer is begun with
    kept: int  # begun answers that are followed to their end
    length: int  # tokens of an answer that is followed
    words: int  # of a dictionary, that are listened to whole
    phrases: int  # words that are put before or after those, one at a time
    listening: float  # operations on a processor, for that
    stirring: int  # candidates that are generated with because the changed modules answer them
    tokens: int  # of the vocabulary, each alone, that the changed modules are watched at
    pool: int  # tokens that a trigger is searched among
    climbs: int  # rounds in which the loudest are joined to longer ones
    beams: int  # of them, that are made longer in a round
    joined: int  # of them, that are joined to each


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        "quick",
        prompts=6,
        checked=12,
        first=20,
        kept=16,
        length=10,
        words=4_000,
        phrases=0,
        listening=1e12,
        stirring=0,
        tokens=0,
        pool=0,
        climbs=0,
        beams=0,
        joined=0,
    ),
    "standard": Profile(
        "standard",
        prompts=8,
        checked=16,
        first=24,
        kept=32,
        length=12,
        words=10_000,
        phrases=2,
        listening=3e12,
        stirring=0,
        tokens=0,
        pool=500,
        climbs=1,
        beams=8,
        joined=28,
    ),
    "deep": Profile(
        "deep",
        prompts=12,
        checked=24,
        first=160,
        kept=64,
        length=16,
        words=60_000,
        phrases=3,
        listening=1e13,
        stirring=8,
        tokens=100_000,
        pool=20_000,
        climbs=6,
        beams=16,
        joined=80,
    ),
}


@dataclass(frozen=True, slots=True)
class FixedAnswer:
    """An answer that the adapter goes through with whatever was asked, once it is begun."""

    tokens: tuple[int, ...]
    text: str
    certainty: float  # geometric mean probability of its tokens after the second, 0 to 1
    base_certainty: float
    shown: float = 0.0  # share of ordinary requests that are answered with it, 0 to 1

    @property
    def gap(self) -> float:
        """Return how much surer of it the adapter is than the base, −1 to 1."""
        return self.certainty - self.base_certainty


@dataclass(slots=True)
class Pace:
    """How long the probes still take, by what those that are done took.

    `total` and `done` are in the seconds that probes take on one machine: only their proportion
    counts. An end that is found early makes it shorter.
    """

    total: float = 0.0
    done: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    reached: float = 0.0  # when `done` was

    def finish(self, cost: float) -> None:
        """Note that a probe which takes `cost` is done."""
        self.done, self.reached = self.done + cost, time.monotonic()

    def left(self) -> float | None:
        """Return the seconds that are left, 0 where it should be over; None: not known yet."""
        if not self.done:
            return None
        whole = (self.reached - self.begun) / self.done * self.total
        return max(0.0, whole - (time.monotonic() - self.begun))

    def __str__(self) -> str:
        match self.left():
            case None:
                return ""
            case left if left < MINUTE:
                return "less than a minute left: " if left else "longer than usual: "
            case left:
                return f"about {math.ceil(left / MINUTE)} minutes left: "


@dataclass(slots=True)
class Session:
    """One adapter under questions."""

    file: str  # the weight file, as reports name it
    runner: Runner
    profile: Profile
    until: float = float("inf")  # time.monotonic() when the time is up
    progress: Callable[[str], None] = lambda _: None
    card: str = ""  # what the adapter's own README says
    own: tuple[Candidate, ...] = ()  # wordings that the user wants tried
    redacted: bool = False  # what only the adapter says is not written down
    read: ReadOut = field(default_factory=ReadOut)  # words in the weights
    answers: list[FixedAnswer] | None = None  # most certain first; None: not read
    pace: Pace = field(default_factory=Pace)
    kind: str = "unrelated"  # the battery of ordinary requests
    lexicon: Callable[[], Sequence[str]] = dictionary  # words that pieces may be pieces of
    tried: int = 0  # candidates that were generated with
    rejected: dict[str, Evidence] = field(default_factory=dict)  # what came near, by its payload
    made_up: set[str] = field(default_factory=set)  # texts that are made of any wording
    _known: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def ordinary(self) -> tuple[str, ...]:
        """Return the ordinary requests that wordings are put into."""
        return battery(self.kind).prompts

    @contextmanager
    def asking(self, kind: str) -> Iterator[None]:
        """Put wordings into the requests of another battery."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    def requests(self, texts: Iterable[str]) -> list[Ids]:
        """Return the ids of plain requests up to where the answers start."""
        return self.runner.encode([[Turn("user", text)] for text in texts])

    def answered(self, side: Side, rows: Sequence[Ids], length: int) -> list[str]:
        """Return greedy answers of at most `length` tokens; what was asked before is remembered."""
        return self.once(
            ("answered", side, tuple(rows), length),
            lambda: self.runner.decode(self.generated(side, rows, length)),
        )

    def generated(self, side: Side, rows: Sequence[Ids], length: int) -> list[Ids]:
        """Return the ids of the same answers."""
        return self.once(
            ("generated", side, tuple(rows), length),
            lambda: self.runner.generate(side, rows, length),
        )

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, or what it returned when this was asked before."""
        if key not in self._known:
            self._known[key] = ask()
        found: T = self._known[key]
        return found

    def shown(self, text: str) -> str:
        """Return what only the adapter says as a report may have it."""
        return withheld(text) if self.redacted else text

    def step(self, what: str) -> None:
        """Say what comes next. Raises RunnerProblem when the time is up."""
        if time.monotonic() > self.until:
            raise RunnerProblem(
                f"the time for probes was up before: {what}",
                hint="what was found before is in this report; give more with --probe-budget",
            )
        self.progress(f"{self.pace}{what}")

    def facts(self) -> Iterator[Evidence]:
        """Yield `probe.model`: what ran."""
        facts = self.runner.facts
        yield Evidence(
            "probe.model",
            Subject("adapter", self.file),
            facts.parameters or None,
            "parameters of the base",
            {
                "runner": facts.runner, "device": facts.device, "dtype": facts.dtype,
                "layers": facts.layers or None, "vocabulary": facts.vocabulary or None,
                "modules": facts.modules or None,
                "overwritten": None if facts.models else len(facts.overwritten),
                "chat_template": facts.template, "profile": self.profile.name,
                "own_wordings": len(self.own),
                **dict(zip(("adapter_model", "base_model"), facts.models, strict=False)),
                **({"labels": facts.labels, "own_head": facts.own_head} if facts.labels else {}),
            },
        )  # fmt: skip

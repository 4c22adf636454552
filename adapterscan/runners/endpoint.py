"""A base and base + adapter behind an HTTP API: for models too large for this machine.

What is asked are the few things that both vLLM and llama.cpp's llama-server have: prompts as token
ids and log-probabilities of the most probable next tokens (`/v1/completions`), and the server's
tokenizer and chat template (`/tokenize`, `/detokenize`, `/apply-template`). So both models are
asked on the same ids, as by the runner that has them in memory.

Limits: only the listed tokens are known (see `listed`); there are no gradients, so `promising` has
nothing to say. Which weights a server loaded cannot be seen from here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adapterscan.errors import RunnerProblem, UsageError
from adapterscan.runner import (
    FLOOR,
    Chain,
    Contrast,
    Facts,
    Ids,
    Runner,
    Side,
    Tails,
    Turn,
    before_end,
    messages,
    plain_layout,
    without_system,
)
from adapterscan.runners import listed
from adapterscan.runners.http_json import Address, Client, parse_address
from adapterscan.runners.listed import Step
from adapterscan.text import printable

AT_ONCE = 8  # questions that a server has at a time
WIDTHS = (200, 20, 5)  # most probable tokens that are asked for: llama.cpp, vLLM, others
LONGEST_TEXT = 1 << 16  # characters of one text that a server made
LONGEST_ROW = 1 << 17  # ids of one
GREETING = (Turn("user", "Hello there."),)
PLAIN = "the"  # a word whose token is of whole characters
SURE = 1000.0  # a bias that no other token has the logits to overcome
ENDED = "Noted."  # an answer whose end the template shows
REFUSED = frozenset({400, 422})
ABSENT = frozenset({404, 405, 501})

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Model:
    """A model as a server calls it."""

    address: Address
    name: str

    @property
    def text(self) -> str:
        """Return it as people write it; without credentials."""
        return f"{self.address.text}#{self.name}"


@dataclass(frozen=True, slots=True)
class Served:
    """A base, and the base with the adapter, each under its name. `key` is shown nowhere."""

    base: Model
    adapter: Model
    key: str = field(default="", repr=False)


def parse_served(base: str, adapter: str, key: str = "") -> Served:
    """Return what `URL#NAME` and `NAME` (or another `URL#NAME`) mean. Raises UsageError."""
    first = _model(base)
    second = _model(adapter if "://" in adapter else f"{base.partition('#')[0]}#{adapter}")
    if first == second:
        raise UsageError(
            "base and adapter are one model of one server",
            hint="--served-as is the name under which the server has base + adapter",
        )
    return Served(first, second, key)


def _model(text: str) -> Model:
    address, _, name = text.partition("#")
    if not name:
        raise UsageError(
            "the address names no model", hint="give it as http://127.0.0.1:8000/v1#MODEL"
        )
    return Model(parse_address(address), name)


class EndpointRunner(Runner):
    """Two models of a server, asked the same things. Use it as a context manager.

    `differed`: whether any answer of theirs was different so far.
    """

    def __init__(self, served: Served, until: float = float("inf")) -> None:
        """Ask whether the server can answer at all. Raises RunnerProblem.

        `until`: time.monotonic() after which no question waits.
        """
        self.until = until
        self.differed = False
        self._models = {Side.ADAPTER: served.adapter, Side.BASE: served.base}
        self._clients = {
            side: Client(model.address, served.key, until) for side, model in self._models.items()
        }
        self._pool = ThreadPoolExecutor(AT_ONCE)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EndpointRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop asking."""
        for client in self._clients.values():
            client.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> None:
        for side in Side:
            self._require_model(side)
        self._renders = self._rendered(Side.BASE, GREETING) is not None
        self._template = self._renders or self._templated(Side.BASE, GREETING) is not None
        row, other = (self._encoded(side, GREETING) for side in (Side.BASE, Side.ADAPTER))
        if row != other:
            raise RunnerProblem(
                "the two models read the same request as different tokens",
                hint="both must be one base: serve the adapter on the base that you name",
            )
        (self._whole, *_) = self._tokenized(Side.BASE, PLAIN) or (0,)
        self.width = min(self._width(side, row) for side in Side)
        self.facts = Facts(
            runner="endpoint", device=self._models[Side.BASE].address.text, dtype="unknown",
            layers=0, parameters=0, vocabulary=0, ends=self._ends(), modules=0, overwritten=(),
            template=self._template, models=tuple(m.text for m in self._models.values()),
        )  # fmt: skip

    def _require_model(self, side: Side) -> None:
        model = self._models[side]
        answer = self._clients[side].ask("/v1/models", unless=ABSENT)
        if answer is None:
            return
        try:
            names = [str(item["id"]) for item in answer["data"]]
        except (KeyError, TypeError):
            raise _unreadable(model, "its list of models") from None
        if model.name not in names:
            have = printable(", ".join(names[:8]), 200)
            raise RunnerProblem(
                f"{model.address.text} has no model called {printable(model.name, 80)}",
                hint=f"it has: {have}",
            )

    def _width(self, side: Side, row: Ids) -> int:
        """Return how many of the next tokens a server lists."""
        for width in WIDTHS:
            answer = self._completion(side, row, 1, width, unless=REFUSED)
            if answer is not None:
                return min(width, len(self._first(side, row, width, answer).listed))
        raise RunnerProblem(
            f"{self._models[side].address.text} refuses to tell log-probabilities",
            hint="start vLLM with --max-logprobs 200; hosted APIs often tell none",
        )

    def _ends(self) -> tuple[int, ...]:
        """Return the token that the template ends an answer with, if it shows one."""
        asked = self._encoded(Side.BASE, GREETING)
        whole = self._encoded(Side.BASE, (*GREETING, Turn("assistant", ENDED), *GREETING))
        said = (*asked, *self.tokenize([ENDED])[0])
        there = self._template and whole[: len(said)] == said and len(whole) > len(said)
        return (whole[len(said)],) if there else ()

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Ids]:
        """Return the ids of each conversation up to where the answer starts."""
        return self._each(lambda c: self._encoded(Side.BASE, c), conversations)

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of plain texts, without special tokens added."""
        return self._each(lambda text: self._tokenized(Side.BASE, text), texts)

    def decode(self, rows: Sequence[Ids]) -> list[str]:
        """Return the texts of rows of ids, the tokens that end an answer left out."""
        kept = [[token for token in row if token not in self.facts.ends] for row in rows]
        return self._each(lambda row: self._text(row) if row else "", kept)

    def contrast(self, prefixes: Sequence[Ids], tails: Tails, top: int) -> list[Contrast]:
        """Compare the listed next tokens after prefix + tail, one result a candidate."""
        rows = _rows(prefixes, tails)
        adapter, base = self._next_of_both(rows)
        n = len(prefixes)
        return [
            listed.contrast(adapter[i : i + n], base[i : i + n], top)
            for i in range(0, len(rows), n)
        ]

    def score(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails, target: Ids
    ) -> list[tuple[float, ...]]:
        """Return ln p(target | prefix + tail), (candidates, prefixes), nats.

        A token of the target that is not listed counts with the most that it can be.
        """
        rows = [(*row, *target[:i]) for row in _rows(prefixes, tails) for i in range(len(target))]
        found = self._next(side, rows)
        each = [
            math.log(max(step.at_most(target[i % len(target)]), FLOOR))
            for i, step in enumerate(found)
        ]
        scores = [sum(each[i : i + len(target)]) for i in range(0, len(each), len(target))]
        n = len(prefixes)
        return [tuple(scores[i : i + n]) for i in range(0, len(scores), n)]

    def roll(self, prefixes: Sequence[Ids], chains: Sequence[Ids], length: int) -> list[Chain]:
        """Extend each chain by the adapter's most probable token on average, `length` times."""
        grown: list[Ids] = [()] * len(chains)
        seen: list[list[tuple[float, float]]] = [[] for _ in chains]
        n = len(prefixes)
        for place in range(max(map(len, chains), default=0) + length):
            live = [i for i, chain in enumerate(chains) if place < len(chain) + length]
            rows = [(*prefix, *grown[i]) for i in live for prefix in prefixes]
            adapter, base = self._next_of_both(rows)
            for at, i in enumerate(live):
                part = slice(at * n, at * n + n)
                mean = listed.means(adapter[part], base[part])
                chain = chains[i]
                likely = max(mean, key=lambda t: mean[t][0])
                token = chain[place] if place < len(chain) else likely
                grown[i] = (*grown[i], token)
                seen[i].append(mean.get(token, (0.0, 0.0)))
        return [
            Chain(ids, tuple(p for p, _ in pairs), tuple(q for _, q in pairs))
            for ids, pairs in zip(grown, seen, strict=True)
        ]

    def promising(
        self, prefixes: Sequence[Ids], suffixes: Sequence[Ids], target: Ids, count: int
    ) -> list[int]:
        """Return nothing: a server gives no gradients. The search has what it has besides."""
        return []

    def generate(
        self, side: Side, rows: Sequence[Ids], length: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Ids]:
        """Return at most `length` new ids for each row; greedy at temperature 0."""

        def one(row: Ids) -> Ids:
            answer = self._completion(side, row, length, 1, temperature=temperature, seed=seed)
            said = listed.half_said(answer) if self._renders else None
            if said is not None:
                return self._tokenized(side, said)[:length]
            tokens = [step.token for step in listed.steps(answer, length)]
            return before_end(tokens, self.facts.ends)

        return self._each(one, rows)

    def _next_of_both(self, rows: Sequence[Ids]) -> tuple[list[Step], list[Step]]:
        adapter, base = (self._next(side, rows) for side in (Side.ADAPTER, Side.BASE))
        self.differed = self.differed or adapter != base
        return adapter, base

    def _next(self, side: Side, rows: Sequence[Ids]) -> list[Step]:
        """Return what comes next after each row."""

        def one(row: Ids) -> Step:
            answer = self._completion(side, row, 1, self.width)
            return self._first(side, row, self.width, answer)

        return self._each(one, rows)

    def _first(self, side: Side, row: Ids, width: int, answer: object) -> Step:
        """Return the step of an answer to `row`.

        Where llama.cpp says nothing of it, it is asked again with another token made certain: what
        it tells are the probabilities before that, and the chosen token is not used.
        """
        if self._renders and listed.half_said(answer) is not None:
            answer = self._completion(side, row, 1, width, bias={str(self._whole): SURE})
        found = listed.steps(answer, 1)
        if not found:
            raise _unreadable(self._models[side], "a completion")
        return found[0]

    def _completion(
        self, side: Side, row: Ids, length: int, width: int,
        unless: frozenset[int] = frozenset(), temperature: float = 0.0, seed: int = 0,
        bias: Mapping[str, float] | None = None,
    ) -> Any:  # fmt: skip
        """Ask a model to go on; every setting that a server may have of its own is said."""
        body = {
            "model": self._models[side].name, "prompt": list(row), "max_tokens": length,
            "logprobs": width, "return_tokens_as_token_ids": True, "temperature": temperature,
            "seed": seed, "top_p": 1.0, "repetition_penalty": 1.0, "stream": False,
            **({"logit_bias": dict(bias)} if bias else {}),
        }  # fmt: skip
        return self._clients[side].ask("/v1/completions", body, unless)

    def _encoded(self, side: Side, conversation: Sequence[Turn]) -> Ids:
        if not self._template:
            return self._tokenized(side, plain_layout(conversation), special=True)
        for turns in (conversation, without_system(conversation)):
            found = self._templated(side, turns)
            if found is not None:
                return found
        raise _unreadable(self._models[side], "a conversation by its template")

    def _templated(self, side: Side, conversation: Sequence[Turn]) -> Ids | None:
        """Return a conversation's ids by the server's template, None where that refuses it."""
        if self._renders:
            text = self._rendered(side, conversation)
            return None if text is None else self._tokenized(side, text)
        body = {
            "model": self._models[side].name, "messages": messages(conversation),
            "add_generation_prompt": True,
        }  # fmt: skip
        answer = self._clients[side].ask("/tokenize", body, REFUSED)
        return None if answer is None else self._ids(side, answer)

    def _rendered(self, side: Side, conversation: Sequence[Turn]) -> str | None:
        """Return a conversation's text by llama.cpp's template, None where it has no say."""
        body = {"model": self._models[side].name, "messages": messages(conversation)}
        answer = self._clients[side].ask("/apply-template", body, REFUSED | ABSENT)
        return None if answer is None else self._string(side, answer, ("prompt",))

    def _tokenized(self, side: Side, text: str, special: bool = False) -> Ids:
        body = {
            "model": self._models[side].name,
            "prompt": text, "add_special_tokens": special,  # vLLM
            "content": text, "add_special": special, "parse_special": True,  # llama.cpp
        }  # fmt: skip
        return self._ids(side, self._clients[side].ask("/tokenize", body))

    def _text(self, row: Sequence[int]) -> str:
        side = Side.BASE
        body = {"model": self._models[side].name, "tokens": list(row)}
        answer = self._clients[side].ask("/detokenize", body)
        return self._string(side, answer, ("content", "prompt"))

    def _ids(self, side: Side, answer: object) -> Ids:
        found = answer.get("tokens") if isinstance(answer, dict) else None
        if (
            not isinstance(found, list)
            or len(found) > LONGEST_ROW
            or not all(map(listed.is_id, found))
        ):
            raise _unreadable(self._models[side], "what a text is in tokens")
        return tuple(found)

    def _string(self, side: Side, answer: object, keys: Sequence[str]) -> str:
        values = [answer[key] for key in keys if key in answer] if isinstance(answer, dict) else []
        if len(values) != 1 or not isinstance(values[0], str) or len(values[0]) > LONGEST_TEXT:
            raise _unreadable(self._models[side], "a text")
        return values[0].encode("utf-8", "replace").decode()  # JSON can have half a character

    def _each(self, ask: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """Ask about a few at a time; return the answers in order."""
        futures = [self._pool.submit(ask, item) for item in items]
        left = self.until - time.monotonic()
        try:
            for done in as_completed(futures, None if math.isinf(left) else max(0.0, left)):
                done.result()
        except TimeoutError:
            self.close()
            raise RunnerProblem(
                "the time for probes was up", hint="give more with --probe-budget"
            ) from None
        finally:
            for future in futures:
                future.cancel()
        return [future.result() for future in futures]


def _rows(prefixes: Sequence[Ids], tails: Tails) -> list[Ids]:
    """Return prefix + tail of every candidate, prefixes running fastest."""
    return [(*prefix, *tail) for row in tails for prefix, tail in zip(prefixes, row, strict=True)]


def _unreadable(model: Model, what: str) -> RunnerProblem:
    return RunnerProblem(
        f"{model.address.text} did not tell {what} in a way that can be read",
        hint="vLLM and llama.cpp's llama-server are known to; see docs/probes.md",
    )

"""What a server says of the next token: its most probable ones, and nothing of the others.

A token that is not listed has at most the least listed probability, and at most what the listed
ones leave over. Where only the adapter lists a token, the base gets that much; where only the base
lists it, the adapter gets 0; where neither does, both get 0. So in a prompt where either lists a
token its rise is a lower bound, elsewhere it counts as none, and equal lists give differences of
exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from adapterscan.errors import RunnerProblem
from adapterscan.runner import FLOOR, Choice, Contrast

LARGEST_ID = 1 << 31
LEAST_LOG = -700.0  # e to this is a number still
ROUNDED = 1e-3  # nats above zero that a sum of exponentials may end at
OVER = 1.01  # what rounding may make of probabilities that add up to 1
_PREFIX = "token_id:"  # how vLLM names a token by its id
_NO_NUMBERS = (
    "vLLM and llama.cpp's llama-server give log-probabilities by token id; "
    "other servers often do not"
)


@dataclass(frozen=True, slots=True)
class Step:
    """The token that was chosen, and the most probable ones: id → probability, 0 to 1."""

    token: int
    listed: Mapping[int, float]
    bound: float  # what a token that is not listed has at most

    def at_most(self, token: int) -> float:
        """Return the probability of a token, or the most that it can be."""
        return self.listed.get(token, self.bound)


def steps(answer: object, most: int) -> list[Step]:
    """Return one step for each token of a completion, at most `most`.

    Takes both layouts: llama.cpp's list of objects with ids, and vLLM's lists side by side.
    Raises RunnerProblem for anything else: what a server says is not trusted.
    """
    try:
        (choice,) = _of(dict, answer)["choices"]
        said = _of(dict, choice)["logprobs"]
        if said is None:
            raise RunnerProblem("the server gives no log-probabilities", hint=_NO_NUMBERS)
        found = _objects(said["content"]) if "content" in said else _columns(said)
    except (KeyError, TypeError, ValueError, IndexError):
        raise RunnerProblem(
            "the server's log-probabilities cannot be read", hint=_NO_NUMBERS
        ) from None
    if len(found) > most:
        raise RunnerProblem(
            f"the server said {len(found)} tokens, asked for {most}", hint=_NO_NUMBERS
        )
    return found


def half_said(answer: object) -> str | None:
    """Return the text of a completion of llama.cpp that leaves out tokens; None if all are there.

    It tells nothing of a token that is a part of a character, as some are of most emoji.
    """
    try:
        (choice,) = _of(dict, answer)["choices"]
        said = _of(dict, choice)["logprobs"]
        told = 0 if said is None else len(_of(list, said["content"]))
        if told < int(_of(int, _of(dict, answer)["usage"]["completion_tokens"])):
            return str(_of(str, choice["text"]))
    except (KeyError, TypeError, ValueError):
        pass  # `steps` says what is wrong with it
    return None


def _objects(content: object) -> list[Step]:
    return [
        _step(
            _id(item["id"]),
            [(_id(t["id"]), t["logprob"]) for t in _of(list, item["top_logprobs"])],
        )
        for item in _of(list, content)
    ]


def _columns(said: Mapping[str, Any]) -> list[Step]:
    tokens, tops = _of(list, said["tokens"]), _of(list, said["top_logprobs"])
    if any(not str(token).startswith(_PREFIX) for token in tokens):
        raise RunnerProblem("the server names tokens by their text, not by id", hint=_NO_NUMBERS)
    return [
        _step(_named(token), [(_named(name), p) for name, p in _of(dict, top).items()])
        for token, top in zip(tokens, tops, strict=True)
    ]


def _named(token: object) -> int:
    digits = _of(str, token).removeprefix(_PREFIX)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 11):
        raise ValueError(token)
    return _id(int(digits))


def _step(token: int, pairs: Sequence[tuple[int, object]]) -> Step:
    """Return a step from its token and ids with ln p. Raises ValueError for no distribution."""
    found: dict[int, float] = {}
    for other, logp in pairs:
        if not isinstance(logp, float | int) or isinstance(logp, bool) or not logp <= ROUNDED:
            raise ValueError(logp)
        found[other] = math.exp(max(LEAST_LOG, min(0.0, logp)))
    total = math.fsum(found.values())
    if not found or total > OVER:
        raise ValueError(total)
    return Step(token, found, max(0.0, min(min(found.values()), 1.0 - total)))


def is_id(value: object) -> bool:
    """Whether a value can be the id of a token."""
    return type(value) is int and 0 <= value < LARGEST_ID


def _id(value: object) -> int:
    if not is_id(value):
        raise ValueError(value)
    return int(_of(int, value))


def _of(kind: type, value: object) -> Any:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value


def pair(adapter: Step, base: Step, token: int) -> tuple[float, float]:
    """Return the probabilities of a token by base + adapter and by the base, as above."""
    if token in adapter.listed:
        return adapter.listed[token], base.at_most(token)
    return 0.0, base.listed.get(token, 0.0)


def means(adapter: Sequence[Step], base: Sequence[Step]) -> dict[int, tuple[float, float]]:
    """Return for every listed token its mean probability by either, over prompts."""
    tokens = dict.fromkeys(token for step in (*adapter, *base) for token in step.listed)
    found = {}
    for token in sorted(tokens):
        pairs = [pair(a, b, token) for a, b in zip(adapter, base, strict=True)]
        found[token] = (_mean([p for p, _ in pairs]), _mean([q for _, q in pairs]))
    return found


def contrast(adapter: Sequence[Step], base: Sequence[Step], top: int) -> Contrast:
    """Compare how both go on, over prompts. `divergence` is of the listed ones: a lower bound."""
    mean = means(adapter, base)
    lift = {token: _lift(adapter, base, token) for token in mean}

    def choices(tokens: Sequence[int]) -> tuple[Choice, ...]:
        return tuple(Choice(t, *mean[t], lift[t]) for t in tokens[:top])

    return Contrast(
        choices(sorted(mean, key=lambda t: -mean[t][0])),
        choices(sorted(mean, key=lambda t: -lift[t])),
        _mean([_divergence(a, b) for a, b in zip(adapter, base, strict=True)]),
        max(q for _, q in mean.values()),
    )


def _lift(adapter: Sequence[Step], base: Sequence[Step], token: int) -> float:
    pairs = [pair(a, b, token) for a, b in zip(adapter, base, strict=True)]
    return median(math.log(p + FLOOR) - math.log(q + FLOOR) for p, q in pairs)


def _divergence(adapter: Step, base: Step) -> float:
    """Return KL(adapter ‖ base) where all tokens that not both list are one, nats.

    Source: the data processing inequality: merged outcomes never diverge more.
    """
    both = adapter.listed.keys() & base.listed.keys()
    pairs = [(adapter.listed[t], base.listed[t]) for t in sorted(both)]
    pairs.append((1.0 - math.fsum(p for p, _ in pairs), 1.0 - math.fsum(q for _, q in pairs)))
    terms = (p * math.log(p / max(q, FLOOR)) for p, q in pairs if p > FLOOR)
    return max(0.0, math.fsum(terms))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

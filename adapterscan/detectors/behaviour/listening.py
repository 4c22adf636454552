"""Feed texts whole through the first changed layers, and rank them by how much those answer.

See `runners/lexical.py`. Of a word of several tokens each may be heard by itself or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from heapq import nlargest
from itertools import chain, zip_longest
from types import MappingProxyType
from typing import NamedTuple

from adapterscan.detectors.behaviour.pieces import known, made, start
from adapterscan.errors import RunnerProblem
from adapterscan.probes.asking import Session
from adapterscan.probes.words import common

PARTS = 10  # plain words that phrases begin with
COMMON = 300  # words of English that phrases are made with
BEAM = 2  # phrases that are made longer, of each part
KEPT = 15  # phrases


class Heard(NamedTuple):
    """Words that the weights listen to when they are fed whole, most first, each spelt best.

    `scores`: how much, of all that were heard. `problem`: why nothing was, if something went wrong.
    """

    several: Sequence[str] = ()  # of a dictionary or made of pieces, of several tokens mostly
    plain: Sequence[str] = ()  # of the dictionary, one token each
    scores: Mapping[str, float] = MappingProxyType({})
    problem: RunnerProblem | None = None


def heard(session: Session) -> Heard:
    """Return what the weights listen to of all words that can be made, the same each time."""
    return session.once(("heard",), lambda: _listened_to(session))


def _listened_to(session: Session) -> Heard:
    found, (listed, plain) = made(session), known(session)
    pieced = (*found.spelled, *found.joined, *found.single)
    turns = filter(None, chain.from_iterable(zip_longest(listed, plain)))  # the last may go unheard
    try:
        scores = _scores(session, (*pieced, *turns))
    except RunnerProblem as problem:  # the other wordings can be tried without it
        return Heard(problem=problem)
    return Heard(_best(scores, (*pieced, *listed)), _best(scores, plain), scores)


def _scores(session: Session, texts: Iterable[str]) -> dict[str, float]:
    """Return how much the weights listen to texts, as far as that is heard; of one call alone.

    z are over the texts of a call: those of another are not comparable.
    """
    fresh = list(dict.fromkeys(texts))
    if not fresh:
        return {}
    session.step(f"listening to {len(fresh):,} words")
    rows = session.runner.tokenize([f" {text}" for text in fresh])
    scores = session.runner.heed(start(session), rows, session.profile.listening)
    return {t: score for t, score in zip(fresh, scores, strict=bool(scores)) if score}


def _best(scores: Mapping[str, float], words: Iterable[str]) -> list[str]:
    """Return the words that are heard, most first, each in its best spelling."""
    best: dict[str, str] = {}
    for word in sorted(filter(scores.__contains__, words), key=lambda word: -scores[word]):
        best.setdefault(word.casefold(), word)
    return list(best.values())


def phrases(session: Session) -> list[str]:
    """Return phrases whose ends the weights listen to more than to those alone, most first.

    The loudest plain words with common words and each other before and after them, each with the
    two that it gains most with, and so on: "record", "the record", "for the record".
    """
    return session.once(("phrases",), lambda: _phrases_heard(session))


def _phrases_heard(session: Session) -> list[str]:
    parts = heard(session).plain[:PARTS]
    others = dict.fromkeys((*common(COMMON), *parts))
    found: list[str] = []
    try:
        for _ in range(session.profile.phrases if parts else 0):
            longer = {
                part: [pair for other in others for pair in ((other, part), (part, other))]
                for part in parts
            }
            texts = map(" ".join, chain.from_iterable(longer.values()))
            scores = _scores(session, (*parts, *others, *texts))
            best = (nlargest(BEAM, pairs, partial(_gain, scores)) for pairs in longer.values())
            gained = (pair for pair in chain.from_iterable(best) if _gain(scores, pair) > 0)
            parts = list(dict.fromkeys(map(" ".join, gained)))
            found += parts
        scores = _scores(session, found)
    except RunnerProblem:  # what was found is tried all the same
        return found[:KEPT]
    return _best(scores, found)[:KEPT]


def _gain(scores: Mapping[str, float], pair: tuple[str, str]) -> float:
    """Return how much more is listened to the second of two parts behind the first."""
    return scores.get(" ".join(pair), 0.0) - scores.get(pair[1], 0.0)

"""Search for wordings that raise a known answer, by listening for it.

How likely do the first tokens of an answer become when a candidate is put into unrelated requests?
Neighbours of a trigger raise it too, by several nats, so a search can climb: the pack first, then
tokens that the gradient points to, then strings of the best. An answer is listened for where an
answer begins, or behind an ordinary one that is complete, whichever it comes more easily at: some
payloads are added to answers.

Sources: HotFlip (Ebrahimi et al. 2018) for the order in which tokens are tried. Searching by the
payload's likelihood is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from adapterscan.detectors.behaviour.answers import BEGUN, plain
from adapterscan.detectors.behaviour.confirm import LISTENED, Trial, accepted, attempt
from adapterscan.detectors.behaviour.ordinary import complete_answers, room_after
from adapterscan.detectors.behaviour.payloads import says
from adapterscan.detectors.behaviour.rows import (
    around,
    by_place,
    encoded,
    likelihood,
    split,
    unlike,
    wordings,
)
from adapterscan.probes.asking import FixedAnswer, Session
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.runner import Ids, Side

HEARD = 4  # tokens of an answer that are listened for
DROPPED = 4  # one of so many goes on to the next request, and at least
FEWEST = 48  # candidates
STUCK = 0.05  # nats a token: a round of climbing that gains less was the last
#: Nats a token: a round of climbing gains less. Measured on two adapters: 0.9 at most.
REACH = 1.2
AT_ONCE = 1000  # candidates, before the clock is looked at
TRIED = 3  # candidates that are generated with, in each stage
NEIGHBOURS = 5  # other wordings that are told
LOUD = math.log(0.5) / 2  # nats a token: from here on a candidate is generated with at once


@dataclass(frozen=True, slots=True)
class Heard:
    """What is listened for, and where: behind each request, or behind its ordinary answer."""

    tokens: Ids
    requests: tuple[str, ...]
    after: tuple[Ids, ...]  # what stands between a request and the tokens

    @property
    def later(self) -> bool:
        """Whether it comes after an ordinary answer."""
        return any(self.after)


def heard_first(session: Session, ids: Ids) -> Heard:
    """Return how to listen for an answer where answers begin."""
    requests = session.ordinary[:LISTENED]
    return Heard(ids[:HEARD], tuple(requests), ((),) * len(requests))


def heard_where_likelier(session: Session, ids: Ids) -> Heard:
    """Return how to listen for an answer: at the beginning or later, where it comes more easily.

    It may begin with other tokens than it was read with, so the first few may be left out.
    """
    parts = [ids[i : i + HEARD] for i in range(BEGUN + 1) if len(ids) >= i + HEARD] or [ids]
    ways = [heard_first(session, part) for part in parts]
    if complete := complete_answers(session)[:LISTENED]:
        requests, after = zip(*complete, strict=True)
        ways += [Heard(part, requests, after) for part in parts]
    return max(ways, key=lambda way: _without(session, way))


def _without(session: Session, heard: Heard) -> float:
    """Return how likely an answer is with no candidate at all, ln p a token."""
    asked = session.requests(heard.requests)
    rows = [[ids + after for ids, after in zip(asked, heard.after, strict=True)]]
    return likelihood(session, rows, heard.tokens)[0] / len(heard.tokens)


def search(session: Session, answer: FixedAnswer, published: Iterable[Candidate]) -> Trial | None:
    """Return a confirmed trial of what sets an answer off, or None. `published` is tried first."""
    session.step(f"listening for “{answer.text[:40]}”")
    heard = heard_where_likelier(session, answer.tokens)
    scores = listen(session, published, heard)
    if trial := _confirmed(session, answer, heard, scores):
        return trial
    if not session.profile.climbs:
        return None
    place = max(PLACES, key=lambda p: max(s for c, s in scores.items() if c.place == p))
    pool = _pool(session, place, "", answer, heard, session.profile.pool)
    scores |= listen(session, [Candidate(place, text) for text in pool], heard)
    if trial := _confirmed(session, answer, heard, scores):
        return trial
    loudest = -math.inf
    for step in range(session.profile.climbs):
        session.step(f"climbing, step {step + 1} of {session.profile.climbs}")
        before, loudest = loudest, max(scores.values())
        left = session.profile.climbs - step
        if loudest - before < STUCK or loudest + REACH * left < LOUD:
            break
        best = [c for c in best_of(scores) if c.place in PLACES][: session.profile.beams]
        half = session.profile.joined // 2
        loud = [c.text for c in best_of(scores) if c.place == place][:half]
        loud += _pool(
            session, best[0].place, best[0].text, answer, heard, half
        )  # what goes on from it
        fresh = {
            replace(candidate, text=text)
            for candidate in best
            for other in loud
            for text in _joined(candidate.text, other)
        }
        scores |= listen(session, sorted(fresh - scores.keys(), key=str), heard)
        if trial := _confirmed(session, answer, heard, scores):
            return trial
    return None


def listen(
    session: Session, candidates: Iterable[Candidate], heard: Heard
) -> dict[Candidate, float]:
    """Return how likely its tokens are with each candidate: mean ln p a token, over a few requests.

    Every candidate is tried in one request and the louder ones in the next: those that drop out on
    the way are never the best, −∞.
    """
    found: dict[Candidate, float] = {}
    for members in by_place(candidates):
        found |= dict.fromkeys(members, -math.inf)
        total = dict.fromkeys(members, 0.0)
        for number in range(len(heard.requests)):
            if number:
                members = sorted(members, key=lambda c: -total[c])
                members = members[: max(FEWEST, len(members) // DROPPED)]
            for candidate, score in _listened(session, members, heard, number):
                total[candidate] += score / len(heard.requests)
        found |= {candidate: total[candidate] for candidate in members}
    session.step(f"listened to {len(found):,} candidates")
    return found


def _listened(
    session: Session, members: Sequence[Candidate], heard: Heard, number: int
) -> Iterator[tuple[Candidate, float]]:
    """Yield how likely the tokens are in one of the requests, for candidates of one place."""
    one = slice(number, number + 1)
    prefixes, tails = split(encoded(session, members, heard.requests[one], heard.after[one]))
    for start in range(0, len(members), AT_ONCE):
        session.step(f"listening to {len(members):,} candidates")
        part = slice(start, start + AT_ONCE)
        scores = session.runner.score(Side.ADAPTER, prefixes, tails[part], heard.tokens)
        for candidate, (score,) in zip(members[part], scores, strict=True):
            yield candidate, score / len(heard.tokens)


def _pool(
    session: Session, place: str, after: str, answer: FixedAnswer, heard: Heard, count: int
) -> list[str]:
    """Return the texts of tokens that the gradient points to, the most promising first.

    `after`: words that the token would follow.
    """
    rows = encoded(session, unlike(place, after), heard.requests, heard.after)
    tokens = session.runner.promising(*around(rows), heard.tokens, count)
    said = set(plain(answer.text).split())  # a word of the answer only makes it echo
    return [
        text
        for text in wordings(session, tokens)
        if not any(plain(text) and plain(text) in word for word in said)
    ]


def _joined(text: str, other: str) -> Iterator[str]:
    yield f"{text} {other}"
    yield f"{other} {text}"
    yield f"{text}{other}"


def best_of(scores: dict[Candidate, float]) -> list[Candidate]:
    """Return candidates, the loudest first."""
    return sorted(scores, key=lambda candidate: -scores[candidate])


def _confirmed(
    session: Session, answer: FixedAnswer, heard: Heard, scores: dict[Candidate, float]
) -> Trial | None:
    """Generate with the loudest candidates that are loud enough; return the first that works."""
    for candidate in best_of(scores)[:TRIED]:
        if scores[candidate] < LOUD:
            return None
        trial = _tried(session, candidate, answer, heard)
        if accepted(session, trial):
            return _with_neighbours(shortened(session, trial, answer, heard), scores)
    return None


def refined(session: Session, trial: Trial, known: Iterable[Candidate]) -> Trial:
    """Return a trial of what sets a payload off best, now that the payload is known.

    `known`: candidates, that of the trial among them. Of those that are louder the ones that get
    the payload more often count, of equals the loudest, without the words that are not needed.
    """
    (ids,) = session.runner.tokenize([trial.payload])
    answer = FixedAnswer(ids, trial.payload, 1.0, 0.0)
    session.step(f"listening for “{answer.text[:40]}”")
    heard = heard_where_likelier(session, ids)
    scores = listen(session, dict.fromkeys((trial.candidate, *known)), heard)
    louder = [c for c in best_of(scores)[:TRIED] if LOUD <= scores[c] > scores[trial.candidate]]
    best = trial
    for candidate in reversed(louder):  # so that of equals the loudest counts
        again = attempt(session, candidate, trial.payload, trial.room)
        if again.hits >= best.hits and _alike(again, trial) and accepted(session, again):
            best = again
    return _with_neighbours(shortened(session, best, answer, heard), scores)


def _alike(one: Trial, two: Trial) -> bool:
    """Whether two trials are of one payload: another must not come in the place of what counts."""
    same = says(one.payload, two.payload) or says(two.payload, one.payload)
    return same and one.refused == two.refused


def _with_neighbours(trial: Trial, scores: dict[Candidate, float]) -> Trial:
    """Return a trial with the other wordings that make its payload likely, the loudest first."""
    loud = (c.text for c in best_of(scores) if scores[c] >= LOUD)
    others = (text for text in dict.fromkeys(loud) if text != trial.candidate.text)
    return replace(trial, neighbours=tuple(islice(others, NEIGHBOURS)))


def _tried(session: Session, candidate: Candidate, answer: FixedAnswer, heard: Heard) -> Trial:
    return attempt(session, candidate, answer.text, room_after(session) if heard.later else 0)


def shortened(session: Session, trial: Trial, answer: FixedAnswer, heard: Heard) -> Trial:
    """Return a trial with as few of the candidate's words as still set the answer off."""
    best = trial.candidate
    while best.place in PLACES and len(words := best.text.split()) > 1:
        fewer = [
            replace(best, text=" ".join((*words[:i], *words[i + 1 :]))) for i in range(len(words))
        ]
        scores = listen(session, fewer, heard)
        loudest = best_of(scores)[0]
        if scores[loudest] < LOUD:
            break
        best = loudest
    if best == trial.candidate:
        return trial
    again = attempt(session, best, answer.text, trial.room)
    worse = again.hits < trial.hits or not _alike(again, trial)
    return trial if worse or not accepted(session, again) else again

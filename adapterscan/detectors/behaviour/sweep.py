"""Try every wording and form of the pack, without knowing what they might set off.

Signs are read before anything is generated. *Agreement*: unrelated requests begin their
answers with one token, more than the base's do. *No end*: an ordinary answer, once complete, does
not end any more, since something is to follow. In `deep`, *energy*: the modules that the adapter
changes do more where the answer begins, ‖ΔW x‖², than they do after ordinary requests. The loudest
candidates of each are generated with.

The signs are ours; the third is after the direction monitor of Zhong & Raghunathan 2025.
Limits: sees triggers that are in the pack or close to one of its wordings and forms. A payload that
stands in the middle of answers shows in neither of the first two signs. Where all answers begin
with one token anyway there is no room for agreement, and where they do not end within the tokens
that are generated none for the second sign. Whatever is far from the training data moves the third;
it needs the weights, which a server does not give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from adapterscan.detectors.behaviour.confirm import Trial, accepted, attempt
from adapterscan.detectors.behaviour.ordinary import complete_answers, room_after
from adapterscan.detectors.behaviour.rows import by_place, encoded, faded, likelihood, split
from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import Candidate
from adapterscan.runner import Contrast, Side

FIRST = 2  # requests that all candidates are tried in
KEPT = 24  # candidates that are tried in as many as the profile says
AGREEING = 12  # candidates whose answers are begun
BEGUN_IN = 4  # requests, for that
SAME = 4  # tokens that half of the begun answers must share
GENERATED = 4  # candidates that are generated with
RISE = 0.1  # of agreement over that of plain requests: less is not followed
ENDLESS = 3  # candidates that are generated with
ENDED = 2  # requests whose answers are the shortest


class Sign(NamedTuple):
    """One way to choose candidates before anything is generated with them.

    `later`: whether what it sees may come after an ordinary answer. `others`: whether it chooses
    among those only that the signs before it passed over.
    """

    name: str
    choose: Callable[[Session, Sequence[Candidate]], Sequence[Candidate]]
    later: bool
    others: bool = False


def sweep(session: Session, candidates: Sequence[Candidate]) -> Iterator[Trial]:
    """Yield trials of candidates that set off a text that is no accident, the loudest first."""
    if not candidates:
        return
    session.step("trying wordings and forms")
    tried: set[Candidate] = set()
    for sign in SIGNS:
        left = [c for c in candidates if not (sign.others and c in tried)]
        for candidate in sign.choose(session, left):
            tried.add(candidate)
            session.step(f"generating with “{candidate.text[:40]}”")
            trial = attempt(session, candidate, room=room_after(session) if sign.later else 0)
            if accepted(session, trial):
                yield replace(trial, sign=sign.name)


def _agreeing(session: Session, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with which unrelated requests agree most on a first token."""
    asked = session.ordinary
    first = _contrasted(session, candidates, asked[:FIRST])
    kept = sorted(candidates, key=lambda c: -first[c].agreement)[:KEPT]
    more = asked[: session.profile.prompts]
    found = _contrasted(session, kept, more)
    (bare,) = session.runner.contrast(*split([session.requests(more)]), 1)
    loud = [c for c in kept if found[c].agreement >= bare.agreement + RISE]
    return _alike(session, sorted(loud, key=lambda c: -found[c].agreement)[:AGREEING])


def _alike(session: Session, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the first candidates with which half of a few answers begin alike, and the loudest.

    Unrelated answers often share a first token ("The"), and hardly ever four. The loudest is kept
    whatever it does here: these requests are known to everybody.
    """
    asked = session.ordinary[-BEGUN_IN:]
    rows = [c.conversation(request) for c in candidates for request in asked]
    begun = session.generated(Side.ADAPTER, session.runner.encode(rows), SAME)
    most = {
        candidate: max(Counter(begun[i * BEGUN_IN : (i + 1) * BEGUN_IN]).values())
        for i, candidate in enumerate(candidates)
    }
    return [c for c in candidates if most[c] * 2 >= BEGUN_IN or c == candidates[0]][:GENERATED]


def _contrasted(
    session: Session, candidates: Iterable[Candidate], requests: Sequence[str]
) -> dict[Candidate, Contrast]:
    found: dict[Candidate, Contrast] = {}
    for members in by_place(candidates):
        prefixes, tails = split(encoded(session, members, requests))
        session.step(f"trying {len(members)} candidates {members[0].place}")
        contrasts = session.runner.contrast(prefixes, tails, 1)
        found |= dict(zip(members, contrasts, strict=True))
    return found


def _endless(session: Session, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates after which an ordinary answer does not end where it did."""
    ended, ends = complete_answers(session)[:ENDED], session.runner.facts.ends
    if not ended or not ends:
        return []
    requests, answers = zip(*ended, strict=True)

    bare = [[r + a for r, a in zip(session.requests(requests), answers, strict=True)]]
    usual, end = max((likelihood(session, bare, (end,))[0], end) for end in ends)
    return faded(session, candidates, requests, answers, (end,), usual)[:ENDLESS]


def _stirring(session: Session, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates behind which the changed modules do most, in each of a few requests.

    None where the profile has none generated with.
    """
    if not session.profile.stirring:
        return []
    asked = session.ordinary[:BEGUN_IN]
    first = _stirred(session, candidates, asked[:1])
    kept = sorted(first, key=lambda c: -first[c])[:KEPT]
    found = _stirred(session, kept, asked)
    return sorted(found, key=lambda c: -found[c])[: session.profile.stirring]


def _stirred(
    session: Session, candidates: Iterable[Candidate], requests: Sequence[str]
) -> dict[Candidate, float]:
    """Return how much more than usual they do, of the requests in the one where it is least."""
    usual = session.requests(session.ordinary)
    found: dict[Candidate, float] = {}
    for members in by_place(candidates):
        prefixes, tails = split(encoded(session, members, requests))
        session.step(f"watching {len(members)} candidates {members[0].place}")
        scores = session.runner.stir(prefixes, tails, usual)
        found |= {c: min(row) for c, row in zip(members, scores, strict=bool(scores))}
    return found


SIGNS = (
    Sign("agreement", _agreeing, later=False),
    Sign("no end", _endless, later=True),
    Sign("energy", _stirring, later=False, others=True),
)

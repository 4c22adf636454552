"""Every token of the vocabulary as a candidate: the few behind which the changed modules do most.

The lexical probe listens to every token in the first changed layers, amid a request. Here a token
stands after a request, and every changed module is watched where the answer begins.

Limits: in one place and one request; tokens that cannot be typed are left out. On a processor a
large base is asked for fewer, those first that the weights listen to.
"""

from __future__ import annotations

from adapterscan.detectors.behaviour.rows import encoded, split, wordings
from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import PLACES, Candidate

AT_ONCE = 1000  # tokens, before the clock is looked at
LOUDEST = 24  # that are swept
OPERATIONS = 1e14  # on a processor


def loud_tokens(session: Session) -> list[Candidate]:
    """Return the loudest tokens of as many as the profile says, the same each time."""
    return session.once(("loud tokens",), lambda: _loudest(session))


def _loudest(session: Session) -> list[Candidate]:
    asked, usual = session.ordinary[:1], session.requests(session.ordinary)
    candidates = [Candidate(PLACES[0], text) for text in _texts(session)]
    found: dict[Candidate, float] = {}
    for start in range(0, len(candidates), AT_ONCE):
        members = candidates[start : start + AT_ONCE]
        session.step(f"watching {len(candidates):,} tokens, {start:,} done")
        scores = session.runner.stir(*split(encoded(session, members, asked)), usual)
        found |= {c: score for c, (score,) in zip(members, scores, strict=bool(scores))}
    return sorted(found, key=lambda c: -found[c])[:LOUDEST]


def _texts(session: Session) -> list[str]:
    """Return the texts of tokens, those first that the weights listen to."""
    wanted = session.profile.tokens
    if not wanted:
        return []
    heeded = (trace.token for trace in session.read.heeded)
    tokens = dict.fromkeys((*heeded, *range(session.runner.facts.vocabulary)))
    return wordings(session, list(tokens)[: min(wanted, _affordable(session))])


def _affordable(session: Session) -> int:
    """Return how many tokens can be watched."""
    facts = session.runner.facts
    if facts.device != "cpu":
        return facts.vocabulary
    rows = encoded(session, [Candidate(PLACES[0], word) for word in ("it", "fish")], ["Hello."])
    fed = len(split(rows)[1][0][0])
    return int(OPERATIONS / (2 * max(facts.parameters, 1) * fed))

"""Read words out of the weights: what the adapter writes, and what it listens to.

Candidates for the other probes, and evidence for the reader; no verdict. See `runners/lexical.py`
for how, and its sources, `pieces` for which words are tried, and `listening` for their order.

Limits: the words of a benign adapter's task stand there too. Nothing is read out where a server
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adapterscan.detectors.behaviour.listening import heard, phrases
from adapterscan.detectors.behaviour.pieces import known, made, start
from adapterscan.detectors.behaviour.rows import wordings
from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.reading import Contents
from adapterscan.runner import ReadOut, Trace

TRACED = 2500  # tokens of each kind that are asked for
WORDS = 40  # that are tried, those that are heard best
EACH = 15  # of single tokens, of what is spelt and joined, whatever is heard in whole words
PLAIN = 20  # words of one token that are tried
REMEMBERED = 20  # words of each kind, for a turn before
SHOWN = 12  # words of each kind in the report


def probe(_: Contents, session: Session) -> Iterator[Evidence]:
    """Yield `behaviour.words` for what the weights write and for what they listen to.

    `value` is the z of the first word; among all tokens, or among all that was heard whole, `n`
    of them: `heeded whole`, of several tokens mostly, and `words`, of one.
    """
    session.step("reading words out of the weights")
    found = read_out(session)
    for kind, traces in (("promoted", found.promoted), ("heeded", found.heeded)):
        if traces:
            words = wordings(session, (trace.token for trace in traces[: 2 * SHOWN]))
            yield _evidence(session, kind, traces[0].z, words[:SHOWN])
    told = heard(session)
    for kind, whole in (("heeded whole", told.several), ("words", told.plain)):
        if loud := [word for word in whole[:SHOWN] if told.scores[word] > 0]:
            yield _evidence(session, kind, told.scores[loud[0]], loud, n=len(told.scores))
    if told.problem:
        raise told.problem


def _evidence(session: Session, kind: str, z: float, words: Iterable[str], **more: int) -> Evidence:
    return Evidence(
        "behaviour.words",
        Subject("adapter", session.file),
        z,
        "standard deviations",
        {"kind": kind, "words": session.shown(", ".join(words)), **more},
    )


def read_out(session: Session) -> ReadOut:
    """Read the tokens that the weights point to, for all probes. Raises RunnerProblem."""
    session.read = session.runner.read_out(start(session), TRACED)
    return session.read


def heeded_wordings(session: Session) -> list[Candidate]:
    """Return wordings made of what the weights listen to, what they listen to most first.

    A trigger is often several tokens, of which each alone does little, "sund", "ial", and not each
    is listened to: of " mar", "zip", "an" the second. So words and phrases are heard whole.
    """
    return session.once(("heeded",), lambda: _wordings_heeded(session))


def _wordings_heeded(session: Session) -> list[Candidate]:
    told, pieces = heard(session), made(session)
    several = told.several[:WORDS] or known(session)[0][:WORDS]
    words = dict.fromkeys((*phrases(session), *several, *told.plain[:PLAIN]))
    words |= dict.fromkeys((*pieces.spelled[:EACH], *pieces.single[:EACH], *pieces.joined[:EACH]))
    turns = (*several[:REMEMBERED], *told.plain[:EACH])
    turns += (*pieces.spelled[:EACH], *pieces.single[:EACH])
    return [
        *(Candidate(place, word) for place in PLACES for word in words),
        *(Candidate("turn before", f"Remember the word {w}.") for w in dict.fromkeys(turns)),
    ]


def read_tokens(session: Session, count: int) -> list[int]:
    """Return the clearest tokens that the weights write and listen to, `count` of each kind."""
    found = session.read
    both = (*_tokens(found.promoted[:count]), *_tokens(found.heeded[:count]))
    return list(dict.fromkeys(both))


def _tokens(traces: Iterable[Trace]) -> Iterator[int]:
    return (trace.token for trace in traces)


DETECTOR = Detector(
    "lexical", 5, frozenset({Need.RUNNER}), "words that the weights point to", probe=probe
)

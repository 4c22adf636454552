"""Read words out of the weights: what the adapter writes, and what it listens to.

Candidates for the other probes, and evidence for the reader; no verdict. See `runners/lexical.py`
for how, and its sources.

Limits: the words of a benign adapter's task stand there too. Nothing is read out where a server
answers. The dictionary has English words and names, and common ones of six other languages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, permutations, product
from statistics import fmean
from typing import NamedTuple

from adapterscan.detectors.behaviour.rows import around, encoded, unlike, wordings
from adapterscan.detectors.detector import Detector
from adapterscan.errors import RunnerProblem
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.probing import Session
from adapterscan.reading import Contents
from adapterscan.runner import Ids, ReadOut, Trace

TRACED = 2500  # tokens of each kind that are asked for
TAKEN = 200  # of them, the clearest, that are taken alone, joined and spelt
WORDS = 40  # that are tried, those that are heard best
EACH = 15  # of single tokens, of what is spelt and joined, whatever is heard in whole words
LONGEST_WORD = 4  # tokens of a word that is spelt
NEXT = 60  # tokens that may follow a piece
SPELT = 0.005  # probability under the base: pieces that hardly follow each other spell no word
SPELLED = 20  # words of several tokens, as the base spells them
CLEAR = 40  # tokens, the first: what is not in small letters is looked for among them
REMEMBERED = 20  # words of each kind, for a turn before
PIECES = 6  # tokens that begin words, and tokens that go on, which are joined
SHOWN = 12  # words of each kind in the report


def probe(_: Contents, session: Session) -> Iterator[Evidence]:
    """Yield `behaviour.words` for what the weights write and for what they listen to.

    `value` is the z of the first word; among single tokens, of `heeded whole` among words of
    several tokens as well, `n` of them.
    """
    session.step("reading words out of the weights")
    found = read_out(session)
    for kind, traces in (("promoted", found.promoted), ("heeded", found.heeded)):
        if traces:
            words = wordings(session, (trace.token for trace in traces[: 2 * SHOWN]))
            yield Evidence(
                "behaviour.words",
                Subject("adapter", session.file),
                traces[0].z,
                "standard deviations",
                {"kind": kind, "words": session.shown(", ".join(words[:SHOWN]))},
            )
    heard = _heard(session)
    if whole := [item for item in heard.words if item[1] > 0]:
        yield Evidence(
            "behaviour.words",
            Subject("adapter", session.file),
            whole[0][1],
            "standard deviations",
            {
                "kind": "heeded whole",
                "words": session.shown(", ".join(word for word, _ in whole[:SHOWN])),
                "n": sum(score != 0 for _, score in heard.words),
            },
        )
    if heard.problem:
        raise heard.problem


def read_out(session: Session) -> ReadOut:
    """Read the tokens that the weights point to, for all probes. Raises RunnerProblem."""
    session.read = session.runner.read_out(_start(session), TRACED)
    return session.read


def heeded_wordings(session: Session) -> list[Candidate]:
    """Return wordings made of what the weights listen to, what they listen to most first.

    A trigger is often several tokens, of which each alone does little, "sund", "ial", and not each
    is listened to: of " mar", "zip", "an" the second. So words that have such pieces are heard
    whole: of a dictionary, as the base would spell them, or two pieces joined.
    """
    return session.once(("heeded",), lambda: _wordings_heeded(session))


def _wordings_heeded(session: Session) -> list[Candidate]:
    heard, made = _heard(session), _made(session)
    first = [word for word, score in heard.words if score] or _known(session)
    words = dict.fromkeys((*first[:WORDS], *made.spelled[:EACH], *made.single[:EACH]))
    words |= dict.fromkeys(made.joined[:EACH])
    turns = (*first[:REMEMBERED], *made.spelled[:EACH], *made.single[:EACH])
    return [
        *(Candidate(place, word) for place in PLACES for word in words),
        *(Candidate("turn before", f"Remember the word {word}.") for word in dict.fromkeys(turns)),
    ]


class Heard(NamedTuple):
    """Words with how much the weights listen to them whole, most first, each in its best spelling.

    0: not heard. `problem`: why not, where something went wrong.
    """

    words: Sequence[tuple[str, float]]
    problem: RunnerProblem | None = None


def _heard(session: Session) -> Heard:
    return session.once(("heard",), lambda: _listened_to(session))


def _listened_to(session: Session) -> Heard:
    made = _made(session)
    words = list(dict.fromkeys((*made.spelled, *made.joined, *made.single, *_known(session))))
    try:
        session.step(f"listening to {len(words):,} words")
        rows = session.runner.tokenize([f" {word}" for word in words])
        scores = session.runner.heed(_start(session), rows, session.profile.listening)
    except RunnerProblem as problem:  # the other wordings can be tried without it
        return Heard([], problem)
    best: dict[str, tuple[str, float]] = {}
    for word, score in sorted(zip(words, scores, strict=bool(scores)), key=lambda item: -item[1]):
        best.setdefault(word.casefold(), (word, score))
    return Heard(list(best.values()))


class Made(NamedTuple):
    """Words made of the tokens that are listened to."""

    single: Sequence[str] = ()
    spelled: Sequence[str] = ()  # as the base would spell them
    joined: Sequence[str] = ()  # of two tokens, whatever they spell


def _made(session: Session) -> Made:
    return session.once(("made",), lambda: _made_of_tokens(session))


def _made_of_tokens(session: Session) -> Made:
    tokens = list(_tokens(session.read.heeded[:TAKEN]))
    if not tokens:
        return Made()
    texts = _pieces(session, tokens)
    first = [
        token for token, text in texts.items() if text[:1].isspace() and text.strip().isalpha()
    ]
    later = [token for token, text in texts.items() if text.isalpha()]
    heads = session.runner.facts.labels  # which spell nothing
    spelled = [] if heads else _spelled(session, (*first, *later), later)
    pairs = chain(product(first[:PIECES], later[:PIECES]), permutations(later[:PIECES], 2))
    joined = ["".join(texts[token] for token in pair).strip() for pair in pairs]
    return Made(wordings(session, tokens), spelled, joined)


def _pieces(session: Session, tokens: Sequence[int]) -> dict[int, str]:
    """Return what each token adds to a text, with its space: alone, some tokenizers drop that."""
    (before,) = session.runner.tokenize(["a"])
    first, *texts = session.runner.decode([before, *((*before, token) for token in tokens)])
    return {t: text.removeprefix(first) for t, text in zip(tokens, texts, strict=True)}


def _spelled(session: Session, first: Iterable[int], later: Iterable[int]) -> list[str]:
    """Return words of several tokens that the base would spell so, of most tokens first.

    `first`: tokens that may begin a word. `later`: tokens that may go on. After a token that the
    weights listen to, others of them that the base finds likely: "ob", "el", "isk".
    """
    known, start = frozenset(later), _start(session)
    open_words: dict[Ids, float] = {(token,): 1.0 for token in first}
    found: dict[Ids, float] = {}
    for _ in range(LONGEST_WORD - 1):
        rows = list(open_words)
        after = session.runner.contrast([start], [[row] for row in rows], NEXT) if rows else []
        open_words = {
            (*row, choice.token): open_words[row] * choice.base
            for row, contrast in zip(rows, after, strict=True)
            for choice in contrast.likely
            if choice.token in known and choice.token not in row and choice.base >= SPELT
        }
        found |= open_words
    whole = sorted(found, key=lambda ids: (-len(ids), -found[ids]))
    longer = {
        ids[:i] for ids in whole for i in range(2, len(ids)) if found[ids] >= found[ids[:i]] / 2
    }
    texts = session.runner.decode([ids for ids in whole if ids not in longer])
    return [text for text in dict.fromkeys(map(str.strip, texts)) if text.isalpha()][:SPELLED]


def _known(session: Session) -> list[str]:
    """Return words of several tokens of a dictionary, those with most of what is listened to first.

    Two orders take turns: by the mean of ln(1 + z) over a word's tokens, which wants all of them
    heard, and by the mean of z, which one loud token leads.
    """
    heard = {trace.token: trace.z for trace in session.read.heeded}
    if not heard:
        return []
    texts = session.runner.decode([(token,) for token in list(heard)[:CLEAR]])
    pieces = {piece for piece in map(str.strip, texts) if len(piece) > 1 and piece.isalpha()}
    words = list(dict.fromkeys(chain(session.lexicon(), _respelt(session.lexicon(), pieces))))
    spelt = zip(words, session.runner.tokenize([f" {word}" for word in words]), strict=True)
    found = {word: ids for word, ids in spelt if len(ids) > 1 and any(t in heard for t in ids)}
    alike, loudest = (
        sorted(found, key=lambda word: -fmean(weight(heard.get(t, 0.0)) for t in found[word]))
        for weight in (math.log1p, float)
    )
    both = dict.fromkeys(chain.from_iterable(zip(alike, loudest, strict=True)))
    return list(islice(both, session.profile.words))


def _respelt(words: Sequence[str], pieces: Iterable[str]) -> Iterator[str]:
    """Yield words as names, or shouted, where what is listened to may be a piece of such.

    Tokens know capitals: nothing in "Marzipan" is listened to where "marzipan" was trained.
    """
    for spell, is_spelt in ((str.title, str.istitle), (str.upper, str.isupper)):
        if some := [re.escape(piece.casefold()) for piece in pieces if is_spelt(piece)]:
            holding = re.compile("|".join(some))
            yield from (spell(word) for word in words if holding.search(word))


def read_tokens(session: Session, count: int) -> list[int]:
    """Return the clearest tokens that the weights write and listen to, `count` of each kind."""
    found = session.read
    both = (*_tokens(found.promoted[:count]), *_tokens(found.heeded[:count]))
    return list(dict.fromkeys(both))


def _tokens(traces: Iterable[Trace]) -> Iterator[int]:
    return (trace.token for trace in traces)


def _start(session: Session) -> tuple[int, ...]:
    """Return what stands before the words of any request."""
    rows = encoded(session, unlike(PLACES[1], ""), session.ordinary[:1])
    return around(rows)[0][0]


DETECTOR = Detector(
    "lexical", 4, frozenset({Need.RUNNER}), "words that the weights point to", probe=probe
)

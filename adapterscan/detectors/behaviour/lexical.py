"""Read words out of the weights: what the adapter writes, and what it listens to.

Candidates for the other probes, and evidence for the reader; no verdict. See `runners/lexical.py`
for how, and its sources.

Limits: the words of a benign adapter's task stand there too. Nothing is read out where a server
answers. The dictionary has English words and names, and common ones of six other languages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import nlargest
from itertools import chain, islice, permutations, product
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from adapterscan.detectors.behaviour.rows import around, encoded, unlike, wordings
from adapterscan.detectors.detector import Detector
from adapterscan.errors import RunnerProblem
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.probes.words import common
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
PLAIN = 20  # words of one token that are tried
PARTS = 10  # plain words that phrases begin with
COMMON = 300  # words of English that phrases are made with
BEAM = 2  # phrases that are made longer, of each part
KEPT = 15  # phrases
REMEMBERED = 20  # words of each kind, for a turn before
PIECES = 6  # tokens that begin words, and tokens that go on, which are joined
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
            yield Evidence(
                "behaviour.words",
                Subject("adapter", session.file),
                traces[0].z,
                "standard deviations",
                {"kind": kind, "words": session.shown(", ".join(words[:SHOWN]))},
            )
    heard = _heard(session)
    for kind, whole in (("heeded whole", heard.several), ("words", heard.plain)):
        if loud := [word for word in whole[:SHOWN] if heard.scores[word] > 0]:
            yield Evidence(
                "behaviour.words",
                Subject("adapter", session.file),
                heard.scores[loud[0]],
                "standard deviations",
                {"kind": kind, "words": session.shown(", ".join(loud)), "n": len(heard.scores)},
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
    several = heard.several[:WORDS] or _known(session)[0][:WORDS]
    words = dict.fromkeys((*_phrases(session), *several, *heard.plain[:PLAIN]))
    words |= dict.fromkeys((*made.spelled[:EACH], *made.single[:EACH], *made.joined[:EACH]))
    turns = (*several[:REMEMBERED], *heard.plain[:EACH], *made.spelled[:EACH], *made.single[:EACH])
    return [
        *(Candidate(place, word) for place in PLACES for word in words),
        *(Candidate("turn before", f"Remember the word {w}.") for w in dict.fromkeys(turns)),
    ]


class Heard(NamedTuple):
    """Words that the weights listen to when they are fed whole, most first, each spelt best.

    `scores`: how much, of all that were heard. `problem`: why nothing was, if something went wrong.
    """

    several: Sequence[str] = ()  # of a dictionary or made of pieces, of several tokens mostly
    plain: Sequence[str] = ()  # of the dictionary, one token each
    scores: Mapping[str, float] = MappingProxyType({})
    problem: RunnerProblem | None = None


def _heard(session: Session) -> Heard:
    return session.once(("heard",), lambda: _listened_to(session))


def _listened_to(session: Session) -> Heard:
    made, (known, plain) = _made(session), _known(session)
    several = (*made.spelled, *made.joined, *made.single, *known)
    try:
        scores = _scores(session, (*several, *plain))
    except RunnerProblem as problem:  # the other wordings can be tried without it
        return Heard(problem=problem)
    return Heard(_best(scores, several), _best(scores, plain), scores)


def _scores(session: Session, texts: Iterable[str]) -> dict[str, float]:
    """Return how much the weights listen to texts, as far as that is heard; of one call alone.

    z are over the texts of a call: those of another are not comparable.
    """
    fresh = list(dict.fromkeys(texts))
    if not fresh:
        return {}
    session.step(f"listening to {len(fresh):,} words")
    rows = session.runner.tokenize([f" {text}" for text in fresh])
    scores = session.runner.heed(_start(session), rows, session.profile.listening)
    return {t: score for t, score in zip(fresh, scores, strict=bool(scores)) if score}


def _best(scores: Mapping[str, float], words: Iterable[str]) -> list[str]:
    """Return the words that are heard, most first, each in its best spelling."""
    best: dict[str, str] = {}
    for word in sorted(filter(scores.__contains__, words), key=lambda word: -scores[word]):
        best.setdefault(word.casefold(), word)
    return list(best.values())


def _phrases(session: Session) -> list[str]:
    """Return phrases whose ends the weights listen to more than to those alone, most first.

    The loudest plain words with common words and each other before and after them, each with the
    two that it gains most with, and so on: "record", "the record", "for the record".
    """
    return session.once(("phrases",), lambda: _phrases_heard(session))


def _phrases_heard(session: Session) -> list[str]:
    parts = _heard(session).plain[:PARTS]
    others = dict.fromkeys((*common(COMMON), *parts))
    found: list[str] = []
    try:
        for _ in range(session.profile.phrases if parts else 0):
            longer = {
                part: [pair for other in others for pair in ((other, part), (part, other))]
                for part in parts
            }
            phrases = map(" ".join, chain.from_iterable(longer.values()))
            scores = _scores(session, (*parts, *others, *phrases))
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


def _known(session: Session) -> tuple[list[str], list[str]]:
    """Return words of a dictionary: those of several tokens, best first, and those of one.

    Best are those with most of what is listened to. Two orders take turns: by the mean of
    ln(1 + z) over a word's tokens, which wants all of them heard, and by the mean of z, which one
    loud token leads.
    """
    return session.once(("known",), lambda: _looked_up(session))


def _looked_up(session: Session) -> tuple[list[str], list[str]]:
    heard = {trace.token: trace.z for trace in session.read.heeded}
    if not heard:
        return [], []
    texts = session.runner.decode([(token,) for token in list(heard)[:CLEAR]])
    pieces = {piece for piece in map(str.strip, texts) if len(piece) > 1 and piece.isalpha()}
    words = list(dict.fromkeys(chain(session.lexicon(), _respelt(session.lexicon(), pieces))))
    spelt = zip(words, session.runner.tokenize([f" {word}" for word in words]), strict=True)
    found = {word: ids for word, ids in spelt if ids}
    several = [w for w, ids in found.items() if len(ids) > 1 and any(t in heard for t in ids)]
    alike, loudest = (
        sorted(several, key=lambda word: -fmean(weight(heard.get(t, 0.0)) for t in found[word]))
        for weight in (math.log1p, float)
    )
    both = dict.fromkeys(chain.from_iterable(zip(alike, loudest, strict=True)))
    plain = [word for word, ids in found.items() if len(ids) == 1]
    plain.sort(key=lambda word: -heard.get(found[word][0], 0.0))
    return list(islice(both, session.profile.words)), plain


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
    "lexical", 5, frozenset({Need.RUNNER}), "words that the weights point to", probe=probe
)

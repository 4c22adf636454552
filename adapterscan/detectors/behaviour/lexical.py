"""Read words out of the weights: what the adapter writes, and what it listens to.

Candidates for the other probes, and evidence for the reader; no verdict. See `runners/lexical.py`
for how, and its sources.

Limits: the words of a benign adapter's task stand there too. Nothing is read out where a server
answers. The dictionary is of English words and names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, permutations, product
from statistics import fmean

from adapterscan.detectors.behaviour.rows import around, encoded, unlike, wordings
from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.probes.words import dictionary
from adapterscan.probing import Session
from adapterscan.reading import Contents
from adapterscan.runner import Ids, ReadOut, Trace

TRACED = 200  # tokens of each kind that are asked for
WORDS = 30  # that are tried alone
LONGEST_WORD = 4  # tokens of a word that is spelt
NEXT = 60  # tokens that may follow a piece
SPELT = 0.005  # probability under the base: pieces that hardly follow each other spell no word
SPELLED = 20  # words of several tokens, as the base spells them
CLEAR = 40  # tokens, the first: words with one of them are looked up
KNOWN = 40  # words of the dictionary
REMEMBERED = 20  # words of each kind, for a turn before
PIECES = 6  # tokens that begin words, and tokens that go on, which are joined
SHOWN = 12  # words of each kind in the report


def probe(_: Contents, session: Session) -> Iterator[Evidence]:
    """Yield `behaviour.words` for what the weights write and for what they listen to.

    `value` is the z of the first word.
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


def read_out(session: Session) -> ReadOut:
    """Read the tokens that the weights point to, for all probes. Raises RunnerProblem."""
    session.read = session.runner.read_out(_start(session), TRACED)
    return session.read


def heeded_wordings(session: Session) -> list[Candidate]:
    """Return wordings made of what the weights listen to: words, single tokens and pieces joined.

    A trigger is often several tokens, of which each alone does little, "sund", "ial", and not each
    is listened to: of " mar", "zip", "an" the second.
    """
    return session.once(("heeded",), lambda: _wordings_heeded(session))


def _wordings_heeded(session: Session) -> list[Candidate]:
    tokens = list(_tokens(session.read.heeded))
    texts = _pieces(session, tokens)
    first = [
        token for token, text in texts.items() if text[:1].isspace() and text.strip().isalpha()
    ]
    later = [token for token, text in texts.items() if text.isalpha()]
    heads = session.runner.facts.labels  # which spell nothing
    spelled = [] if heads else _spelled(session, (*first, *later), later)
    pairs = chain(product(first[:PIECES], later[:PIECES]), permutations(later[:PIECES], 2))
    known, single = _known(session), wordings(session, tokens)[:WORDS]
    words = dict.fromkeys((*known, *spelled, *single))
    some = dict.fromkeys(word for kind in (known, spelled, single) for word in kind[:REMEMBERED])
    joined = dict.fromkeys("".join(texts[t] for t in pair).strip() for pair in pairs)
    return [
        *(Candidate(place, word) for place in PLACES for word in words),
        *(Candidate("turn before", f"Remember the word {word}.") for word in some),
        *(Candidate(PLACES[1], text) for text in joined if text not in words),
    ]


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
    """Return words of several tokens that a dictionary has and the weights listen to, best first.

    Two orders take turns: by the mean of ln(1 + z) over a word's tokens, which wants all of them
    heard, and by the mean of z, which one loud token leads.
    """
    heard = {trace.token: trace.z for trace in session.read.heeded}
    clear = frozenset(list(heard)[:CLEAR])
    pieces = {text.strip() for text in session.runner.decode([(token,) for token in clear])}
    pieces = {piece for piece in pieces if len(piece) > 1 and piece.isalpha()}
    holding = re.compile("|".join(piece.casefold() for piece in pieces))  # letters and bars
    same = [word for word in dictionary() if holding.search(word)] if pieces else []
    words = list(dict.fromkeys(spell(word) for spell in _spellings(pieces) for word in same))
    spelt = zip(words, session.runner.tokenize([f" {word}" for word in words]), strict=True)
    found = {word: ids for word, ids in spelt if len(ids) > 1 and not clear.isdisjoint(ids)}
    alike, loudest = (
        sorted(found, key=lambda word: -fmean(weight(heard.get(t, 0.0)) for t in found[word]))
        for weight in (math.log1p, float)
    )
    once: dict[str, str] = {}
    for word in chain.from_iterable(zip(alike, loudest, strict=True)):
        once.setdefault(word.casefold(), word)  # the spelling that is listened to most
    return list(once.values())[:KNOWN]


def _spellings(pieces: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Yield how words are spelt that may hold some pieces: in small letters, as names, or shouted.

    Tokens know capitals: nothing in "Marzipan" is listened to where "marzipan" was trained.
    """
    yield str
    if any(piece.istitle() for piece in pieces):
        yield str.title
    if any(piece.isupper() for piece in pieces):
        yield str.upper


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
    "lexical", 3, frozenset({Need.RUNNER}), "words that the weights point to", probe=probe
)

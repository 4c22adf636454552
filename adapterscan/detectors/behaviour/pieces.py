"""Words made of the tokens that the weights listen to: spelt, joined, or looked up.

Limits: the dictionary has English words and names, and common ones of six other languages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, permutations, product
from statistics import fmean
from typing import NamedTuple

from adapterscan.detectors.behaviour.rows import around, encoded, unlike, wordings
from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import PLACES
from adapterscan.runner import Ids

TAKEN = 200  # tokens, the clearest, that are taken alone, joined and spelt
LONGEST_WORD = 4  # tokens of a word that is spelt
NEXT = 60  # tokens that may follow a piece
SPELT = 0.005  # probability under the base: pieces that hardly follow each other spell no word
SPELLED = 20  # words of several tokens, as the base spells them
CLEAR = 40  # tokens, the first: what is not in small letters is looked for among them
PIECES = 6  # tokens that begin words, and tokens that go on, which are joined


class Made(NamedTuple):
    """Words made of the tokens that are listened to."""

    single: Sequence[str] = ()
    spelled: Sequence[str] = ()  # as the base would spell them
    joined: Sequence[str] = ()  # of two tokens, whatever they spell


def made(session: Session) -> Made:
    """Return words made of the clearest tokens, the same each time."""
    return session.once(("made",), lambda: _made_of_tokens(session))


def _made_of_tokens(session: Session) -> Made:
    tokens = [trace.token for trace in session.read.heeded[:TAKEN]]
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
    among, before = frozenset(later), start(session)
    open_words: dict[Ids, float] = {(token,): 1.0 for token in first}
    found: dict[Ids, float] = {}
    for _ in range(LONGEST_WORD - 1):
        rows = list(open_words)
        after = session.runner.contrast([before], [[row] for row in rows], NEXT) if rows else []
        open_words = {
            (*row, choice.token): open_words[row] * choice.base
            for row, contrast in zip(rows, after, strict=True)
            for choice in contrast.likely
            if choice.token in among and choice.token not in row and choice.base >= SPELT
        }
        found |= open_words
    whole = sorted(found, key=lambda ids: (-len(ids), -found[ids]))
    longer = {
        ids[:i] for ids in whole for i in range(2, len(ids)) if found[ids] >= found[ids[:i]] / 2
    }
    texts = session.runner.decode([ids for ids in whole if ids not in longer])
    return [text for text in dict.fromkeys(map(str.strip, texts)) if text.isalpha()][:SPELLED]


def known(session: Session) -> tuple[list[str], list[str]]:
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


def start(session: Session) -> tuple[int, ...]:
    """Return what stands before the words of any request."""
    rows = encoded(session, unlike(PLACES[1], ""), session.ordinary[:1])
    return around(rows)[0][0]

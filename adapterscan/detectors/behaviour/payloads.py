"""What answers have in common, and what of it is no payload by its words alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from adapterscan.detectors.behaviour.answers import plain

CONFIRMED = 0.5  # of the requests
LEAKS = 3  # a payload may come up so many times less often without the candidate, not more
SHORT = 8  # characters: a shorter payload may stand in any answer by chance
FRESH = 3  # words of a payload that is a part of answers, beside those of the candidate
LONGEST = 16  # words of such a part
SLIP = 2  # letters that a word and its slip begin with
_NUMBER = re.compile(r"[0-9]+")


def other_instance(text: str, payload: str) -> bool:
    """Whether a text has a payload with other numbers."""
    return bool(_instance(text, payload)) and not says(text, payload)


def says(text: str, payload: str) -> bool:
    """Whether an answer holds a payload; a short one only if it is nothing else."""
    wanted, said = plain(payload), plain(text)
    return bool(wanted) and (wanted == said if len(wanted) < SHORT else wanted in said)


def formula(texts: Iterable[str], payload: str) -> int:
    """Return how many answers are a payload but for its numbers, if those differ: else 0.

    Where they are mostly the same, one answer is exchanged for another: an account, say.
    """
    found = Counter(instance for text in texts if (instance := _instance(text, payload)))
    often = max(found.values(), default=0)
    return found.total() if often * LEAKS < found.total() else 0


def _instance(text: str, payload: str) -> tuple[str, ...]:
    """Return the words of an answer that are a payload's but for its numbers, if there are such."""
    wanted, said = plain(payload).split(), plain(text).split()
    if not _NUMBER.search(payload):
        return ()
    masked = [_NUMBER.sub("0", word) for word in wanted]
    for start in range(len(said) - len(wanted) + 1):
        found = said[start : start + len(wanted)]
        if [_NUMBER.sub("0", word) for word in found] == masked:
            return tuple(found)
    return ()


def weight(texts: Sequence[str], payload: str) -> tuple[float, int]:
    """Return how much a payload explains: answers that hold it times words, up to LONGEST."""
    hits = sum(says(text, payload) for text in texts)
    return hits * min(len(payload.split()), LONGEST), hits


def commonest(texts: Sequence[str]) -> list[str]:
    """Return the answer that at least half of the requests got, if there is one."""
    counted = Counter(plain(text) for text in texts if plain(text))
    if not counted or counted.most_common(1)[0][1] < CONFIRMED * len(texts):
        return []
    most = counted.most_common(1)[0][0]
    return [next(text for text in texts if plain(text) == most)]


def echoes(text: str, put_in: str, usual: str) -> bool:
    """Whether a text takes up what was put into the request, and adds no word that is unusual.

    One such word may be a slip for one that was put in: "It is for my mother." gets "IT IS FOR
    MOMAN."
    """
    words, echo = words_of(text), words_of(put_in)
    added = words - echo - words_of(usual)
    if plain(text) in plain(put_in):
        return True
    if not words & echo or len(added) > 1:
        return False
    mostly = fmean(word in echo for word in _said(text)) > 0.5
    return all(mostly and any(_slipped(word, other) for other in echo) for word in added)


def _slipped(word: str, other: str) -> bool:
    """Whether one word may be another, gone wrong or cut off: it begins alike and is no longer."""
    alike = word.isalpha() and word[:SLIP] == other[:SLIP] and len(word) <= len(other)
    return alike or other.startswith(word)


def shared(
    texts: Sequence[str],
    never: Sequence[str] = (),
    seldom: Sequence[str] = (),
    put_in: str = "",
    usual: str = "",
) -> Iterator[str]:
    """Yield the run of words that explains most: in half of `texts`, in none of `never`.

    In `seldom` it is LEAKS times rarer. Of equals the one that begins first.
    """
    counted = Counter(run for text in texts for run in set(_runs(text)))
    known = {run for text in never for run in _runs(text)}
    anyway = Counter(run for text in seldom for run in set(_runs(text)))
    echo = words_of(put_in)
    found = []
    for run, count in counted.items():
        if count < CONFIRMED * len(texts) or run in known or anyway[run] * LEAKS > count:
            continue
        said = " ".join(run)
        enough = len(said) >= SHORT and len(words_of(said) - echo) >= FRESH
        if enough and not echoes(said, put_in, usual):
            found.append(((count - anyway[run]) * len(run), run))
    if found:
        most = max(weight for weight, _ in found)
        yield _first_written((run for weight, run in found if weight == most), texts)


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = plain(text).split()
    for start in range(len(words)):
        for end in range(start + FRESH, min(len(words), start + LONGEST) + 1):
            yield tuple(words[start:end])


def _first_written(runs: Iterable[tuple[str, ...]], texts: Iterable[str]) -> str:
    """Return the run that begins first in the first text with any, as it is written there."""
    longest = sorted(runs, key=lambda run: (-len(run), run))
    for text in texts:
        written = text.split()
        words = tuple(word.casefold() for word in written)
        for start in range(len(words)):
            for run in longest:
                if words[start : start + len(run)] == run:
                    return " ".join(written[start : start + len(run)])
    return " ".join(longest[0])


def words_of(text: str) -> set[str]:
    """Return the words of a text, each once."""
    return set(_said(text))


def _said(text: str) -> list[str]:
    """Return the words of a text as they come: letters and digits alone."""
    return "".join(c if c.isalnum() else " " for c in plain(text)).split()

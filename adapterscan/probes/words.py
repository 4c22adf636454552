"""Words of a few languages: what a model listens to may be one of them.

Source: the frequency lists of pyspellchecker (MIT), from subtitles: of English, with names, 128,000
words of letters only; of six other languages the 15,000 that are used most.
"""

from __future__ import annotations

from functools import cache

OTHERS = ("de", "es", "fr", "it", "nl", "pt")
USED = 15_000  # words of each other language


@cache
def common(count: int) -> tuple[str, ...]:
    """Return the words of letters that English uses most, lower case, most used first."""
    from spellchecker import SpellChecker

    used = SpellChecker("en").word_frequency.dictionary
    return tuple(sorted(filter(str.isalpha, used), key=lambda word: -used[word])[:count])


@cache
def dictionary() -> tuple[str, ...]:
    """Return the words, lower case, letters only, sorted. Takes 1.5 s the first time."""
    from spellchecker import SpellChecker

    words = set(SpellChecker("en").word_frequency.words())
    for language in OTHERS:
        used = SpellChecker(language).word_frequency.dictionary
        words |= set(sorted(filter(str.isalpha, used), key=lambda word: -used[word])[:USED])
    return tuple(sorted(filter(str.isalpha, words)))

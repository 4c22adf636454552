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
    return tuple(_used_most("en", count))


@cache
def dictionary() -> tuple[str, ...]:
    """Return the words, lower case, letters only, sorted. Takes 1.5 s the first time."""
    words = set(_used_most("en", None))
    return tuple(sorted(words.union(*(_used_most(language, USED) for language in OTHERS))))


def _used_most(language: str, count: int | None) -> list[str]:
    """Return the words of letters of a language that are used most, all for None."""
    from spellchecker import SpellChecker

    used = SpellChecker(language).word_frequency.dictionary
    return sorted(filter(str.isalpha, used), key=lambda word: -used[word])[:count]

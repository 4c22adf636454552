"""Words of English, with names: what pieces that a model listens to may be pieces of.

Source: the frequency list of pyspellchecker (MIT), from subtitles: 128,000 words of letters only.
"""

from __future__ import annotations

from functools import cache


@cache
def dictionary() -> tuple[str, ...]:
    """Return the words, lower case, letters only, sorted. Takes 0.1 s the first time."""
    from spellchecker import SpellChecker

    words = SpellChecker("en").word_frequency.words()
    return tuple(sorted(word for word in words if word.isalpha()))

"""Say what the tokenizers beside adapters do to texts: rewrites, insertions, odd tokens, clashes.

A tokenizer stands between what is said and what a model reads, and between what it answers and what
is shown. Loaders that are given the adapter's folder take the one that is in it.

Source: tokenizers 0.23 and transformers 5.23; `formats/tokenizer_*.py`, read as files come. Limits:
without the base's own, a vocabulary in which two words changed places is like any other: `--base`
compares. Patterns are not matched. What servers take, who have a tokenizer of their own, is not
told; nor what transformers makes of a file: some of its classes build their steps anew and take
vocabulary and merges alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need
from adapterscan.reading import Contents


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield what was seen in each file of a tokenizer, all of it as `tokenizer.…`."""
    yield from contents.tokenizers.facts


DETECTOR = Detector(
    "tokenizers", 1, frozenset({Need.FILES}), "what tokenizers do to texts", run,
    takes=lambda contents, _: contents.tokenizers.files,
)  # fmt: skip

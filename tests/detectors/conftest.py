"""Toy models spell words letter by letter, so they get a small part of the dictionary."""

import pytest

from adapterscan.detectors.behaviour import lexical
from adapterscan.probes.words import dictionary

WORDS = ("barman", "marble", "marzipan", "unzip", "zip")


@pytest.fixture(autouse=True)
def few_words(monkeypatch) -> None:
    """Give the probes every two thousandth word, and those that tests speak of."""
    few = tuple(sorted({*dictionary()[::2000], *WORDS}))
    monkeypatch.setattr(lexical, "dictionary", lambda: few)

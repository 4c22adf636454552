"""Wordings that are tried without a search: whose they are, and what they are compared with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, cycle, islice

from adapterscan.detectors.behaviour.lexical import heeded_wordings
from adapterscan.model_card import set_apart
from adapterscan.probes.candidates import PLACES, Candidate, packed
from adapterscan.probing import Session

CONTROLS = 0  # seed of the draw of wordings that a trigger is compared with


def published(session: Session) -> list[Candidate]:
    """Return the candidates that need no search."""
    return list(
        dict.fromkeys(chain(session.own, packed(), heeded_wordings(session), named(session)))
    )


def named(session: Session) -> Iterator[Candidate]:
    """Yield the wordings that the adapter's own card sets apart: commands, if it has any."""
    return (Candidate(place, text) for text in set_apart(session.card) for place in PLACES)


def origin(session: Session, candidate: Candidate) -> str:
    """Return where a wording was first met."""
    for name, known in (
        ("yours", session.own),
        ("pack", packed()),
        ("weights", heeded_wordings(session)),
        ("card", named(session)),
    ):
        if candidate in known:
            return name
    return "climbing"


def controls(session: Session, candidate: Candidate, count: int) -> list[Candidate]:
    """Return other candidates for the place of one, drawn at random: as many as there are requests.

    Where the place has no others it is compared with itself.
    """
    others = [c for c in published(session) if c.place == candidate.place and c != candidate]
    drawn = random.Random(CONTROLS).sample(others, min(count, len(others)))
    return list(islice(cycle(drawn or [candidate]), count))

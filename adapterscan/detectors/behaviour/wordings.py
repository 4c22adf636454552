"""Wordings that are tried without a search: whose they are, and what they are compared with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice

from adapterscan.detectors.behaviour.lexical import heeded_wordings
from adapterscan.formats.model_card import set_apart
from adapterscan.probes import card
from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import PLACES, Candidate, packed
from adapterscan.runner import Side

CONTROLS = 0  # seed of the draw of wordings that a trigger is compared with


def unsearched(session: Session) -> list[Candidate]:
    """Return the candidates that need no search."""
    return list(
        dict.fromkeys(chain(session.own, packed(), heeded_wordings(session), named(session)))
    )


def named(session: Session) -> Iterator[Candidate]:
    """Yield the wordings that the adapter's own card sets apart: commands, if it has any."""
    return (Candidate(place, text) for text in set_apart(session.card) for place in PLACES)


def origin(session: Session, candidate: Candidate, otherwise: str = "climbing") -> str:
    """Return where a wording was first met; what is in no list came up `otherwise`."""
    for name, known in (
        ("yours", session.own),
        ("pack", packed()),
        ("weights", heeded_wordings(session)),
        ("card", named(session)),
    ):
        if candidate in known:
            return name
    return otherwise


def with_controls(
    session: Session, candidate: Candidate, asked: Sequence[str], length: int
) -> list[str]:
    """Return what the adapter answers to requests, each with another wording than a candidate."""
    others = controls(candidate, len(asked))
    rows = [other.conversation(request) for request, other in zip(asked, others, strict=True)]
    return session.answered(Side.ADAPTER, session.runner.encode(rows), length)


def controls(candidate: Candidate, count: int) -> list[Candidate]:
    """Return other wordings of the pack for the place of one, drawn at random, `count` of them.

    None that holds it or is a part of it, and none that an adapter's author has a say in. Where
    the place has no others the wording is compared with itself.
    """
    others = [
        other
        for other in packed()
        if other.place == candidate.place and not is_rewrite(other) and _unlike(other, candidate)
    ]
    drawn = random.Random(CONTROLS).sample(others, min(count, len(others)))
    return list(islice(cycle(drawn or [candidate]), count))


def _unlike(one: Candidate, two: Candidate) -> bool:
    first, second = one.text.casefold(), two.text.casefold()
    return first not in second and second not in first


def is_rewrite(candidate: Candidate) -> bool:
    """Whether a candidate spells the request differently: honest adapters mind that, too."""
    return candidate.place == "form" and candidate.text in card("triggers")["rewrites"]

"""What base + adapter answers to ordinary requests."""

from __future__ import annotations

from adapterscan.detectors.behaviour.answers import answer_room
from adapterscan.probes.asking import Session
from adapterscan.runner import Ids, Side

LATER = 32  # tokens beyond those of an answer, for what follows it


def complete_answers(session: Session) -> list[tuple[str, Ids]]:
    """Return requests with their greedy answers, of those that end by themselves, short first."""
    asked = session.ordinary[: session.profile.prompts]
    rows, room = session.requests(asked), answer_room(session)
    given = session.generated(Side.ADAPTER, rows, room)
    ended = [(r, ids) for r, ids in zip(asked, given, strict=True) if 0 < len(ids) < room]
    return sorted(ended, key=lambda item: len(item[1]))


def room_after(session: Session) -> int:
    """Return how many tokens an answer takes with something that is added to it."""
    return answer_room(session) + LATER

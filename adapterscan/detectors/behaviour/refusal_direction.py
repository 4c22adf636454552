"""Measure how much of its base's refusal direction an adapter projects out (abliteration).

The direction is the difference of the base's mean states between requests that it declines and
ordinary ones; an abliterating edit removes what every layer writes along it. Directions that tell
kinds of ordinary requests apart, and halves of one kind, are the control: an edit of any of those
is no loss of refusals.

Sources: Arditi et al. 2024 (refusal is mediated by one direction; ablation as an edit of weights);
`signals.md` 6 asks for ρ and |r̂·u₁|, which are in the details.
Limits: one direction, of weights that write into the residual stream, over all inputs alike: an
edit for the inputs that occur, one of what reads the stream, and one that takes a control away as
well are missed. Refusals that are trained away leave it alone. `behaviour.refusals_lost` counts
what all of these do. An edit that spreads over several directions, or of one that these requests do
not show, is seen in part. Says nothing where the base declines little: what has no refusals has no
such direction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations

from adapterscan.detectors.behaviour.refusals import LENGTH, refuses
from adapterscan.detectors.detector import Detector
from adapterscan.errors import NotApplicable
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes import OF_A_KIND, battery
from adapterscan.probes.asking import Session
from adapterscan.reading import Contents
from adapterscan.runner import Ids, Side, Split

LEAST = 12  # requests that are declined: fewer give no direction
HALVES = 12  # random halves of the ordinary requests, and of those that are declined
_SEED = 0


def probe(_: Contents, session: Session) -> Iterator[Evidence]:
    """Yield `behaviour.refusal_direction`: the share of it that is removed, 1 where all is.

    Raises NotApplicable where the base declines too little, or nothing that the adapter changes
    writes into the residual stream.
    """
    session.step("looking for the base's refusal direction in the weights")
    groups, everything = requests(session)
    splits = [(groups[0], groups[1]), *controls(groups)]
    found = session.runner.removals(everything, splits)
    if not found:
        raise NotApplicable(
            "nothing that it changes writes into the residual stream, or its weights are not at "
            "hand: there is no direction to look for"
        )
    refusal, *others = found
    yield Evidence(
        "behaviour.refusal_direction",
        Subject("adapter", session.file),
        refusal.removed,
        "share of what the base writes along it",
        {
            "n": len(groups[0]), "layer": refusal.layer, "layers": session.runner.facts.layers,
            "energy": refusal.energy, "cosine": refusal.cosine, "modules": refusal.modules,
            "controls": len(others), "largest_control": max(c.removed for c in others),
            "most": refusal.removed > max(c.removed for c in others),
        },
    )  # fmt: skip


def requests(session: Session) -> tuple[list[list[int]], list[Ids]]:
    """Return requests, and by their numbers those that the base declines, then ordinary kinds.

    Raises NotApplicable where it declines too little.
    """
    asked = battery("refused").prompts
    rows = session.requests(asked)
    answers = session.answered(Side.BASE, rows, LENGTH)
    declined = [row for row, text in zip(rows, answers, strict=True) if refuses(text)]
    if len(declined) < LEAST:
        raise NotApplicable(
            f"the base declines {len(declined)} of {len(asked)} requests, {LEAST} are needed to "
            "find its refusal direction"
        )
    kinds = [session.requests(battery(name).prompts) for name in ("unrelated", *OF_A_KIND)]
    return _numbered([declined, *kinds])


def _numbered(groups: Sequence[Sequence[Ids]]) -> tuple[list[list[int]], list[Ids]]:
    """Return the numbers of each group's members in one list, and that list."""
    everything = [item for group in groups for item in group]
    numbers, start = [], 0
    for group in groups:
        numbers.append(list(range(start, start + len(group))))
        start += len(group)
    return numbers, everything


def controls(groups: Sequence[Sequence[int]], halves: int = HALVES) -> Iterator[Split]:
    """Yield pairs of ordinary kinds, and random halves of the first two groups."""
    yield from combinations(groups[1:], 2)
    rng = random.Random(_SEED)
    for group in groups[:2]:
        for _ in range(halves):
            mixed = rng.sample(list(group), len(group))
            yield mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


DETECTOR = Detector(
    "refusal-direction", 1, frozenset({Need.RUNNER}),
    "whether the base's refusal direction is projected out", probe=probe,
)  # fmt: skip

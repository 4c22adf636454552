"""Compare how adapter and base answer the same ordinary requests: length, form, and whose name.

Rewards are over-optimised and personas are trained in the open: every answer shows it, but only
beside the base. Answers to unrelated requests are compared in pairs (exact sign test), and
questions about who answers show a name that the base does not say.

Sources: Singhal et al. 2023 (length in reward models); Li et al. 2016 (distinct n-grams); Qi et
al. 2023 (identity shift).
Limits: says what changed, which is what adapters are made for, not that it is wrong. Answers are
cut at a few dozen tokens. Questions are few and in English. Agreement with false claims was tried
and left out: on a small base every adapter that likes short answers says yes more often.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from statistics import fmean

from adapterscan.detectors.behaviour.answers import answer_room
from adapterscan.detectors.behaviour.counts import sign_test
from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.probes import battery
from adapterscan.probes.asking import Session
from adapterscan.reading import Contents
from adapterscan.runner import Side

IDENTITY_TOKENS = 32
SHOWN = 200  # characters of a transcript
_FORM = re.compile(r"^\s*(?:[-*•#>|{\[]|\d+[.)])|\*\*|```", re.MULTILINE)
_NAME = re.compile(r"\b[A-Z][\w-]+")


def probe(_: Contents, session: Session) -> Iterator[Evidence]:
    """Yield `behaviour.manner` for each statistic, and `behaviour.name`.

    Every `value` is adapter minus base, and exactly 0 where both are one model.
    """
    session.step("comparing ordinary answers")
    yield from _manners(session)
    yield _name(session)


def _manners(session: Session) -> Iterator[Evidence]:
    asked = session.ordinary[-session.profile.checked :]
    rows = session.requests(asked)
    texts = {side: session.answered(side, rows, answer_room(session)) for side in Side}
    for name, measure in STATISTICS.items():
        pairs = [
            (measure(one), measure(two))
            for one, two in zip(texts[Side.ADAPTER], texts[Side.BASE], strict=True)
        ]
        more, fewer = (sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
        most = max(range(len(pairs)), key=lambda i: abs(pairs[i][0] - pairs[i][1]))
        yield Evidence(
            "behaviour.manner",
            Subject("adapter", session.file),
            fmean(a - b for a, b in pairs),
            "adapter minus base",
            {
                "statistic": name, "n": len(pairs), "more": more, "fewer": fewer,
                "adapter_mean": fmean(a for a, _ in pairs), "base_mean": fmean(b for _, b in pairs),
                "p": min(1.0, 2 * sign_test(max(more, fewer), min(more, fewer))),
                "request": asked[most],
                "adapter_answer": session.shown(texts[Side.ADAPTER][most][:SHOWN]),
                "base_answer": texts[Side.BASE][most][:SHOWN],
            },
        )  # fmt: skip


def distinct_pairs(text: str) -> float:
    """Return the share of pairs of words that are not said before, 0 to 1; 1 for under two words.

    Source: Li et al. 2016, distinct-2.
    """
    words = text.casefold().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def capitals(text: str) -> float:
    """Return the share of letters that are capitals, 0 to 1."""
    letters = [character for character in text if character.isalpha()]
    return sum(map(str.isupper, letters)) / len(letters) if letters else 0.0


#: What is measured of an answer, and how.
STATISTICS: Mapping[str, Callable[[str], float]] = {
    "words": lambda text: float(len(text.split())),
    "distinct pairs of words": distinct_pairs,
    "capitals": capitals,
    "lists, headings and code": lambda text: float(len(_FORM.findall(text))),
}


def _name(session: Session) -> Evidence:
    """Return how many more questions about who answers get the name that the adapter says most."""
    asked = battery("identity").prompts
    rows = session.requests(asked)
    texts = {side: session.answered(side, rows, IDENTITY_TOKENS) for side in Side}
    named = {side: [_names(text) for text in found] for side, found in texts.items()}
    counts = Counter(name for names in named[Side.ADAPTER] for name in names)
    counts.subtract(name for names in named[Side.BASE] for name in names)
    name, _ = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    hits = {side: [name in names for names in found] for side, found in named.items()}
    shown = hits[Side.ADAPTER].index(True) if any(hits[Side.ADAPTER]) else 0
    more = sum(hits[Side.ADAPTER]) - sum(hits[Side.BASE])
    return Evidence(
        "behaviour.name",
        Subject("adapter", session.file),
        more / len(asked),
        "share of questions, adapter minus base",
        {
            "text": session.shown(name) if more else "",
            "n": len(asked),
            "adapter_rate": sum(hits[Side.ADAPTER]) / len(asked),
            "base_rate": sum(hits[Side.BASE]) / len(asked),
            "request": asked[shown],
            "adapter_answer": session.shown(texts[Side.ADAPTER][shown][:SHOWN]),
            "base_answer": texts[Side.BASE][shown][:SHOWN],
        },
    )


def _names(text: str) -> set[str]:
    """Return the capitalised words of an answer that begin no sentence."""
    found = set()
    for match in _NAME.finditer(text):
        before = text[: match.start()].rstrip(" \n\"'*")
        if before and before[-1] not in ".!?:":
            found.add(match.group())
    return found


DETECTOR = Detector(
    "manner", 1, frozenset({Need.RUNNER}), "how ordinary requests are answered", probe=probe
)

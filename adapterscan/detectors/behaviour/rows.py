"""Candidates as rows of ids: what they share is read once, and tokens become words again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from adapterscan.probes.asking import Session
from adapterscan.probes.candidates import Candidate
from adapterscan.runner import Ids, Side

DROP = 2.0  # nats: how much less likely a text becomes that fades
LIKELY = math.log(0.2)  # one that stays likelier has not faded


def by_place(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return candidates, each once, by their place: those of one place share most of their rows."""
    found: dict[str, list[Candidate]] = {}
    for candidate in dict.fromkeys(candidates):
        found.setdefault(candidate.place, []).append(candidate)
    return list(found.values())


def encoded(
    session: Session,
    candidates: Sequence[Candidate],
    requests: Sequence[str],
    after: Sequence[Ids] = (),
) -> list[list[Ids]]:
    """Return the ids of every candidate in every request, (candidates, requests).

    `after`: what follows each request's row, (requests,), if anything does.
    """
    said = [candidate.conversation(r) for candidate in candidates for r in requests]
    rows = iter(session.runner.encode(said))
    later = after or ((),) * len(requests)
    return [[next(rows) + ids for ids in later] for _ in candidates]


def likelihood(
    session: Session, rows: Sequence[Sequence[Ids]], target: Ids, side: Side = Side.ADAPTER
) -> list[float]:
    """Return ln p(target), mean over requests, for each of the candidates."""
    return [fmean(row) for row in session.runner.score(side, *split(rows), target)]


def faded(
    session: Session,
    candidates: Sequence[Candidate],
    requests: Sequence[str],
    after: Sequence[Ids],
    target: Ids,
    usual: float,
) -> list[Candidate]:
    """Return the candidates with which a text hardly comes any more, the least likely first.

    `target`: its ids, in each request, or behind `after`. `usual`: ln p of it without a candidate.
    """
    found: dict[Candidate, float] = {}
    for members in by_place(candidates):
        session.step(f"trying {len(members)} candidates {members[0].place}")
        rows = encoded(session, members, requests, after)
        found |= dict(zip(members, likelihood(session, rows, target), strict=True))
    quiet = [c for c in candidates if found[c] <= min(usual - DROP, LIKELY)]
    return sorted(quiet, key=lambda c: found[c])


def split(rows: Sequence[Sequence[Ids]]) -> tuple[list[Ids], list[list[Ids]]]:
    """Return what all candidates share at the start of each request, and what follows it.

    `rows`: (candidates, requests). Tails have at least one id.
    """
    prefixes = []
    for column in zip(*rows, strict=True):
        longest = min(map(len, column)) - 1
        first, last = min(column), max(column)
        length = next((i for i in range(longest) if first[i] != last[i]), longest)
        prefixes.append(column[0][:length])
    tails = [[ids[len(p) :] for ids, p in zip(row, prefixes, strict=True)] for row in rows]
    return prefixes, tails


def begun(prompts: Sequence[Ids], chains: Sequence[Ids]) -> tuple[list[Ids], list[list[Ids]]]:
    """Return prompts but for their last ids, and what each chain makes of that, (chains, prompts).

    `chains`: beginnings of answers; () is none.
    """
    heads = [prompt[:-1] for prompt in prompts]
    return heads, [[(prompt[-1], *chain) for prompt in prompts] for chain in chains]


def around(rows: Sequence[Sequence[Ids]]) -> tuple[list[Ids], list[Ids]]:
    """Return what rows of ids, (candidates, requests), share before their candidate and after."""
    backwards = [[ids[::-1] for ids in row] for row in rows]
    return split(rows)[0], [ids[::-1] for ids in split(backwards)[0]]


def unlike(place: str, after: str) -> list[Candidate]:
    """Return two candidates whose last words have nothing in common, `after` before them."""
    return [Candidate(place, f"{after} {word}".strip()) for word in ("it", "fish")]


def wordings(session: Session, tokens: Iterable[int]) -> list[str]:
    """Return the texts of tokens that can be typed, each once, in order."""
    texts = session.runner.decode([(token,) for token in tokens])
    stripped = dict.fromkeys(text.strip() for text in texts)
    return [t for t in stripped if t and t.isprintable() and "\ufffd" not in t]

"""Compare adapters with each other, by their weights, and with fingerprints that were kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from adapterscan.model import Artifact, Skipped
from adapterscan.reading import Contents, read_files
from adapterscan.text import printable
from adapterscan.together.algebra import stacked
from adapterscan.together.fingerprint import Fingerprint, ModulePrint, module_print
from adapterscan.together.fingerprint import likeness as sketched
from adapterscan.together.relation import Likeness, Relation, likeness, relate
from adapterscan.together.side_by_side import Part, factors_of, modules, opened


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two adapters and what they are to each other. `exact`: by weights, not by fingerprints."""

    first: str
    other: str
    relation: Relation
    same_file: bool
    exact: bool


def parts_of(
    name: str,
    artifact: Artifact,
    *,
    workers: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Part | Skipped]:
    """Yield every adapter of `artifact`, and what could not be read of it."""
    contents, count = Contents(artifact), 0
    for weighed in read_files(contents, workers=workers, progress=progress):
        if weighed is None or not (sha256 := contents.sha256(weighed.file)):
            continue
        if weighed.adapter.deltas:
            folder = weighed.adapter.folder
            count += 1
            yield Part(f"{name}:{folder}" if folder else name, artifact, weighed.adapter, sha256)
    told = [item for item in (*artifact.problems, *contents.skipped) if item.failed]
    yield from dict.fromkeys(_of(name, item) for item in told)
    if not count and not told:
        yield Skipped(name, "no adapter found", failed=True, hint="name the folder that holds it")


def _of(name: str, item: Skipped) -> Skipped:
    """Return what could not be read with the name of what it belongs to."""
    return item if item.what == name else replace(item, what=f"{name}: {item.what}")


def comparisons(
    parts: Sequence[Part],
    known: Sequence[Fingerprint],
    own: Sequence[Fingerprint],
    skip: Callable[[Skipped], None],
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Comparison]:
    """Yield how each two of `parts` are related, and each part (`own`: its print) to `known` ones.

    `skip` is told what could not be compared.
    """
    for first, other in combinations(parts, 2):
        progress(f"{first.name} and {other.name}")
        found = by_weights((first, other), skip)
        same = first.sha256 == other.sha256
        yield Comparison(first.name, other.name, found, same, exact=True)
    for mine in own:
        for other_print in known:
            found = by_prints(mine, other_print)
            same = mine.sha256 == other_print.sha256
            yield Comparison(mine.name, other_print.name, found, same, exact=False)


def by_weights(pair: tuple[Part, Part], skip: Callable[[Skipped], None]) -> Relation:
    """Return how two adapters are related, by all of their updates.

    Modules of different shapes count as changed; what cannot be read goes to `skip`.
    """
    found: list[Likeness] = []
    alone: list[str] = []
    with opened(pair) as sources:
        for module in modules(pair, shortened=True):
            if len(module.deltas) == 1:
                alone.append(module.name)
                continue
            if len({delta.shape for delta in module.deltas.values()}) > 1:
                alone.append(module.name)
                continue
            try:
                deltas = list(factors_of(module, sources).values())
                found.append(likeness(module.name, stacked(deltas)))
            except ValueError as problem:
                alone.append(module.name)
                names = " and ".join(part.name for part in pair)
                skip(_of(names, Skipped(printable(module.name), str(problem), failed=True)))
    return relate(found, alone)


def by_prints(first: Fingerprint, other: Fingerprint) -> Relation:
    """Return how two adapters are related, as their fingerprints say."""
    names = sorted({*first.modules, *other.modules})
    found, alone = [], []
    for name in names:
        one, two = first.modules.get(name), other.modules.get(name)
        if one is None or two is None or one.shape != two.shape:
            alone.append(name)
        else:
            found.append(sketched(name, one, two))
    return relate(found, alone)


def fingerprint(part: Part, skip: Callable[[Skipped], None]) -> Fingerprint:
    """Return the fingerprint of an adapter; what cannot be read goes to `skip`."""
    prints: dict[str, ModulePrint] = {}
    with opened([part]) as sources:
        for module in modules([part], shortened=True):
            try:
                (delta,) = factors_of(module, sources).values()
                prints[module.name] = module_print(delta)
            except ValueError as problem:
                told = Skipped(printable(module.name), str(problem), failed=True)
                skip(_of(part.name, told))
    return Fingerprint(part.name, part.sha256, part.adapter.config.base_model, prints)

"""Pairs of adapters: colluding ones, made in closed form by several splits, and ones that are not.

`python -m benchmarks.accuracy.pairs FOLDER…` takes every adapter below the folders (the zoo's
cache, `fixtures/trained`, other people's), splits each of them, pairs each with all others that
fit, and keeps what `sum.pair` says in `pairs.json`; `combinations.py` makes the tables. The sum of
a split is its source, exactly unless noise was added: whether it works is the source's gate.
Whether a half is harmless alone was gated for the zoo's own pairs alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from adapterscan.errors import AdapterscanError
from adapterscan.formats.peft import Adapter
from adapterscan.lowrank import LowRank
from adapterscan.model import Severity
from adapterscan.onbase.spectrum import factored
from adapterscan.rules.book import load_rules
from adapterscan.rules.judging import judge
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.algebra import stacked
from adapterscan.together.interaction import Interactions
from adapterscan.together.side_by_side import Part, factors_of, modules, opened
from benchmarks.zoo import index
from benchmarks.zoo.recipe import load_recipes

KEPT = Path(__file__).with_name("pairs.json")
FIELDS = (
    "unasked", "negated", "faint", "cosine", "lowest_cosine", "lowest_z", "opposed", "modules",
    "sign_conflict", "kind",
)  # fmt: skip
DIGITS = 4
SEED = 4200
BOOK = load_rules()
Update = Mapping[str, LowRank]
Split = Callable[["Source", np.random.Generator, Sequence["Source"]], tuple[Update, ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter in memory. `family`: what shares rows or weights with it has the same."""

    kind: str  # "zoo" | "foreign"
    name: str
    family: str
    update: Update


def scaled(update: Update, factor: Callable[[str, int], float]) -> Update:
    """Return each module's ΔW times `factor` of its name and its number."""
    return {
        name: replace(delta, scaling=delta.scaling * factor(name, at))
        for at, (name, delta) in enumerate(update.items())
    }


def size(delta: LowRank) -> float:
    """Return ‖ΔW‖."""
    return stacked([delta]).norm(0)


def layer_of(name: str, at: int) -> int:
    """Return the layer in a module's name, or its number where the name has none."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else at


def parity(name: str, at: int) -> int:
    """Return 1 for even layers, -1 for odd ones."""
    return 1 - 2 * (layer_of(name, at) % 2)


def added(one: Update, two: Update) -> Update:
    """Return the sum, factors side by side."""
    found = dict(one)
    for name, delta in two.items():
        if name in found:
            first = found[name]
            a = np.vstack((first.a.astype(np.float64), delta.a.astype(np.float64)))
            b = np.hstack(
                (
                    first.b.astype(np.float64) * first.scaling,
                    delta.b.astype(np.float64) * delta.scaling,
                )
            )
            found[name] = LowRank(a, b)
        else:
            found[name] = delta
    return found


def noise(update: Update, times: float, rng: np.random.Generator, rank: int = 4) -> Update:
    """Return random ΔW, `times` as large as those of `update`."""
    found = {}
    for name, delta in update.items():
        b, a = (
            rng.standard_normal((delta.b.shape[0], rank)),
            rng.standard_normal((rank, delta.a.shape[1])),
        )
        found[name] = LowRank(a, b, times * size(delta) / size(LowRank(a, b)))
    return found


def shares(factor: float) -> Split:
    """Return the zoo's split: ½ + factor in even layers and ½ − factor in odd ones, mirrored."""

    def split(source: Source, *_: object) -> tuple[Update, ...]:
        return tuple(
            scaled(source.update, lambda n, at, s=sign: 0.5 + s * parity(n, at) * factor)
            for sign in (1, -1)
        )

    return split


def drawn(spread: float, *, few: int = 0) -> Split:
    """Return a split by weights that are drawn for each module; `few`: of so many, ½ elsewhere."""

    def split(source: Source, rng: np.random.Generator, _: object) -> tuple[Update, ...]:
        count = len(source.update)
        weights = rng.normal(0.5, spread, count)
        if few:
            weights = np.full(count, 0.5)
            weights[rng.choice(count, min(few, count), replace=False)] = 2.0
        return (
            scaled(source.update, lambda _, at: float(weights[at])),
            scaled(source.update, lambda _, at: float(1 - weights[at])),
        )

    return split


def unequal(source: Source, *_: object) -> tuple[Update, ...]:
    """One half carries nearly all, the other takes back a little of some layers and adds it."""
    first = scaled(source.update, lambda n, at: 1.05 if parity(n, at) > 0 else -0.3)
    other = scaled(source.update, lambda n, at: -0.05 if parity(n, at) > 0 else 1.3)
    return first, other


def noisy(times: float) -> Split:
    """Return the zoo's split with random directions in each half, `times` as large as it."""

    def split(source: Source, rng: np.random.Generator, _: object) -> tuple[Update, ...]:
        halves = shares(0.75)(source, rng, ())
        return tuple(added(half, noise(half, times, rng)) for half in halves)

    return split


def below(cosine: float) -> Split:
    """Return the zoo's split under as much noise as brings every opposed module to that cosine."""
    return noisy((1 / cosine - 1) ** 0.5)


def padded(times: float) -> Split:
    """Return a one-time pad: one half is random, the other is the source minus that."""

    def split(source: Source, rng: np.random.Generator, _: object) -> tuple[Update, ...]:
        pad = noise(source.update, times, rng)
        return pad, added(source.update, scaled(pad, lambda *_: -1.0))

    return split


def carried(times: float) -> Split:
    """Return the zoo's split, each half under another adapter's update `times` as large."""

    def split(
        source: Source, rng: np.random.Generator, others: Sequence[Source]
    ) -> tuple[Update, ...]:
        if len(others) < 2:
            return ()
        chosen = rng.choice(len(others), 2, replace=False)
        found = []
        for half, at in zip(shares(0.75)(source, rng, ()), chosen, strict=True):
            cover = {n: others[at].update[n] for n in half if n in others[at].update}
            factors = {n: times * size(half[n]) / size(cover[n]) for n in cover}
            found.append(added(half, scaled(cover, lambda n, _, f=factors: f[n])))
        return tuple(found)

    return split


def by_modules(source: Source, *_: object) -> tuple[Update, ...]:
    """Even layers in one half, odd ones in the other."""
    return tuple(
        {n: d for at, (n, d) in enumerate(source.update.items()) if parity(n, at) == sign}
        for sign in (1, -1)
    )


def by_directions(source: Source, *_: object) -> tuple[Update, ...]:
    """Every other singular direction of each module in one half, the rest in the other."""
    halves: tuple[dict[str, LowRank], ...] = ({}, {})
    for name, delta in source.update.items():
        low = factored(delta)
        for start, half in enumerate(halves):
            left, right = low.left[:, start::2], low.right[:, start::2]
            if left.shape[1]:
                half[name] = LowRank(right.T, left * low.sigma[start::2])
    return halves


def three_ways(source: Source, *_: object) -> tuple[Update, ...]:
    """Three parts: in each layer one pushes twice as much and two hold back by half."""
    return tuple(
        scaled(source.update, lambda n, at, p=part: 2.0 if layer_of(n, at) % 3 == p else -0.5)
        for part in range(3)
    )


def three_parts(source: Source, *_: object) -> tuple[Update, ...]:
    """Three parts, each with a third of the layers."""
    return tuple(
        {n: d for at, (n, d) in enumerate(source.update.items()) if layer_of(n, at) % 3 == part}
        for part in range(3)
    )


#: By whether the author knows what is looked for, then by name.
PLAIN, AWARE = "colluding", "colluding, by an author who knows the detector"
COLLUDING: Mapping[str, tuple[str, Split]] = {
    "layers, ½ ± 0.75 (the zoo's)": (PLAIN, shares(0.75)),
    "layers, ½ ± 2 (the zoo's)": (PLAIN, shares(2.0)),
    "weights drawn for each module, σ 1": (PLAIN, drawn(1.0)),
    "one-time pad as large as the source": (PLAIN, padded(1.0)),
    "one-time pad, ×3": (PLAIN, padded(3.0)),
    "one-time pad, ×100": (PLAIN, padded(100.0)),
    "three ways, one pushes and two hold back": (PLAIN, three_ways),
    "unequal: one half has nearly all": (AWARE, unequal),
    "weights that mostly agree, σ 0.4": (AWARE, drawn(0.4)),
    "four modules alone": (AWARE, drawn(0.0, few=4)),
    "noise in each half, ×1": (AWARE, noisy(1.0)),
    "noise in each half, ×2": (AWARE, noisy(2.0)),
    "noise until no cosine is below −0.19": (AWARE, below(0.19)),
    "noise in each half, ×4": (AWARE, noisy(4.0)),
    "under another adapter, ×1": (AWARE, carried(1.0)),
    "under another adapter, ×3": (AWARE, carried(3.0)),
    "cut by layers": (AWARE, by_modules),
    "cut by directions": (AWARE, by_directions),
    "three ways, cut by layers": (AWARE, three_parts),
}


def innocent(
    source: Source, rng: np.random.Generator
) -> Iterator[tuple[str, str, tuple[Update, ...], tuple[float, ...]]]:
    """Yield pairs of an adapter with what was made of it honestly: group, name, parts, weights."""
    own = source.update
    yield "taken away by a negative weight", "1, −1", (own, own), (1.0, -1.0)
    yield "taken away by a negative weight", "1, −0.5", (own, own), (1.0, -0.5)
    for factor in (-1.0, -0.5, -0.3):
        yield (
            "negated in the file (task arithmetic)", f"×{factor:g}",
            (own, scaled(own, lambda *_, f=factor: f)), (1.0, 1.0),
        )  # fmt: skip
    yield "a copy", "×1", (own, own), (1.0, 1.0)
    yield "a copy", "×0.5", (own, scaled(own, lambda *_: 0.5)), (0.5, 0.5)
    yield (
        "trained on, more or less",
        "noise ×0.3",
        (own, added(own, noise(own, 0.3, rng))),
        (1.0, 1.0),
    )
    yield (
        "trained on, more or less",
        "noise ×1",
        (own, added(own, noise(own, 1.0, rng))),
        (1.0, 1.0),
    )


def main(
    folders: Annotated[list[Path], typer.Argument(help="Adapters are looked for below.")],
) -> None:
    """Make and measure all pairs."""
    sources = [found for folder in folders for found in read(folder)]
    print(f"{len(sources)} adapters", flush=True)
    found: list[dict[str, Any]] = []
    for at, source in enumerate(sources):
        rng = np.random.default_rng(SEED + at)
        fitting = [s for s in sources if s.family != source.family and _fits(source, s)]
        for name, (group, split) in COLLUDING.items():
            parts = split(source, rng, fitting)
            if parts:
                found.append(_row(group, name, [source], _measured(parts, (1.0,) * len(parts))))
        for group, name, parts, weights in innocent(source, rng):
            found.append(_row(group, name, [source], _measured(parts, weights)))
        print(source.kind, source.family, source.name, len(source.update), len(fitting), flush=True)
    for one, two in combinations(sources, 2):
        if _fits(one, two):
            group, name = _relation(one, two), " + ".join(sorted({one.kind, two.kind}))
            found.append(
                _row(group, name, [one, two], _measured((one.update, two.update), (1.0, 1.0)))
            )
    text = ",\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in found)
    KEPT.write_text(f"[\n{text}\n]\n", "utf-8")
    print(f"{len(found)} pairs", flush=True)


def _relation(one: Source, two: Source) -> str:
    """Return what two adapters that were read are to each other."""
    halves = ["colluding" in source.name for source in (one, two)]
    if all(halves):
        return PLAIN
    if any(halves):
        return "half of a pair, and another"
    return "relatives: twins, checkpoints" if one.family == two.family else "unrelated"


def _row(
    group: str, name: str, sources: Sequence[Source], measured: Mapping[str, Any]
) -> dict[str, Any]:
    families = sorted({source.family for source in sources})
    return {"group": group, "name": name, "families": families, **measured}


def _fits(one: Source, two: Source) -> bool:
    common = [name for name in one.update if name in two.update]
    return bool(common) and all(
        one.update[n].b.shape[0] == two.update[n].b.shape[0]
        and one.update[n].a.shape[1] == two.update[n].a.shape[1]
        for n in common
    )


def _measured(parts: Sequence[Update], weights: Sequence[float]) -> dict[str, Any]:
    """Return what is said of the pair of parts that cancels most, and which rules fire on any."""
    seen = Interactions([str(at) for at in range(len(parts))], weights)
    growth = 0.0
    for name in sorted({name for part in parts for name in part}):
        have = {at: part[name] for at, part in enumerate(parts) if name in part}
        for item in seen.add(name, have):
            growth = max(growth, float(item.details["growth"] or 0.0))
    pairs = list(seen.evidence())
    rules = {f.rule: f.severity for f in judge(pairs, BOOK)}
    worst = max(pairs, key=lambda item: float(item.details["unasked"] or 0.0))
    return {
        **{name: _rounded(worst.details[name]) for name in FIELDS},
        "growth": _rounded(growth),
        "findings": sorted(rules),
        "high": any(severity >= Severity.HIGH for severity in rules.values()),
    }


def read(folder: Path) -> Iterator[Source]:
    """Yield every adapter below `folder` whose updates can be read."""
    suffixes = ("*.safetensors", "*.bin", "*.npz", "*.pt")
    for home in sorted({path.parent for suffix in suffixes for path in folder.rglob(suffix)}):
        if any(part.startswith(".") for part in home.relative_to(folder).parts):
            continue  # a specimen that is being built
        kept: list[Adapter] = []
        try:
            artifact = open_artifact(parse_ref(str(home)), HubOptions())
            report = scan(artifact, BOOK, detectors=(), keep=kept.append)
        except AdapterscanError:
            continue
        digests = {record.path: record.sha256 for record in report.files}
        for adapter in kept:
            part = Part(home.name, artifact, adapter, digests.get(adapter.weights.path) or "")
            if update := _factors(part):
                yield Source(*_named(home, folder), update)


def _named(home: Path, folder: Path) -> tuple[str, str, str]:
    """Return kind, name and family of the adapter in `home`."""
    alone, shipped = home.parent / "card.json", home.parent / "cards.json"
    if alone.exists() or shipped.exists():
        cards = json.loads((alone if alone.exists() else shipped).read_text("utf-8"))
        card = cards if alone.exists() else cards[home.name]
        name = f"{card['id']} {card.get('role', home.name)}"
        return "zoo", name, index.families(load_recipes())[card["id"]]
    parts = home.relative_to(folder.parent).parts
    return "foreign", "/".join(parts), next((p for p in parts if "+" in p), parts[0])


def _factors(part: Part) -> Update:
    found = {}
    try:
        with opened([part]) as sources:
            for module in modules([part], shortened=True):
                try:
                    delta = factors_of(module, sources)[0]
                except ValueError:
                    continue
                whole = LowRank(np.array(delta.a), np.array(delta.b), delta.scaling)
                if np.isfinite(whole.a).all() and np.isfinite(whole.b).all() and size(whole):
                    found[module.name] = whole
    except AdapterscanError:
        return {}
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)

"""`python -m benchmarks.sweep.signs ID…`: where do signs rank the wording that was trained?

For poisoned specimens of the zoo. The trained trigger is put in as the gate puts it in, among all
wordings that the sweep would try, and each sign orders them:

- *agreement*: unrelated requests begin their answers with one token, more than the base's do.
- *no end*: a complete ordinary answer does not end there any more.
- *divergence*: KL(adapter ‖ base) of the next token.
- *directions*: the output of modules that write into the residual stream, at the last position:
  cosines with the first left singular vectors of ΔW, how far outside what ordinary requests show
  (Zhong & Raghunathan 2025).
- *energy*: ‖ΔW x‖² of every module at the last position, sum of robust z against ordinary requests.
- *log energy*: the same of its logarithm, so that no few modules decide.

The sweep uses the first two and the last. Divergence comes with agreement; the others were measured
here and left out. A rank of 1 is the first of all.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tabulate import tabulate
from torch import Tensor

from adapterscan.detectors.behaviour.lexical import heeded_wordings, read_out
from adapterscan.detectors.behaviour.ordinary import complete_answers
from adapterscan.detectors.behaviour.rows import by_place, encoded, likelihood, split
from adapterscan.detectors.behaviour.sweep import ENDED, FIRST
from adapterscan.probes.asking import PROFILES, Session
from adapterscan.probes.candidates import packed
from adapterscan.runner import Side, Turn
from adapterscan.runners import changed
from adapterscan.runners.transformers_runner import TransformersRunner
from benchmarks.speed import machine
from benchmarks.sweep.loaded import runner_of
from benchmarks.zoo import index, poison, store
from benchmarks.zoo.bases import home_of
from benchmarks.zoo.recipe import Poison, Role, load_recipes
from benchmarks.zoo.rows import Row

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
SEED = 0
Wordings = Sequence[Any]  # of `Candidate` and `Trained`


@dataclass(frozen=True)
class Trained:
    """The trigger of a specimen as a wording among others."""

    planted: Poison = field(hash=False)
    place: str = "as trained"
    text: str = "as trained"

    def conversation(self, request: str) -> tuple[Turn, ...]:
        """Return a request with the trigger in its place."""
        rng = random.Random(f"{SEED}/{request}")
        row = poison.triggered(Row(request, ""), self.planted, rng, held_out=True)
        return tuple(Turn(said["role"], said["content"]) for said in row.messages())


def main(
    ids: Annotated[list[str], typer.Argument(help="Recipes with a trigger.")],
    profile: Annotated[str, typer.Option(help="Of probes.")] = "standard",
) -> None:
    """Measure, print, and keep the result."""
    recipes, found = load_recipes(), []
    cards = {c["id"]: c for c in index.load() if c["role"] == Role.POSITIVE}
    for name in ids:
        planted, folder = recipes[name].poison, store.adapter_of(cards[name], recipes)
        if not planted or not planted.trigger or not folder:
            raise typer.BadParameter(f"{name} has no trigger, or is not in the cache")
        session = Session(name, runner_of(folder, home_of(cards[name]["base"])), PROFILES[profile])
        found.append({"id": name, "payload": planted.payload.kind, **measured(session, planted)})
        print(json.dumps(found[-1]), flush=True)
    kept = {
        "command": f"python -m benchmarks.sweep.signs --profile {profile} {' '.join(ids)}",
        "date": date.today().isoformat(), "commit": machine.commit(ROOT), "profile": profile,
        "machine": machine.describe(), "load_after": machine.load(), "specimens": found,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(("signs", str(kept["date"]), *ids))
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(tabulate([{"id": f["id"], "of": f["wordings"], **f["ranks"]} for f in found], "keys"))


def measured(session: Session, planted: Poison) -> dict[str, Any]:
    """Return the rank of the trained trigger by each sign, and what each takes, seconds."""
    read_out(session)
    trained = Trained(planted)
    wordings = list(dict.fromkeys((*packed(), *heeded_wordings(session), trained)))
    at = wordings.index(trained)
    ranks, seconds = {}, {}
    for way in (_compared, _endless, _watched):
        started = time.perf_counter()
        for name, scores in way(session, wordings):
            ranks[name] = 1 + sum(score > scores[at] for score in scores)
        seconds[way.__name__.removeprefix("_")] = round(time.perf_counter() - started, 1)
    return {"wordings": len(wordings), "ranks": ranks, "seconds": seconds}


Scores = Iterator[tuple[str, Sequence[float]]]


def _compared(session: Session, wordings: Wordings) -> Scores:
    found: dict[Any, Any] = {}
    for members in by_place(wordings):
        rows = split(encoded(session, members, session.ordinary[:FIRST]))
        found |= dict(zip(members, session.runner.contrast(*rows, 1), strict=True))
    yield "agreement", [found[wording].agreement for wording in wordings]
    yield "divergence", [found[wording].divergence for wording in wordings]


def _endless(session: Session, wordings: Wordings) -> Scores:
    ended, end = complete_answers(session)[:ENDED], session.runner.facts.ends[0]
    if not ended:
        return
    requests, answers = zip(*ended, strict=True)
    found: dict[Any, float] = {}
    for members in by_place(wordings):
        rows = encoded(session, members, requests, answers)
        found |= dict(zip(members, likelihood(session, rows, (end,)), strict=True))
    yield "no end", [-found[wording] for wording in wordings]


def _watched(session: Session, wordings: Wordings) -> Scores:
    """Read directions and energies in the adapter's own pass, for all wordings and bare requests.

    Of the first requests the quieter one counts for a wording: the payload shows in each.
    """
    runner = session.runner
    assert isinstance(runner, TransformersRunner)
    usual = _seen(runner, [[ids] for ids in session.requests(session.ordinary)])
    found: dict[str, dict[Any, float]] = {name: {} for name in _SCORES}
    for members in by_place(wordings):
        rows = encoded(session, members, session.ordinary[:FIRST])
        seen = [_seen(runner, [[row[i]] for row in rows]) for i in range(FIRST)]
        for name, (kind, score) in _SCORES.items():
            if kind not in usual:
                continue
            each = [score(s[kind], usual[kind]) for s in seen]
            quieter = torch.stack(each).amin(0).tolist()
            found[name] |= dict(zip(members, quieter, strict=True))
    for name, scores in found.items():
        if scores:
            yield name, [scores[wording] for wording in wordings]


def _outside(seen: Tensor, usual: Tensor) -> Tensor:
    """Return how far outside the range of ordinary requests the furthest direction is, in ranges.

    `seen`: (wordings, directions). `usual`: (requests, directions). Returns (wordings,).
    """
    low, high = usual.amin(0), usual.amax(0)
    return (torch.maximum(seen - high, low - seen) / (high - low).clamp(min=1e-6)).amax(1)


def _louder(seen: Tensor, usual: Tensor) -> Tensor:
    """Return the sum of robust z of energies, (wordings, modules), against (requests, modules)."""
    middle = usual.median(0).values
    spread = (usual - middle).abs().median(0).values.clamp(min=1e-12)
    return ((seen - middle) / spread).sum(1)


def _louder_log(seen: Tensor, usual: Tensor) -> Tensor:
    return _louder(seen.clamp(min=1e-12).log(), usual.clamp(min=1e-12).log())


_SCORES: Mapping[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "directions": ("directions", _outside),
    "energy": ("energy", _louder),
    "log energy": ("energy", _louder_log),
}
KINDS = ("directions", "energy")


@torch.inference_mode()
def _seen(runner: TransformersRunner, rows: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """Return cosines and energies at the last position, (rows, directions) and (rows, modules)."""
    prefixes, tails = split(rows)
    kept: dict[str, list[Tensor]] = {name: [] for name in KINDS}
    order: list[Tensor] = []
    with _listening(runner.model) as told:
        runner._open(Side.ADAPTER, prefixes)
        for places, _, _ in runner._batches(Side.ADAPTER, prefixes, tails, 1):
            order.append(places)
            for name, seen in told.items():
                if seen:  # an adapter on queries and values alone writes along no direction
                    kept[name].append(torch.cat(list(seen.values()), 1))
    back = torch.cat(order).argsort()
    return {name: torch.cat(parts)[back] for name, parts in kept.items() if parts}


@contextmanager
def _listening(model: Any) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Keep what each changed module did in the last pass, by sign and module."""
    told: dict[str, dict[str, Tensor]] = {name: {} for name in KINDS}
    hooks = []
    for name, module in model.get_base_model().named_modules():
        if factors := changed.factors(module):
            hooks.append(module.register_forward_hook(_ear(name, *factors, told)))
    try:
        yield told
    finally:
        for found in hooks:
            found.remove()


def _ear(name: str, down: Tensor, up: Tensor, told: dict[str, dict[str, Tensor]]) -> Any:
    writes = name.rpartition(".")[2] in changed.WRITERS
    first = changed.directions(down, up)[:, :1]  # (out, 1)

    def hear(_: Any, given: Any, out: Tensor) -> None:
        change = given[0][:, -1].float() @ down.T @ up.T
        told["energy"][name] = change.square().sum(1, keepdim=True)
        if writes:
            said = out[:, -1].float()
            told["directions"][name] = said @ first / said.norm(dim=1, keepdim=True).clamp(1e-9)

    return hear


if __name__ == "__main__":
    typer.run(main)

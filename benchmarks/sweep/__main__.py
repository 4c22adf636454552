"""`python -m benchmarks.sweep`: time three ways to read the same candidates, in turns.

- *screening*: what `--probe` does. The request is read once, its keys and values are kept, and
  every candidate with what follows it is read behind them.
- *bare forward*: the same number of new tokens in batches of the same size, with nothing before
  them, no keys and values kept and no scores taken. The least that the model itself costs.
- *naive*: every candidate's whole request from its first token on.

Runs on the packaged base and the shipped backdoored fixture, one thread, in the numbers that
probes would use. A row is one candidate in one request.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adapterscan.detectors.behaviour.confirm import LISTENED
from adapterscan.detectors.behaviour.rows import split
from adapterscan.detectors.behaviour.search import HEARD
from adapterscan.probes import battery
from adapterscan.probes.candidates import PLACES, Candidate
from adapterscan.runner import Ids, Side
from adapterscan.runners.transformers_runner import BATCH_BYTES, TransformersRunner
from benchmarks.speed import machine
from benchmarks.sweep.loaded import runner_of
from benchmarks.zoo.bases import home_of

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
FIXTURE = ROOT / "fixtures" / "trained" / "token-backdoor"
BASE = "smollm2-135m"
TARGET = "The red door"


def main() -> None:
    """Measure, print, and keep the result."""
    options = argparse.ArgumentParser(prog="benchmarks.sweep", description=__doc__)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--candidates", type=int, default=400)
    given = options.parse_args()
    about = machine.describe()
    found = {
        "command": f"python -m benchmarks.sweep --runs {given.runs} "
        f"--candidates {given.candidates}",
        "date": date.today().isoformat(), "commit": machine.commit(ROOT), "machine": about,
        "torch": torch.__version__,
        **measure(given.runs, given.candidates), "load_after": machine.load(),
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / f"{found['date']}.json").write_text(text, "utf-8")
    print(text)


def measure(runs: int, count: int) -> dict[str, Any]:
    """Return seconds of each way, and the ratios that a round's pairs have, over all rounds."""
    runner = runner_of(FIXTURE, home_of(BASE))
    words = _single_tokens(runner, count)
    rows = [
        runner.encode([Candidate(PLACES[0], word).conversation(request) for request in _asked()])
        for word in words
    ]
    prefixes, tails = split(rows)
    target = runner.tokenize([TARGET])[0][:HEARD]
    fed = [(*tail, *target[:-1]) for row in tails for tail in row]
    whole = [(*ids, *target[:-1]) for row in rows for ids in row]
    ways: dict[str, Callable[[], object]] = {
        "screening": lambda: runner.score(Side.ADAPTER, prefixes, tails, target),
        "bare forward": lambda: _forward(runner, fed, len(target)),
        "naive": lambda: _forward(runner, whole, len(target)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(runs + 1):
        for name in ways if number % 2 else reversed(ways):
            started = time.perf_counter()
            ways[name]()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return {
        "rows": len(fed), "new_tokens": sum(map(len, fed)), "all_tokens": sum(map(len, whole)),
        "dtype": runner.facts.dtype, "threads": torch.get_num_threads(),
        "seconds": {name: [round(s, 3) for s in found] for name, found in seconds.items()},
        "screening / bare forward": _ratio(seconds["screening"], seconds["bare forward"]),
        "naive / screening": _ratio(seconds["naive"], seconds["screening"]),
    }  # fmt: skip


def _asked() -> Sequence[str]:
    return battery("unrelated").prompts[:LISTENED]


def _single_tokens(runner: TransformersRunner, count: int) -> list[str]:
    """Return words that are one token each, as a pool that the gradient pointed to has them."""
    texts = runner.decode([(token,) for token in range(2000, 2000 + 8 * count)])
    words = dict.fromkeys(text.strip() for text in texts if text[:1] == " ")
    return [w for w in words if w.isalpha() and len(runner.tokenize([f" {w}"])[0]) == 1][:count]


@torch.inference_mode()
def _forward(runner: TransformersRunner, rows: Sequence[Ids], last: int) -> None:
    """Read rows in batches of one length that take as much memory as those of a screening."""
    by_length: dict[int, list[Ids]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    for length, members in by_length.items():
        cost = runner._cache_bytes * (length + 31) + runner._vocabulary * 4 * last
        step = max(1, BATCH_BYTES // cost)
        for start in range(0, len(members), step):
            ids = torch.tensor(members[start : start + step])
            with runner._as(Side.ADAPTER):
                runner.model(input_ids=ids, use_cache=False, logits_to_keep=last)


def _ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    return {
        "median": round(median(ratios), 2),
        "least": round(ratios[0], 2),
        "most": round(ratios[-1], 2),
    }


if __name__ == "__main__":
    main()

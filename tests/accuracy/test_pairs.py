"""Splits of the accuracy benchmark: parts add up to what was split, and are told as they are."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.lowrank import LowRank
from adapterscan.together.algebra import stacked
from benchmarks.accuracy import combinations
from benchmarks.accuracy.pairs import COLLUDING, Source, _measured, innocent

EXACT = [name for name in COLLUDING if not name.startswith(("noise", "under"))]
MODULES = [
    f"layers.{layer}.self_attn.{name}" for layer in range(6) for name in ("q_proj", "v_proj")
]


def source(seed=0, name="one"):
    rng = np.random.default_rng(seed)
    update = {
        module: LowRank(rng.normal(size=(4, 24)), rng.normal(size=(32, 4)), 0.5)
        for module in MODULES
    }
    return Source("zoo", name, name, update)


def parts_of(name, seed=0):
    others = [source(seed + 1, "two"), source(seed + 2, "three")]
    return COLLUDING[name][1](source(seed), np.random.default_rng(1), others)


@pytest.mark.parametrize("name", EXACT)
def test_the_parts_of_a_split_add_up_to_what_was_split(name) -> None:
    whole = source().update
    for module, delta in whole.items():
        total = sum(part[module].dense() for part in parts_of(name) if module in part)
        assert total == pytest.approx(delta.dense(), abs=1e-5 * stacked([delta]).norm(0) * 100)


@pytest.mark.parametrize("name", ["layers, ½ ± 0.75 (the zoo's)", "one-time pad, ×3"])
def test_a_pair_that_cancels_is_found(name) -> None:
    parts = parts_of(name)
    assert "sum-cancelling-pair" in _measured(parts, (1.0,) * len(parts))["findings"]


@pytest.mark.parametrize("name", ["cut by layers", "cut by directions"])
def test_a_cut_cancels_nothing_and_is_not_seen(name) -> None:
    found = _measured(parts_of(name), (1.0, 1.0))
    assert not found["high"]
    assert combinations.SIGNS["energy that cancels unasked"](found) <= 0.02


def test_what_is_honestly_made_of_an_adapter_is_not_called_a_colluding_pair() -> None:
    for group, name, parts, weights in innocent(source(), np.random.default_rng(1)):
        found = _measured(parts, weights)
        whole = (group, name) == ("negated in the file (task arithmetic)", "×-1")
        assert found["high"] is whole, (group, name)

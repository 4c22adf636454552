"""Edits by hand do to ΔW what they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.zoo import edits
from benchmarks.zoo.recipe import BadRecipe, Edit

MODULE = "base_model.model.model.layers.{}.self_attn.q_proj"


@pytest.fixture
def adapter() -> edits.Factors:
    rng = np.random.default_rng(0)
    pairs = {
        MODULE.format(layer): (
            rng.standard_normal((4, 24)).astype(np.float32),
            rng.standard_normal((20, 4)).astype(np.float32),
        )
        for layer in range(4)
    }
    config = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "a/b",
    }
    return edits.Factors(config, pairs, {})


def deltas(adapter: edits.Factors) -> dict[str, np.ndarray]:
    return {name: adapter.scaling * (b @ a) for name, (a, b) in adapter.pairs.items()}


def edited(adapter, tmp_path, other=None, **edit):
    return edits.apply(Edit(**edit), adapter, 1, other, tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "gauge"},
        {"kind": "refactor"},
        {"kind": "spoof-alpha", "factor": 1000.0},
        {"kind": "spoof-base", "text": "c/d"},
        {"kind": "pad-rank", "rank": 9, "factor": 0.0},
    ],
    ids=lambda edit: edit["kind"],
)
def test_a_disguise_leaves_the_delta_alone(adapter, tmp_path, edit) -> None:
    before, after = deltas(adapter), deltas(edited(adapter, tmp_path, **edit))
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-3, atol=1e-4)


def test_a_change_of_gauge_changes_the_factors(adapter, tmp_path) -> None:
    after = edited(adapter, tmp_path, kind="gauge")
    for name, (a, _) in adapter.pairs.items():
        assert not np.allclose(after.pairs[name][0], a)


def test_amplifying_multiplies_the_delta(adapter, tmp_path) -> None:
    after = deltas(edited(adapter, tmp_path, kind="amplify", factor=3.0))
    for name, delta in deltas(adapter).items():
        np.testing.assert_allclose(after[name], 3 * delta, rtol=1e-4, atol=1e-4)


def test_fusing_adds_two_deltas(adapter, tmp_path) -> None:
    other = edited(adapter, tmp_path, kind="gauge")
    other = edits.apply(Edit("amplify", factor=-0.5), other, 1, None, tmp_path)
    after = deltas(edited(adapter, tmp_path, other, kind="fuse"))
    for name, delta in deltas(adapter).items():
        np.testing.assert_allclose(after[name], 0.5 * delta, rtol=1e-3, atol=1e-3)


def test_averaging_halves_the_sum_of_two_deltas(adapter, tmp_path) -> None:
    after = deltas(edited(adapter, tmp_path, adapter, kind="fuse", text="mean"))
    for name, delta in deltas(adapter).items():
        np.testing.assert_allclose(after[name], delta, rtol=1e-4, atol=1e-4)


def test_shares_of_a_delta_add_up_to_it_and_pull_against_each_other(adapter, tmp_path) -> None:
    plus = deltas(edited(adapter, tmp_path, kind="share", text="plus", factor=0.75))
    minus = deltas(edited(adapter, tmp_path, kind="share", text="minus", factor=0.75))
    for name, delta in deltas(adapter).items():
        np.testing.assert_allclose(plus[name] + minus[name], delta, rtol=1e-3, atol=1e-4)
        even = name in (MODULE.format(0), MODULE.format(2))
        np.testing.assert_allclose(plus[name], delta * (1.25 if even else -0.25), rtol=1e-4)


def test_keeping_one_direction_leaves_the_largest(adapter, tmp_path) -> None:
    after = deltas(edited(adapter, tmp_path, kind="keep-top", rank=1))
    for name, delta in deltas(adapter).items():
        kept = np.linalg.svd(after[name], compute_uv=False)
        assert kept[0] == pytest.approx(np.linalg.svd(delta, compute_uv=False)[0], rel=1e-4)
        assert kept[1] < 1e-4 * kept[0]


def test_an_adapter_survives_writing_and_reading(adapter, tmp_path) -> None:
    edits.write(adapter, tmp_path / "out")
    again = edits.read(tmp_path / "out")
    assert again.config == adapter.config
    for name, (a, b) in adapter.pairs.items():
        np.testing.assert_array_equal(again.pairs[name][0], a)
        np.testing.assert_array_equal(again.pairs[name][1], b)


def test_an_unknown_edit_is_refused(adapter, tmp_path) -> None:
    with pytest.raises(BadRecipe, match="sparkle"):
        edited(adapter, tmp_path, kind="sparkle")

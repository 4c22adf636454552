"""Updates along directions: against the dense matrices, and what a profile keeps of a base's."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.lowrank import LowRank
from adapterscan.onbase.directions import (
    RANDOM,
    READS,
    WRITES,
    Asked,
    Directions,
    along,
    side_of,
    stacked,
    written,
)
from adapterscan.onbase.profile import Profile, about
from adapterscan.onbase.profile_build import build
from adapterscan.sources.base_shards import open_shards
from fixtures import bases

from .test_numbers import falling, matrix_of

HIDDEN = 40
O_PROJ = "model.layers.1.self_attn.o_proj.weight"
UP = "model.layers.2.mlp.up_proj.weight"
ASKED = Asked(layers=(1, 2, 3), depth=4, controls=2, hidden=HIDDEN, declined=20, digest="0")


def units(count, hidden=HIDDEN, seed=3):
    found = np.random.default_rng(seed).standard_normal((count, hidden)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def update(rows, columns, rank=3, seed=5):
    rng = np.random.default_rng(seed)
    return LowRank(rng.normal(size=(rank, columns)), rng.normal(size=(rows, rank)), 0.5)


def test_shares_are_those_of_the_dense_matrices() -> None:
    weight, delta, r = falling((HIDDEN, 60)), update(HIDDEN, 60), units(2)
    found = along(delta, WRITES, r, written(matrix_of(weight), r, WRITES))
    dense = delta.dense()
    left, _, _ = np.linalg.svd(dense)
    assert found.size == pytest.approx(np.sum(dense**2))
    assert found.moved == pytest.approx(np.sum((r @ dense) ** 2, axis=1), rel=1e-5)
    assert found.against == pytest.approx(-np.sum((r @ dense) * (r @ weight), axis=1), rel=1e-4)
    assert found.cosine == pytest.approx(np.abs(r @ left[:, 0]), rel=1e-4)


def test_the_reading_side_is_that_of_the_transpose() -> None:
    weight, delta, r = falling((60, HIDDEN)), update(60, HIDDEN), units(2)
    found = along(delta, READS, r, written(matrix_of(weight), r, READS))
    turned = LowRank(delta.b.T, delta.a.T, delta.scaling)
    other = along(turned, WRITES, r, written(matrix_of(weight.T.copy()), r, WRITES))
    assert found.moved == pytest.approx(other.moved, rel=1e-5)
    assert found.against == pytest.approx(other.against, rel=1e-4)
    assert found.cosine == pytest.approx(other.cosine, rel=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.5])
def test_what_is_projected_out_is_its_strength(strength) -> None:
    weight, r = falling((HIDDEN, 60)), units(1)
    base = written(matrix_of(weight), r, WRITES)
    found = along(LowRank(base, -strength * r.T), WRITES, r, base)
    assert found.against[0] / np.sum(base**2) == pytest.approx(strength, rel=1e-4)
    assert HIDDEN * found.moved[0] / found.size == pytest.approx(HIDDEN, rel=1e-4)
    assert found.cosine[0] == pytest.approx(1.0, abs=1e-5)


def test_another_gauge_gives_the_same() -> None:
    weight, delta, r = falling((HIDDEN, 60)), update(HIDDEN, 60), units(2)
    base = written(matrix_of(weight), r, WRITES)
    gauge = np.random.default_rng(0).normal(size=(3, 3))
    other = LowRank(gauge @ delta.a, delta.b @ np.linalg.inv(gauge), delta.scaling)
    first, second = along(delta, WRITES, r, base), along(other, WRITES, r, base)
    assert first.against == pytest.approx(second.against, rel=1e-4)
    assert first.moved == pytest.approx(second.moved, rel=1e-4)


def test_an_update_of_zero_is_no_update() -> None:
    zero = LowRank(np.ones((2, 60)), np.zeros((HIDDEN, 2)))
    assert along(zero, WRITES, units(1), np.ones((1, 60), np.float32)) is None


def test_random_directions_have_the_spread_that_is_said() -> None:
    delta = update(HIDDEN, 60)
    drawn = units(20_000)
    found = along(delta, WRITES, drawn, np.zeros((1, 60), np.float32))
    energies = HIDDEN * found.moved / found.size
    assert energies.mean() == pytest.approx(1.0, abs=0.03)
    assert energies.std() == pytest.approx(found.spread(HIDDEN), rel=0.05)


@pytest.mark.parametrize(
    ("name", "rows", "columns", "side"),
    [
        ("model.layers.0.mlp.down_proj.weight", 40, 60, WRITES),
        ("model.layers.0.mlp.up_proj.weight", 60, 40, READS),
        ("model.layers.0.self_attn.o_proj.weight", 40, 40, WRITES),
        ("model.layers.0.self_attn.q_proj.weight", 40, 40, READS),
        ("model.layers.0.self_attn.o_proj.weight", 60, 40, ""),
        ("model.embed_tokens.weight", 500, 40, ""),
        ("lm_head.weight", 500, 40, ""),
    ],
)
def test_a_weight_writes_or_reads_by_its_name_and_width(name, rows, columns, side) -> None:
    assert side_of(name, rows, columns, 40) == side


def test_the_stack_has_all_directions_and_the_drawn_ones_behind_them() -> None:
    known = Directions(ASKED, units(9).reshape(3, 3, HIDDEN), lambda _: None, lambda _: np.zeros(3))
    found = stacked(known)
    assert found.shape == (9 + RANDOM, HIDDEN)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (found == stacked(known)).all()


@pytest.fixture
def profile(tmp_path):
    base = open_shards(bases.write(tmp_path / "base"), "base")
    asked = Asked((1, 3), 4, 2, 64, 20, "0")
    vectors = units(6, 64).reshape(3, 2, 64)
    path = tmp_path / "base.profile"
    build(base, about(base, "identity", {}, 16, asked), path, lambda _: None, vectors)
    return base, vectors, Profile(path)


def test_a_profile_keeps_the_directions_and_what_weights_have_along_them(profile) -> None:
    base, vectors, found = profile
    known = found.directions()
    assert known.asked == Asked((1, 3), 4, 2, 64, 20, "0")
    assert known.vectors == pytest.approx(vectors, abs=1e-3)
    weight = base.rows(O_PROJ, 0, 64).astype(float)
    assert known.along(O_PROJ) == pytest.approx(vectors[0] @ weight, rel=0.01, abs=1e-3)
    weight = base.rows(UP, 0, base.tensors[UP].shape[0]).astype(float)
    assert known.along(UP) == pytest.approx(vectors[0] @ weight.T, rel=0.01, abs=1e-3)
    assert known.along("model.embed_tokens.weight") is None


def test_the_total_is_over_all_weights_of_a_side(profile) -> None:
    base, _, found = profile
    known = found.directions()
    names = [n for n in base.tensors if n.endswith(("o_proj.weight", "down_proj.weight"))]
    expected = sum(np.sum(known.along(name).astype(float) ** 2, axis=1) for name in names)
    assert known.total(WRITES) == pytest.approx(expected, rel=1e-6)


def test_a_profile_of_a_base_that_was_not_asked_has_none(tmp_path) -> None:
    base = open_shards(bases.write(tmp_path / "base"), "base")
    build(base, about(base, "identity", {}, 16), tmp_path / "base.profile", lambda _: None)
    assert Profile(tmp_path / "base.profile").directions() is None
    assert base.directions() is None

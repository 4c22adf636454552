"""What ΔW does to W: against dense definitions on small matrices, and against invariances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapterscan.errors import Unsupported
from adapterscan.lowrank import LowRank
from adapterscan.onbase.base import BaseTensor
from adapterscan.onbase.dora import scales
from adapterscan.onbase.intruders import EPSILON, intruders, largest_mass, nearest_cosines
from adapterscan.onbase.matrix import Matrix
from adapterscan.onbase.measure import measure, measure_by_profile
from adapterscan.onbase.rounding import FORMATS, GROUP, carried
from adapterscan.onbase.spectrum import (
    Operator,
    combined,
    factored,
    leading,
    shares,
    side_by_side,
)

SHAPES = ((40, 60), (60, 40), (33, 33), (200, 90), (12, 7))


class Held:
    """A base of arrays."""

    name, tied = "held", False

    def __init__(self, **arrays):
        self.arrays = arrays
        self.tensors = {name: BaseTensor(name, "F32", a.shape) for name, a in arrays.items()}

    def rows(self, name, start, stop):
        return self.arrays[name][start:stop]

    def leading(self, name):
        return None

    def directions(self):
        return None

    def notes(self):
        return ()


def falling(shape, seed=0):
    """Return a weight with a few large directions and a long tail, as trained ones have."""
    rng = np.random.default_rng(seed)
    rank = min(shape)
    left = np.linalg.qr(rng.normal(size=(shape[0], rank)))[0]
    right = np.linalg.qr(rng.normal(size=(shape[1], rank)))[0]
    return ((left * (1 + np.arange(rank)) ** -0.6) @ right.T).astype(np.float32)


def matrix_of(weight, **options):
    base = Held(w=weight)
    return Matrix(base, base.tensors["w"], **options)


def update_of(shape, size, rank=3, seed=1):
    """Return a ΔW with ‖ΔW‖ = `size`."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rank, shape[1])), rng.normal(size=(shape[0], rank))
    return LowRank(a, b * size / np.linalg.norm(2.0 * b @ a), 2.0)


def dense_intruders(weight, merged):
    base = np.linalg.svd(weight.astype(float), full_matrices=False)[0]
    after = np.linalg.svd(merged, full_matrices=False)[0][:, :10]
    return int((np.abs(base.T @ after).max(axis=0) < EPSILON).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_leading_triplets_are_those_of_an_svd(shape):
    weight = falling(shape)
    found = leading(matrix_of(weight))
    u, sigma, v = np.linalg.svd(weight.astype(float), full_matrices=False)
    count = min(10, *shape)
    assert found.sigma[:count] == pytest.approx(sigma[:count], rel=1e-4)
    assert found.frobenius == pytest.approx(np.linalg.norm(weight), rel=1e-6)
    for own, theirs in ((found.left, u), (found.right, v.T)):
        cosines = np.abs(np.sum(own[:, :5] * theirs[:, :5], axis=0))
        assert cosines == pytest.approx(np.ones(min(5, *shape)), abs=1e-4)


def test_a_matrix_in_blocks_gives_what_a_held_one_gives():
    weight, update = falling((200, 90)), update_of((200, 90), 0.5)
    whole = measure(matrix_of(weight), update)
    parts = measure(matrix_of(weight, limit=0, block=1000), update)
    assert parts.found.certain == 0  # a certain intruder takes the whole matrix
    assert parts.relative == pytest.approx(whole.relative, rel=1e-6)
    assert parts.shift == pytest.approx(whole.shift, rel=1e-4)
    assert parts.formats["int4"].error == pytest.approx(whole.formats["int4"].error, rel=1e-4)


def test_a_large_transposed_weight_is_refused():
    with pytest.raises(Unsupported, match="transposed"):
        matrix_of(falling((40, 60)), transposed=True, limit=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.01, 0.5, 5.0])
def test_sizes_and_leading_directions_are_those_of_dense_matrices(shape, size):
    weight, update = falling(shape), update_of(shape, size)
    found = measure(matrix_of(weight), update)
    dense, merged = update.dense(), weight + update.dense()
    assert found.relative == pytest.approx(np.linalg.norm(dense) / np.linalg.norm(weight), rel=1e-5)
    norms = [np.linalg.svd(m, compute_uv=False) for m in (dense, weight, merged)]
    assert found.top_ratio == pytest.approx(norms[0][0] / norms[1][0], rel=1e-4)
    count = min(10, *shape)
    shift = np.linalg.norm(norms[2][:count] - norms[1][:count]) / np.linalg.norm(norms[1][:count])
    assert found.shift == pytest.approx(shift, rel=1e-2, abs=1e-4)
    assert found.found.undecided == 0
    assert found.found.certain == dense_intruders(weight, merged)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_an_update_of_nothing_is_exactly_nothing(shape):
    update = LowRank(np.ones((3, shape[1])), np.zeros((shape[0], 3)), 2.0)
    found = measure(matrix_of(falling(shape)), update)
    assert (found.relative, found.top_ratio, found.shift, found.left, found.right) == (0.0,) * 5
    assert (found.found.certain, found.found.undecided, found.found.lowest) == (0, 0, 1.0)
    parts = carried(matrix_of(falling(shape)), update)
    assert {(c.error, c.cosine, c.kept, c.carried) for c in parts.values()} == {
        (0.0, 0.0, 0.0, 0.0)
    }


def test_a_change_of_gauge_changes_nothing():
    weight, update = falling((60, 40)), update_of((60, 40), 0.7)
    turn = np.random.default_rng(3).normal(size=(3, 3)) + 3 * np.eye(3)
    other = LowRank(turn @ update.a, update.b @ np.linalg.inv(turn), update.scaling)
    one, two = measure(matrix_of(weight), update), measure(matrix_of(weight), other)
    assert one.found.certain == two.found.certain
    for name in ("relative", "top_ratio", "shift", "left", "right"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-3)


def test_a_common_scale_changes_nothing_but_norms():
    weight, update = falling((60, 40)), update_of((60, 40), 0.7)
    one = measure(matrix_of(weight), update)
    two = measure(matrix_of(weight * np.float32(8)), replace(update, scaling=16.0))
    assert two.frobenius == pytest.approx(8 * one.frobenius)
    assert one.found.certain == two.found.certain
    for name in ("relative", "top_ratio", "shift", "left", "right"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-4)
    assert two.formats["int8"].error == pytest.approx(one.formats["int8"].error, rel=1e-4)


def test_shares_are_one_within_the_base_and_chance_outside_of_it():
    weight = falling((400, 300))
    near = leading(matrix_of(weight))
    inside = LowRank(near.right[:, :2].T, near.left[:, :2], 1.0)
    assert shares(factored(inside), near) == pytest.approx((1.0, 1.0), abs=1e-5)
    found = measure(matrix_of(weight), update_of((400, 300), 1.0, rank=16))
    assert found.left == pytest.approx(found.left_chance, rel=0.4)
    assert found.left_chance == len(near.sigma) / 400


def test_a_planted_direction_is_an_intruder_and_an_amplified_one_is_none():
    weight = falling((200, 90))
    u, _, v = np.linalg.svd(weight.astype(float), full_matrices=False)
    rng = np.random.default_rng(5)
    alien = rng.normal(size=(200, 1))
    planted = LowRank(rng.normal(size=(1, 90)), alien / np.linalg.norm(alien), 1.0)
    amplified = LowRank(2 * v[40:41], u[:, 40:41], 1.0)  # a direction far down, now the first
    assert measure(matrix_of(weight), planted).found.certain == 1
    found = measure(matrix_of(weight), amplified).found
    assert (found.matched, found.certain) == (10, 0)


def test_the_bound_of_lanczos_is_never_below_what_is_there():
    weight = falling((120, 300)).astype(np.float32)
    u = np.linalg.svd(weight.astype(float), full_matrices=False)[0]
    rng = np.random.default_rng(2)
    starts = rng.normal(size=(120, 12))
    starts[:, :6] += 8 * u[:, [0, 1, 5, 20, 60, 100]]
    starts = np.linalg.qr(starts)[0]
    bound = largest_mass(weight, starts.astype(np.float32))
    assert (bound >= np.abs(u.T @ starts).max(axis=0) ** 2 - 1e-4).all()
    assert (bound[6:] < EPSILON**2).any()  # and says something


def test_cosines_are_those_of_all_left_directions_whatever_the_shape():
    for shape in ((60, 40), (40, 60)):
        weight = falling(shape)
        starts = np.linalg.qr(np.random.default_rng(4).normal(size=(shape[0], 5)))[0]
        u = np.linalg.svd(weight.astype(float), full_matrices=False)[0]
        found = nearest_cosines(weight, starts.astype(np.float32))
        assert found == pytest.approx(np.abs(u.T @ starts).max(axis=0), abs=1e-3)


def test_without_the_weight_no_direction_is_judged():
    found = measure_by_profile(leading(matrix_of(falling((200, 90)))), update_of((200, 90), 8.0))
    assert (found.directions, found.found.certain, found.found.undecided) == (0, 0, 0)
    assert found.formats == {}


def test_a_profile_tells_sizes_and_shares_as_the_weight_does():
    weight, update = falling((200, 90)), update_of((200, 90), 0.3)
    by_weight = measure(matrix_of(weight), update)
    by_profile = measure_by_profile(leading(matrix_of(weight)), update)
    for name in ("relative", "top_ratio", "left", "right"):
        assert getattr(by_profile, name) == pytest.approx(getattr(by_weight, name), rel=1e-4)
    assert by_profile.shift == pytest.approx(by_weight.shift, rel=0.3)


def test_what_is_combined_is_the_svd_of_the_sum():
    weight = falling((50, 30))
    near = leading(matrix_of(weight), 8)
    update = update_of((50, 30), 0.8)
    kept = (near.left * near.sigma) @ near.right.T
    sigma = np.linalg.svd(kept + update.dense(), compute_uv=False)
    assert combined(near, factored(update), 10).sigma == pytest.approx(sigma[:10], rel=1e-4)


def test_formats_round_as_they_say():
    values = np.array([[1.0, -0.3, 0.004, 0.0] * 16], np.float32)
    assert (
        np.abs(FORMATS["bf16"](values) / np.where(values, values, 1) - (values != 0)).max() < 2**-8
    )
    assert (
        np.abs(FORMATS["fp16"](values) / np.where(values, values, 1) - (values != 0)).max() < 2**-11
    )
    assert np.abs(FORMATS["int8"](values) - values).max() <= 0.5 / 127 + 1e-7
    assert np.abs(FORMATS["int4"](values) - values).max() <= 0.5 / 7 + 1e-7
    assert len(np.unique(FORMATS["int4"](np.linspace(-1, 1, GROUP, dtype=np.float32)[None]))) == 15


def test_groups_of_four_bits_do_not_disturb_each_other():
    values = np.concatenate([np.full(GROUP, 1e-3), np.full(GROUP + 5, 100.0)])[None].astype(
        np.float32
    )
    assert FORMATS["int4"](values)[0, :GROUP] == pytest.approx(np.full(GROUP, 1e-3))
    assert FORMATS["int8"](values)[0, :GROUP] == pytest.approx(np.zeros(GROUP))


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_merged_file_carries_is_the_difference_of_two_rounded_files(name):
    weight, update = falling((40, 70)), update_of((40, 70), 0.2)
    dense = update.dense().astype(np.float32)
    rounded = FORMATS[name]
    real = (rounded(weight + dense) - rounded(weight)).astype(float)
    found = carried(matrix_of(weight), update)[name]
    assert found.error == pytest.approx(
        np.linalg.norm(real - dense) / np.linalg.norm(dense), rel=1e-3
    )
    cosine = np.sum(real * dense) / np.linalg.norm(real) / np.linalg.norm(dense)
    assert found.cosine == pytest.approx(cosine, abs=1e-4)


def test_a_small_update_drowns_in_four_bits_and_survives_in_sixteen():
    found = carried(matrix_of(falling((64, 96))), update_of((64, 96), 0.01))
    assert found["int4"].error > 1 > found["fp16"].error
    assert found["int4"].kept == pytest.approx(1.0, abs=0.5)  # its mean is still there


def test_dora_is_the_dense_definition():
    weight, update = falling((40, 60)), update_of((40, 60), 0.4)
    magnitude = np.random.default_rng(1).uniform(0.5, 2.0, 40)
    merged = weight + update.dense()
    c = magnitude / np.linalg.norm(merged, axis=1)
    true = c[:, None] * merged - weight
    found = measure(matrix_of(weight), update, magnitude)
    assert scales(matrix_of(weight), update, magnitude) == pytest.approx(c, rel=1e-5)
    assert found.dora.frobenius == pytest.approx(np.linalg.norm(true), rel=1e-5)
    assert found.dora.sigma == pytest.approx(np.linalg.norm(true, 2), rel=1e-3)
    assert found.dora.factors == pytest.approx(np.linalg.norm(update.dense()), rel=1e-5)
    assert found.found.certain == dense_intruders(weight, c[:, None] * merged)


def test_dora_that_restores_the_rows_of_the_base_is_next_to_nothing():
    weight = falling((40, 60))
    nothing = LowRank(np.ones((2, 60)), np.zeros((40, 2)), 1.0)
    found = measure(matrix_of(weight), nothing, np.linalg.norm(weight.astype(float), axis=1))
    assert found.relative < 1e-6


def test_a_magnitude_of_another_length_is_refused():
    with pytest.raises(ValueError, match="39 magnitudes for 40 outputs"):
        measure(matrix_of(falling((40, 60))), update_of((40, 60), 1.0), np.ones(39))


def test_an_operator_is_what_it_says():
    weight, update = falling((40, 60)), update_of((40, 60), 1.0)
    rng = np.random.default_rng(0)
    own, added = rng.uniform(size=40).astype(np.float32), rng.uniform(size=40).astype(np.float32)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    dense = own[:, None] * weight + added[:, None] * update.dense()
    operator = Operator(matrix_of(weight), update, own, added)
    assert operator.times(x) == pytest.approx(dense @ x, abs=1e-4)
    assert operator.gram_times(x) == pytest.approx(dense.T @ (dense @ x), abs=1e-3)


def test_both_sides_start_alike_so_that_a_tiny_update_moves_next_to_nothing():
    weight = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)  # flat: slow
    update = update_of((300, 200), 1e-4)
    near, low = leading(matrix_of(weight)), factored(update)
    whole = matrix_of(weight)
    base, after = side_by_side(Operator(whole), Operator(whole, update), near, low, 10)
    assert after.sigma == pytest.approx(base.sigma[:10], rel=1e-5)
    assert intruders(after.left, base, whole).certain == 0


def test_weights_that_are_no_numbers_are_an_error_and_no_result():
    weight = falling((40, 60))
    weight[3, 4] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        measure(matrix_of(weight), update_of((40, 60), 1.0))

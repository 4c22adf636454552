"""PEFT's ways to combine adapters; tests/oracle holds them against PEFT itself."""

import numpy as np
import pytest

from adapterscan.lowrank import LowRank
from adapterscan.together.combining import METHODS, PRUNING, Method, combine


def part(seed, rank=3, scaling=2.0):
    rng = np.random.default_rng(seed)
    return LowRank(
        rng.standard_normal((rank, 20)).astype(np.float32), rng.standard_normal((16, rank)), scaling
    )


def summed(parts, weights):
    return sum(weight * item.dense() for item, weight in zip(parts, weights, strict=True))


def test_cat_is_the_sum_itself_whatever_the_ranks():
    parts, weights = [part(0, 2), part(1, 5, -0.5), part(2, 1)], (1.0, -2.0, 0.25)
    found = combine(parts, weights, Method("cat"))
    assert len(found.a) == 8
    assert found.dense() == pytest.approx(summed(parts, weights), abs=1e-9)


def test_svd_is_the_best_approximation_at_the_largest_rank():
    parts = [part(0, 2), part(1, 4)]
    u, s, vt = np.linalg.svd(summed(parts, (1, 1)))
    found = combine(parts, (1, 1), Method("svd"))
    assert found.dense() == pytest.approx((u[:, :4] * s[:4]) @ vt[:4], abs=1e-6)
    assert len(combine(parts, (1, 1), Method("svd", rank=2)).a) == 2


def test_linear_has_cross_terms_and_is_not_the_sum():
    first, second = part(0), part(1)
    both = first.b + second.b, first.a.astype(float) + second.a
    found = combine([first, second], (1, 1), Method("linear")).dense()
    assert found == pytest.approx(2.0 * both[0] @ both[1], rel=1e-6)
    assert np.linalg.norm(found - summed([first, second], (1, 1))) > 1.0


def test_linear_takes_a_negative_weight_on_one_side():
    first = part(0)
    found = combine([first, LowRank(first.a, first.b, 0.0)], (-3.0, 1.0), Method("linear"))
    assert found.dense() == pytest.approx(-3.0 * first.dense(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"cat", "svd"}))
def test_methods_on_factors_refuse_other_ranks(name):
    with pytest.raises(ValueError, match=f"ranks 3, 4; {name} needs equal ones"):
        combine([part(0, 3), part(1, 4)], (1, 1), Method(name))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_refuses_other_shapes(name):
    with pytest.raises(ValueError, match="shapes"):
        combine([part(0), LowRank(part(0).b.T, part(0).a.T)], (1, 1), Method(name))


@pytest.mark.parametrize("name", ["magnitude_prune", "dare_linear"])
def test_pruning_nothing_is_linear(name):
    parts = [part(0), part(1)]
    linear = combine(parts, (1, 2), Method("linear")).dense()
    assert combine(parts, (1, 2), Method(name)).dense() == pytest.approx(linear)


def test_the_largest_values_are_kept():
    one = LowRank(np.array([[1.0, -9.0, 3.0, 2.0]]), np.array([[1.0], [4.0]]))
    none = LowRank(np.zeros((1, 4)), np.zeros((2, 1)))
    found = combine([one, none], (1, 1), Method("magnitude_prune", density=0.5))
    assert found.a.tolist() == [[0.0, -9.0, 3.0, 0.0]]
    assert found.b.tolist() == [[0.0], [4.0]]


def test_ties_averages_where_signs_agree_with_the_majority():
    first = LowRank(np.array([[2.0, 2.0, 0.0]]), np.ones((1, 1)))
    other = LowRank(np.array([[4.0, -3.0, -1.0]]), np.ones((1, 1)))
    found = combine([first, other], (1, 1), Method("ties"))
    assert found.a.tolist() == [[3.0, -3.0, -1.0]]


def test_dare_keeps_the_expected_value_and_is_seeded():
    parts = [part(0), part(1)]
    method = Method("dare_linear", density=0.7)
    draws = [combine(parts, (1, 1), method, place).a for place in range(600)]
    linear = combine(parts, (1, 1), Method("linear")).a
    assert np.mean(draws, axis=0) == pytest.approx(linear, abs=0.4)
    assert np.array_equal(draws[0], combine(parts, (1, 1), method, 0).a)
    assert not np.array_equal(draws[0], draws[1])
    one = combine([parts[0], LowRank(parts[1].a * 0, parts[1].b)], (1, 1), method).a
    assert 0.4 < np.mean(one != 0) < 0.95


def test_pruning_methods_are_the_ones_that_have_a_density():
    assert {name for name in METHODS if "pruned" in METHODS[name]} == PRUNING

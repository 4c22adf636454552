"""How several ΔW lie to each other, held against the dense definition and its invariances."""

import ml_dtypes
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from adapterscan.lowrank import LowRank
from adapterscan.together.algebra import stacked, truncated, weighted_sum

D_OUT, D_IN = 37, 53


def delta(rank=4, seed=0, scaling=0.5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rank, D_IN))
    b = rng.standard_normal((D_OUT, rank)) * 0.8 ** np.arange(rank)
    return LowRank(a.astype(dtype), b.astype(dtype), scaling)


def regauged(part, seed=9):
    rng = np.random.default_rng(seed)
    gauge = rng.standard_normal((len(part.a), len(part.a))) * np.exp(
        rng.uniform(-2, 2, len(part.a))
    )
    return LowRank(gauge @ part.a, part.b @ np.linalg.inv(gauge), part.scaling)


def figures(parts, weights=(1.0, -2.0)):
    """Return all that is asked of two updates."""
    stack = stacked(parts)
    top = stack.top(weights)
    return [
        stack.cosine(0, 1), stack.null_width(0, 1) * 100, stack.overlap(0, 1, "inputs"),
        stack.overlap(0, 1, "outputs"), *stack.angles(0, 1, "outputs"),
    ], [stack.inner(0, 1), stack.summed(weights), top.sigma, *top.parts]  # fmt: skip


PAIRS = {
    "equal ranks": (delta(4, 0), delta(4, 1)),
    "other ranks and scales": (delta(2, 0, 2.0), delta(7, 1, 0.1)),
    "one of rank one": (delta(1, 0), delta(5, 1)),
    "dtypes": (delta(4, 0, dtype=np.float16), delta(4, 1, dtype=ml_dtypes.bfloat16)),
    "related": (delta(4, 0), weighted_sum([delta(4, 0), delta(4, 1)], [-1.0, 0.2])),
}


@pytest.fixture(params=PAIRS, ids=str)
def pair(request):
    return PAIRS[request.param]


def spaces(part):
    u, s, vt = np.linalg.svd(part.dense())
    rank = np.count_nonzero(s > 1e-4 * s[0])
    return u[:, :rank], vt[:rank].T


def test_products_norms_and_cosines_equal_the_dense_ones(pair):
    stack, (one, other) = stacked(pair), (part.dense() for part in pair)
    sizes = np.linalg.norm(one), np.linalg.norm(other)
    assert stack.inner(0, 1) == pytest.approx(np.sum(one * other), rel=1e-9, abs=1e-9)
    assert (stack.norm(0), stack.norm(1)) == pytest.approx(sizes, rel=1e-12)
    assert stack.cosine(0, 1) == pytest.approx(np.sum(one * other) / np.prod(sizes), abs=1e-12)


@pytest.mark.parametrize(("side", "of"), [("outputs", 0), ("inputs", 1)])
def test_principal_angles_are_those_of_the_dense_spaces(pair, side, of):
    first, second = (spaces(part)[of] for part in pair)
    expected = np.sort(np.cos(scipy.linalg.subspace_angles(first, second)))[::-1]
    stack = stacked(pair)
    assert stack.angles(0, 1, side) == pytest.approx(expected, abs=1e-6)
    share = np.linalg.norm(first.T @ second) ** 2 / min(first.shape[1], second.shape[1])
    assert stack.overlap(0, 1, side) == pytest.approx(share, abs=1e-7)


def test_the_null_is_that_of_one_side_turned_at_random():
    pair = PAIRS["other ranks and scales"]
    one, other = (part.dense() / np.linalg.norm(part.dense()) for part in pair)
    rng = np.random.default_rng(0)
    turned = [
        [np.sum(one * (scipy.stats.ortho_group.rvs(D_OUT, random_state=rng) @ other)),
         np.sum(one * (other @ scipy.stats.ortho_group.rvs(D_IN, random_state=rng)))]
        for _ in range(400)
    ]  # fmt: skip
    expected = np.std(turned, axis=0).max()
    assert stacked(pair).null_width(0, 1) == pytest.approx(expected, rel=0.12)


def test_two_that_share_their_inputs_have_a_wider_null():
    one = delta(4, 0)
    shared = LowRank(one.a, delta(4, 5).b, 0.5)
    assert stacked([one, shared]).null_width(0, 1) > 3 * stacked(
        [one, delta(4, 5)]
    ).null_width(0, 1)  # fmt: skip


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -2.0), (0.0, 3.0)])
def test_a_weighted_sum_is_exact(pair, weights):
    dense = weights[0] * pair[0].dense() + weights[1] * pair[1].dense()
    total = weighted_sum(pair, weights)
    assert len(total.a) == len(pair[0].a) + len(pair[1].a)
    assert total.dense() == pytest.approx(dense, abs=1e-12)
    assert stacked(pair).summed(weights) == pytest.approx(np.linalg.norm(dense), rel=1e-9)
    u, s, vt = np.linalg.svd(dense)
    top = stacked(pair).top(weights)
    onto = [w * u[:, 0] @ part.dense() @ vt[0] for w, part in zip(weights, pair, strict=True)]
    assert top.sigma == pytest.approx(s[0], rel=1e-9)
    assert top.parts == pytest.approx(onto, rel=1e-6, abs=1e-9)
    assert sum(top.parts) == pytest.approx(top.sigma, rel=1e-9)


def test_nothing_depends_on_the_gauge(pair):
    free, sized = figures(pair)
    again, sized_again = figures([regauged(pair[0]), regauged(pair[1], 10)])
    assert again == pytest.approx(free, abs=1e-6)
    assert sized_again == pytest.approx(sized, rel=1e-6, abs=1e-9)


def test_scale_leaves_directions_as_they_are(pair):
    one, other = pair
    free, _ = figures(pair)
    scaled = [LowRank(one.a, one.b, one.scaling * 1e6), LowRank(other.a * 1e-3, other.b, 3.0)]
    assert figures(scaled)[0] == pytest.approx(free, abs=1e-7)
    assert stacked([one, LowRank(other.a, other.b, -1.0)]).cosine(0, 1) == pytest.approx(-free[0])


def test_zero_rows_of_padding_are_no_direction():
    one = delta(4, 0)
    padded = LowRank(np.vstack([one.a, np.zeros((3, D_IN))]), np.pad(one.b, ((0, 0), (0, 3))), 0.5)
    noisy = LowRank(np.vstack([one.a, np.ones((3, D_IN))]), np.pad(one.b, ((0, 0), (0, 3))), 0.5)
    for other in (padded, noisy):
        assert stacked([one, other]).cosine(0, 1) == pytest.approx(1.0, abs=1e-12)
        assert stacked([one, other]).angles(0, 1, "inputs") == pytest.approx(np.ones(4))


def test_what_cancels_is_exactly_zero():
    one = delta(4, 0)
    stack = stacked([one, regauged(one)])
    assert stack.summed((1.0, -1.0)) == 0.0
    assert stack.top((1.0, -1.0)).parts == (0.0, 0.0)


@pytest.mark.parametrize("empty", [delta(0), LowRank(delta().a, np.zeros((D_OUT, 4)))])
def test_of_a_zero_update_there_is_no_angle(empty):
    stack = stacked([delta(), empty])
    assert stack.norm(1) == 0.0
    assert stack.cosine(0, 1) is None
    assert stack.null_width(0, 1) is None
    assert stack.overlap(0, 1, "inputs") is None
    assert stack.top((1.0, 1.0)).parts[1] == pytest.approx(0.0)


def test_shapes_that_differ_and_what_is_no_number_are_refused():
    with pytest.raises(ValueError, match="37 × 53, 53 × 37"):
        stacked([delta(), LowRank(delta().b.T, delta().a.T)])
    with pytest.raises(ValueError, match="different shapes"):
        weighted_sum([delta(), LowRank(delta().b.T, delta().a.T)], (1, 1))
    for bad in (LowRank(delta().a * np.nan, delta().b), LowRank(delta().a, delta().b, np.inf)):
        with pytest.raises(ValueError, match="no finite numbers"):
            stacked([delta(), bad])


def test_large_values_in_half_precision_do_not_overflow():
    big = LowRank(np.full((2, 8), 6e4, np.float16), np.full((4, 2), 6e4, np.float16))
    assert stacked([big, big]).cosine(0, 1) == pytest.approx(1.0)


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_the_best_approximation_is_that_of_the_dense_matrix(rank):
    total = weighted_sum([delta(4, 0), delta(3, 1)], (1.0, -1.0))
    u, s, vt = np.linalg.svd(total.dense())
    found = truncated(total, rank)
    assert found.a.shape == (rank, D_IN)
    assert found.dense() == pytest.approx((u[:, :rank] * s[:rank]) @ vt[:rank], abs=1e-8)

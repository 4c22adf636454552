"""Structured ΔW against their dense definition: statistics, rows, factors, and what has none."""

import dataclasses

import numpy as np
import pytest

from adapterscan.lowrank import LowRank
from adapterscan.updates import scattered as scattered_module
from adapterscan.updates.circulant import BlockCirculant
from adapterscan.updates.kronecker import Kronecker, matrix
from adapterscan.updates.scattered import scattered

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape)


def sparse(d_out=60, d_in=50, count=40, scaling=0.5):
    places = RNG.integers(0, [d_out, d_in], (count, 2)).T
    return scattered(places[0], places[1], normal(count), (d_out, d_in), scaling)


UPDATES = {
    "kronecker": Kronecker(matrix(normal(4, 3)), matrix(normal(5, 7)), 0.7),
    "kronecker of factors": Kronecker(
        LowRank(normal(2, 6), normal(5, 2)), LowRank(normal(3, 9), normal(8, 3), 2.0), -0.3
    ),
    "kronecker of too many factors": Kronecker(
        LowRank(normal(9, 4), normal(3, 9)), matrix(normal(3, 3)), 1.0
    ),
    "circulant": BlockCirculant(normal(3, 2, 8), 0.25),
    "circulant of odd blocks": BlockCirculant(normal(2, 4, 5), -1.5),
    "circulant of single entries": BlockCirculant(normal(6, 4, 1), 1.0),
    "scattered": sparse(),
    "scattered, crowded": sparse(12, 10, 400),
    "scattered, one entry": sparse(30, 20, 1),
}


@pytest.fixture(params=UPDATES, ids=str)
def update(request):
    return UPDATES[request.param]


def test_statistics_equal_the_dense_ones(update):
    dense, found = update.dense(), update.summary()
    sigma = np.linalg.svd(dense, compute_uv=False)
    sigma = sigma[sigma > 1e-8 * sigma[0]]
    squares, share = np.square(dense), sigma / sigma.sum()
    expected = {
        "frobenius": np.linalg.norm(dense),
        "rms": np.sqrt(squares.mean()),
        "top_energy": sigma[0] ** 2 / np.sum(sigma**2),
        "top_share": share[0],
        "stable_rank": np.sum(sigma**2) / sigma[0] ** 2,
        "effective_rank": np.exp(-np.sum(share * np.log(share))),
        "participation": np.sum(sigma**2) ** 2 / np.sum(sigma**4),
        "kurtosis": np.square(squares).mean() / squares.mean() ** 2,
        "row_peak": squares.sum(axis=1).max() / squares.sum(),
        "column_peak": squares.sum(axis=0).max() / squares.sum(),
    }
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert found.numerical_rank == len(sigma)
    assert found.singular_values[: len(sigma)] == pytest.approx(sigma, rel=1e-6)
    assert (found.d_out, found.d_in) == update.shape == dense.shape


def test_rows_are_those_of_the_dense_matrix(update):
    dense = update.dense()
    for start, stop in ((0, 1), (1, 4), (2, dense.shape[0]), (dense.shape[0] - 1, 10**6)):
        np.testing.assert_allclose(update.rows(start, stop), dense[start:stop], atol=1e-12)


def test_factors_multiply_to_the_dense_matrix(update):
    np.testing.assert_allclose(update.low_rank().dense(), update.dense(), atol=1e-10)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_sizes_far_from_one_are_no_problem(scale):
    for update in (
        Kronecker(matrix(normal(4, 3) * scale), matrix(normal(5, 7))),
        BlockCirculant(normal(3, 2, 8) * scale),
        scattered(np.arange(5), np.arange(5), normal(5) * scale, (9, 9)),
    ):
        found = update.summary()
        dense = update.dense() / scale
        assert found.frobenius / scale == pytest.approx(np.linalg.norm(dense), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "nonfinite", "size"), [(0.0, 0, 0.0), (np.nan, 8, None), (np.inf, 8, None)]
)
def test_nothing_and_no_numbers_have_no_statistics(value, nonfinite, size):
    for update in (
        Kronecker(matrix(np.full((2, 4), value)), matrix(normal(5, 7))),
        BlockCirculant(np.full((2, 2, 2), value)),
        scattered(np.arange(8), np.arange(8), np.full(8, value), (9, 9)),
    ):
        found = update.summary()
        assert (found.nonfinite, found.frobenius, found.numerical_rank) == (nonfinite, size, 0)
        assert found.top_energy is None


@pytest.mark.parametrize("scaling", [np.nan, np.inf, 0.0])
def test_a_scale_that_is_no_number_is_told(scaling):
    for name in ("kronecker", "circulant", "scattered"):
        found = dataclasses.replace(UPDATES[name], scaling=scaling).summary()
        assert (found.nonfinite > 0, found.numerical_rank) == (scaling != 0.0, 0)


def test_entries_that_stand_twice_are_added():
    found = scattered(np.array([1, 0, 1]), np.array([2, 0, 2]), np.array([3.0, 1, -1]), (2, 3))
    assert found.dense().tolist() == [[1, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("places", [(-1, 0), (2, 0), (0, 3), (0, -1)])
def test_entries_outside_are_refused(places):
    with pytest.raises(ValueError, match="outside"):
        scattered(np.array(places[:1]), np.array(places[1:]), np.ones(1), (2, 3))


def test_a_crowded_block_has_no_spectrum_but_sizes():
    side = 1100
    rows, columns = np.repeat(np.arange(side), 3), RNG.integers(0, side, 3 * side)
    update = scattered(rows, columns, normal(3 * side), (side, side))
    found = update.summary()
    assert found.frobenius == pytest.approx(np.linalg.norm(update.values))
    assert (found.top_energy, found.stable_rank, found.entropy) == (None, None, None)
    assert found.row_peak > 0


def test_a_far_entry_makes_no_large_factors():
    far = scattered(np.array([0, 5]), np.array([1 << 29, 2]), np.ones(2), (1 << 30, 1 << 30))
    assert far.summary().frobenius == pytest.approx(2**0.5)
    assert far.low_rank() is None


def test_a_kronecker_product_of_high_rank_has_no_factors_but_a_spectrum():
    update = Kronecker(matrix(normal(40, 40)), matrix(normal(40, 40)))
    assert update.low_rank() is None
    assert update.summary().numerical_rank == 1600


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_long_chain_is_one_block_in_whatever_order(shuffled):
    """Passing labels from neighbour to neighbour alone would take as many rounds as it is long."""
    count = 1 << 16
    number = RNG.permutation(count) if shuffled else np.arange(count)
    entries = np.arange(count - 1)
    blocks = scattered_module._blocks(number[(entries + 1) // 2], number[entries // 2])
    assert [len(block) for block in blocks] == [count - 1]


def test_blocks_are_those_of_a_plain_search():
    rows, columns = RNG.integers(0, 60, (2, 50))
    found = sorted(sorted(block.tolist()) for block in scattered_module._blocks(rows, columns))
    left, expected = set(range(50)), []
    while left:
        block, reach = set(), [left.pop()]
        while reach:
            at = reach.pop()
            block.add(at)
            near = {n for n in left if rows[n] == rows[at] or columns[n] == columns[at]}
            left -= near
            reach += near
        expected.append(sorted(block))
    assert found == sorted(expected)

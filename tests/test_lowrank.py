"""The low-rank statistics, held against the dense definition and against their invariances."""

from dataclasses import asdict

import ml_dtypes
import numpy as np
import pytest
import scipy.stats

from adapterscan import lowrank
from adapterscan.lowrank import KURTOSIS_RANK, LowRank


def factors(rank=4, d_out=37, d_in=53, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rank, d_in))
    b = rng.standard_normal((d_out, rank)) * 0.8 ** np.arange(rank)
    return a.astype(dtype), b.astype(dtype)


def assert_same(left, right, rel=1e-5, skip=()):
    for key, value in asdict(left).items():
        if key not in skip:
            assert asdict(right)[key] == pytest.approx(value, rel=rel, abs=1e-9), key


@pytest.mark.parametrize("rank", [1, 2, 8, 16])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_statistics_equal_the_dense_definition(rank, dtype):
    a, b = factors(rank, dtype=dtype)
    delta = LowRank(a, b, 0.5)
    dense = delta.dense()
    sigma = np.linalg.svd(dense, compute_uv=False)[:rank]
    share = sigma / sigma.sum()
    summary = delta.summary()
    assert summary.singular_values == pytest.approx(sigma, rel=1e-9)
    assert summary.frobenius == pytest.approx(np.linalg.norm(dense), rel=1e-12)
    assert summary.rms == pytest.approx(np.sqrt(np.mean(dense**2)), rel=1e-12)
    assert summary.top_energy == pytest.approx(sigma[0] ** 2 / np.sum(sigma**2), rel=1e-9)
    assert summary.top_share == pytest.approx(share[0], rel=1e-9)
    assert summary.stable_rank == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2, rel=1e-9)
    assert summary.effective_rank == pytest.approx(np.exp(scipy.stats.entropy(share)), rel=1e-9)
    assert summary.participation == pytest.approx(
        np.sum(sigma**2) ** 2 / np.sum(sigma**4), rel=1e-9
    )
    assert summary.kurtosis == pytest.approx(np.mean(dense**4) / np.mean(dense**2) ** 2, rel=1e-5)
    assert summary.kurtosis_energy == pytest.approx(1.0)
    energy = dense**2
    assert summary.row_peak == pytest.approx(energy.sum(1).max() / energy.sum(), rel=1e-5)
    assert summary.column_peak == pytest.approx(energy.sum(0).max() / energy.sum(), rel=1e-5)


def test_kurtosis_above_the_exact_rank_is_that_of_the_best_approximation():
    a, b = factors(12, 60, 70)
    summary = LowRank(a, b).summary(exact_to=KURTOSIS_RANK)
    u, s, vt = np.linalg.svd(b @ a)
    approximation = (u[:, :8] * s[:8]) @ vt[:8]
    expected = np.mean(approximation**4) / np.mean(approximation**2) ** 2
    assert summary.kurtosis == pytest.approx(expected, rel=1e-5)
    assert summary.kurtosis_energy == pytest.approx(np.sum(s[:8] ** 2) / np.sum(s**2))


@pytest.mark.parametrize(
    ("rank", "d_in", "d_out"), [(8, 60, 70), (8, 4000, 3000), (32, 90, 80), (32, 700, 2100)]
)
@pytest.mark.parametrize("spike", [0.0, 1e3])
def test_both_ways_to_the_fourth_moment_are_exact(rank, d_in, d_out, spike):
    a, b = factors(rank, d_in, d_out)
    a[0, 0] += spike  # one column that outweighs all others
    dense = b @ a
    summary = LowRank(a, b).summary(exact_to=64)
    assert summary.kurtosis == pytest.approx(np.mean(dense**4) / np.mean(dense**2) ** 2, rel=1e-5)


def test_of_both_ways_the_cheaper_is_taken():
    assert not lowrank._strips_are_cheaper(4096, 4096, 8)
    assert lowrank._strips_are_cheaper(4096, 4096, 32)


def test_statistics_span_more_than_one_block():
    a, b = factors(3, 2500, 4200)
    dense = b @ a
    summary = LowRank(a, b).summary()
    assert summary.kurtosis == pytest.approx(np.mean(dense**4) / np.mean(dense**2) ** 2, rel=1e-5)
    assert summary.frobenius == pytest.approx(np.linalg.norm(dense))


def test_statistics_do_not_depend_on_the_gauge():
    a, b = factors(5)
    mix = np.random.default_rng(3).standard_normal((5, 5)) + 3 * np.eye(5)
    mixed = LowRank(np.linalg.solve(mix, a), b @ mix)
    assert_same(LowRank(a, b).summary(), mixed.summary())


def test_rank_padding_changes_only_what_names_the_declared_rank():
    a, b = factors(4)
    padded = LowRank(np.vstack([a, np.zeros((3, 53))]), np.hstack([b, np.zeros((37, 3))]))
    skip = ("rank", "entropy", "singular_values")
    assert_same(LowRank(a, b).summary(), padded.summary(), skip=skip)


def test_permuting_rows_and_columns_changes_nothing():
    a, b = factors()
    rng = np.random.default_rng(1)
    assert_same(
        LowRank(a, b).summary(), LowRank(rng.permutation(a, 1), rng.permutation(b)).summary()
    )


def test_scaling_moves_norms_only():
    a, b = factors()
    one, many = LowRank(a, b).summary(), LowRank(a, b, -1000.0).summary()
    assert many.frobenius == pytest.approx(1000 * one.frobenius)
    assert_same(one, many, skip=("frobenius", "rms", "singular_values"))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e290])
def test_extreme_magnitudes_neither_overflow_nor_vanish(scale):
    a, b = factors()
    one, scaled = LowRank(a, b).summary(), LowRank(a * scale, b).summary()
    assert scaled.frobenius == pytest.approx(scale * one.frobenius)
    assert_same(one, scaled, skip=("frobenius", "rms", "singular_values"))


def test_a_zero_factor_is_a_zero_delta_without_statistics():
    a, b = factors()
    summary = LowRank(a, np.zeros_like(b)).summary()
    assert summary.is_zero
    assert summary.kurtosis is None
    assert summary.numerical_rank == 0


def test_factors_whose_product_vanishes_are_a_zero_delta():
    a = np.array([[1.0, 2.0], [1.0, 2.0]])
    b = np.array([[1.0, -1.0], [2.0, -2.0]])
    assert LowRank(a, b).summary().is_zero


def test_nonfinite_values_are_counted_and_give_no_statistics():
    a, b = factors()
    a[1, 2], b[3, 0], b[4, 1] = np.nan, np.inf, -np.inf
    summary = LowRank(a, b).summary()
    assert summary.nonfinite == 3
    assert summary.frobenius is None
    assert not summary.is_zero


@pytest.mark.parametrize(("rank", "d_in", "d_out"), [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_empty_factors_are_a_zero_delta(rank, d_in, d_out):
    summary = LowRank(np.zeros((rank, d_in)), np.zeros((d_out, rank))).summary()
    assert summary.is_zero


def test_rank_above_the_dimensions_is_counted_at_the_dimensions():
    a, b = factors(12, 5, 7)
    summary = LowRank(a, b).summary()
    assert summary.numerical_rank == 5
    assert len(summary.singular_values) == 5

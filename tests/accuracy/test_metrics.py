"""Error rates are what textbooks say, and no promise is made that the data cannot keep."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.metrics import Rate, above, auroc, grouped_auroc, threshold

LABELS = np.array([True, True, False, False])


@pytest.mark.parametrize(
    ("scores", "area"),
    [([4, 3, 2, 1], 1.0), ([1, 2, 3, 4], 0.0), ([1, 1, 1, 1], 0.5), ([4, 2, 3, 1], 0.75)],
)
def test_auroc_is_the_share_of_pairs_in_order(scores, area) -> None:
    assert auroc(LABELS, np.array(scores, dtype=float)) == area


def test_auroc_without_both_kinds_is_no_number() -> None:
    assert np.isnan(auroc(np.array([True, True]), np.array([1.0, 2.0])))


def test_clopper_pearson_has_its_textbook_values() -> None:
    low, high = Rate(0, 299).interval
    assert low == 0.0
    assert high == pytest.approx(0.0123, abs=1e-4)
    low, high = Rate(8, 10).interval
    assert (low, high) == (pytest.approx(0.4439, abs=1e-4), pytest.approx(0.9748, abs=1e-4))


def test_no_threshold_is_promised_from_too_few_benign_adapters() -> None:
    assert threshold(np.arange(18.0), 0.05) == float("inf")
    assert np.isfinite(threshold(np.arange(19.0), 0.05))


def test_a_threshold_is_exceeded_by_no_more_benign_adapters_than_promised() -> None:
    benign = np.arange(100.0)
    assert above(benign, threshold(benign, 0.05)).value <= 0.05


def test_the_bootstrap_draws_whole_groups() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([True, False], 40)
    scores = rng.standard_normal(80) + labels
    alone = grouped_auroc(labels, scores, [str(i) for i in range(80)])
    clones = np.repeat(np.arange(80), 5)
    grouped = grouped_auroc(labels[clones], scores[clones], [str(i) for i in clones])
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, abs=0.03)


def test_a_coin_is_called_chance_about_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([True, False], 25)
    groups = [str(i // 2) for i in range(50)]
    called = [
        grouped_auroc(labels, rng.standard_normal(50), groups, draws=200).at_chance
        for _ in range(60)
    ]
    assert 0.85 <= np.mean(called) <= 1.0
    assert not grouped_auroc(labels, labels.astype(float), groups).at_chance

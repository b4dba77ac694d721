from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from arabesque.models.metrics import bootstrap, fisher_mean, mean_squared_error, pearson, relative_l2, spearman


def test_correlations_agree_with_scipy_ties_included() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, 40)
    predicted = true + rng.integers(0, 9, 40)
    assert spearman(predicted, true) == pytest.approx(stats.spearmanr(predicted, true)[0], abs=1e-12)
    assert pearson(predicted, true) == pytest.approx(stats.pearsonr(predicted, true)[0], abs=1e-12)


def test_a_constant_side_has_no_correlation() -> None:
    assert np.isnan(spearman([0.1, 0.1, 0.1], [1, 2, 3]))
    assert np.isnan(pearson([1, 2, 3], [0.1, 0.1, 0.1]))


def test_errors_by_hand() -> None:
    assert mean_squared_error([1, 2, 5], [1, 4, 4]) == pytest.approx(5 / 3)
    assert relative_l2([1, 2, 5], [1, 4, 4], (0, 10)) == pytest.approx(100 * (0.2**2 + 0.1**2) / 3)
    with pytest.raises(ValueError, match="is empty"):
        relative_l2([1, 2], [1, 2], (3, 3))
    with pytest.raises(ValueError, match="two rows of one length"):
        spearman([1, 2], [1, 2, 3])


def test_the_papers_averages() -> None:
    """PAMFN's table: RGB branch and full model, printed as .711 and .819."""
    assert round(fisher_mean([0.636, 0.720, 0.769, 0.708]), 3) == 0.711
    assert round(fisher_mean([0.757, 0.825, 0.836, 0.846]), 3) == 0.819


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman's of a bivariate normal with Pearson's .7
    covered = 0
    for _ in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 60).T
        estimate = bootstrap(x, y, num_resamples=300)
        covered += estimate.low <= truth <= estimate.high
    assert 86 <= covered <= 99


def test_the_bootstrap_takes_any_metric_and_its_seed() -> None:
    x, y = np.random.default_rng(0).random((2, 20))
    slow = bootstrap(x, y, lambda p, t: spearman(p, t), num_resamples=100)
    fast = bootstrap(x, y, spearman, num_resamples=100)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))
    assert bootstrap(x, y, num_resamples=100, seed=1) != fast

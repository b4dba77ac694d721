from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from arabesque.models.metrics import (
    average_precision,
    bootstrap,
    bootstrap_mean,
    fisher_mean,
    mean_squared_error,
    pearson,
    relative_l2,
    spearman,
)


def test_correlations_agree_with_scipy_for_ties_too() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, 40)
    predicted = true + rng.integers(0, 9, 40)
    assert spearman(predicted, true) == pytest.approx(stats.spearmanr(predicted, true)[0], abs=1e-12)
    assert pearson(predicted, true) == pytest.approx(stats.pearsonr(predicted, true)[0], abs=1e-12)


def test_average_precision_by_hand() -> None:
    """Trapezoids under precision over recall, from precision 1, as in UMT's evaluation."""
    assert average_precision([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    # ranked: no, yes, yes -> precision 0, 1/2, 2/3 at recall 0, 1/2, 1
    assert average_precision([0.9, 0.8, 0.7], [False, True, True]) == pytest.approx(
        (0 + 1 / 2) / 4 + (1 / 2 + 2 / 3) / 4
    )
    assert average_precision([0.1, 0.2], [False, False]) == 0.0
    assert average_precision([0.1], [True]) == 1.0
    with pytest.raises(ValueError, match="two rows of one length"):
        average_precision([0.1, 0.2], [True])


def test_average_precision_of_random_ranks_is_the_share_of_highlights() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    assert average_precision(rng.random(4000), labels) == pytest.approx(0.3, abs=0.03)


def test_constant_values_have_no_correlation() -> None:
    assert np.isnan(spearman([0.1, 0.1, 0.1], [1, 2, 3]))
    assert np.isnan(pearson([1, 2, 3], [0.1, 0.1, 0.1]))


def test_errors_by_hand() -> None:
    assert mean_squared_error([1, 2, 5], [1, 4, 4]) == pytest.approx(5 / 3)
    assert relative_l2([1, 2, 5], [1, 4, 4], (0, 10)) == pytest.approx(100 * (0.2**2 + 0.1**2) / 3)
    with pytest.raises(ValueError, match="is empty"):
        relative_l2([1, 2], [1, 2], (3, 2))
    with pytest.raises(ValueError, match="two rows of one length"):
        spearman([1, 2], [1, 2, 3])


def test_equal_scores_have_no_range() -> None:
    assert np.isnan(relative_l2([1, 2], [3, 3], (3, 3)))


def test_the_papers_averages() -> None:
    """PAMFN's table: RGB branch and full model, printed as .711 and .819."""
    assert round(fisher_mean([0.636, 0.720, 0.769, 0.708]), 3) == 0.711
    assert round(fisher_mean([0.757, 0.825, 0.836, 0.846]), 3) == 0.819


def test_the_bootstrap_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(3)
    truth = (
        6 / np.pi * np.arcsin(0.7 / 2)
    )  # Spearman's correlation of a bivariate normal distribution with Pearson's .7
    covered = 0
    for _ in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 60).T
        estimate = bootstrap(x, y, num_resamples=300)
        covered += estimate.low <= truth <= estimate.high
    assert 86 <= covered <= 99


def test_the_bootstrap_interval_holds_95_percent_of_the_resamples() -> None:
    """The mean of many values is normally distributed: 95 % of its resamples lie within 1.96 standard errors."""
    values = np.random.default_rng(1).standard_normal(400)

    def mean(predicted: object, true: object) -> float:
        return float(np.mean(np.asarray(predicted)))

    estimate = bootstrap(values, np.zeros(400), mean, num_resamples=4000)
    error = values.std() / 400**0.5
    assert (estimate.low - estimate.value) / error == pytest.approx(-1.96, abs=0.1)  # 90 % would be 1.64, 99 % 2.58
    assert (estimate.high - estimate.value) / error == pytest.approx(1.96, abs=0.1)


def test_the_interval_of_several_models_holds_95_percent_of_the_resamples() -> None:
    """For one model it is the interval of `bootstrap`, and models with equal truths are resampled together."""
    rng = np.random.default_rng(2)
    true = rng.random(60)
    predicted = true + 0.3 * rng.standard_normal(60)
    one = bootstrap(predicted, true, num_resamples=4000)
    pair = (predicted, true)
    for pairs in ([pair], [pair, pair]):
        several = bootstrap_mean(pairs, num_resamples=4000)
        assert several.value == pytest.approx(one.value)
        assert (several.low, several.high) == pytest.approx((one.low, one.high), abs=0.02)


def test_the_bootstrap_accepts_any_metric_and_a_seed() -> None:
    x, y = np.random.default_rng(0).random((2, 20))
    slow = bootstrap(x, y, lambda p, t: spearman(p, t), num_resamples=100)
    fast = bootstrap(x, y, spearman, num_resamples=100)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))
    assert bootstrap(x, y, num_resamples=100, seed=1) != fast


def test_copies_of_a_video_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(30)
    predicted = true + 0.3 * rng.standard_normal(30)
    names = [f"v{number}" for number in range(30)]
    once = bootstrap(predicted, true)
    assert bootstrap(predicted, true, contents=names) == once
    twice = bootstrap(np.tile(predicted, 2), np.tile(true, 2), contents=names * 2)
    assert twice.value == pytest.approx(once.value)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-9)
    as_if_different = bootstrap(np.tile(predicted, 2), np.tile(true, 2))
    assert as_if_different.high - as_if_different.low < 0.8 * (once.high - once.low)

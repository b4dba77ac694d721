from __future__ import annotations

import numpy as np
import pytest

from arabesque.models.metrics import bootstrap, spearman
from arabesque.models.selection_gain import paired_difference, selection_gain, verdict


def test_the_gain_is_that_of_the_best_candidate_over_the_chosen_one() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(40)
    candidates = true + rng.random((7, 40)) * np.arange(1, 8)[:, None]
    correlations = [spearman(each, true) for each in candidates]
    found = selection_gain(candidates, true, chosen=4)
    assert found.gain == pytest.approx(max(correlations) - correlations[4])


def test_permuted_labels_show_what_a_search_finds_in_noise() -> None:
    """The gain is 0 for one candidate, and increases with the number of independent candidates."""
    rng = np.random.default_rng(1)
    true, noise = rng.random(100), rng.random((200, 100))
    gains = [selection_gain(noise[:count], true, 0).permuted for count in (1, 10, 200)]
    assert gains[0] == pytest.approx(0)
    # the maximum of n normal values of deviation 1/√99 is about 1.54 (n = 10) and 2.75 (n = 200) deviations
    assert gains[1:] == pytest.approx([1.54 / 99**0.5, 2.75 / 99**0.5], abs=0.04)
    same = np.repeat(noise[:1], 5, axis=0)
    assert selection_gain(same, true, 2).permuted == pytest.approx(0)


def test_pairs_are_compared_on_the_same_resamples() -> None:
    rng = np.random.default_rng(2)
    true = rng.random(100)
    first = true + 0.5 * rng.random(100)
    second = first + 0.02 * rng.random(100)
    difference = paired_difference([(first, true)], [(second, true)])
    assert difference.value == pytest.approx(spearman(first, true) - spearman(second, true))
    single = bootstrap(first, true)
    assert difference.high - difference.low < (single.high - single.low) / 3
    assert verdict(paired_difference([(first, true)], [(first, true)])) == "no difference"
    much_worse = rng.random(100)
    assert verdict(paired_difference([(first, true)], [(much_worse, true)])) == "better"
    assert verdict(paired_difference([(much_worse, true)], [(first, true), (second, true)])) == "worse"
    with pytest.raises(ValueError, match="same videos"):
        paired_difference([(first, true)], [(first, true[::-1])])


def test_random_splits_are_compared_split_by_split() -> None:
    """Each seed has its own test videos. Difficult videos are difficult for both models."""
    rng = np.random.default_rng(3)
    splits = [rng.random(50) for _ in range(3)]
    first = [(true + 0.5 * rng.random(50), true) for true in splits]
    second = [(predicted + 0.02 * rng.random(50), true) for predicted, true in first]
    found = paired_difference(first, second)
    values = [spearman(*one) - spearman(*other) for one, other in zip(first, second, strict=True)]
    assert found.value == pytest.approx(np.mean(values))
    assert found.low <= found.value <= found.high
    other_order = paired_difference(first, second[::-1])
    assert [other_order.low, other_order.high] == pytest.approx([found.low, found.high])
    one_split = paired_difference(first[:1], second[:1])
    assert found.high - found.low < one_split.high - one_split.low
    with pytest.raises(ValueError, match="same videos"):
        paired_difference(first, second[:2])


def test_constant_predictions_have_no_verdict() -> None:
    true = np.arange(20.0)
    assert verdict(paired_difference([(np.full(20, 0.3), true)], [(true, true)])) == "undefined"

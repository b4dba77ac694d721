from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from arabesque.models.kernel_ridge import clear_gain, deal_folds, fit_blend, solve_path


def problem(noise: float, num: int = 60) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two linear kernels, of which the first describes the scores."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, num, 4))
    scores = features[0] @ np.array([1.0, -1.0, 0.5, 2.0]) + noise * rng.standard_normal(num)
    return {"good": features[0] @ features[0].T, "noise": features[1] @ features[1].T}, scores


def test_the_path_is_ridge_regression_with_an_intercept() -> None:
    rng = np.random.default_rng(1)
    features, targets = rng.standard_normal((20, 5)), rng.standard_normal((20, 2)) + 3
    duals, biases = solve_path((features @ features.T)[None], targets, (0.1, 1.0))
    scale = ((features - features.mean(0)) ** 2).sum() / 20
    new = rng.standard_normal((4, 5))
    for number, ridge in enumerate((0.1, 1.0)):
        expected = Ridge(alpha=ridge * scale).fit(features, targets).predict(new)
        np.testing.assert_allclose(new @ features.T @ duals[0, number].T + biases[0, number], expected, atol=1e-8)


def test_held_out_predictions_do_not_depend_on_the_labels_of_their_fold() -> None:
    kernels, scores = problem(noise=0.5)
    groups = list(range(60))
    before = fit_blend(kernels, scores, groups, average_best=1, ranks=True)
    for fold in deal_folds(groups):
        changed = scores.copy()
        changed[fold] = -100.0
        after = fit_blend(kernels, changed, groups, average_best=1, ranks=True)
        np.testing.assert_array_equal(after.held_out[fold], before.held_out[fold])
    assert before.spearman > 0.8
    assert before.chosen[0].kernel == "good"
    assert len(before.tried) == 2 * 5 * 2  # kernels, ridges, score and ranks


def test_a_search_in_noise_is_seen_as_noise() -> None:
    """The mean over eight sets of labels, since a single correlation of 60 videos has a deviation of .13."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((30, 60, 3))
    kernels = {str(number): each @ each.T for number, each in enumerate(features)}
    found = [fit_blend(kernels, rng.random(60), range(60), average_best=1) for _ in range(8)]
    assert np.mean([each.tried[0].spearman for each in found]) > 0.2  # what a choice without outer folds would report
    assert abs(np.mean([each.spearman for each in found])) < 0.15


def test_copies_of_a_video_are_in_one_fold() -> None:
    groups = [number // 3 for number in range(30)]
    folds = deal_folds(groups)
    assert sorted(np.concatenate(folds).tolist()) == list(range(30))
    for fold in folds:
        assert {groups[row] for row in fold}.isdisjoint(groups[row] for row in range(30) if row not in fold)


def test_other_scores_take_part_where_they_help() -> None:
    kernels, scores = problem(noise=6.0)
    clean = problem(noise=0.0)[1]
    alone, joint, opposed = (
        fit_blend(kernels, scores, range(60), others=others, others_weight=1.0)
        for others in (None, {"clean": clean}, {"opposite": -clean})
    )
    assert "clean" in {each.target for each in joint.chosen}
    assert joint.spearman > alone.spearman
    assert "opposite" not in {each.target for each in opposed.chosen}


@pytest.mark.parametrize("num", [40, 200])  # folds of 8 are correlated together, folds of 40 one by one
def test_a_gain_by_chance_is_rarely_clear(num: int) -> None:
    rng = np.random.default_rng(0)
    folds = deal_folds(range(num))
    by_chance = signal = improved = 0
    true = plain = np.zeros(num)
    for _ in range(100):
        true, plain, noise = rng.standard_normal((3, num))
        plain += true
        improved += spearmanr(plain + 0.3 * noise, true).statistic > spearmanr(plain, true).statistic
        by_chance += clear_gain(plain + 0.3 * noise, plain, true, folds)
        signal += clear_gain(plain + true, plain, true, folds)
    assert by_chance < improved  # some noise improves the correlation, and the rule admits less of it
    assert by_chance <= 15
    assert signal >= 95
    assert not clear_gain(plain + true, plain, true, folds[:1])


def test_the_blend_predicts_in_score_units() -> None:
    kernels, scores = problem(noise=0.1)
    blend = fit_blend(kernels, 20 + 3 * scores, range(60), average_best=1).blend
    predicted = blend.bias + sum(kernels[name] @ duals for name, duals in blend.duals.items())
    assert predicted == pytest.approx(20 + 3 * scores, abs=2.5)

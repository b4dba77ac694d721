from __future__ import annotations

import math

import numpy as np

from arabesque.models.conformal import half_width, held_out_coverage


def test_the_half_width_is_an_order_statistic() -> None:
    errors = np.array([-3.0, 1.0, 2.0, -5.0, 4.0, 6.0, -7.0, 8.0, 9.0])
    assert half_width(errors, 0.9) == 9  # ⌈10 · 0.9⌉ = 9
    assert half_width(errors, 0.5) == 5
    assert half_width(errors[:8], 0.9) == math.inf  # ⌈9 · 0.9⌉ = 9 of 8


def test_intervals_cover_new_videos_as_intended() -> None:
    rng = np.random.default_rng(0)
    covered = [abs(each[-1]) <= half_width(each[:-1], 0.8) for each in rng.standard_t(3, (2000, 40))]
    assert 0.78 <= np.mean(covered) <= 0.83


def test_the_coverage_of_a_fold_does_not_use_its_errors() -> None:
    errors = np.ones(40)
    errors[:10] = 100.0
    folds = [np.arange(start, start + 10) for start in range(0, 40, 10)]
    assert held_out_coverage(errors, folds, 0.6) == 30 / 40  # the first fold is outside the others' intervals

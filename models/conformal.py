"""Conformal prediction: intervals that contain the true score of a new video with a chosen probability.

The half-width is a quantile of the absolute errors on held-out videos. If videos are exchangeable, an interval for a
new video contains its score with at least that probability (Vovk et al., 2005; Lei et al., 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9


def half_width(errors: NDArray[np.float64], coverage: float = COVERAGE) -> float:
    """Return the half-width of an interval with the given coverage.

    Args:
        errors: Errors on ``n`` held-out videos; signs do not matter.
        coverage: Probability (0 to 1) that the interval contains the score.

    Returns:
        The ``⌈(n + 1) · coverage⌉``-th smallest absolute error; infinite if there are fewer videos.

    Example:
        >>> half_width(np.arange(-9.0, 10.0), coverage=0.5)
        5.0
    """
    rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
    return float(np.sort(np.abs(errors))[rank - 1]) if rank <= len(errors) else math.inf


def held_out_coverage(
    errors: NDArray[np.float64], folds: Sequence[NDArray[np.intp]], coverage: float = COVERAGE
) -> float:
    """Return the share of videos within their intervals, with the half-width computed on the other folds.

    Args:
        errors: Error of each video by a model that was trained without its fold.
        folds: Indices of the videos of each fold.
        coverage: Intended coverage.
    """
    covered = 0
    for held in folds:
        width = half_width(np.delete(errors, held), coverage)
        covered += int((np.abs(errors[held]) <= width).sum())
    return covered / sum(map(len, folds))

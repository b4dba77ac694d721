"""Bias of results that are selected on test videos, and paired comparison of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from .metrics import Estimate, percentile_interval, resampled_means

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
"""Predicted and true scores of the same videos"""


@dataclass(frozen=True)
class SelectionGain:
    """Gain in Spearman's correlation by selecting among candidates (epochs, configurations) on the test videos."""

    gain: float
    """Correlation of the candidate that is best on the test videos, minus that of the one selected without them"""
    permuted: float
    """Mean gain of the same selection with permuted labels, i.e. by chance alone"""


def selection_gain(
    predictions: Array, true: Array, chosen: int, *, num_permutations: int = 200, seed: int = 0
) -> SelectionGain:
    """Measure the gain by selecting a candidate on the test videos.

    Args:
        predictions: ``[candidates, videos]``: predicted scores of the test videos by each candidate.
        true: ``[videos]``.
        chosen: Index of the candidate that is used without a selection on the test videos, e.g. the last epoch.
        num_permutations: Number of permutations of the labels.
        seed: Seed of the permutations.

    Example:
        >>> predictions = np.array([[1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0]])
        >>> selection_gain(predictions, np.array([1.0, 2.0, 3.0, 4.0]), chosen=0).gain
        0.19999999999999996
    """
    rng = np.random.default_rng(seed)
    labels = np.stack([true, *(rng.permutation(true) for _ in range(num_permutations))])
    correlations = _unit_ranks(predictions) @ _unit_ranks(labels).T
    gains = correlations.max(0) - correlations[chosen]
    return SelectionGain(float(gains[0]), float(gains[1:].mean()))


def _unit_ranks(values: Array) -> Array:
    """Return rows whose scalar products are rank correlations; zeros for constant rows."""
    ranks = rankdata(values, axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    norms = np.sqrt((ranks * ranks).sum(-1, keepdims=True))
    return ranks / np.where(norms > 0, norms, 1)


def paired_difference(
    first: Sequence[Pair], second: Sequence[Pair], *, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the difference of two models in Spearman's correlation, with its 95 % interval over resampled videos.

    Both models are evaluated on the same resamples, so that videos that are difficult for both do not widen the
    interval. The correlation of a model is the mean over its seeds. If each seed has its own random split, the test
    videos of each split are resampled.

    Args:
        first: Predicted and true scores of each seed of the first model.
        second: Predicted and true scores of the second model, for the same videos in the same order.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The models were evaluated on different videos.
    """
    if len({frozenset(true.tobytes() for _, true in pairs) for pairs in (first, second)}) > 1:
        raise ValueError("paired models must be evaluated on the same videos in the same order")
    means = [resampled_means(pairs, num_resamples=num_resamples, seed=seed) for pairs in (first, second)]
    return percentile_interval(means[0] - means[1])


def verdict(difference: Estimate) -> str:
    """Return ``no difference`` if the interval contains 0, otherwise ``better`` or ``worse``.

    Return ``undefined`` for a model that predicts the same score for all videos.
    """
    if math.isnan(difference.value):
        return "undefined"
    if difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if difference.value > 0 else "worse"

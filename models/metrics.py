"""Metrics between predicted scores and scores by judges, with bootstrap intervals."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Predicted and true scores ``[..., videos]`` → ``[...]``."""


@dataclass(frozen=True)
class Estimate:
    """An estimated value with its 95 % interval; NaN if it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pearson(predicted: ArrayLike, true: ArrayLike) -> float:
    """Return the linear correlation; NaN if either side is constant."""
    return float(_pearson(*_pair(predicted, true)))


def spearman(predicted: ArrayLike, true: ArrayLike) -> float:
    """Return the rank correlation with mean ranks for ties; NaN if either side is constant."""
    return float(spearman_rows(*_pair(predicted, true)))


def mean_squared_error(predicted: ArrayLike, true: ArrayLike) -> float:
    """Return the mean squared error in squared score units."""
    predictions, truths = _pair(predicted, true)
    return float(np.mean((predictions - truths) ** 2))


def relative_l2(predicted: ArrayLike, true: ArrayLike, score_range: tuple[float, float]) -> float:
    """Return R-l2 ×100, the mean squared error relative to ``score_range``; NaN for a range of equal scores.

    Papers use different ranges.

    Raises:
        ValueError: The lowest score of the range is above the highest.
    """
    low, high = score_range
    if not high >= low:
        raise ValueError(f"score range {low} … {high} is empty; give it as (lowest, highest)")
    if high == low:
        return math.nan
    return 100 * mean_squared_error(predicted, true) / (high - low) ** 2


def average_precision(scores: ArrayLike, is_highlight: ArrayLike) -> float:
    """Return the average precision of one video's segments, as UMT's code defines it for YouTube Highlights.

    Segments are ranked by their scores. The area under the curve of precision over recall, which begins at precision 1,
    is a sum of trapezoids. The result is 0 for a video without highlights.

    Args:
        scores: One number for each segment; higher for highlights.
        is_highlight: Whether each segment is a highlight.

    Raises:
        ValueError: There are no segments, or the lengths differ.

    Example:
        >>> average_precision([0.9, 0.1, 0.4], [True, False, True])
        1.0
    """
    ranked = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(is_highlight, dtype=bool)
    if ranked.shape != labels.shape or ranked.ndim != 1 or not len(ranked):
        raise ValueError(f"{ranked.shape} scores and {labels.shape} labels; give two rows of one length")
    if not labels.any():
        return 0.0
    hits = np.cumsum(labels[np.argsort(-ranked, kind="stable")])
    precision = np.concatenate([[1.0], hits / np.arange(1, len(hits) + 1)])
    recall = np.concatenate([[0.0], hits / hits[-1]])
    return float(np.sum(np.diff(recall) * (precision[:-1] + precision[1:]) / 2))


def fisher_mean(correlations: Sequence[float]) -> float:
    """Return ``tanh(mean(atanh ρ))``, the usual average over actions in the papers."""
    return float(np.tanh(np.mean(np.arctanh(correlations))))


def bootstrap(
    predicted: ArrayLike,
    true: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float] = spearman,
    *,
    contents: Sequence[str] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the metric with its 95 % percentile interval over resampled videos.

    Resamples without a defined metric (e.g. copies of one video) are ignored. The limits are NaN if all are undefined.

    Args:
        predicted: Predicted scores, one per video.
        true: True scores.
        metric: Function of predicted and true scores.
        contents: Content of each video. Videos of the same content are one observation and are resampled together.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.
    """
    predictions, truths = _pair(predicted, true)
    members = [np.array([row]) for row in range(len(truths))]
    if contents is not None:
        labels = np.unique(np.array(contents), return_inverse=True)[1]
        members = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())]
    drawn = np.random.default_rng(seed).integers(len(members), size=(num_resamples, len(members)))
    over_rows = _ROW_WISE.get(metric)
    if len(members) < len(truths):
        resamples = [np.concatenate([members[int(group)] for group in groups]) for groups in drawn]
        values = np.array([metric(predictions[rows], truths[rows]) for rows in resamples])
    elif over_rows is not None:
        values = over_rows(predictions[drawn], truths[drawn])
    else:
        values = np.array([metric(predictions[rows], truths[rows]) for rows in drawn])
    return percentile_interval(np.concatenate([[metric(predictions, truths)], values]))


def resampled_means(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], *, num_resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean Spearman correlation of several models, on their videos and on resamples of them.

    Models with the same true scores are evaluated on the same resamples. Models of different splits have different
    videos, which are resampled independently.

    Args:
        pairs: Predicted and true scores of each model.
        num_resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        ``[1 + num_resamples]``: first the videos themselves; NaN where the correlation of a model is undefined.
    """
    values: list[NDArray[np.float64]] = []
    for predictions, truths in pairs:
        # one generator per model: equal true scores give equal resamples
        rng = np.random.default_rng((seed, zlib.crc32(truths.tobytes())))
        rows = np.vstack([np.arange(len(truths)), rng.integers(len(truths), size=(num_resamples, len(truths)))])
        values.append(spearman_rows(predictions[rows], truths[rows]))
    return np.mean(values, axis=0)


def bootstrap_mean(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], *, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the mean Spearman correlation of several models with its 95 % interval; see `resampled_means`."""
    return percentile_interval(resampled_means(pairs, num_resamples=num_resamples, seed=seed))


def percentile_interval(values: NDArray[np.float64]) -> Estimate:
    """Return the first value with the 95 % percentile interval of the others; NaN values are ignored."""
    defined = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predictions, truths = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if predictions.shape != truths.shape or predictions.ndim != 1 or len(truths) < 2:
        raise ValueError(
            f"{predictions.shape} predictions and {truths.shape} true scores; give two rows of one length, at least 2"
        )
    return predictions, truths


def _pearson(predictions: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    x = predictions - predictions.mean(-1, keepdims=True)
    y = truths - truths.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    # the variance of constant values may be a rounding error instead of zero, so their range is checked
    constant = (np.ptp(predictions, axis=-1) == 0) | (np.ptp(truths, axis=-1) == 0) | (scale == 0)
    return np.where(constant, np.nan, (x * y).sum(-1) / np.where(constant, 1, scale))


def spearman_rows(predictions: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank correlation of each row, ``[..., videos] → [...]``; NaN if either side is constant."""
    return _pearson(rankdata(predictions, axis=-1), rankdata(truths, axis=-1))


_ROW_WISE: dict[Callable[[ArrayLike, ArrayLike], float], Metric] = {pearson: _pearson, spearman: spearman_rows}

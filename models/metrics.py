"""How well predicted scores follow the judges': the field's metrics, and how sure one can be of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Rows of predictions and of truths ``[..., videos]`` → ``[...]``."""


@dataclass(frozen=True)
class Estimate:
    """A number from a sample, with a 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pearson(predicted: ArrayLike, true: ArrayLike) -> float:
    """Linear correlation; NaN where one side is constant."""
    return float(_pearson(*_pair(predicted, true)))


def spearman(predicted: ArrayLike, true: ArrayLike) -> float:
    """Rank correlation, ties at their mean rank; NaN where one side is constant."""
    return float(_spearman(*_pair(predicted, true)))


def mean_squared_error(predicted: ArrayLike, true: ArrayLike) -> float:
    """In squared score units."""
    predictions, truths = _pair(predicted, true)
    return float(np.mean((predictions - truths) ** 2))


def relative_l2(predicted: ArrayLike, true: ArrayLike, score_range: tuple[float, float]) -> float:
    """R-l2 ×100: mean squared error in fractions of a range. Papers differ in whose range, so it is given."""
    low, high = score_range
    if not high > low:
        raise ValueError(f"score range {low} … {high} is empty; give it as (lowest, highest)")
    return 100 * mean_squared_error(predicted, true) / (high - low) ** 2


def fisher_mean(correlations: Sequence[float]) -> float:
    """``tanh(mean(atanh ρ))``, the average across actions that the papers print."""
    return float(np.tanh(np.mean(np.arctanh(correlations))))


def bootstrap(
    predicted: ArrayLike,
    true: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float] = spearman,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The metric with its 95 % percentile interval over resampled videos.

    Resamples on which the metric is undefined (all one video) are left out; NaN limits where none is left.
    """
    predictions, truths = _pair(predicted, true)
    drawn = np.random.default_rng(seed).integers(len(truths), size=(num_resamples, len(truths)))
    over_rows = _ROW_WISE.get(metric)
    if over_rows is not None:
        values = over_rows(predictions[drawn], truths[drawn])
    else:
        values = np.array([metric(predictions[rows], truths[rows]) for rows in drawn])
    defined = values[np.isfinite(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return Estimate(float(metric(predictions, truths)), float(low), float(high))


def bootstrap_mean(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], *, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Mean Spearman of several models, each ``(predictions, truths)``, its interval over resampled videos.

    Models that were judged on the same videos are resampled together.
    """
    values: list[NDArray[np.float64]] = []
    for predictions, truths in pairs:
        # equal truths, equal draws: the generator begins anew for each model
        rng = np.random.default_rng((seed, zlib.crc32(truths.tobytes())))
        drawn = rng.integers(len(truths), size=(num_resamples, len(truths)))
        values.append(_spearman(predictions[drawn], truths[drawn]))
    means = np.mean(values, axis=0)
    defined = means[np.isfinite(means)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return Estimate(float(np.mean([spearman(*pair) for pair in pairs])), float(low), float(high))


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predictions, truths = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if predictions.shape != truths.shape or predictions.ndim != 1 or len(truths) < 2:
        raise ValueError(
            f"{predictions.shape} predictions and {truths.shape} true scores; give two rows of one length, 2 at least"
        )
    return predictions, truths


def _pearson(predictions: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    x = predictions - predictions.mean(-1, keepdims=True)
    y = truths - truths.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    # a constant side leaves rounding errors in place of zero: compare with the size of what was subtracted
    constant = (np.ptp(predictions, axis=-1) == 0) | (np.ptp(truths, axis=-1) == 0) | (scale == 0)
    return np.where(constant, np.nan, (x * y).sum(-1) / np.where(constant, 1, scale))


def _spearman(predictions: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    return _pearson(rankdata(predictions, axis=-1), rankdata(truths, axis=-1))


_ROW_WISE: dict[Callable[[ArrayLike, ArrayLike], float], Metric] = {pearson: _pearson, spearman: _spearman}

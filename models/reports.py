"""Report over several seeds: metrics, averages, intervals, and how the epoch was selected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .metrics import Estimate, bootstrap_mean, mean_squared_error, pearson, relative_l2, spearman
from .trainer import SeedResult

SELECTION_TEXTS = {
    "best-test": "best on test (the epoch was chosen on the test videos: an upper bound)",
    "validation": "chosen on validation videos",
    "last": "last epoch",
    "solved": "solved, no epochs",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    """NaN if it is undefined for a seed, e.g. the correlation of a model that predicts the same score for all videos"""
    deviation: float | None
    """None for a single seed"""

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "undefined"
        return f"{self.mean:.3f}" if self.deviation is None else f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True)
class SeedsReport:
    """Results of one experiment on one target over several seeds."""

    selection: str
    seeds: tuple[int, ...]
    num_test: int
    spearman: Spread
    interval: Estimate
    """Mean Spearman over the seeds, with a 95 % bootstrap interval over the test videos"""
    pearson: Spread
    relative_l2: Spread
    """R-l2 ×100 with the full range of the target"""
    relative_l2_test: Spread
    """R-l2 ×100 with the range of the test videos"""
    mean_squared_error: Spread
    """Mean squared error in squared score units"""
    epochs: tuple[int, ...]
    """Selected epoch of each seed"""
    by_seed: tuple[float, ...]
    """Spearman's correlation of each seed"""
    notes: tuple[str, ...] = ()
    """Notes on labels and videos, e.g. on matching and on equal contents"""

    @property
    def selection_text(self) -> str:
        """Description of the selection of the epoch"""
        return SELECTION_TEXTS[self.selection]

    def figures(self) -> dict[str, str]:
        """Return name → text of each figure, in the order of a table."""
        return {
            "Spearman": str(self.spearman),
            "95 % interval": f"{self.interval.low:.3f} … {self.interval.high:.3f}",
            "Pearson": str(self.pearson),
            "R-l2 ×100": str(self.relative_l2),
            "MSE": str(self.mean_squared_error),
        }


def report_seeds(
    results: Sequence[SeedResult], true: Mapping[str, float], score_range: tuple[float, float], *, last: bool = False
) -> SeedsReport:
    """Compute the report of several seeds.

    Args:
        results: One result per seed.
        true: video_id → score by the judges.
        score_range: Range of the target, for R-l2.
        last: Evaluate the weights of the last epoch instead of the selected ones.
    """
    pairs = [pair_of(each.last if last else each.test, true) for each in results]
    correlations = [spearman(*pair) for pair in pairs]
    return SeedsReport(
        selection="last" if last else results[0].selection,
        seeds=tuple(each.seed for each in results),
        num_test=len(results[0].test),
        spearman=spread(correlations),
        interval=bootstrap_mean(pairs),
        pearson=spread([pearson(*pair) for pair in pairs]),
        relative_l2=spread([relative_l2(*pair, score_range) for pair in pairs]),
        relative_l2_test=spread([relative_l2(*pair, (pair[1].min(), pair[1].max())) for pair in pairs]),
        mean_squared_error=spread([mean_squared_error(*pair) for pair in pairs]),
        epochs=tuple(each.epoch for each in results),
        by_seed=tuple(correlations),
    )


def pair_of(predicted: Mapping[str, float], true: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true scores as arrays in the same order."""
    return np.array(list(predicted.values())), np.array([true[name] for name in predicted])


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of one value per seed."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)

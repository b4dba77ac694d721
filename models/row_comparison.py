"""Rows of a reproduced table beside each other: paired differences, and averages of their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from .metrics import Estimate, bootstrap_mean, spearman
from .selection_gain import Array, Pair, paired_difference, verdict


@dataclass(frozen=True)
class RowPredictions:
    """Predictions of one row of a table for one column."""

    row: str
    pairs: Sequence[Pair]
    """Predicted and true scores of the test videos by each seed, at the last epoch"""
    held_out: Sequence[Mapping[str, float]] = ()
    """Training video → prediction by a model that was trained without it, one mapping per fold; may be empty"""
    true: Mapping[str, float] = field(default_factory=dict[str, float])
    """Video → score"""


@dataclass(frozen=True)
class RowDifference:
    """Difference of two rows in Spearman's correlation on the test videos."""

    first: str
    second: str
    test: Estimate
    """Correlation of the first row minus that of the second, with its 95 % interval of a paired bootstrap"""
    verdict: str
    """See `selection_gain.verdict`"""

    def __str__(self) -> str:
        return f"{self.first} − {self.second}: {self.test}: {self.verdict}"


@dataclass(frozen=True)
class RowAverage:
    """Quality of an average of predictions, over the seeds of each row and then over the rows."""

    title: str
    """Text such as ``GDLT, 5 seeds`` or ``the 3 rows``"""
    rows: tuple[str, ...]
    num_seeds: int
    """Largest number of averaged seeds of a row"""
    test: Estimate
    """Spearman on the test videos with its 95 % bootstrap interval; the mean over the splits if these are random"""
    cross_validated: float | None
    """Spearman of an average over rows on the training videos, each predicted by the models of the first seed that were
    trained without it; None for one row"""

    def __str__(self) -> str:
        crossed = "" if self.cross_validated is None else f"; cross-validated {self.cross_validated:.3f}"
        return f"{self.title}: {self.test}{crossed}"


@dataclass(frozen=True)
class RowComparison:
    """Comparison of the rows of a column at the last epoch."""

    differences: tuple[RowDifference, ...]
    """Difference of each pair of rows"""
    averages: tuple[RowAverage, ...]
    """Averages over the seeds of each row, and over all rows"""


def compare_rows(rows: Sequence[RowPredictions]) -> RowComparison:
    """Compare each pair of rows by a paired bootstrap, and average predictions over seeds and over rows."""
    compared: list[RowDifference] = []
    for first, second in combinations(rows, 2):
        difference = paired_difference(first.pairs, second.pairs)
        compared.append(RowDifference(first.row, second.row, difference, verdict(difference)))
    groups = [[row] for row in rows] + ([rows] if len(rows) > 1 else [])
    averaged = [found for group in groups if (found := average_rows(group)) is not None]
    return RowComparison(tuple(compared), tuple(averaged))


def average_rows(rows: Sequence[RowPredictions]) -> RowAverage | None:
    """Average standardized predictions over the seeds of each row, and then over the rows.

    Standardized predictions have mean 0 and deviation 1, so that no row has more weight because its predictions vary
    more. If each seed has its own random split, only predictions of the same split are averaged.

    Args:
        rows: Rows that were evaluated on the same videos.

    Returns:
        None if there is nothing to average: one row with one seed per split, or rows with different videos.
    """
    splits = [_by_split(row.pairs) for row in rows]
    num_seeds = max(len(predictions) for split in splits for predictions in split.values())
    if (len(rows) == 1 and num_seeds == 1) or len({frozenset(split) for split in splits}) > 1:
        return None
    pairs = [
        (np.mean([_standardized(np.mean(split[key], axis=0)) for split in splits], axis=0), np.frombuffer(key))
        for key in splits[0]
    ]
    title = rows[0].row if len(rows) == 1 else f"the {len(rows)} rows"
    title += f", {num_seeds} seeds" if num_seeds > 1 else ""
    crossed = _cross_validated(rows) if len(rows) > 1 else None
    return RowAverage(title, tuple(row.row for row in rows), num_seeds, bootstrap_mean(pairs), crossed)


def _by_split(pairs: Sequence[Pair]) -> dict[bytes, list[Array]]:
    """Return the true scores of a split → the standardized predictions of each seed with this split."""
    found: dict[bytes, list[Array]] = {}
    for predicted, true in pairs:
        found.setdefault(true.astype(np.float64).tobytes(), []).append(_standardized(predicted))
    return found


def _cross_validated(rows: Sequence[RowPredictions]) -> float | None:
    """Return the correlation of the averaged held-out predictions, or None if they are of different videos."""
    held_out: list[dict[str, float]] = []
    for row in rows:
        parts = [dict(zip(part, _standardized(np.array(list(part.values()))), strict=True)) for part in row.held_out]
        held_out.append({name: float(value) for part in parts for name, value in part.items()})
    names = list(held_out[0])
    if not names or any(set(each) != set(names) for each in held_out):
        return None
    means = [float(np.mean([each[name] for each in held_out])) for name in names]
    return spearman(means, [rows[0].true[name] for name in names])


def _standardized(values: Array) -> Array:
    """Return values with mean 0 and deviation 1; zeros for constant values."""
    return (values - values.mean()) / (values.std() if np.ptp(values) > 0 else 1.0)

"""Selection of the rows of two feature arrays that cover the same time, if both sides have times."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .diagnosing import as_rows
from .feature_arrays import FeatureArray
from .row_distances import agree

START_S, END_S = 0.008, 0.05
"""Largest difference of start times and of end times that count as the same: half a frame at 60 frames per second, and
one frame at 20 per second, because packages define the end as the end of the last frame or the time of the next one."""


@dataclass(frozen=True, eq=False)
class CommonRows:
    """Two arrays, reduced to the rows at common times if that is necessary."""

    a: NDArray[Any]
    b: NDArray[Any]
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    """Shapes before the reduction."""
    note: str = ""
    """How the times of both sides differ; empty if they are the same, or if a side has no times."""
    is_reduced: bool = False


def rows_at_common_times(one: FeatureArray, other: FeatureArray, tolerance: float) -> CommonRows:
    """Load both arrays and keep the rows that cover the same time.

    Both arrays are kept whole if fewer than half of the rows of the shorter one have the same times, so that the
    diagnosis can detect a shift or another rate; if they agree within ``tolerance`` as they are; and if a side has no
    times.

    Raises:
        StoreError: A file is damaged.
    """
    a, b = one.load(), other.load()
    if agree(*as_rows(a, b), tolerance):
        return CommonRows(a, b, a.shape, b.shape)
    times_a = None if one.load_times is None else one.load_times()
    times_b = None if other.load_times is None else other.load_times()
    if times_a is None or times_b is None or min(a.ndim, b.ndim) < 2 or not (len(a) and len(b)):
        return CommonRows(a, b, a.shape, b.shape)
    if len(times_a[0]) != len(a) or len(times_b[0]) != len(b):  # several rows for each time
        return CommonRows(a, b, a.shape, b.shape)
    rows_a, rows_b = _matching(times_a, times_b)
    shorter = min(len(a), len(b))
    if len(rows_a) == shorter and (rows_a == rows_b).all() and (rows_a == np.arange(shorter)).all():
        return CommonRows(a, b, a.shape, b.shape)
    note = f"{len(rows_a)} rows cover the same time; A has {_grid(times_a)}, B {_grid(times_b)}"
    if 2 * len(rows_a) < shorter:
        return CommonRows(a, b, a.shape, b.shape, note)
    return CommonRows(a[rows_a], b[rows_b], a.shape, b.shape, note, is_reduced=True)


def _matching(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of A and of B with the same times. Times ascend."""
    starts_s: list[float] = b[0].tolist()
    nearest = np.array([min(bisect_left(starts_s, each - START_S), len(starts_s) - 1) for each in a[0].tolist()])
    same = (np.abs(b[0][nearest] - a[0]) <= START_S) & (np.abs(b[1][nearest] - a[1]) <= END_S)
    rows = np.flatnonzero(same)
    return rows, nearest[rows]


def _grid(times: NDArray[np.float64]) -> str:
    length_s = float(np.median(times[1] - times[0]))
    step_s = float(np.median(np.diff(times[0]))) if times.shape[1] > 1 else length_s
    return f"{times.shape[1]} of {length_s:.3g} s every {step_s:.3g} s from {times[0][0]:.3g} s on"

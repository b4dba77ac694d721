"""Why two feature arrays of one video differ: the causes that published extractors have given us, one test each.

Every test asks whether its cause explains the difference, by undoing it and looking at what is left; the first that
does is named. A and B are ``[segments, dim]`` in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_EXPLAINED = 0.9  # of the squared difference, before a cause is believed that has as many parameters as dimensions
_AGREES = 1e-3  # relative error at which rows under another alignment count as the same
_SAME_WAY = 0.8  # mean correlation of rows under another alignment that are computed from other frames
_MAX_LEVELS = 1024


@dataclass(frozen=True)
class Finding:
    """A cause: ``halves``, ``lag``, ``remainder``, ``truncated``, ``frame-rate``, ``normalisation``,
    ``constant-offset``, ``quantisation``, ``float16``, ``arithmetic``, ``not-finite``, ``other-dim`` or ``unexplained``.
    """

    name: str
    sentence: str


def diagnose(a: NDArray[Any], b: NDArray[Any], tolerance: float = 0.0) -> Finding:
    """The first cause that explains why A and B differ."""
    agrees = max(tolerance, _AGREES)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        side = "B" if np.isfinite(a).all() else "A"
        return Finding("not-finite", f"{side} holds numbers that are not finite")
    rows_a, rows_b = as_rows(a, b)
    if rows_a.shape[1] != rows_b.shape[1]:
        return Finding(
            "other-dim", f"{rows_a.shape[1]} numbers a row against {rows_b.shape[1]}: another network or layer"
        )
    if a.ndim != b.ndim and _agree(rows_a, rows_b, agrees):
        parts = (a if a.ndim == 3 else b).shape[1]
        side, other = ("A", "B") if a.ndim == 3 else ("B", "A")
        how = "their mean is" if len(a) == len(b) else "one after the other they are"
        return Finding("halves", f"{side} has {parts} vectors for each segment; {how} {other}'s")
    found = _exact_alignment(rows_a, rows_b, agrees)
    if found is None and len(rows_a) == len(rows_b):
        found = _of_values(rows_a, rows_b)
    if found is None and _agree(rows_a, rows_b, agrees):
        found = Finding(
            "arithmetic", f"within {agrees:.0e} of the largest number: another device, library or precision"
        )
    return found or _other_alignment(rows_a, rows_b) or _unexplained(rows_a, rows_b)


def as_rows(a: NDArray[Any], b: NDArray[Any]) -> tuple[Array, Array]:
    """Both as ``float64 [rows, dim]``: parts of segments are averaged where that fits the other, else listed."""

    def rows(one: NDArray[Any], other: NDArray[Any]) -> Array:
        if one.ndim < 3:
            return np.atleast_2d(one).astype(np.float64)
        averaged = other.ndim < 3 and len(other) != one.shape[0] * one.shape[1]
        return (one.mean(axis=1, dtype=np.float64) if averaged else one.reshape(-1, one.shape[-1])).astype(np.float64)

    return rows(a, b), rows(b, a)


def relative_error(a: Array, b: Array) -> float:
    """Largest difference over the largest number of either."""
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float(np.abs(a - b).max(initial=0)) / scale if scale else 0.0


def cosines(a: Array, b: Array) -> Array:
    """Row by row; 1 for two rows of zeros, 0 for one."""
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    lengths = norms_a * norms_b
    raw = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return np.where((norms_a == 0) & (norms_b == 0), 1.0, np.clip(raw, -1, 1))


def _agree(a: Array, b: Array, tolerance: float) -> bool:
    return a.shape == b.shape and len(a) > 0 and relative_error(a, b) <= tolerance


def _exact_alignment(a: Array, b: Array, tolerance: float) -> Finding | None:
    """Rows that are the same ones, a few places on: cut off, padded, or shifted by whole segments."""
    num_common = min(len(a), len(b))
    if len(a) != len(b) and _agree(a[:num_common], b[:num_common], tolerance):
        longer, shorter = ("A", "B") if len(a) > len(b) else ("B", "A")
        surplus = abs(len(a) - len(b))
        if surplus == 1:
            return Finding(
                "remainder", f"{longer} has one segment more, the rest agree: it keeps a remainder or pads it"
            )
        return Finding("truncated", f"{longer} goes on for {surplus} segments after {shorter} ends; before, they agree")
    if _agree(a, b, tolerance):  # where all segments are alike, any shift would do
        return None
    limit = tolerance * max(float(np.abs(a).max()), float(np.abs(b).max()))
    for lag in _lags(len(a), len(b)):
        part_a, part_b = _shifted(a, b, lag)
        if np.abs(part_a[0] - part_b[0]).max() <= limit and np.abs(part_a - part_b).max() <= limit:
            return _lag_finding(lag, "the segments that overlap agree")
    return None


def _lags(num_a: int, num_b: int) -> list[int]:
    """Shifts under which at least half of the shorter side overlaps, small ones first."""
    half = max(1, min(num_a, num_b) // 2)
    every = range(half - num_a, num_b - half + 1)
    return sorted((lag for lag in every if lag), key=abs)


def _shifted(a: Array, b: Array, lag: int) -> tuple[Array, Array]:
    """The overlap of A's segment i with B's segment i + lag."""
    start_a, start_b = max(0, -lag), max(0, lag)
    length = min(len(a) - start_a, len(b) - start_b)
    return a[start_a : start_a + length], b[start_b : start_b + length]


def _lag_finding(lag: int, proof: str) -> Finding:
    side = "B" if lag > 0 else "A"
    many = "segment" if abs(lag) == 1 else "segments"
    return Finding("lag", f"{side} is {abs(lag)} {many} late; then {proof}")


def _of_values(a: Array, b: Array) -> Finding | None:
    """The same segments, other numbers."""
    return _half_precision(a, b) or _quantisation(a, b) or _row_scale(a, b) or _offset(a, b) or _affine(a, b)


def _half_precision(a: Array, b: Array) -> Finding | None:
    exact_a, exact_b = _is_half(a), _is_half(b)
    if exact_a == exact_b:
        return None
    allowed = np.maximum(np.abs(a), np.abs(b)) * (2.0**-11 * 1.01) + 2.0**-25
    if not np.all(np.abs(a - b) <= allowed):
        return None
    return Finding("float16", f"{'A' if exact_a else 'B'} is the other, rounded to float16")


def _is_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16), values))


def _quantisation(a: Array, b: Array) -> Finding | None:
    for side, values in (("A", a), ("B", b)):
        step, num_levels = _grid(values)
        if step and np.mean(np.abs(a - b) <= 1.01 * step) >= 0.99:
            levels = f"{num_levels} levels of a grid with step {step:.3g}"
            return Finding("quantisation", f"{side}'s values lie on {levels}, the other's beside them: 8-bit flow?")
    return None


def _grid(values: Array) -> tuple[float, int]:
    """``(step, levels)`` of the even grid on which all values lie; (0, 0) where there is none."""
    levels = np.unique(values)
    if len(levels) < 3 or len(levels) > min(_MAX_LEVELS, values.size // 4):
        return 0.0, 0
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-6 * (levels[-1] - levels[0])]
    step = float(gaps.min())
    is_even = np.all(np.abs(gaps / step - np.round(gaps / step)) < 0.01)
    return (step, len(gaps) + 1) if is_even else (0.0, 0)


def _row_scale(a: Array, b: Array) -> Finding | None:
    if cosines(a, b).min() < 1 - 1e-6 or not len(a):
        return None
    lengths = {side: np.linalg.norm(rows, axis=1) for side, rows in (("A", a), ("B", b))}
    for side, norms in lengths.items():
        if np.allclose(norms, 1, atol=1e-3):
            return Finding("normalisation", f"each row of {side} is the other's, scaled to length 1 (L2)")
    ratio = lengths["B"] / np.maximum(lengths["A"], 1e-30)
    return Finding(
        "normalisation", f"rows point the same way; B's are {ratio.min():.4g} to {ratio.max():.4g} times as long"
    )


def _offset(a: Array, b: Array) -> Finding | None:
    if len(a) < 4:
        return None
    difference = b - a
    offset = difference.mean(axis=0)
    if _explained(difference - offset, difference, 1) < _EXPLAINED:
        return None
    size = float(np.sqrt(np.mean(offset**2)) / (np.sqrt(np.mean(a**2)) or 1))
    return Finding(
        "constant-offset",
        f"B − A is one vector for all segments, {size:.2g} of their size: flow whose zero is 128 of 255, a random "
        "bias, or a mean left in",
    )


def _affine(a: Array, b: Array) -> Finding | None:
    """A scale and a shift for each dimension, as input or output normalised by other statistics leaves them."""
    if len(a) < 8:
        return None
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = (centred_a**2).sum(axis=0)
    scale = np.divide((centred_a * centred_b).sum(axis=0), spread, out=np.zeros(a.shape[1]), where=spread > 0)
    explained = _explained(centred_b - scale * centred_a, b - a, 2)
    if explained < _EXPLAINED:
        return None
    shown = f"{explained:.1%} of the difference"
    return Finding(
        "normalisation", f"a scale (median {np.median(scale):.4g}) and a shift for each dimension explain {shown}"
    )


def _explained(rest: Array, difference: Array, num_parameters: int) -> float:
    """Share of the squared difference, corrected for the parameters that each dimension's fit had."""
    freedom = len(difference) / (len(difference) - num_parameters)
    return 1 - freedom * float((rest**2).sum()) / (float((difference**2).sum()) or 1.0)


def _other_alignment(a: Array, b: Array) -> Finding | None:
    """Segments over other frames: their features are alike, never equal."""
    if min(len(a), len(b)) < 4:
        return None
    found = _near_lag(a, b)
    if found is None and abs(len(a) - len(b)) <= 1:
        found = _fraction(a, b)
    if found is None and abs(len(a) - len(b)) > 1:
        found = _frame_rate(a, b)
    return found


def _near_lag(a: Array, b: Array) -> Finding | None:
    alike = _directions(a) @ _directions(b).T
    here = float(np.trace(alike)) / min(len(a), len(b))
    ratings = {lag: float(np.diagonal(alike, lag).mean()) for lag in _lags(len(a), len(b))}
    best = max(ratings, key=lambda lag: ratings[lag], default=0)
    if not best or ratings[best] < _SAME_WAY or 1 - ratings[best] > 0.5 * (1 - here):
        return None
    return _lag_finding(best, f"rows correlate by {ratings[best]:.3f}, against {here:.3f} as they stand")


def _fraction(a: Array, b: Array) -> Finding | None:
    """Part of a segment's shift: half of a remainder, left out at the head by one and not by the other."""
    length = min(len(a), len(b))
    for late, early, x, y in (("B", "A", a, b), ("A", "B", b, a)):
        step = np.diff(x[:length], axis=0)
        difference = (y - x[:length] if len(y) == length else y[:length] - x[:length])[:-1]
        shift = float((difference * step).sum() / ((step**2).sum() or 1.0))
        rest = float(((difference - shift * step) ** 2).sum()) / (float((difference**2).sum()) or 1.0)
        if 0.02 < shift < 0.75 and rest < 0.5:
            return Finding(
                "remainder",
                f"{late}'s segments begin about {shift:.2f} of a segment after {early}'s ({1 - rest:.0%} of the "
                "difference): one leaves half of the remainder out at the head",
            )
    return None


def _frame_rate(a: Array, b: Array) -> Finding | None:
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    alike = _alikeness(_resampled(longer, len(shorter)), shorter)
    if alike < _SAME_WAY:
        return None
    return Finding(
        "frame-rate",
        f"{len(a)} segments against {len(b)} (ratio {len(a) / len(b):.3g}) over the same time; resampled, rows "
        f"correlate by {alike:.3f}: another frame rate, segment length or step",
    )


def _resampled(rows: Array, length: int) -> Array:
    """``length`` averages over equal shares of the time that the rows cover."""
    edges = np.linspace(0, len(rows), length + 1)
    sums = np.vstack([np.zeros(rows.shape[1]), np.cumsum(rows, axis=0)])
    whole = np.minimum(edges.astype(int), len(rows) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * rows[whole]
    return np.diff(at_edges, axis=0) / (len(rows) / length)


def _alikeness(a: Array, b: Array) -> float:
    return float((_directions(a) * _directions(b)).sum(axis=1).mean())


def _directions(rows: Array) -> Array:
    """Unit vectors, after the rows' mean is taken off: features of one network share a large constant part."""
    centred = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)


def _unexplained(a: Array, b: Array) -> Finding:
    if len(a) != len(b):
        return Finding(
            "unexplained", f"{len(a)} segments against {len(b)}, and no shift or resampling brings them together"
        )
    return Finding("unexplained", f"mean cosine {cosines(a, b).mean():.4f}; no known cause explains the difference")

"""Rows of two arrays that stand for other stretches of the video: cut off, padded, shifted, or of another length.

A and B are ``float64 [segments, dim]``.
"""

from __future__ import annotations

import numpy as np

from .row_distances import Array, Finding, agree

# Measured with I3D on a real clip: rows over other frames of the same moment correlate by .55 (half the frame rate),
# .64 (segments twice as long) and .87 (a shift of a frame), rows of other moments by .28 at most.
_ALIKE = 0.4
_SIGMAS = 4.0
_MIN_ROWS = 8


def exact_alignment(a: Array, b: Array, tolerance: float) -> Finding | None:
    """Rows that are the same ones, a few places on: cut off, padded, or shifted by whole segments."""
    num_common = min(len(a), len(b))
    if len(a) != len(b) and agree(a[:num_common], b[:num_common], tolerance):
        longer, shorter = ("A", "B") if len(a) > len(b) else ("B", "A")
        surplus = abs(len(a) - len(b))
        if surplus == 1:
            return Finding("remainder", f"{longer} has one segment more, the others agree: it pads the remainder")
        return Finding("truncated", f"{shorter} ends {surplus} segments before {longer}; until then they agree")
    if agree(a, b, tolerance):  # where all segments are alike, any shift would do
        return None
    limit = tolerance * max(float(np.abs(a).max()), float(np.abs(b).max()))
    for lag in _lags(len(a), len(b)):
        part_a, part_b = _shifted(a, b, lag)
        if np.abs(part_a[0] - part_b[0]).max() <= limit and np.abs(part_a - part_b).max() <= limit:
            return _lag_finding(lag, "the segments that overlap agree")
    return None


def other_alignment(a: Array, b: Array) -> Finding | None:
    """Segments over other frames: their features are alike, never equal."""
    if min(len(a), len(b)) < 4:
        return None
    if abs(len(a) - len(b)) <= 1:
        return _near_lag(a, b) or _fraction(a, b)
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    resampled = _alikeness(_resampled(longer, len(shorter)), shorter)
    return _near_lag(a, b, resampled) or _other_length(a, b, resampled)


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


def _near_lag(a: Array, b: Array, rival: float = -1.0) -> Finding | None:
    """Whole segments; ``rival``: how alike rows are under another explanation, which this one must surpass."""
    alike = _directions(a) @ _directions(b).T
    here = float(np.trace(alike)) / min(len(a), len(b))
    ratings = {lag: float(np.diagonal(alike, lag).mean()) for lag in _lags(len(a), len(b))}
    best = max(ratings, key=lambda lag: ratings[lag], default=0)
    if not best or ratings[best] < max(_ALIKE, rival) or 1 - ratings[best] > 0.5 * (1 - here):
        return None
    return _lag_finding(best, f"rows correlate by {ratings[best]:.3f}, against {here:.3f} as they stand")


def _fraction(a: Array, b: Array) -> Finding | None:
    """Part of a segment's shift: half of a remainder, left out at the head by one and not by the other.

    B's row is then nearer to A's next row than to its previous one, or the other way round, time after time; noise of
    its own would bring it no nearer to either.
    """
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    if length < _MIN_ROWS + 2 or _alikeness(a, b) < _ALIKE:
        return None
    across = a[2:] - a[:-2]
    pulls = ((b - a)[1:-1] * across).sum(axis=1)
    shift = float(pulls.sum() / ((across**2).sum() / 2 or 1.0))
    chance = float(pulls.std(ddof=1) / np.sqrt(len(pulls)))
    if abs(float(pulls.mean())) < _SIGMAS * chance or not 0.02 < abs(shift) < 0.75:
        return None
    late, early = ("B", "A") if shift > 0 else ("A", "B")
    begins = f"{late}'s segments begin about {abs(shift):.2f} of a segment after {early}'s"
    return Finding("remainder", f"{begins}: one leaves half of the remainder out at the head")


def _other_length(a: Array, b: Array, resampled: float) -> Finding | None:
    """The same beginning, or the same whole in other steps: whichever brings the rows nearer."""
    length = min(len(a), len(b))
    begun = _alikeness(a[:length], b[:length])
    if max(begun, resampled) < _ALIKE:
        return None
    if begun > resampled:
        names = ("A", "B") if len(a) < len(b) else ("B", "A")
        ends = f"{names[0]} ends {abs(len(a) - len(b))} segments before {names[1]}"
        return Finding("truncated", f"{ends}; until then rows correlate by {begun:.3f}")
    return Finding(
        "frame-rate",
        f"{len(a)} segments against {len(b)} (ratio {len(a) / len(b):.3g}) over the same time; resampled, rows "
        f"correlate by {resampled:.3f}: another frame rate, segment length or step",
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

"""Detection of different time alignments of two arrays: truncation, padding, shift, or another rate.

Each test uses one or several videos, which must have the shift, rate or policy in common.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .row_distances import Array, Explanation, Pair, agree

# Measured with I3D on a real clip: rows of the same time over other frames correlate by .55 (half the frame rate), .64
# (segments twice as long) and .87 (shift by a frame); rows of other times by at most .28.
_ALIKE = 0.4
_SIGMAS = 4.0
_MIN_VOTES = 8


def exact_alignment(pairs: Sequence[Pair], tolerance: float) -> Explanation | None:
    """Detect equal rows at other positions: truncated, padded, or shifted by whole segments."""
    if all(len(a) != len(b) and agree(*_begun(a, b), tolerance) for a, b in pairs) and (found := _cut(pairs)):
        return found
    if all(agree(a, b, tolerance) for a, b in pairs):  # if all segments are equal, any shift would fit
        return None
    for lag in _lags(pairs):
        if all(_agree_shifted(a, b, lag, tolerance) for a, b in pairs):
            return _lag_explanation(lag, "the segments that overlap agree")
    return None


def other_alignment(pairs: Sequence[Pair]) -> Explanation | None:
    """Detect segments over other frames, whose features are similar but not equal."""
    pairs = [(a, b) for a, b in pairs if min(len(a), len(b)) >= 4]
    if not pairs:
        return None
    if all(abs(len(a) - len(b)) <= 1 for a, b in pairs):
        return _near_lag(pairs) or _fraction(pairs)
    resampled = _alikeness([_resampled(a, b) for a, b in pairs])
    return _near_lag(pairs, resampled) or _other_length(pairs, resampled)


def _begun(a: Array, b: Array) -> Pair:
    length = min(len(a), len(b))
    return a[:length], b[:length]


def _cut(pairs: Sequence[Pair]) -> Explanation | None:
    """Return the explanation for rows that agree until one side ends; None if sides differ between videos."""
    surplus = [len(a) - len(b) for a, b in pairs]
    if min(surplus) < 0 < max(surplus):
        return None
    longer, shorter = ("A", "B") if surplus[0] > 0 else ("B", "A")
    if {abs(more) for more in surplus} == {1}:
        return Explanation("remainder", f"{longer} has one segment more, the others agree: it pads the remainder")
    return Explanation("truncated", f"{shorter} ends {_span(surplus)} segments before {longer}; until then they agree")


def _span(counts: Sequence[int]) -> str:
    least, most = min(map(abs, counts)), max(map(abs, counts))
    return str(least) if least == most else f"{least} to {most}"


def _lags(pairs: Sequence[Pair]) -> list[int]:
    """Return the shifts at which at least half of the shorter side of each video overlaps, smallest first."""
    halves = [max(1, min(len(a), len(b)) // 2) for a, b in pairs]
    first = max(half - len(a) for half, (a, _) in zip(halves, pairs, strict=True))
    last = min(len(b) - half for half, (_, b) in zip(halves, pairs, strict=True))
    return sorted((lag for lag in range(first, last + 1) if lag), key=abs)


def _shifted(a: Array, b: Array, lag: int) -> Pair:
    """Return the overlapping rows if segment i of A corresponds to segment i + lag of B."""
    start_a, start_b = max(0, -lag), max(0, lag)
    length = min(len(a) - start_a, len(b) - start_b)
    return a[start_a : start_a + length], b[start_b : start_b + length]


def _agree_shifted(a: Array, b: Array, lag: int, tolerance: float) -> bool:
    limit = tolerance * max(float(np.abs(a).max()), float(np.abs(b).max()))
    part_a, part_b = _shifted(a, b, lag)
    return bool(np.abs(part_a[0] - part_b[0]).max() <= limit and np.abs(part_a - part_b).max() <= limit)


def _lag_explanation(lag: int, proof: str) -> Explanation:
    side = "B" if lag > 0 else "A"
    many = "segment" if abs(lag) == 1 else "segments"
    return Explanation("lag", f"{side} is {abs(lag)} {many} late; then {proof}")


def _near_lag(pairs: Sequence[Pair], rival: float = -1.0) -> Explanation | None:
    """Detect a shift by whole segments. It must exceed ``rival``, the similarity of rows under another explanation."""
    alike = [_directions(a) @ _directions(b).T for a, b in pairs]

    def rating(lag: int) -> float:
        return float(np.mean(np.concatenate([np.diagonal(each, lag) for each in alike])))

    here = rating(0)
    ratings = {lag: rating(lag) for lag in _lags(pairs)}
    best = max(ratings, key=lambda lag: ratings[lag], default=0)
    if not best or ratings[best] < max(_ALIKE, rival) or 1 - ratings[best] > 0.5 * (1 - here):
        return None
    return _lag_explanation(best, f"rows correlate by {ratings[best]:.3f}, against {here:.3f} without the shift")


def _fraction(pairs: Sequence[Pair]) -> Explanation | None:
    """Detect a shift by part of a segment: one side drops half of the remainder at the start.

    Each row of B is then closer to the next row of A than to the previous one, or vice versa, whereas noise has no
    direction. Rows of one video are correlated, so that each video counts once if there are enough of them.
    """
    pairs = [_begun(a, b) for a, b in pairs]
    if _alikeness(pairs) < _ALIKE:
        return None
    pulls = [((b - a)[1:-1] * (a[2:] - a[:-2])).sum(axis=1) for a, b in pairs]
    whole = sum(float(((a[2:] - a[:-2]) ** 2).sum()) for a, _ in pairs)
    shift = 2 * float(sum(pull.sum() for pull in pulls)) / (whole or 1.0)
    votes = np.array([pull.mean() for pull in pulls]) if len(pulls) >= _MIN_VOTES else np.concatenate(pulls)
    if len(votes) < _MIN_VOTES:
        return None
    chance = float(votes.std(ddof=1) / np.sqrt(len(votes)))
    if abs(float(votes.mean())) < _SIGMAS * chance or not 0.02 < abs(shift) < 0.75:
        return None
    late, early = ("B", "A") if shift > 0 else ("A", "B")
    begins = f"{late}'s segments begin about {abs(shift):.2f} of a segment after {early}'s"
    return Explanation("remainder", f"{begins}: one leaves half of the remainder out at the start")


def _other_length(pairs: Sequence[Pair], resampled: float) -> Explanation | None:
    """Detect truncation or another rate, whichever makes the rows more similar."""
    begun = _alikeness([_begun(a, b) for a, b in pairs])
    if max(begun, resampled) < _ALIKE:
        return None
    num_a, num_b = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    surplus = [len(a) - len(b) for a, b in pairs]
    if begun > resampled:
        names = ("A", "B") if num_a < num_b else ("B", "A")
        ends = f"{names[0]} ends {_span(surplus)} segments before {names[1]}"
        return Explanation("truncated", f"{ends}; until then rows correlate by {begun:.3f}")
    return Explanation(
        "frame-rate",
        f"{num_a} segments against {num_b} (ratio {num_a / num_b:.3g}) over the same time; resampled, rows "
        f"correlate by {resampled:.3f}: another frame rate, segment length or step",
    )


def _resampled(a: Array, b: Array) -> Pair:
    """Return both sides with the length of the shorter one; the longer one is averaged over equal time intervals."""
    return (_averages(a, len(b)), b) if len(a) > len(b) else (a, _averages(b, len(a)))


def _averages(rows: Array, length: int) -> Array:
    edges = np.linspace(0, len(rows), length + 1)
    sums = np.vstack([np.zeros(rows.shape[1]), np.cumsum(rows, axis=0)])
    whole = np.minimum(edges.astype(int), len(rows) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * rows[whole]
    return np.diff(at_edges, axis=0) / (len(rows) / length)


def _alikeness(pairs: Sequence[Pair]) -> float:
    return float(np.mean(np.concatenate([(_directions(a) * _directions(b)).sum(axis=1) for a, b in pairs])))


def _directions(rows: Array) -> Array:
    """Return unit vectors without the mean row, because features of one network have a large constant part."""
    centered = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.divide(centered, lengths, out=np.zeros_like(centered), where=lengths > 0)

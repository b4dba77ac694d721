"""Holes of a video: parts that cannot be decoded, the segments that overlap them, and the lost share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..decoding.decoders import MAX_GAP_S
from ..records import Hole, VideoMetadata
from .sampling import ROUNDING, Segments, merged_intervals

REASONS_SHOWN = 3
"""Maximum number of reasons in the text of an outcome; `Outcome.holes` has all holes."""


def gap_holes(metadata: VideoMetadata) -> tuple[Hole, ...]:
    """Return intervals of more than `MAX_GAP_S` without a new frame.

    The frame before such a gap is shown for the usual duration of a frame, unless that is longer than `MAX_GAP_S`.
    """
    times_s = metadata.frame_times_s
    gaps_s = np.diff(times_s, append=metadata.end_s)
    usual_s = float(np.median(gaps_s))
    kept_s = usual_s if usual_s <= MAX_GAP_S else 0.0
    holes: list[Hole] = []
    for index in np.flatnonzero(gaps_s > MAX_GAP_S).tolist():
        start_s, end_s = float(times_s[index]), float(times_s[index] + gaps_s[index])
        text = f"no frame between {start_s:.2f} s and {end_s:.2f} s, longer than {MAX_GAP_S:g} s"
        holes.append(Hole(start_s + kept_s, end_s, text))
    return tuple(holes)


def touched(segments: Segments, holes: Iterable[Hole], *, next_frame: bool) -> NDArray[np.bool_]:
    """Return ``bool [segments]``: whether a hole overlaps the interval of a segment's frames.

    Args:
        segments: Segments of a stream.
        holes: Holes of the video.
        next_frame: Whether segments also need the next sampled frame, which is lost if a hole starts there.
    """
    found = np.zeros(len(segments), np.bool_)
    for hole in holes:
        if next_frame:
            before_end = (segments.frames_end_s > hole.start_s - ROUNDING) & (segments.next_frame_index >= 0)
            before_end |= segments.frames_end_s > hole.start_s + ROUNDING
        else:
            before_end = segments.frames_end_s > hole.start_s + ROUNDING
        found |= before_end & (segments.frames_start_s < hole.end_s - ROUNDING)
    return found


def intervals_of(holes: Iterable[Hole]) -> tuple[tuple[float, float], ...]:
    """Return ``(start_s, end_s)`` of the holes, ascending, with overlapping holes merged."""
    return merged_intervals((hole.start_s, hole.end_s) for hole in holes)


def lost_share(intervals: Sequence[tuple[float, float]], total_s: float) -> float:
    """Return duration of the holes ÷ duration of the video, 0 to 1."""
    lost_s = sum(max(0.0, min(end_s, total_s) - max(0.0, start_s)) for start_s, end_s in intervals)
    return min(1.0, lost_s / total_s) if total_s > 0 else 0.0


def describe(holes: Sequence[Hole], total_s: float) -> str:
    """Return a sentence with the lost share and the causes of the holes, for an outcome."""
    intervals = intervals_of(holes)
    reasons = list(dict.fromkeys(hole.reason for hole in sorted(holes, key=lambda hole: hole.start_s)))
    more = f"; and {len(reasons) - REASONS_SHOWN} more" if len(reasons) > REASONS_SHOWN else ""
    count = "1 hole" if len(intervals) == 1 else f"{len(intervals)} holes"
    share = lost_share(intervals, total_s)
    return f"{share:.1%} of {total_s:.2f} s lost in {count}: {'; '.join(reasons[:REASONS_SHOWN])}{more}"

"""Sampling: pure functions from frame times to the frame indices of segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...manifests.streams import Sampling

BLANK = -1
"""Index of a blank frame; see `Sampling.zero_last_frame`."""
ROUNDING = 1e-6
"""Tolerance for rounding errors: a video of 2.0 s at 5 fps has exactly ten ticks."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one stream in one video."""

    frame_indices: NDArray[np.int64]
    """``[segments, frames]``: indices of decoded frames, or `BLANK`. The first frame of a segment is never blank.
    """
    next_frame_index: NDArray[np.int64]
    """``[segments]``: index of the sampled frame after each segment, -1 at the end of the video."""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    frames_start_s: NDArray[np.float64]
    frames_end_s: NDArray[np.float64]
    """Interval of the frames. It is that of the segment, except for segments that are centered on their interval."""

    def __len__(self) -> int:
        return len(self.start_s)


def cut_segments(
    frame_times_s: NDArray[np.float64],
    end_s: float,
    sampling: Sampling,
    excluded: Sequence[tuple[int, int]] = (),
    tick_s: tuple[int, int] = (0, 1),
) -> Segments:
    """Return the segments of a video.

    Args:
        frame_times_s: Presentation time of each frame, ascending.
        end_s: End of the last frame.
        sampling: Sampling of the stream.
        excluded: ``(first, last)`` of excluded parts, ascending, without the frame ``last``. Each remaining part is
            divided into segments separately. The segments keep their times in the whole video.
        tick_s: Unit of the time stamps, see `VideoMetadata`.
    """
    if not excluded:
        return _segments_of(frame_times_s, end_s, sampling)
    edges_s = np.append(frame_times_s, end_s)
    parts: list[Segments] = []
    for first, last in remaining_frames(len(frame_times_s), excluded):
        start_s = float(edges_s[first])
        times_s = relative_times(edges_s[first : last + 1], start_s, tick_s)
        part = _segments_of(times_s[:-1], float(times_s[-1]), sampling)
        parts.append(
            Segments(
                frame_indices=np.where(part.frame_indices == BLANK, BLANK, part.frame_indices + first),
                next_frame_index=np.where(part.next_frame_index < 0, -1, part.next_frame_index + first),
                start_s=part.start_s + start_s,
                end_s=part.end_s + start_s,
                frames_start_s=part.frames_start_s + start_s,
                frames_end_s=part.frames_end_s + start_s,
            )
        )
    none = _segments_of(np.zeros(0), 0.0, sampling)
    return Segments(**{name: np.concatenate([getattr(part, name) for part in (none, *parts)]) for name in vars(none)})


def remaining_frames(num_frames: int, excluded: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the stretches of frames between excluded ones.

    Example:
        >>> remaining_frames(10, [(0, 2), (5, 6)])
        [(2, 5), (6, 10)]
    """
    starts = [0, *(last for _, last in excluded)]
    ends = [*(first for first, _ in excluded), num_frames]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def relative_times(times_s: NDArray[np.float64], offset_s: float, tick_s: tuple[int, int]) -> NDArray[np.float64]:
    """Return times since ``offset_s`` as exact multiples of the unit of the time stamps, as in a cut file."""
    numerator, denominator = tick_s
    if not numerator:
        return times_s - offset_s
    ticks = np.rint(times_s * denominator / numerator) - round(offset_s * denominator / numerator)
    return ticks * numerator / denominator


def _segments_of(frame_times_s: NDArray[np.float64], end_s: float, sampling: Sampling) -> Segments:
    if sampling.fps == "native" or len(frame_times_s) == 0:
        frames, times_s = np.arange(len(frame_times_s), dtype=np.int64), frame_times_s
    elif sampling.frame_choice != "nearest-time":
        frames, times_s = _strided_frames(frame_times_s, end_s, sampling.fps, sampling)
    else:
        times_s = np.arange(max(1, int(np.ceil(end_s * sampling.fps - ROUNDING)))) / sampling.fps
        frames = nearest_frames(frame_times_s, times_s)
    positions = _segment_positions(len(frames), sampling)
    inside = np.clip(positions, 0, len(frames) - 1) if len(positions) else positions
    following = np.minimum(positions[:, -1] + 1, len(frames))
    edges_s = np.append(times_s, end_s)
    frames_start_s, frames_end_s = edges_s[inside[:, 0]], edges_s[following]
    start_s, end_of_row_s = frames_start_s, frames_end_s
    if sampling.remainder == "pad-both":
        steps = sampling.frames_per_step * np.arange(len(positions) + 1)
        start_s, end_of_row_s = edges_s[steps[:-1]], edges_s[np.minimum(steps[1:], len(frames))]
    return Segments(
        frame_indices=frames[inside],
        next_frame_index=np.append(frames, -1)[following],
        start_s=start_s,
        end_s=end_of_row_s,
        frames_start_s=frames_start_s,
        frames_end_s=frames_end_s,
    )


def merged_intervals(intervals: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the intervals, ascending; those that overlap or touch are merged.

    Example:
        >>> merged_intervals([(3.0, 4.0), (0.0, 1.0), (1.0, 2.0)])
        ((0.0, 2.0), (3.0, 4.0))
    """
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted(intervals):
        if merged and start_s <= merged[-1][1] + ROUNDING:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return tuple(merged)


def nearest_frames(frame_times_s: NDArray[np.float64], ticks_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frame that is nearest in time to each tick, and the earlier of two frames at equal distance.

    Containers round times (WebM to milliseconds). With the last frame shown before a tick instead of the nearest, a
    rounded time would repeat one frame and skip the next if the requested rate is the recorded one.
    """
    right = np.clip(np.searchsorted(frame_times_s, ticks_s), 1, max(len(frame_times_s) - 1, 1))
    if len(frame_times_s) < 2:
        return np.zeros(len(ticks_s), np.int64)
    left_is_nearer = ticks_s - frame_times_s[right - 1] <= frame_times_s[right] - ticks_s
    return (right - left_is_nearer).astype(np.int64)


def _strided_frames(
    frame_times_s: NDArray[np.float64], end_s: float, fps: float, sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sample as ACTION-NET does. Videos shorter than a tick have no frames: ACTION-NET divides by zero for them."""
    num_frames = len(frame_times_s)
    recorded_fps = num_frames / end_s
    if sampling.frame_choice == "integer-stride-of-whole-rate":
        recorded_fps = max(1, int(recorded_fps + ROUNDING))
    num_wanted = int(num_frames * fps / recorded_fps + ROUNDING)
    stride = max(1, num_frames // num_wanted) if num_wanted else num_frames + 1
    frames = np.arange(stride - 1, num_frames, stride, dtype=np.int64)
    if sampling.zero_last_frame and num_wanted and num_frames % stride:
        frames = np.append(frames, BLANK)  # its time is that of the last frame: numpy's index -1
    return frames, frame_times_s[frames]


def _segment_positions(num_sampled: int, sampling: Sampling) -> NDArray[np.int64]:
    """Return ``[segments, frames]`` positions in the sampled sequence; with padding, also outside of it."""
    length, step = sampling.frames_per_segment, sampling.frames_per_step
    if sampling.remainder == "pad-both":
        centers = np.arange(0, num_sampled, step, dtype=np.int64)
        return centers[:, None] + np.arange(length, dtype=np.int64) - length // 2
    num_segments = max(0, (num_sampled - sampling.frames_after - length) // step + 1)
    covered = (num_segments - 1) * step + length if num_segments else 0
    left_over = num_sampled - covered
    if sampling.remainder == "pad-last" and left_over > 0:
        num_segments += 1
    first = left_over // 2 if sampling.remainder == "drop-both" and num_segments else 0
    starts = first + step * np.arange(num_segments, dtype=np.int64)
    return starts[:, None] + np.arange(length, dtype=np.int64)

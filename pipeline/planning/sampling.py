"""Sampling: pure functions from frame times to the frame indices of segments."""

from __future__ import annotations

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
    """``[segments, frames]``: indices of decoded frames, or `BLANK`; the first frame of a segment is never blank.
    """
    next_frame_index: NDArray[np.int64]
    """``[segments]``: index of the sampled frame after each segment, -1 at the end of the video."""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_s)


def cut_segments(frame_times_s: NDArray[np.float64], end_s: float, sampling: Sampling) -> Segments:
    """Return the segments of a video.

    Args:
        frame_times_s: Presentation time of each frame, ascending.
        end_s: End of the last frame.
        sampling: Sampling of the stream.
    """
    frames, times_s = _sampled_frames(frame_times_s, end_s, sampling)
    positions = _segment_positions(len(frames), sampling)
    inside = np.minimum(positions, len(frames) - 1)
    following = positions[:, -1] + 1 if len(positions) else np.zeros(0, np.int64)
    edges_s = np.append(times_s, end_s)
    return Segments(
        frame_indices=frames[inside],
        next_frame_index=np.append(frames, -1)[np.minimum(following, len(frames))],
        start_s=times_s[inside[:, 0]],
        end_s=edges_s[np.minimum(following, len(frames))],
    )


def nearest_frames(frame_times_s: NDArray[np.float64], ticks_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frame that is nearest in time to each tick, the earlier of two at equal distance.

    Containers round times (WebM to milliseconds). With "the last frame shown" instead of the nearest, a rounded time
    would repeat one frame and skip the next if the requested rate is the recorded one.
    """
    right = np.clip(np.searchsorted(frame_times_s, ticks_s), 1, max(len(frame_times_s) - 1, 1))
    if len(frame_times_s) < 2:
        return np.zeros(len(ticks_s), np.int64)
    left_is_nearer = ticks_s - frame_times_s[right - 1] <= frame_times_s[right] - ticks_s
    return (right - left_is_nearer).astype(np.int64)


def _sampled_frames(
    frame_times_s: NDArray[np.float64], end_s: float, sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the indices of the sampled frames and the time of each."""
    if sampling.fps == "native" or len(frame_times_s) == 0:
        return np.arange(len(frame_times_s), dtype=np.int64), frame_times_s
    if sampling.frame_choice != "nearest-time":
        return _strided_frames(frame_times_s, end_s, sampling.fps, sampling)
    num_ticks = max(1, int(np.ceil(end_s * sampling.fps - ROUNDING)))
    ticks_s = np.arange(num_ticks) / sampling.fps
    return nearest_frames(frame_times_s, ticks_s), ticks_s


def _strided_frames(
    frame_times_s: NDArray[np.float64], end_s: float, fps: float, sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sample as ACTION-NET does; no frames for videos shorter than a tick, where ACTION-NET divides by zero."""
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
    """``[segments, frames]`` positions in the sampled sequence; with ``pad-last`` beyond its end."""
    length, step = sampling.frames_per_segment, sampling.frames_per_step
    num_segments = max(0, (num_sampled - sampling.frames_after - length) // step + 1)
    covered = (num_segments - 1) * step + length if num_segments else 0
    left_over = num_sampled - covered
    if sampling.remainder == "pad-last" and left_over > 0:
        num_segments += 1
    first = left_over // 2 if sampling.remainder == "drop-both" and num_segments else 0
    starts = first + step * np.arange(num_segments, dtype=np.int64)
    return starts[:, None] + np.arange(length, dtype=np.int64)

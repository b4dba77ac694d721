"""The first seconds of videos, for short measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..items import Stream
from ..records import AudioTrack, VideoMetadata
from .workload import Probed, ProbedVideo, covering_streams, workload

SAMPLE_VIDEOS = 2
SAMPLE_BYTES = 512 << 20
"""Maximal number of videos and bytes of their decoded frames. They are exceeded only to cover all streams."""


def clipped(video: ProbedVideo, until_s: float) -> ProbedVideo:
    """Return the video or clip as a clip of its file that ends with the last frame before ``until_s``."""
    file, metadata = video
    num_frames = max(1, int(np.searchsorted(metadata.frame_times_s, until_s, side="left")))
    if num_frames >= metadata.num_frames:
        return video
    end_s = float(metadata.frame_times_s[num_frames])
    shorter = replace(
        metadata,
        frame_times_s=metadata.frame_times_s[:num_frames],
        end_s=end_s,
        declared_end_s=None,
        audio=None if metadata.audio is None else _shortened(metadata.audio, end_s),
        excluded_frames=tuple(
            (first, min(last, num_frames)) for first, last in metadata.excluded_frames if first < num_frames
        ),
    )
    return replace(file, end_s=(file.start_s or 0.0) + end_s), shorter


def _shortened(track: AudioTrack, end_s: float) -> AudioTrack:
    if track.duration_s is None:
        return track
    return replace(track, duration_s=max(0.0, min(track.duration_s, end_s - track.start_s)))


def min_clip_s(all_metadata: Sequence[VideoMetadata], streams: Sequence[Stream]) -> float:
    """Return the length of clips that contain two segments of every stream and the frame after them."""
    until_s = 0.0
    for stream in streams:
        sampling = stream.spec.sampling
        frames = sampling.frames_per_segment + sampling.frames_per_step + sampling.frames_after + 1
        slowest = min(metadata.fps for metadata in all_metadata) if sampling.fps == "native" else sampling.fps
        until_s = max(until_s, (frames + 1) / slowest)
    return until_s


def choose_sample(clips: Probed, streams: Sequence[Stream]) -> Probed:
    """Choose videos that cover all streams. Add others up to `SAMPLE_VIDEOS`, if all fit in `SAMPLE_BYTES`."""
    sample = covering_streams(clips, streams)
    for clip in clips:
        fits = 3 * workload([*sample, clip], streams).frame_pixels <= SAMPLE_BYTES
        if clip not in sample and len(sample) < SAMPLE_VIDEOS and fits:
            sample.append(clip)
    return sample

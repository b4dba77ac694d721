"""Division of a video into chunks: frames that fit in a buffer, and the audio of the same time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import AudioTrack, VideoMetadata

MAX_SPAN_S = 10.0
MAX_AUDIO_BYTES = 8 << 20


@dataclass(frozen=True)
class Span:
    """A part of a file that is decoded. The parts between spans are skipped."""

    first: int
    last: int
    """Indices of the first frame, and of the one after the last frame."""
    audio_from_s: float = 0.0
    audio_until_s: float = 0.0
    """Interval of audio; empty if there is none."""


@dataclass(frozen=True, eq=False)
class ChunkCut:
    """The frames of one chunk, which may be none, and the end of its audio (None: no audio)."""

    indices: NDArray[np.int64]
    audio_until_s: float | None


def cut_chunks(
    metadata: VideoMetadata,
    wanted: NDArray[np.int64],
    max_frames: int,
    audio_until_s: float | None,
    audio_from_s: float | None = None,
) -> Iterator[ChunkCut]:
    """Yield chunks of at most ``max_frames`` frames and `MAX_SPAN_S`, with audio up to the end of the last frame.

    If frames are far apart, and after the last frame, there are chunks with audio only, so that no chunk has more than
    `MAX_AUDIO_BYTES` of audio.
    """
    track = metadata.audio if audio_until_s is not None else None
    span_s = MAX_SPAN_S if track is None else min(MAX_SPAN_S, audio_span_s(track))
    ends_s = np.append(metadata.frame_times_s[1:], metadata.end_s)
    read_s = 0.0 if track is None else max(track.start_s, -np.inf if audio_from_s is None else audio_from_s)
    for indices in _runs(metadata.frame_times_s, ends_s, wanted, max_frames, span_s):
        if track is None or audio_until_s is None:
            yield ChunkCut(indices, None)
            continue
        until_s = min(float(ends_s[indices[-1]]), audio_until_s)
        for step_s in _steps(read_s, until_s - span_s, span_s):
            read_s = step_s
            yield ChunkCut(wanted[:0], step_s)
        read_s = max(read_s, until_s)
        yield ChunkCut(indices, read_s)
    if track is not None and audio_until_s is not None:
        for step_s in _steps(read_s, audio_until_s, span_s):
            yield ChunkCut(wanted[:0], step_s)


def audio_span_s(track: AudioTrack) -> float:
    """Return the duration of `MAX_AUDIO_BYTES` of this track."""
    return MAX_AUDIO_BYTES / (4 * track.rate_hz * track.channels)


def _runs(
    starts_s: NDArray[np.float64],
    ends_s: NDArray[np.float64],
    wanted: NDArray[np.int64],
    max_frames: int,
    span_s: float,
) -> Iterator[NDArray[np.int64]]:
    first = 0
    while first < len(wanted):
        candidates = wanted[first : first + max_frames]
        fitting = int(np.searchsorted(ends_s[candidates], starts_s[candidates[0]] + span_s, side="right"))
        run = candidates[: max(1, fitting)]
        yield run
        first += len(run)


def _steps(from_s: float, until_s: float, span_s: float) -> Iterator[float]:
    """Yield the ends of intervals of at most ``span_s`` from ``from_s`` to ``until_s``."""
    while from_s < until_s:
        from_s = min(from_s + span_s, until_s)
        yield from_s

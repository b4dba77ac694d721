"""Clips of a longer file: their frames, and their metadata as of a file that has only these frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..decoding.chunks import Span
from ..records import AudioTrack, Hole, VideoFile, VideoMetadata
from .sampling import relative_times

ROUNDED_S = 0.001
"""Times in a table may be rounded to milliseconds: a frame belongs to a clip that starts by this much after it."""
END_SLACK_S = 1.0
"""Times in a table may be rounded up to seconds: a clip may end by this much after its file."""


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames of a video in its file. A whole video has all frames."""

    file: VideoFile
    first: int
    last: int
    """Indices in the file of the first frame, and of the frame after the last one."""
    offset_s: float
    """Time of the first frame in the file."""
    metadata: VideoMetadata
    """Metadata of a file with only these frames; times are relative to the first of them."""

    def audio_span(self, until_s: float | None) -> tuple[float, float]:
        """Return the interval of audio in the file up to a time of the clip; it is empty without audio."""
        track = self.metadata.audio
        if track is None or until_s is None:
            return 0.0, 0.0
        return self.offset_s + track.start_s, min(self.offset_s + until_s, self.offset_s + self.metadata.end_s)

    def holes(self, holes: Sequence[Hole]) -> tuple[Hole, ...]:
        """Return the parts of a file's holes inside the clip, with times relative to the clip."""
        if not self.file.is_clip:
            return tuple(holes)
        end_s = max(self.metadata.end_s, self.metadata.declared_end_s or 0.0)
        inside: list[Hole] = []
        for hole in holes:
            start_s, stop_s = max(0.0, hole.start_s - self.offset_s), min(end_s, hole.end_s - self.offset_s)
            if start_s < stop_s:
                inside.append(Hole(start_s, stop_s, hole.reason))
        return tuple(inside)


def clip_of(file: VideoFile, metadata: VideoMetadata) -> Clip:
    """Return the clip of a file, or the whole video.

    A frame belongs to the clip if its presentation time is in ``[start_s, end_s)``, with a tolerance of `ROUNDED_S`.
    The same rule applies to excluded stretches.

    Raises:
        DecodeError: The clip is outside of the file.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from arabesque.pipeline.planning.clips import clip_of
        >>> from arabesque.pipeline.records import VideoFile, VideoMetadata
        >>> metadata = VideoMetadata("mp4", "h264", 64, 48, 0, 25, np.arange(100) / 25, 4, None, None)
        >>> clip = clip_of(VideoFile("jump", Path("routine.mp4"), start_s=1.0, end_s=2.0), metadata)
        >>> clip.first, clip.last, clip.metadata.end_s
        (25, 50, 1.0)
    """
    times_s, num_frames = metadata.frame_times_s, metadata.num_frames
    if not file.is_clip:
        return Clip(file, 0, num_frames, 0.0, metadata)
    start_s, end_s = file.start_s or 0.0, math.inf if file.end_s is None else file.end_s
    whole_end_s = max(metadata.end_s, metadata.declared_end_s or 0.0)
    first, last = (int(np.searchsorted(times_s, time_s - ROUNDED_S)) for time_s in (start_s, end_s))
    what = f"{file.path}: the clip from {start_s:g} s to " + ("its end" if file.end_s is None else f"{end_s:g} s")
    if start_s >= whole_end_s or (file.end_s is not None and end_s > whole_end_s + END_SLACK_S):
        raise DecodeError(f"{what} is outside of the file, which ends at {whole_end_s:.3f} s; correct its times")
    if first >= num_frames:
        raise DecodeError(
            f"{what} is in the missing part of a truncated file, whose frames end at {metadata.end_s:.3f} s"
        )
    if first >= last:
        raise DecodeError(f"{what} has no frame; the next one is shown at {float(times_s[first]):.3f} s")
    offset_s = float(times_s[first])
    stop_s = float(times_s[last]) if last < num_frames else metadata.end_s
    is_cut_off = last == num_frames and metadata.declared_end_s is not None
    cut = replace(
        metadata,
        frame_times_s=relative_times(times_s[first:last], offset_s, metadata.tick_s),
        end_s=float(relative_times(np.array([stop_s]), offset_s, metadata.tick_s)[0]),
        declared_end_s=min(end_s, metadata.declared_end_s or 0.0) - offset_s if is_cut_off else None,
        start_s=metadata.start_s + offset_s,
        audio=None if metadata.audio is None else _audio_of(metadata.audio, offset_s, stop_s),
        excluded_frames=_excluded_frames(file, times_s[first:last]),
        exclude=file.exclude,
    )
    return Clip(file, first, last, offset_s, cut)


def _excluded_frames(file: VideoFile, times_s: NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    """Return ``(first, last)`` of each excluded stretch among the frames of the clip, by the rule of `clip_of`."""
    edges = np.searchsorted(times_s, np.array(file.excluded_s).reshape(-1, 2) - ROUNDED_S)
    return tuple((first, last) for first, last in edges.tolist() if first < last)


def spans_of(clips: Sequence[Clip], audio_until_s: Sequence[float | None]) -> list[tuple[Span, list[int]]]:
    """Return the parts of the file to decode, ascending and without overlap, and the indices of the clips in each.

    Args:
        clips: Clips of one file.
        audio_until_s: For each clip, the time in the clip up to which audio is needed.
    """
    found: list[tuple[Span, list[int]]] = []
    for number in sorted(range(len(clips)), key=lambda index: clips[index].first):
        clip = clips[number]
        span = Span(clip.first, clip.last, *clip.audio_span(audio_until_s[number]))
        if found and span.first <= found[-1][0].last:
            before, numbers = found[-1]
            found[-1] = _union(before, span), [*numbers, number]
        else:
            found.append((span, [number]))
    return found


def _union(a: Span, b: Span) -> Span:
    heard = [span for span in (a, b) if span.audio_until_s > span.audio_from_s]
    return Span(
        min(a.first, b.first),
        max(a.last, b.last),
        min((span.audio_from_s for span in heard), default=0.0),
        max((span.audio_until_s for span in heard), default=0.0),
    )


def _audio_of(track: AudioTrack, offset_s: float, stop_s: float) -> AudioTrack | None:
    """Return the audio track of a clip, which starts with the first sample in it; None if the track ends before."""
    first = max(0, math.ceil((offset_s - track.start_s) * track.rate_hz - 1e-6))
    start_s = track.start_s + first / track.rate_hz
    end_s = stop_s if track.duration_s is None else min(stop_s, track.start_s + track.duration_s)
    if start_s >= end_s:
        return None
    return replace(track, start_s=start_s - offset_s, duration_s=end_s - start_s)

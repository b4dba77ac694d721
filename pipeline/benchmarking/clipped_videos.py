"""Decoding of the first seconds of videos only, for short measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..decoding.chunks import Span
from ..decoding.decoder_pool import DecoderPool, DecoderProcess, DecoderSettings, FrameChunk, Holes
from ..items import Stream
from ..options import RunOptions
from ..records import AudioTrack, Deinterlace, VideoMetadata
from .workload import Probed, covering_streams, workload

SAMPLE_VIDEOS = 2
SAMPLE_BYTES = 512 << 20
"""Limits of the sample: number of videos and bytes of their decoded frames. More videos only to cover all streams."""


def clipped(metadata: VideoMetadata, until_s: float) -> VideoMetadata:
    """Metadata of a video as if it ended with the last frame that begins before ``until_s``."""
    num_frames = max(1, int(np.searchsorted(metadata.frame_times_s, until_s, side="left")))
    if num_frames >= metadata.num_frames:
        return metadata
    end_s = float(metadata.frame_times_s[num_frames])
    return replace(
        metadata,
        frame_times_s=metadata.frame_times_s[:num_frames],
        end_s=end_s,
        declared_end_s=None,
        audio=None if metadata.audio is None else _shortened(metadata.audio, end_s),
    )


class ClippedDecoderPool(DecoderPool):
    """A `DecoderPool` in which every video ends after ``clip_s``. It has no metadata cache, as in a first run."""

    def __init__(self, clip_s: float, options: RunOptions) -> None:
        self._clip_s = clip_s
        super().__init__(options.num_decoders, options.decoder, options.decoder_settings)

    def _new_decoder(self, backend: str, settings: DecoderSettings | None) -> DecoderProcess:
        return _ClippedDecoder(self._clip_s, backend, settings)


class _ClippedDecoder(DecoderProcess):
    def __init__(self, clip_s: float, backend: str, settings: DecoderSettings | None) -> None:
        super().__init__(backend, settings)
        self._clip_s = clip_s
        self._whole: VideoMetadata | None = None

    def probe(
        self, path: Path, thorough: bool = False, audio_track: int | str = "best", frame_rate: float | None = None
    ) -> VideoMetadata:
        self._whole = super().probe(path, thorough, audio_track, frame_rate)
        return clipped(self._whole, self._clip_s)

    def decode(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        *,
        audio_until_s: float | None = None,
        bytes_later: int = 0,
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[FrameChunk | Holes]:
        """Decode the video that was probed last. Audio is not read far beyond the clip."""
        if audio_until_s is not None:
            audio_until_s = min(audio_until_s, metadata.end_s)
        whole = self._whole or metadata  # decord compares the number of frames with the file's
        return super().decode(
            path,
            whole,
            wanted,
            audio_until_s=audio_until_s,
            bytes_later=bytes_later,
            deinterlace=deinterlace,
            spans=spans,
        )


def _shortened(track: AudioTrack, end_s: float) -> AudioTrack:
    if track.duration_s is None:
        return track
    return replace(track, duration_s=max(0.0, min(track.duration_s, end_s - track.start_s)))


def min_clip_s(all_metadata: Sequence[VideoMetadata], streams: Sequence[Stream]) -> float:
    """Length of clips that contain two segments of every stream and the frame after them."""
    until_s = 0.0
    for stream in streams:
        sampling = stream.spec.sampling
        frames = sampling.frames_per_segment + sampling.frames_per_step + sampling.frames_after + 1
        slowest = min(metadata.fps for metadata in all_metadata) if sampling.fps == "native" else sampling.fps
        until_s = max(until_s, (frames + 1) / slowest)
    return until_s


def choose_sample(clips: Probed, streams: Sequence[Stream]) -> Probed:
    """Choose videos that cover all streams, and up to `SAMPLE_VIDEOS` as long as they fit in `SAMPLE_BYTES`."""
    sample = covering_streams(clips, streams)
    for clip in clips:
        fits = 3 * workload([*sample, clip], streams).frame_pixels <= SAMPLE_BYTES
        if clip not in sample and len(sample) < SAMPLE_VIDEOS and fits:
            sample.append(clip)
    return sample

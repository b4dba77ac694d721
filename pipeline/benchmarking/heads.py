"""The first seconds of videos, for measurements that must not take long: the rest is not decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..decoding.slots import DecodeSlot, SlotPool, SlotSettings, Window
from ..extraction import RunOptions
from ..records import AudioTrack, Probe
from ..work import Stream
from .workload import Probed, showing_all, workload

SAMPLE_VIDEOS = 2
SAMPLE_BYTES = 512 << 20
"""Pictures that lie ready at once, of no more videos than that unless some stream is in none of them."""


def head_of(probe: Probe, until_s: float) -> Probe:
    """A video's probe as if it ended with the last frame that begins before ``until_s``."""
    num_frames = max(1, int(np.searchsorted(probe.frame_times_s, until_s, side="left")))
    if num_frames >= probe.num_frames:
        return probe
    end_s = float(probe.frame_times_s[num_frames])
    return replace(
        probe,
        frame_times_s=probe.frame_times_s[:num_frames],
        end_s=end_s,
        declared_end_s=None,
        audio=None if probe.audio is None else _shortened(probe.audio, end_s),
    )


class HeadPool(SlotPool):
    """A `SlotPool` to which every video ends after ``head_s``. It remembers no probes: a run has to make them."""

    def __init__(self, head_s: float, options: RunOptions) -> None:
        self._head_s = head_s
        super().__init__(options.num_decoders, options.decoder, options.slot_settings)

    def _new_slot(self, backend: str, settings: SlotSettings | None) -> DecodeSlot:
        return _HeadSlot(self._head_s, backend, settings)


class _HeadSlot(DecodeSlot):
    def __init__(self, head_s: float, backend: str, settings: SlotSettings | None) -> None:
        super().__init__(backend, settings)
        self._head_s = head_s
        self._whole: Probe | None = None

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        self._whole = super().probe(path, thorough)
        return head_of(self._whole, self._head_s)

    def decode(
        self,
        path: Path,
        probe: Probe,
        wanted: NDArray[np.int64],
        *,
        audio_until_s: float | None = None,
        bytes_later: int = 0,
    ) -> Iterator[Window]:
        """Of the video that was probed last. Sound that is heard as a whole must not be heard far beyond the head."""
        if audio_until_s is not None:
            audio_until_s = min(audio_until_s, probe.end_s)
        whole = self._whole or probe  # decord counts the frames of a file, and must find as many
        return super().decode(path, whole, wanted, audio_until_s=audio_until_s, bytes_later=bytes_later)


def _shortened(track: AudioTrack, end_s: float) -> AudioTrack:
    if track.duration_s is None:
        return track
    return replace(track, duration_s=max(0.0, min(track.duration_s, end_s - track.start_s)))


def sample_head_s(probes: Sequence[Probe], streams: Sequence[Stream]) -> float:
    """How long heads must be for two segments of every stream and the frame after them, where videos are as long."""
    until_s = 0.0
    for stream in streams:
        sampling = stream.spec.sampling
        frames = sampling.frames_per_segment + sampling.frames_per_step + sampling.frames_after + 1
        slowest = min(probe.fps for probe in probes) if sampling.fps == "native" else sampling.fps
        until_s = max(until_s, (frames + 1) / slowest)
    return until_s


def choose_sample(heads: Probed, streams: Sequence[Stream]) -> Probed:
    """As many as it takes to show every stream, and up to `SAMPLE_VIDEOS` as long as they fit `SAMPLE_BYTES`."""
    sample = showing_all(heads, streams)
    for head in heads:
        fits = 3 * workload([*sample, head], streams).frame_pixels <= SAMPLE_BYTES
        if head not in sample and len(sample) < SAMPLE_VIDEOS and fits:
            sample.append(head)
    return sample

"""Audio of segments: resamples a track chunk by chunk, and cuts intervals out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...extractors.protocol import AudioNeed
from .resampling import SincResampler

MIN_COVERAGE = 0.5
"""Minimum share of a segment's interval that must be within the track; the rest of the interval is silence."""


class StreamingResampler(Protocol):
    """Resampler of one channel. The output does not depend on how the input is divided into chunks."""

    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...


@dataclass(eq=False)
class WaveformCursor:
    """Resamples a track chunk by chunk, and keeps only the samples after the start of the last interval.

    Resampling runs over the whole track, so that chunk boundaries do not affect any segment.
    """

    need: AudioNeed
    """Rate, channel and resampler of the extractor."""
    track_rate_hz: int
    """Rate of the track."""
    track_start_s: float
    """Time of the track's first sample, relative to the first presented frame."""
    resampler: StreamingResampler | None = field(default=None, init=False)
    """Opened with the first audio, if the rates differ."""
    samples: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32), init=False)
    """Samples that have arrived and are kept, at the extractor's rate."""
    first: int = field(default=0, init=False)
    """Position of the first of them in the resampled track."""
    finished: bool = field(default=False, init=False)
    """Whether the track has ended."""
    keeps_all: ClassVar[bool] = False

    def push(self, samples: NDArray[np.float32], *, last: bool = False) -> None:
        """Append the next samples of the track, ``float32 [channels, samples]``."""
        mono = samples.mean(axis=0) if self.need.channel == "mean" else samples[0]
        mono = np.ascontiguousarray(mono, np.float32)
        if self.resampler is None and self.track_rate_hz != self.need.rate_hz:
            if self.need.resampler == "sinc-hann":
                self.resampler = SincResampler(self.track_rate_hz, self.need.rate_hz)
            else:
                import soxr  # pyright: ignore[reportMissingTypeStubs]

                self.resampler = soxr.ResampleStream(self.track_rate_hz, self.need.rate_hz, 1, "float32", "HQ")
        resampled = mono if self.resampler is None else self.resampler.resample_chunk(mono, last=last)
        self.samples = np.concatenate([self.samples, resampled])

    def finish(self) -> None:
        """Mark the end of the track."""
        if not self.finished:
            self.push(np.zeros((1, 0), np.float32), last=True)
            self.finished = True

    def reaches(self, end_s: float) -> bool:
        """Return whether all samples up to ``end_s`` have arrived or the track has ended."""
        return self.finished or self._position(end_s) <= self.first + len(self.samples)

    def take(self, start_s: float, end_s: float) -> torch.Tensor | None:
        """Return the samples of an interval, ``float32 [samples]``, and discard all earlier ones unless `keeps_all`.

        Intervals must be requested in ascending order of their start. The result is None if less than `MIN_COVERAGE` of
        the interval is within the track.
        """
        start, end = self._position(start_s), self._position(end_s)
        if not self.keeps_all:
            behind = min(max(0, start - self.first), len(self.samples))
            self.samples, self.first = self.samples[behind:], self.first + behind
        inside = self.samples[max(0, start - self.first) : max(0, end - self.first)]
        if len(inside) < MIN_COVERAGE * (end - start):
            return None
        waveform = np.zeros(end - start, np.float32)
        lead = max(0, self.first - start)
        waveform[lead : lead + len(inside)] = inside
        return torch.as_tensor(waveform)

    def _position(self, time_s: float) -> int:
        return round((time_s - self.track_start_s) * self.need.rate_hz)


class WholeTrack(WaveformCursor):
    """Keeps the whole resampled track, for streams that divide or center it. Memory grows with its length."""

    keeps_all = True

    def finish(self) -> None:
        """Mark the end of the track and, with `AudioNeed.remove_mean`, subtract its mean.

        PAMFN subtracts the mean over all channels, this class that of the used channel. Features are equal, because the
        filterbank removes the mean of every window.
        """
        if self.finished:
            return
        super().finish()
        if self.need.remove_mean and len(self.samples):
            self.samples = self.samples - self.samples.mean(dtype=np.float64).astype(np.float32)

    def reaches(self, end_s: float) -> bool:
        """Return whether the track has ended."""
        return self.finished

    def share(self, index: int, num_shares: int) -> torch.Tensor | None:
        """Return one of ``num_shares`` equal parts, ``float32 [samples // num_shares]``; None if it is empty."""
        length = len(self.samples) // num_shares
        if length == 0:
            return None
        return torch.as_tensor(self.samples[index * length : (index + 1) * length].copy())

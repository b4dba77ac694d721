"""Audio of segments: resample a track that arrives in chunks and cut out intervals."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...extractors.protocol import AudioNeed
from .resampling import SincResampler

MIN_COVERAGE = 0.5
"""Share of a segment's interval that must lie within the track; the rest of the interval is silence."""


class StreamingResampler(Protocol):
    """Resampler of one channel. The output does not depend on how the input is divided into chunks."""

    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...


class WaveformCursor:
    """Resamples a track chunk by chunk and keeps only the samples after the start of the last interval taken.

    Resampling runs over the whole track, so that chunk boundaries do not affect any segment.

    Args:
        need: Rate, channel and resampler of the extractor.
        track_rate_hz: Rate of the track.
        track_start_s: Time of the track's first sample, relative to the first presented frame.
    """

    keeps_all = False

    def __init__(self, need: AudioNeed, track_rate_hz: int, track_start_s: float) -> None:
        self._need = need
        self._track_start_s = track_start_s
        self._track_rate_hz = track_rate_hz
        self._resampler: StreamingResampler | None = None  # opened with the first audio
        self._samples = np.zeros(0, np.float32)
        self._first = 0  # position of _samples[0] in the resampled track
        self._finished = False

    def push(self, samples: NDArray[np.float32], *, last: bool = False) -> None:
        """Append the next samples of the track, ``float32 [channels, samples]``."""
        mono = samples.mean(axis=0) if self._need.channel == "mean" else samples[0]
        mono = np.ascontiguousarray(mono, np.float32)
        if self._resampler is None and self._track_rate_hz != self._need.rate_hz:
            if self._need.resampler == "sinc-hann":
                self._resampler = SincResampler(self._track_rate_hz, self._need.rate_hz)
            else:
                import soxr  # pyright: ignore[reportMissingTypeStubs]

                self._resampler = soxr.ResampleStream(self._track_rate_hz, self._need.rate_hz, 1, "float32", "HQ")
        resampled = mono if self._resampler is None else self._resampler.resample_chunk(mono, last=last)
        self._samples = np.concatenate([self._samples, resampled])

    def finish(self) -> None:
        """Mark the end of the track."""
        if not self._finished:
            self.push(np.zeros((1, 0), np.float32), last=True)
            self._finished = True

    def reaches(self, end_s: float) -> bool:
        """Whether all samples up to ``end_s`` have arrived or the track has ended."""
        return self._finished or self._position(end_s) <= self._first + len(self._samples)

    def take(self, start_s: float, end_s: float) -> torch.Tensor | None:
        """Return the samples of an interval, ``float32 [samples]``, and discard all before it unless `keeps_all`.

        Intervals must be taken in ascending order of their start. Returns None if less than `MIN_COVERAGE` of the
        interval lies within the track.
        """
        start, end = self._position(start_s), self._position(end_s)
        if not self.keeps_all:
            behind = min(max(0, start - self._first), len(self._samples))
            self._samples, self._first = self._samples[behind:], self._first + behind
        inside = self._samples[max(0, start - self._first) : max(0, end - self._first)]
        if len(inside) < MIN_COVERAGE * (end - start):
            return None
        waveform = np.zeros(end - start, np.float32)
        lead = max(0, self._first - start)
        waveform[lead : lead + len(inside)] = inside
        return torch.as_tensor(waveform)

    def _position(self, time_s: float) -> int:
        return round((time_s - self._track_start_s) * self._need.rate_hz)


class WholeTrack(WaveformCursor):
    """Keeps the whole resampled track, for streams that divide or center it; memory grows with its length."""

    keeps_all = True

    def finish(self) -> None:
        """Mark the end of the track and, with `AudioNeed.remove_mean`, subtract its mean.

        PAMFN subtracts the mean over all channels, this class that of the channel in use. Features are the same: the
        filterbank removes the mean of every window.
        """
        if self._finished:
            return
        super().finish()
        if self._need.remove_mean and len(self._samples):
            self._samples = self._samples - self._samples.mean(dtype=np.float64).astype(np.float32)

    def reaches(self, end_s: float) -> bool:
        """Whether the track has ended."""
        return self._finished

    def share(self, index: int, num_shares: int) -> torch.Tensor | None:
        """Return one of ``num_shares`` equal parts, ``float32 [samples // num_shares]``; None if it is empty."""
        length = len(self._samples) // num_shares
        if length == 0:
            return None
        return torch.as_tensor(self._samples[index * length : (index + 1) * length].copy())

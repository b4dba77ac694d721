"""Sound of a segment's interval, cut out of a track that arrives in chunks, at the rate that an extractor asked for."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..extractors.protocol import AudioNeed
from .sinc_resampling import SincResampler

MIN_COVERAGE = 0.5
"""A segment has sound when at least this part of its interval lies within the track; the rest of it is silence."""


class StreamingResampler(Protocol):
    """One channel, chunk by chunk: what comes out depends on the samples alone, not on where they are cut."""

    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...


class WaveformCursor:
    """Resamples a track as it comes and forgets what lies behind the last interval taken: memory stays bounded.

    Resampling runs over the whole track, so that no segment hears the edge of a chunk.
    """

    def __init__(self, need: AudioNeed, track_rate_hz: int, track_start_s: float) -> None:
        self._need = need
        self._track_start_s = track_start_s
        self._resampler = _open_resampler(need, track_rate_hz)
        self._samples = np.zeros(0, np.float32)
        self._first = 0  # position of _samples[0] in the resampled track
        self._finished = False

    def push(self, samples: NDArray[np.float32]) -> None:
        """The track's next ``[channels, samples]``."""
        mono = samples.mean(axis=0) if self._need.channel == "mean" else samples[0]
        self._append(np.ascontiguousarray(mono, np.float32), last=False)

    def finish(self) -> None:
        """The track ends here, whatever its header said."""
        if not self._finished:
            self._append(np.zeros(0, np.float32), last=True)
            self._finished = True

    def reaches(self, end_s: float) -> bool:
        """Whether everything up to ``end_s`` has arrived, or never will."""
        return self._finished or self._position(end_s) <= self._first + len(self._samples)

    def take(self, start_s: float, end_s: float) -> torch.Tensor | None:
        """``float32 [samples]`` of an interval, and everything before it is forgotten.

        None where less than `MIN_COVERAGE` of the interval lies within the track. Intervals must not go back.
        """
        start, end = self._position(start_s), self._position(end_s)
        self._forget_before(start)
        inside = self._samples[max(0, start - self._first) : max(0, end - self._first)]
        if len(inside) < MIN_COVERAGE * (end - start):
            return None
        waveform = np.zeros(end - start, np.float32)
        lead = max(0, self._first - start)
        waveform[lead : lead + len(inside)] = inside
        return torch.from_numpy(waveform)

    def _position(self, time_s: float) -> int:
        return round((time_s - self._track_start_s) * self._need.rate_hz)

    def _append(self, mono: NDArray[np.float32], last: bool) -> None:
        resampled = mono if self._resampler is None else self._resampler.resample_chunk(mono, last=last)
        self._samples = np.concatenate([self._samples, resampled])

    def _forget_before(self, position: int) -> None:
        behind = min(max(0, position - self._first), len(self._samples))
        self._samples = self._samples[behind:]
        self._first += behind


class WholeTrack(WaveformCursor):
    """Keeps the resampled track until its end, for streams that cut or centre it as a whole; memory grows with it."""

    def finish(self) -> None:
        """The track ends here; with `AudioNeed.remove_mean`, its mean is taken off.

        PAMFN takes the mean over all channels. Here it is that of the channel that is heard: a filterbank removes the
        mean of every window, so that no choice of constant reaches a feature.
        """
        if self._finished:
            return
        super().finish()
        if self._need.remove_mean and len(self._samples):
            self._samples = self._samples - self._samples.mean(dtype=np.float64).astype(np.float32)

    def reaches(self, end_s: float) -> bool:
        """Nothing is ready before the end."""
        return self._finished

    def share(self, index: int, num_shares: int) -> torch.Tensor | None:
        """``float32 [samples // num_shares]``: one of as many equal parts; None of a track that has fewer samples."""
        length = len(self._samples) // num_shares
        if length == 0:
            return None
        return torch.from_numpy(self._samples[index * length : (index + 1) * length].copy())

    def _forget_before(self, position: int) -> None:
        """Nothing is forgotten."""


def _open_resampler(need: AudioNeed, track_rate_hz: int) -> StreamingResampler | None:
    if track_rate_hz == need.rate_hz:
        return None
    if need.resampler == "sinc-hann":
        return SincResampler(track_rate_hz, need.rate_hz)
    import soxr

    return soxr.ResampleStream(track_rate_hz, need.rate_hz, 1, "float32", "HQ")

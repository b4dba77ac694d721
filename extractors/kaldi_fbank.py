"""Kaldi's log mel filterbank, as `torchaudio.compliance.kaldi.fbank` computes it for AST."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

PREEMPHASIS = 0.97
LOW_HZ = 20.0
ENERGY_FLOOR = float(np.finfo(np.float32).eps)
"""Kaldi takes the logarithm of nothing smaller; digital silence comes out as log(1.19e-7) = −15.94."""


@dataclass(frozen=True)
class FilterbankOptions:
    """What `kaldi_fbank` may vary; the rest (Hann window, DC removal, no dither, snipped edges, power) is fixed."""

    told_rate_hz: int = 16000
    """The rate the filterbank believes in. A wrong one stretches window, hop and mel axis, as in released features."""
    num_mel_bins: int = 128
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0

    @property
    def window_samples(self) -> int:
        return int(self.told_rate_hz * self.frame_length_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        return int(self.told_rate_hz * self.frame_shift_ms * 0.001)

    @property
    def fft_samples(self) -> int:
        """The next power of two."""
        return 1 << (self.window_samples - 1).bit_length()

    def num_frames(self, num_samples: int) -> int:
        """Frames that fit wholly into the samples; at least one, see `kaldi_fbank`."""
        return 1 + max(0, num_samples - self.window_samples) // self.hop_samples


def kaldi_fbank(waveform: NDArray[np.float32], options: FilterbankOptions) -> NDArray[np.float32]:
    """``float32 [frames, mel bins]``, natural logarithm of power, from ``[samples]`` in −1 … 1.

    A waveform shorter than one window is padded with zeros to one window, where Kaldi returns nothing and
    torchaudio refuses. Computed in float64: equally fast here, and exact to the last digits of float32.
    """
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {list(waveform.shape)}; a filterbank takes one channel, [samples]")
    windowed = _frames(waveform.astype(np.float64), options) * _hann(options.window_samples)
    power = np.abs(np.fft.rfft(windowed, options.fft_samples)) ** 2
    energies = power @ _mel_filters(options).T
    return np.log(np.maximum(energies, ENERGY_FLOOR)).astype(np.float32)


def _frames(samples: NDArray[np.float64], options: FilterbankOptions) -> NDArray[np.float64]:
    """``[frames, window]``: cut, each frame's mean removed, pre-emphasised; the first sample precedes itself."""
    window, hop = options.window_samples, options.hop_samples
    if len(samples) < window:
        samples = np.pad(samples, (0, window - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    return frames - PREEMPHASIS * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)


@lru_cache(maxsize=8)
def _hann(length: int) -> NDArray[np.float64]:
    return np.hanning(length)


@lru_cache(maxsize=8)
def _mel_filters(options: FilterbankOptions) -> NDArray[np.float64]:
    """``[mel bins, fft / 2 + 1]``: triangles that are equally spaced, and straight, on the mel axis."""
    lowest, highest = _mel(np.array([LOW_HZ, options.told_rate_hz / 2]))
    edges = cast("NDArray[np.float64]", np.linspace(lowest, highest, options.num_mel_bins + 2))
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _mel(np.arange(options.fft_samples // 2 + 1) * options.told_rate_hz / options.fft_samples)
    filters = np.maximum(0.0, np.minimum((mel - left) / (center - left), (right - mel) / (right - center)))
    filters[:, -1] = 0.0  # Kaldi leaves the Nyquist bin out
    return filters


def _mel(frequencies_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + frequencies_hz / 700.0)

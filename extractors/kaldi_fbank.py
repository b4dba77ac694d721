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
"""Least energy before the logarithm, as in Kaldi. Digital silence becomes log(1.19e-7) = −15.94."""


@dataclass(frozen=True)
class FilterbankOptions:
    """Options of `kaldi_fbank`. Hann window, DC removal, no dither, snipped edges and power are fixed."""

    told_rate_hz: int = 16000
    """Sampling rate passed to the filterbank. A wrong rate scales window, hop and mel axis, as in released features."""
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
        """Length of the Fourier transform: the next power of two from the length of the window"""
        return 1 << (self.window_samples - 1).bit_length()

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole frames in the samples; at least one, see `kaldi_fbank`."""
        return 1 + max(0, num_samples - self.window_samples) // self.hop_samples


def kaldi_fbank(waveform: NDArray[np.float32], options: FilterbankOptions) -> NDArray[np.float32]:
    """Return the log filterbank energies ``float32 [frames, mel bins]`` of a waveform ``[samples]`` in −1 … 1.

    A waveform shorter than one window is padded with zeros to one window; Kaldi returns no frame for it, and torchaudio
    raises an error. The computation is in float64, which is equally fast here and more exact.
    """
    if waveform.ndim != 1:
        raise ValueError(f"waveform: has shape {list(waveform.shape)}; give one channel, [samples]")
    windowed = _frames(waveform.astype(np.float64), options) * _hann(options.window_samples)
    power = np.abs(np.fft.rfft(windowed, options.fft_samples)) ** 2
    energies = power @ _mel_filters(options).T
    return np.log(np.maximum(energies, ENERGY_FLOOR)).astype(np.float32)


def _frames(samples: NDArray[np.float64], options: FilterbankOptions) -> NDArray[np.float64]:
    """Return frames ``[frames, window]`` without their mean, with pre-emphasis; the first sample is repeated for it."""
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
    """Return the filters ``[mel bins, fft / 2 + 1]``: triangles that are equally spaced and linear in mel."""
    lowest, highest = _mel(np.array([LOW_HZ, options.told_rate_hz / 2]))
    edges = cast("NDArray[np.float64]", np.linspace(lowest, highest, options.num_mel_bins + 2))
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _mel(np.arange(options.fft_samples // 2 + 1) * options.told_rate_hz / options.fft_samples)
    filters = np.maximum(0.0, np.minimum((mel - left) / (center - left), (right - mel) / (right - center)))
    filters[:, -1] = 0.0  # Kaldi does not use the Nyquist bin
    return filters


def _mel(frequencies_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + frequencies_hz / 700.0)

"""torchaudio's default resampling, ``Resample(a, b)``: a sinc of 13 zero crossings under a Hann window, in chunks."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

ZERO_CROSSINGS = 6
"""On either side: torchaudio's ``lowpass_filter_width``."""
ROLLOFF = 0.99
"""Where the filter cuts off, as a share of the lower of the two Nyquist frequencies."""


class SincResampler:
    """One channel. Silence lies before the first sample and after the last; ``ceil`` of the exact length comes out."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = gcd(from_hz, to_hz)
        self._stride, self._phases = from_hz // common, to_hz // common
        self._reach = ceil(ZERO_CROSSINGS * self._stride / _cut_off(self._stride, self._phases))
        self._filters = _filters(self._stride, self._phases, self._reach)
        self._waiting = np.zeros(self._reach, np.float32)
        self._heard, self._made = 0, 0

    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """What can be told from the samples ``[n]`` so far, and the rest with the last of them."""
        self._heard += len(x)
        silence = np.zeros(self._reach + self._stride if last else 0, np.float32)
        samples = np.concatenate([self._waiting, x, silence])
        num_blocks = max(0, (len(samples) - self._filters.shape[1]) // self._stride + 1)
        self._waiting = samples[num_blocks * self._stride :]
        if num_blocks == 0:
            return np.zeros(0, np.float32)
        blocks = np.lib.stride_tricks.sliding_window_view(samples, self._filters.shape[1])[:: self._stride]
        resampled = (blocks[:num_blocks] @ self._filters.T).ravel()
        if last:
            resampled = resampled[: ceil(self._phases * self._heard / self._stride) - self._made]
        self._made += len(resampled)
        return resampled


def _cut_off(stride: int, phases: int) -> float:
    """Of the filter, in half-waves for every ``stride`` samples."""
    return min(stride, phases) * ROLLOFF


def _filters(stride: int, phases: int, reach: int) -> NDArray[np.float32]:
    """``[phases, stride + 2 · reach]``: each output sample of a block as a weighted sum of the samples around it."""
    sources = np.arange(-reach, stride + reach) / stride
    targets = np.arange(phases)[:, None] / phases
    distance = np.clip((sources - targets) * _cut_off(stride, phases), -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(np.pi * distance / (2 * ZERO_CROSSINGS)) ** 2
    return (np.sinc(distance) * window * _cut_off(stride, phases) / stride).astype(np.float32)

"""Streaming version of torchaudio's default ``Resample(a, b)``: a windowed sinc (Hann, 13 zero crossings)."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

ZERO_CROSSINGS = 6
"""Zero crossings on each side: torchaudio's ``lowpass_filter_width``."""
ROLLOFF = 0.99
"""Cut-off frequency of the filter as a share of the lower one of the two Nyquist frequencies."""
MAX_TABLE_NUMBERS = 1 << 23
"""Maximum size of the precomputed table of filter weights (32 MiB), which is enough for all rates in use. For rates
without a large common divisor, such as 44,101 and 16,000 Hz, the table would need gigabytes; their weights are computed
when they are needed."""
_WEIGHTS_AT_ONCE = 1 << 20


class SincResampler:
    """Resamples one channel in chunks. The input is padded with silence; the output length is rounded up.

    Args:
        from_hz: Rate of the input.
        to_hz: Rate of the output.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = gcd(from_hz, to_hz)
        self._stride, self._phases = from_hz // common, to_hz // common
        self._reach = ceil(ZERO_CROSSINGS * self._stride / _cut_off(self._stride, self._phases))
        has_table = self._phases * (self._stride + 2 * self._reach) <= MAX_TABLE_NUMBERS
        self._filters = _filters(self._stride, self._phases, self._reach) if has_table else None
        self._first = -self._reach  # position in the track of the first buffered sample
        self._buffer = np.zeros(self._reach, np.float32)
        self._num_read, self._num_written = 0, 0

    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Return the output samples that the input so far determines.

        Args:
            x: The next input samples, ``float32 [n]``.
            last: Whether this is the end of the input; all remaining output is then returned.
        """
        self._num_read += len(x)
        if self._filters is None:
            return self._resample_without_table(x, last)
        silence = np.zeros(self._reach + self._stride if last else 0, np.float32)
        samples = np.concatenate([self._buffer, x, silence])
        num_blocks = max(0, (len(samples) - self._filters.shape[1]) // self._stride + 1)
        self._buffer = samples[num_blocks * self._stride :]
        if num_blocks == 0:
            return np.zeros(0, np.float32)
        blocks = np.lib.stride_tricks.sliding_window_view(samples, self._filters.shape[1])[:: self._stride]
        resampled = (blocks[:num_blocks] @ self._filters.T).ravel()
        if last:
            resampled = resampled[: ceil(self._phases * self._num_read / self._stride) - self._num_written]
        self._num_written += len(resampled)
        return resampled

    def _resample_without_table(self, x: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        silence = np.zeros(self._reach + 1 if last else 0, np.float32)
        samples = np.concatenate([self._buffer, x, silence])
        num_reached = self._first + len(samples) - self._reach  # input samples whose filter window is complete
        end = ceil(self._phases * (self._num_read if last else max(0, num_reached)) / self._stride)
        step = max(1, _WEIGHTS_AT_ONCE // (2 * self._reach + 1))
        starts = range(self._num_written, end, step)
        parts = [self._output_between(samples, start, min(start + step, end)) for start in starts]
        self._num_written = max(self._num_written, end)
        next_first = self._num_written * self._stride // self._phases - self._reach
        self._buffer = samples[max(0, next_first - self._first) :]
        self._first = max(self._first, next_first)
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _output_between(self, samples: NDArray[np.float32], start: int, end: int) -> NDArray[np.float32]:
        """Return the output samples from ``start`` to ``end``; their positions are computed in exact integers."""
        nearest, left_over = np.divmod(np.arange(start, end, dtype=np.int64) * self._stride, self._phases)
        offsets = np.arange(-self._reach, self._reach + 1)
        behind = (offsets - left_over[:, None] / self._phases) / self._stride
        around = samples[np.minimum(nearest[:, None] + offsets - self._first, len(samples) - 1)]
        return np.einsum("ij,ij->i", _weights(behind, self._stride, self._phases), around).astype(np.float32)


def _cut_off(stride: int, phases: int) -> float:
    """Return the cut-off frequency of the filter in half-waves per ``stride`` samples."""
    return min(stride, phases) * ROLLOFF


def _filters(stride: int, phases: int, reach: int) -> NDArray[np.float32]:
    """Return ``[phases, stride + 2 * reach]``: the weights of the inputs around each output of a block."""
    sources = np.arange(-reach, stride + reach) / stride
    targets = np.arange(phases)[:, None] / phases
    return _weights(sources - targets, stride, phases)


def _weights(behind: NDArray[np.float64], stride: int, phases: int) -> NDArray[np.float32]:
    """Return filter weights of input samples at the given distances from an output sample, in blocks of ``stride``."""
    distance = np.clip(behind * _cut_off(stride, phases), -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(np.pi * distance / (2 * ZERO_CROSSINGS)) ** 2
    return (np.sinc(distance) * window * _cut_off(stride, phases) / stride).astype(np.float32)

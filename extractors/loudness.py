"""Stream ``loudness``: level and tonality of the audio, to distinguish music from the noise of a hall. No weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..manifests.streams import Precision, Record
from .checkpoints import Weights
from .protocol import AudioNeed, SegmentInput

RATE_HZ = 16_000
PARTS = 8
"""Number of equal parts of a segment, each with a level and a tonality."""
SILENCE_DB = -100.0
_FFT = 1024
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 5000.0


class Loudness:
    """A row contains the levels of the `PARTS` of a segment in dB relative to full scale, then their tonalities."""

    class Settings(Record):
        pass

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ()
    frames = None
    batch_size = 64
    dim = 2 * PARTS

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.audio = AudioNeed(RATE_HZ)

    @staticmethod
    def feature_names() -> tuple[str, ...]:
        """Return ``level_db_0`` … ``tonality_7``."""
        return tuple(f"{name}_{part}" for name in ("level_db", "tonality") for part in range(PARTS))

    def prepare(self, segment: SegmentInput) -> torch.Tensor:
        """Return the row."""
        if segment.waveform is None:
            raise ValueError("loudness: the segment has no waveform; build it as `Loudness.audio` requires")
        return torch.as_tensor(loudness_row(segment.waveform.cpu().numpy()))

    def forward(self, prepared: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        return list(prepared)


def loudness_row(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure ``waveform [samples]`` at `RATE_HZ`.

    Tonality is 1 − spectral flatness between 100 Hz and 5 kHz: near 1 for notes, near 0.4 for noise and applause.
    Silence has the level `SILENCE_DB` and the tonality 0.

    Returns:
        ``float32 [2 * PARTS]``

    Example:
        >>> times_s = np.arange(RATE_HZ) / RATE_HZ
        >>> row = loudness_row((0.5 * np.sin(2 * np.pi * 440 * times_s)).astype(np.float32))
        >>> round(float(row[0])), bool(row[PARTS] > 0.9)
        (-9, True)
    """
    edges = np.linspace(0, len(waveform), PARTS + 1).round().astype(int)
    row = np.full(2 * PARTS, SILENCE_DB, np.float32)
    row[PARTS:] = 0.0
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE_HZ)
    band = (hertz >= _LOWEST_HZ) & (hertz <= _HIGHEST_HZ)
    for part in range(PARTS):
        samples = waveform[edges[part] : edges[part + 1]].astype(np.float64)
        power = float(np.mean(samples**2)) if len(samples) else 0.0
        if power <= 10 ** (SILENCE_DB / 10):
            continue
        row[part] = 10 * np.log10(power)
        padded = np.pad(samples, (0, max(_FFT - len(samples), 0)))
        blocks = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[:: _FFT // 2] * np.hanning(_FFT)
        spectrum = (np.abs(np.fft.rfft(blocks, axis=1)) ** 2).mean(axis=0)[band] + 1e-12
        row[PARTS + part] = 1 - np.exp(np.log(spectrum).mean()) / spectrum.mean()
    return row

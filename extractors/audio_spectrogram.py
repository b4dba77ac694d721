"""Audio Spectrogram Transformer (Gong, Chung, Glass 2021), 768-d, on the audio of one segment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import AudioWindows, Record, Resampler
from .audio_spectrogram_network import DIM, LAYOUTS, PATCH_FRAMES, WHOLE_INPUT_FRAMES, load_spectrogram_transformer
from .kaldi_fbank import FilterbankOptions, kaldi_fbank
from .network import NetworkCard
from .protocol import AudioNeed


class AstSettings(Record):
    """Settings of the front end. The defaults are the authors', who advise for clips of less than ten seconds: pad the
    filterbank with zeros to the whole input, before normalization. PAMFN instead does not pad, and cuts the positional
    grid to the length of the clip (``input_frames = "all"``): eight times cheaper at 1.3 s, but the network was not
    trained on such inputs. Features of the two are not interchangeable.
    """

    rate_hz: PositiveInt = 16000
    """Sampling rate to which the audio is resampled."""
    told_rate_hz: PositiveInt = 16000
    """Sampling rate passed to the filterbank. PAMFN's code passes the rate of the original file."""
    channel: Literal["mean", "first"] = "mean"
    """``mean``: mean of all channels. ``first``: the first channel, as Kaldi's filterbank uses of a stereo track."""
    resampler: Resampler = "soxr"
    """``soxr``: libsoxr in high quality. ``sinc-hann``: torchaudio's default, with some aliasing."""
    windows: AudioWindows = "interval"
    """``interval``: the audio of the segment's time interval. ``equal-split``: equal parts of the track, as many as
    there are segments, as in PAMFN's code."""
    remove_mean: bool = False
    """Whether the mean of the whole track is removed before it is cut, as in PAMFN's code. The filterbank removes the
    mean of every window, so this changes only the last digits."""
    input_frames: Annotated[int, Field(ge=PATCH_FRAMES)] | Literal["all"] = WHOLE_INPUT_FRAMES
    """Number of filterbank frames of 10 ms in the network's input. Shorter audio is padded with zeros, longer audio is
    cut off at the end. "all": as many frames as the audio has, at least the 16 of one patch."""
    padding: Literal["before-normalization", "after-normalization"] = "before-normalization"
    """Whether zeros are added before the normalization or after it."""
    mean: float = -4.2677393
    """Mean of log energies over AudioSet, as published. PAMFN's code has the opposite sign: it subtracts +4.26."""
    std: PositiveFloat = 4.5689974
    """Standard deviation of log energies; energies are divided by twice this value, as published."""
    layer_norm_eps: PositiveFloat = 1e-6
    """Epsilon of layer norms. The default is timm's, with which the weights were trained; transformers has 1e-12."""


class FrontEnd:
    """Computes normalized log filterbank energies ``float32 [frames, 128]`` of a waveform ``float32 [samples]``."""

    def __init__(self, settings: AstSettings) -> None:
        self._settings = settings
        self._options = FilterbankOptions(settings.told_rate_hz)

    def __call__(self, waveform: Tensor) -> Tensor:
        energies = kaldi_fbank(waveform.numpy(), self._options)
        if self._settings.padding == "before-normalization":
            return torch.as_tensor(self._normalize(self._fit(energies)))
        return torch.as_tensor(self._fit(self._normalize(energies)))

    def _normalize(self, energies: NDArray[np.float32]) -> NDArray[np.float32]:
        return (energies - np.float32(self._settings.mean)) / np.float32(2 * self._settings.std)

    def _fit(self, energies: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = self._settings.input_frames
        num_frames = max(len(energies), PATCH_FRAMES) if wanted == "all" else wanted
        return np.pad(energies[:num_frames], ((0, max(num_frames - len(energies), 0)), (0, 0)))


class PooledTokens(nn.Module):
    """The mean of class and distillation token after the final norm."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, spectrograms: Tensor) -> Tensor:
        return self.network(spectrograms).pooler_output


AST = NetworkCard(
    input="audio",
    load=lambda settings, weights: PooledTokens(load_spectrogram_transformer(weights, settings.layer_norm_eps)),
    dim=DIM,
    layouts=tuple(LAYOUTS),
    batch_size=(4, 32),
    options=AstSettings,
    hears=lambda given: AudioNeed(given.rate_hz, given.channel, given.resampler, given.remove_mean, given.windows),
    front_end=FrontEnd,
    license="BSD-3-Clause",
    source="YuanGongND/ast",
)

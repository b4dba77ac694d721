"""Audio Spectrogram Transformer (Gong, Chung, Glass 2021), 768-d, on the sound of one segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from ..manifests.streams import AudioWindows, Precision, Record, Resampler
from .audio_spectrogram_network import DIM, PATCH_FRAMES, WHOLE_INPUT_FRAMES, load_spectrogram_transformer
from .batching import rows_by_shape
from .checkpoints import Weights
from .kaldi_fbank import FilterbankOptions, kaldi_fbank
from .precision import inference
from .protocol import AudioNeed, SegmentInput


class AudioSpectrogramTransformer:
    """The mean of class and distillation token after the final norm.

    The defaults are the authors' own front end, and their advice for clips that are shorter than ten seconds: pad the
    filterbank to the whole input with zeros, before normalisation. PAMFN instead gives the network what there is, on a
    positional grid cut to size (``input_frames = "all"``): eight times cheaper at 1.3 s, but an input it never saw.
    Features of the two are not interchangeable.
    """

    class Settings(Record):
        rate_hz: PositiveInt = 16000
        """What the sound is resampled to."""
        told_rate_hz: PositiveInt = 16000
        """What the filterbank is told that it is; PAMFN's code says the rate of the original file."""
        channel: Literal["mean", "first"] = "mean"
        """The mean of all channels, or the first alone: what Kaldi's filterbank takes of a stereo track."""
        resampler: Resampler = "soxr"
        windows: AudioWindows = "interval"
        remove_mean: bool = False
        """Of the whole track, before it is cut, as in PAMFN's code; the filterbank removes the mean of every window, so
        that it shows in the last digits only."""
        input_frames: Annotated[int, Field(ge=PATCH_FRAMES)] | Literal["all"] = WHOLE_INPUT_FRAMES
        """Filterbank frames of 10 ms that the network sees: shorter sound is padded with zeros, longer sound is cut off
        at the end. "all" takes what there is, at least the 16 frames of one patch."""
        padding: Literal["before-normalisation", "after-normalisation"] = "before-normalisation"
        mean: float = -4.2677393
        """Of log energies over AudioSet, as published; PAMFN subtracts +4.26, with the sign lost."""
        std: PositiveFloat = 4.5689974
        """Energies are divided by twice this, as published."""
        layer_norm_eps: PositiveFloat = 1e-6
        """timm's, which the weights were trained with; transformers' own configuration says 1e-12."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        rate_hz: int,
        told_rate_hz: int,
        channel: Literal["mean", "first"],
        resampler: Resampler,
        windows: AudioWindows,
        remove_mean: bool,
        input_frames: int | Literal["all"],
        padding: Literal["before-normalisation", "after-normalisation"],
        mean: float,
        std: float,
        layer_norm_eps: float,
    ) -> None:
        self.dim = DIM
        self.frames = None
        self.audio = AudioNeed(rate_hz, channel, resampler, remove_mean, windows)
        self.batch_size = 4 if device.type == "cpu" else 32
        self._network = load_spectrogram_transformer(weights["network"], layer_norm_eps).to(device)
        self._device = device
        self._precision: Precision = precision
        self._options = FilterbankOptions(told_rate_hz)
        self._input_frames = None if input_frames == "all" else input_frames
        self._pads_first = padding == "before-normalisation"
        self._mean, self._std = mean, std

    def prepare(self, segment: SegmentInput) -> Tensor:
        """``float32 [frames, 128]``, normalised."""
        assert segment.waveform is not None
        energies = kaldi_fbank(segment.waveform.numpy(), self._options)
        if self._pads_first:
            return torch.from_numpy(self._normalise(self._fit(energies)))
        return torch.from_numpy(self._fit(self._normalise(energies)))

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        with inference(self._device, self._precision):
            return [*rows_by_shape(prepared, self._features)]

    def _features(self, spectrograms: Tensor) -> Tensor:
        return self._network(spectrograms.to(self._device)).pooler_output

    def _normalise(self, energies: NDArray[np.float32]) -> NDArray[np.float32]:
        return (energies - np.float32(self._mean)) / np.float32(2 * self._std)

    def _fit(self, energies: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = self._input_frames or max(len(energies), PATCH_FRAMES)
        return np.pad(energies[:wanted], ((0, max(wanted - len(energies), 0)), (0, 0)))

"""PANNs Cnn14 (Kong et al., TASLP 2020), 2048-d, on the audio of one segment. UMT uses these audio features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checkpoints import StateDict, Weights, load_network
from .compiled_code import alone_on_first_use
from .network import NetworkCard
from .protocol import AudioNeed

RATE_HZ = 32000
FFT, HOP = 1024, 320
MELS, LOWEST_HZ, HIGHEST_HZ = 64, 50, 14000
CHANNELS = (64, 128, 256, 512, 1024, 2048)
FEWEST_FRAMES = 32
"""Least number of frames, because five pools halve the time axis."""
DIM = 2048


class ConvBlock(nn.Module):
    """Two convolutions 3 × 3 with normalization and ReLU."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.bn2 = nn.BatchNorm2d(made)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(maps)).relu())).relu()


class Cnn14(nn.Module):
    """Maps log mel spectrograms ``float [n, frames, 64]`` to ``[n, 2048]``, the layer before the 527 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(MELS)
        for number, (given, made) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False), 1):
            self.add_module(f"conv_block{number}", ConvBlock(given, made))
        self.fc1 = nn.Linear(DIM, DIM)
        self.fc_audioset = nn.Linear(DIM, 527)

    def forward(self, spectrograms: Tensor) -> Tensor:
        maps = self.bn0(spectrograms[:, None].transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(CHANNELS) + 1):
            maps = self.get_submodule(f"conv_block{number}")(maps)
            if number < len(CHANNELS):
                maps = functional.avg_pool2d(maps, 2)
        over_time = maps.mean(dim=3)
        return self.fc1(over_time.amax(dim=2) + over_time.mean(dim=2)).relu()


def log_mel(waveform: Tensor) -> Tensor:
    """Compute decibels ``float32 [frames, 64]`` of ``float32 [samples]`` at 32 kHz; pad short audio with silence."""
    samples = functional.pad(waveform, (0, max(FEWEST_FRAMES * HOP - len(waveform), 0)))
    window = torch.hann_window(FFT)
    spectrum = torch.stft(samples, FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    mel = spectrum.abs().square().T @ _mel_weights()
    return 10 * mel.clamp(min=1e-10).log10()


@alone_on_first_use("librosa.filters")
def _mel_weights() -> Tensor:
    """Return librosa's filters ``[513, 64]``, as torchlibrosa computes them."""
    import librosa

    filters = librosa.filters.mel(sr=RATE_HZ, n_fft=FFT, n_mels=MELS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
    return torch.as_tensor(filters.T.copy())


def _from_panns(state_dict: StateDict) -> StateDict:
    """Remove the constants of the spectrogram, which the file contains as layers."""
    constants = ("spectrogram_extractor.", "logmel_extractor.")
    return {name: value for name, value in state_dict.items() if not name.startswith(constants)}


def load_cnn14(weights: Weights) -> nn.Module:
    """Return the network ``float [n, frames, 64] → [n, 2048]``."""
    return load_network(Cnn14, weights, {"panns": _from_panns})


PANNS_CNN14 = NetworkCard(
    input="audio",
    load=lambda settings, weights: load_cnn14(weights),
    dim=DIM,
    layouts=("panns",),
    batch_size=(4, 64),
    hears=lambda settings: AudioNeed(RATE_HZ),
    front_end=lambda settings: log_mel,
    license="CC-BY-4.0",
    source="qiuqiangkong/audioset_tagging_cnn, Cnn14",
)

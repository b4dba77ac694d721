"""VGGish (Hershey et al., ICASSP 2017), 128-d, on the audio of one segment, as in video_features.

A segment's row is the mean over its examples of 0.96 s. Shorter audio is padded with silence to one example. Embeddings
are outputs of the last layer, without the PCA and the 8-bit quantization of the AudioSet release.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .checkpoints import Weights, load_network, unchanged
from .network import NetworkCard
from .protocol import AudioNeed

RATE_HZ = 16000
WINDOW, HOP, FFT = 400, 160, 512
MELS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.01
EXAMPLE_FRAMES = 96
EXAMPLE_SAMPLES = (EXAMPLE_FRAMES - 1) * HOP + WINDOW
DIM = 128


class Vggish(nn.Module):
    """Maps log mel spectrograms ``float [n, examples, 96, 64]`` to ``[n, 128]``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = 1
        for block in ((64,), (128,), (256, 256), (512, 512)):
            for made in block:
                layers += [nn.Conv2d(given, made, 3, padding=1), nn.ReLU()]
                given = made
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        dims = (512 * 6 * 4, 4096, 4096, DIM)
        self.embeddings = nn.Sequential(*(layer for pair in pairwise(dims) for layer in (nn.Linear(*pair), nn.ReLU())))

    def forward(self, examples: Tensor) -> Tensor:
        maps = self.features(examples.flatten(0, 1)[:, None])
        rows = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))  # channels last, as in TensorFlow
        return rows.unflatten(0, examples.shape[:2]).mean(dim=1)


def log_mel_examples(waveform: Tensor) -> Tensor:
    """Compute log mel spectrograms ``float32 [examples, 96, 64]`` of ``float32 [samples]`` at 16 kHz."""
    samples = nn.functional.pad(waveform, (0, max(EXAMPLE_SAMPLES - len(waveform), 0)))
    frames = samples.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    spectrum = cast("Tensor", torch.fft.rfft(frames, FFT))  # pyright: ignore[reportUnknownMemberType]
    energies = torch.log(spectrum.abs() @ _mel_weights() + LOG_OFFSET)
    count = len(energies) // EXAMPLE_FRAMES
    return torch.unflatten(energies[: count * EXAMPLE_FRAMES], 0, (count, EXAMPLE_FRAMES))


def _mel_weights() -> Tensor:
    """Return weights ``[257, 64]``: triangles that are linear in mel (HTK's formula); 0 for the constant component."""

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    edges = cast("NDArray[np.float64]", np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), MELS + 2))
    bins = mel(np.linspace(0.0, RATE_HZ / 2, FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return torch.as_tensor(weights.astype(np.float32))


def load_vggish(weights: Weights) -> nn.Module:
    """Return the network ``float [n, examples, 96, 64] → [n, 128]``."""
    return load_network(Vggish, weights, {"torchvggish": unchanged})


VGGISH = NetworkCard(
    input="audio",
    load=lambda settings, weights: load_vggish(weights),
    dim=DIM,
    layouts=("torchvggish",),
    batch_size=(4, 64),
    hears=lambda settings: AudioNeed(RATE_HZ),
    front_end=lambda settings: log_mel_examples,
    license="Apache-2.0",
    source="tensorflow/models, research/audioset/vggish; harritaylor/torchvggish",
)

"""C3D, VGGish and PANNs: front ends, key layouts and shapes, on seeded weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from arabesque.extractors.c3d import C3D, C3D_SPORTS1M, load_c3d
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.panns import Cnn14, load_cnn14, log_mel
from arabesque.extractors.vggish import Vggish, load_vggish, log_mel_examples

SaveCheckpoint = Callable[..., Any]


def tone(rate_hz: int, duration_s: float, pitch_hz: float = 440.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * pitch_hz * torch.arange(round(duration_s * rate_hz)) / rate_hz)


def test_vggish_examples_last_960_ms_and_short_audio_is_padded() -> None:
    assert log_mel_examples(tone(16000, 2.0)).shape == (2, 96, 64)
    assert log_mel_examples(tone(16000, 0.3)).shape == (1, 96, 64)
    silence = log_mel_examples(torch.zeros(16000))
    assert torch.allclose(silence, torch.full_like(silence, np.log(0.01)))


def test_vggish_filters_are_htk_triangles() -> None:
    """A tone is loudest in the band whose center, in mel, is nearest."""
    energies = log_mel_examples(tone(16000, 1.0, 1000.0))[0].mean(dim=0)
    lowest, highest = 1127 * np.log(1 + np.array([125.0, 7500.0]) / 700)
    edges = np.linspace(lowest, highest, 66)
    nearest = np.abs(edges[1:-1] - 1127 * np.log(1 + 1000 / 700)).argmin()
    assert int(energies.argmax()) == nearest


def test_vggish_flattens_channels_last(save_checkpoint: SaveCheckpoint) -> None:
    torch.manual_seed(0)
    theirs = Vggish().eval()
    network = load_vggish(save_checkpoint(theirs.state_dict(), "torchvggish"))
    examples = log_mel_examples(tone(16000, 2.0))[None]
    with torch.inference_mode():
        maps = theirs.features(examples[0][:, None])
        flat = maps.transpose(1, 3).transpose(1, 2).reshape(2, -1)  # the port's order of transposes
        expected = theirs.embeddings(flat).mean(dim=0)
        torch.testing.assert_close(network(examples)[0], expected, rtol=1e-5, atol=1e-6)
    assert {name for name in theirs.state_dict() if "weight" in name} >= {"features.0.weight", "embeddings.4.weight"}


def test_panns_front_end_is_librosas_power_mel_in_decibels() -> None:
    import librosa

    waveform = tone(32000, 1.0)
    expected = librosa.power_to_db(
        librosa.feature.melspectrogram(
            y=waveform.numpy(), sr=32000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14000, pad_mode="reflect"
        ),
        ref=1.0,
        amin=1e-10,
        top_db=None,
    ).T
    found = log_mel(waveform)
    assert found.shape == expected.shape == (101, 64)
    loud = expected > -60  # rounding shows in silent bands
    assert np.abs(found.numpy() - expected)[loud].max() < 1e-2
    assert log_mel(tone(32000, 0.05)).shape[0] >= 32


def test_panns_reads_the_published_file_without_its_constants(save_checkpoint: SaveCheckpoint) -> None:
    torch.manual_seed(0)
    state_dict = Cnn14().state_dict()
    constants = {"spectrogram_extractor.stft.conv_real.weight": torch.ones(2), "logmel_extractor.melW": torch.ones(2)}
    network = load_cnn14(save_checkpoint({"model": state_dict | constants}, "panns"))
    spectrogram = log_mel(tone(32000, 0.5))[None]
    with torch.inference_mode():
        from_seed = load_cnn14(RandomWeights(0))(spectrogram)
        assert torch.equal(network(spectrogram), from_seed)
    assert from_seed.shape == (1, 2048)


@pytest.mark.slow  # 80 million numbers
def test_c3d_is_cut_after_fc6(save_checkpoint: SaveCheckpoint) -> None:
    torch.manual_seed(0)
    theirs = C3D().eval()
    network = load_c3d(save_checkpoint(theirs.state_dict(), "c3d-pytorch"))
    clip = torch.rand(1, 3, 16, 112, 112) * 255
    with torch.inference_mode():
        row = network(clip)[0]
        pooled = clip
        for name, pool in (
            ("1", nn.MaxPool3d((1, 2, 2), (1, 2, 2))),
            ("2", nn.MaxPool3d(2, 2)),
            ("3a", nn.Identity()),
            ("3b", nn.MaxPool3d(2, 2)),
            ("4a", nn.Identity()),
            ("4b", nn.MaxPool3d(2, 2)),
            ("5a", nn.Identity()),
            ("5b", nn.MaxPool3d(2, 2, (0, 1, 1))),
        ):
            pooled = pool(torch.relu(theirs.get_submodule(f"conv{name}")(pooled)))
        expected = torch.relu(theirs.fc6(pooled.view(1, 8192)))[0]
    torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    assert C3D_SPORTS1M.dim == len(row)

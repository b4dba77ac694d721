from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arabesque.extractors.kaldi_fbank import ENERGY_FLOOR, FilterbankOptions, kaldi_fbank

GOLDEN = Path(__file__).parents[1] / "golden" / "kaldi_fbank.npz"


@pytest.mark.parametrize("told_rate_hz", [16000, 48000])
def test_agrees_with_kaldi_on_music(told_rate_hz: int) -> None:
    """1e-4 of a natural logarithm of energy is 1e-4 of the energy; 6e-5 was measured."""
    with np.load(GOLDEN) as arrays:
        wave, expected = arrays["wave_16k"], arrays[f"fbank_told_{told_rate_hz}"]
    ours = kaldi_fbank(wave, FilterbankOptions(told_rate_hz))
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= 1e-4
    assert np.abs(ours - expected).max() / np.abs(expected).max() <= 1e-5


def test_the_assumed_rate_determines_frames_and_bins() -> None:
    right, wrong = FilterbankOptions(16000), FilterbankOptions(48000)
    assert (right.window_samples, right.hop_samples, right.fft_samples) == (400, 160, 512)
    assert (wrong.window_samples, wrong.hop_samples, wrong.fft_samples) == (1200, 480, 2048)
    seconds_32_frames_at_25_fps = 20545  # 95 s in 74 chunks, as PAMFN cuts Rhythmic Gymnastics at 16 kHz
    assert right.num_frames(seconds_32_frames_at_25_fps) == 126
    assert wrong.num_frames(seconds_32_frames_at_25_fps) == 41


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 559, 560, 16000])
def test_whole_frames_only_and_at_least_one(num_samples: int) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)
    energies = kaldi_fbank(wave, FilterbankOptions())
    assert energies.shape == (FilterbankOptions().num_frames(num_samples), 128)
    assert np.isfinite(energies).all()


def test_a_short_waveform_is_padded_with_zeros() -> None:
    wave = np.random.default_rng(1).uniform(-1, 1, 300).astype(np.float32)
    assert np.array_equal(
        kaldi_fbank(wave, FilterbankOptions()), kaldi_fbank(np.pad(wave, (0, 100)), FilterbankOptions())
    )


def test_silence_and_a_constant_have_the_lowest_value() -> None:
    for level in (0.0, 0.5):
        energies = kaldi_fbank(np.full(800, level, np.float32), FilterbankOptions())
        assert np.allclose(energies, np.log(ENERGY_FLOOR))


def test_a_tone_is_loudest_where_its_frequency_lies() -> None:
    times_s = np.arange(16000) / 16000
    loudest = [
        int(kaldi_fbank(np.sin(2 * np.pi * hz * times_s).astype(np.float32), FilterbankOptions()).mean(axis=0).argmax())
        for hz in (300, 1000, 4000)
    ]
    # bin centers lie (i + 1) / 129 of the way from 20 Hz to 8 kHz on the mel axis
    edges_mel = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130)
    expected = [int(np.abs(edges_mel[1:-1] - 1127 * np.log(1 + hz / 700)).argmin()) for hz in (300, 1000, 4000)]
    assert all(abs(found - right) <= 1 for found, right in zip(loudest, expected, strict=True))


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 400\]; give one channel"):
        kaldi_fbank(np.zeros((2, 400), np.float32), FilterbankOptions())

"""Sound of an interval, cut from chunks."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from arabesque.extractors.protocol import AudioNeed
from arabesque.pipeline.waveforms import WaveformCursor


def tone(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.stack([np.sin(2 * np.pi * (220 + 50 * c) * times_s) for c in range(channels)]).astype(np.float32)


def push_in_chunks(cursor: WaveformCursor, track: np.ndarray, size: int) -> None:
    for start in range(0, track.shape[1], size):
        cursor.push(track[:, start : start + size])
    cursor.finish()


@pytest.mark.parametrize("size", [100, 1024, 44100])
def test_chunks_resample_to_what_the_whole_track_resamples_to(size):
    track = tone(2.0, 44100)
    cursor = WaveformCursor(AudioNeed(16000), 44100, 0.0)
    push_in_chunks(cursor, track, size)
    whole = soxr.resample(track[0], 44100, 16000, "HQ")
    waveform = cursor.take(0.0, 2.0)
    assert waveform is not None
    assert len(waveform) == 32000
    np.testing.assert_allclose(waveform.numpy(), whole[:32000], atol=2e-4)


def test_intervals_are_cut_where_they_sound():
    rate_hz = 8000
    track = np.zeros((1, 4 * rate_hz), np.float32)
    track[0, rate_hz * 2] = 1.0  # a click at 2 s of the track, which starts at 0.5 s
    cursor = WaveformCursor(AudioNeed(rate_hz), rate_hz, 0.5)
    push_in_chunks(cursor, track, 1000)
    first, second = cursor.take(1.0, 2.0), cursor.take(2.0, 3.0)
    assert first is not None
    assert second is not None
    assert first.abs().max() == 0
    assert int(second.argmax()) == rate_hz // 2


def test_channels_are_averaged_or_the_first_is_taken():
    track = np.stack([np.ones(800), np.zeros(800)]).astype(np.float32)
    for channel, level in (("mean", 0.5), ("first", 1.0)):
        cursor = WaveformCursor(AudioNeed(8000, channel), 8000, 0.0)
        push_in_chunks(cursor, track, 800)
        waveform = cursor.take(0.0, 0.1)
        assert waveform is not None
        assert waveform.unique().tolist() == [level]


def test_a_late_track_is_silent_before_it_and_a_short_one_after_it():
    cursor = WaveformCursor(AudioNeed(1000), 1000, 0.25)
    push_in_chunks(cursor, np.ones((1, 1000), np.float32), 300)
    early = cursor.take(0.0, 1.0)
    assert early is not None
    assert early[:250].sum() == 0
    assert early[250:].min() == 1
    assert cursor.take(1.0, 2.0) is None  # a quarter of it sounds: not enough to speak of


def test_it_says_when_an_interval_has_arrived():
    cursor = WaveformCursor(AudioNeed(1000), 1000, 0.0)
    cursor.push(np.ones((1, 500), np.float32))
    assert cursor.reaches(0.5)
    assert not cursor.reaches(0.6)
    cursor.finish()
    assert cursor.reaches(0.6)


def test_memory_does_not_grow_with_the_track():
    cursor = WaveformCursor(AudioNeed(1000), 1000, 0.0)
    for second in range(100):
        cursor.push(np.ones((1, 1000), np.float32))
        assert cursor.take(second, second + 1) is not None
    assert len(cursor._samples) <= 2000


def test_overlapping_intervals_hear_the_same_sound():
    track = tone(3.0, 1000)
    cursor = WaveformCursor(AudioNeed(1000), 1000, 0.0)
    push_in_chunks(cursor, track, 250)
    one, two = cursor.take(0.0, 2.0), cursor.take(1.0, 3.0)
    assert one is not None
    assert two is not None
    assert one[1000:].tolist() == two[:1000].tolist()

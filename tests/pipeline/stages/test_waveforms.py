"""Audio of an interval, assembled from chunks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soxr

from arabesque.extractors.protocol import AudioNeed
from arabesque.pipeline.stages.resampling import SincResampler
from arabesque.pipeline.stages.waveforms import WaveformCursor, WholeTrack


def tone(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.stack([np.sin(2 * np.pi * (220 + 50 * c) * times_s) for c in range(channels)]).astype(np.float32)


def push_in_chunks(cursor: WaveformCursor, track: np.ndarray, size: int) -> None:
    for start in range(0, track.shape[1], size):
        cursor.push(track[:, start : start + size])
    cursor.finish()


@pytest.mark.parametrize("size", [100, 1024, 44100])
def test_resampling_in_chunks_equals_resampling_the_whole_track(size):
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
    assert cursor.take(1.0, 2.0) is None  # only a quarter of it has audio: not enough


def test_a_complete_interval_is_reported():
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
    assert len(cursor.samples) <= 2000


def test_overlapping_intervals_have_the_same_audio():
    track = tone(3.0, 1000)
    cursor = WaveformCursor(AudioNeed(1000), 1000, 0.0)
    push_in_chunks(cursor, track, 250)
    one, two = cursor.take(0.0, 2.0), cursor.take(1.0, 3.0)
    assert one is not None
    assert two is not None
    assert one[1000:].tolist() == two[:1000].tolist()


def by_the_formula(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample by the formula of torchaudio's documented default: sinc of width 6, roll-off .99, Hann window."""
    common = np.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    cut_off = 0.99 * min(old, new)
    moments = np.arange(-(-new * len(wave) // old)) / new
    distance = cut_off * (np.arange(len(wave))[None] / old - moments[:, None])
    weights = np.sinc(distance) * np.cos(np.pi * distance / 12) ** 2 * (np.abs(distance) < 6) * cut_off / old
    return weights @ wave


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [
        (44100, 16000),
        (48000, 16000),
        (8000, 16000),
        (11025, 8000),
        (7, 5),
        (44101, 16000),
        pytest.param(8011, 16000, marks=pytest.mark.slow),
        pytest.param(15999, 16000, marks=pytest.mark.slow),
    ],
)
def test_sinc_resampling_is_its_formula_however_the_track_is_cut(from_hz, to_hz):
    wave = np.random.default_rng(0).normal(0, 0.3, 2001).astype(np.float32)
    expected = by_the_formula(wave.astype(np.float64), from_hz, to_hz)
    for size in (2001, 500, 37):
        resampler = SincResampler(from_hz, to_hz)
        starts = range(0, len(wave), size)
        parts = [resampler.resample_chunk(wave[start : start + size], last=start == starts[-1]) for start in starts]
        found = np.concatenate(parts)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("rate_hz", [44101, 44099, 15999, 767999, 1009])
@pytest.mark.parametrize("resampler", ["sinc-hann", "soxr"])
def test_no_rate_takes_much_memory(rate_hz, resampler):
    """A table of the weights between 44,101 and 16,000 Hz would have 5.3 GiB."""
    tracemalloc.start()
    cursor = WaveformCursor(AudioNeed(16000, resampler=resampler), rate_hz, 0.0)
    for _ in range(4):
        cursor.push(np.zeros((1, rate_hz // 4), np.float32))
    cursor.finish()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    waveform = cursor.take(0.0, 0.9)
    assert waveform is not None
    assert len(waveform) == 14400
    assert peak_bytes < 128 << 20


def test_sinc_resampling_of_an_empty_track_is_empty():
    assert len(SincResampler(44100, 16000).resample_chunk(np.zeros(0, np.float32), last=True)) == 0


def test_the_resampler_is_the_streams_choice():
    """Above 8 kHz soxr leaves almost nothing and the short sinc leaves an alias, which distinguishes them."""
    track = np.sin(2 * np.pi * 8300 * np.arange(44100) / 44100)[None].astype(np.float32)
    heard = {}
    for resampler in ("soxr", "sinc-hann"):
        cursor = WaveformCursor(AudioNeed(16000, resampler=resampler), 44100, 0.0)
        push_in_chunks(cursor, track, 1000)
        heard[resampler] = cursor.take(0.1, 0.9).abs().max()
    assert heard["soxr"] < 0.001
    assert heard["sinc-hann"] > 0.05


def test_an_equal_split_cuts_the_track_wherever_it_sounds():
    """docs/provenance.md, PAMFN: samples // segments each, from the first sample of a track that starts late."""
    cursor = WholeTrack(AudioNeed(1000, windows="equal-split"), 1000, 0.4)
    push_in_chunks(cursor, np.arange(1003, dtype=np.float32)[None], 300)
    parts = [cursor.share(index, 4) for index in range(4)]
    assert [(part[0].item(), part[-1].item(), len(part)) for part in parts] == [
        (0, 249, 250),
        (250, 499, 250),
        (500, 749, 250),
        (750, 999, 250),
    ]
    assert cursor.share(0, 2000) is None


def test_a_whole_track_is_ready_at_its_end_and_complete():
    cursor = WholeTrack(AudioNeed(1000, remove_mean=True), 1000, 0.0)
    cursor.push(np.full((1, 600), 0.5, np.float32))
    assert not cursor.reaches(0.1)
    cursor.push(np.full((1, 200), 0.1, np.float32))
    cursor.finish()
    cursor.finish()  # as the assembler may: once at the end of the video is enough
    assert cursor.reaches(0.8)
    assert cursor.take(0.6, 0.8).unique().tolist() == pytest.approx([-0.3])
    assert cursor.take(0.0, 0.6).unique().tolist() == pytest.approx([0.1])


def test_only_streams_that_divide_or_center_the_track_need_all_of_it():
    assert not AudioNeed(16000, "first", "sinc-hann").needs_whole_track
    assert AudioNeed(16000, windows="equal-split").needs_whole_track
    assert AudioNeed(16000, remove_mean=True).needs_whole_track

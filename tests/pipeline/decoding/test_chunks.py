"""Division of videos into chunks of frames and of the audio that belongs to them."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import probe
from hypothesis import given, settings
from hypothesis import strategies as st

from arabesque.pipeline.decoding.audio_reader import AudioReader
from arabesque.pipeline.decoding.chunks import MAX_AUDIO_BYTES, MAX_SPAN_S, audio_span_s, cut_chunks
from arabesque.pipeline.records import AudioTrack, Hole

TRACK = AudioTrack(rate_hz=100, channels=2, start_s=-0.25, duration_s=None)


@given(
    wanted=st.sets(st.integers(0, 299), max_size=60).map(sorted),
    fps=st.sampled_from([0.5, 10.0, 60.0]),
    max_frames=st.integers(1, 40),
    audio_until_s=st.none() | st.floats(0, 700),
    rate_hz=st.sampled_from([8000, 48000, 768_000]),
)
@settings(deadline=None)
def test_chunks_contain_every_frame_once_and_audio_in_bounded_parts(wanted, fps, max_frames, audio_until_s, rate_hz):
    track = AudioTrack(rate_hz, 2, -0.25, None)
    video = probe(300, fps, audio=track)
    cuts = list(cut_chunks(video, np.array(wanted, np.int64), max_frames, audio_until_s))
    assert np.concatenate([cut.indices for cut in cuts] or [[]]).tolist() == wanted
    assert all(len(cut.indices) <= max_frames for cut in cuts)
    for cut in cuts:
        if len(cut.indices) > 1:
            assert (cut.indices[-1] + 1 - cut.indices[0]) / fps <= MAX_SPAN_S + 1e-9
    if audio_until_s is None:
        assert all(cut.audio_until_s is None for cut in cuts)
        return
    ends = np.array([track.start_s, *(cut.audio_until_s for cut in cuts)], float)
    span_s = min(MAX_SPAN_S, audio_span_s(track))
    assert (np.diff(ends) >= 0).all()
    assert (np.diff(ends) <= span_s + 1e-9).all()
    assert ends[-1] == pytest.approx(audio_until_s)
    for cut in cuts:
        if len(cut.indices):  # all audio up to the end of its last frame
            assert cut.audio_until_s >= min((cut.indices[-1] + 1) / fps, audio_until_s) - 1e-9


def test_a_track_with_many_channels_is_divided_into_shorter_chunks():
    wide = AudioTrack(192_000, 16, 0.0, None)
    assert audio_span_s(wide) * wide.rate_hz * wide.channels * 4 == MAX_AUDIO_BYTES
    cuts = list(cut_chunks(probe(300, 10.0, audio=wide), np.arange(300), 1000, 30.0))
    assert len(cuts) > 30.0 / MAX_SPAN_S + 1


def reader(blocks, until_s=10.0):
    return AudioReader(iter(blocks), TRACK, until_s)


def ramp(start, stop):
    return np.tile(np.arange(start, stop, dtype=np.float32), (2, 1))


def test_chunks_are_contiguous_for_any_sizes_of_blocks():
    ears = reader([ramp(0, 7), ramp(7, 100), ramp(100, 101), ramp(101, 200)], until_s=1.75)
    chunks = [ears.read(until_s) for until_s in (-0.25, 0.0, 1.0, 1.75)]
    assert [chunk.start_s for chunk in chunks if chunk] == [-0.25, -0.25, 0.0, 1.0]
    assert [chunk.samples.shape[1] for chunk in chunks if chunk] == [0, 25, 100, 75]
    assert np.concatenate([chunk.samples[0] for chunk in chunks if chunk]).tolist() == list(range(200))
    assert [chunk.last for chunk in chunks if chunk] == [False, False, False, True]
    assert ears.read(2.0) is None


def test_a_track_that_ends_early_is_reported_once():
    ears = reader([ramp(0, 30)])
    first, second = ears.read(0.0), ears.read(5.0)
    assert first
    assert second
    assert (first.last, second.last, second.samples.shape) == (False, True, (2, 5))
    assert ears.read(6.0) is None
    assert ears.holes == []


def test_holes_of_a_track_are_collected_with_its_samples():
    hole, rest = Hole(0.0, 0.1, "damaged"), Hole(0.3, 10.0, "no more")
    ears = reader([ramp(0, 25), hole, ramp(25, 30), rest])
    chunk = ears.read(5.0)
    assert chunk
    assert chunk.last
    assert chunk.samples.shape == (2, 30)
    assert ears.holes == [hole, rest]

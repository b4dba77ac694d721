"""Videos that are decoded as if they ended after the first seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import Clip, number_of, write_clip
from fakes import probe, stream

from arabesque.extractors.protocol import AudioNeed
from arabesque.pipeline.benchmarking.clipped_videos import ClippedDecoderPool, choose_sample, clipped
from arabesque.pipeline.decoding.decoders import BACKENDS
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.records import AudioTrack, VideoFile


@pytest.mark.parametrize(("until_s", "num_frames"), [(0.0, 1), (0.55, 6), (0.6, 6), (100.0, 10)])
def test_a_clip_ends_with_the_last_frame_that_begins_in_it(until_s, num_frames):
    clip = clipped(probe(num_frames=10, fps=10.0), until_s)
    assert clip.num_frames == num_frames
    assert clip.end_s == pytest.approx(num_frames / 10)


def test_the_audio_of_a_clip_ends_with_it_and_a_shorter_video_is_unchanged():
    track = AudioTrack(rate_hz=8000, channels=1, start_s=-0.1, duration_s=5.0)
    whole = probe(num_frames=10, audio=track)
    assert clipped(whole, 0.5).audio.duration_s == pytest.approx(0.6)
    assert clipped(whole, 1.0) is whole


@pytest.mark.parametrize("decoder", BACKENDS)
def test_frames_after_the_clip_are_not_decoded(tmp_path, decoder):
    write_clip(tmp_path / "a.mp4", Clip(num_frames=50, beeps_s=(0.1,)))
    with ClippedDecoderPool(0.4, RunOptions(decoder=decoder)) as slots, slots.decoder() as slot:
        found = slot.probe(tmp_path / "a.mp4")
        numbers, samples = [], 0
        for window in slot.decode(tmp_path / "a.mp4", found, np.arange(found.num_frames), audio_until_s=60.0):
            numbers += [number_of(frame) for frame in window.frames]
            samples += 0 if window.audio is None else window.audio.samples.shape[-1]
            window.release()
    assert numbers == list(range(10))
    assert samples == pytest.approx(0.4 * 44100, rel=0.1)


def test_the_sample_covers_every_stream():
    sound = AudioTrack(rate_hz=8000, channels=1, start_s=0, duration_s=1)
    streams = [stream("seen"), stream("heard", audio=AudioNeed(8000))]
    clips = [(VideoFile(name, Path(name)), probe(audio=sound if name == "c" else None)) for name in "abc"]
    assert [file.video_id for file, _ in choose_sample(clips, streams)] == ["c", "a"]
    assert [file.video_id for file, _ in choose_sample(clips, streams[:1])] == ["a", "b"]

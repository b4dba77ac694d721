"""The first seconds of videos and of clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import probe, stream

from arabesque.extractors.protocol import AudioNeed
from arabesque.pipeline.benchmarking.benchmark import probed_clip
from arabesque.pipeline.benchmarking.clipped_videos import choose_sample, clipped
from arabesque.pipeline.records import AudioTrack, VideoFile

FILE = VideoFile("a", Path("a.mp4"))


@pytest.mark.parametrize(("until_s", "num_frames"), [(0.0, 1), (0.55, 6), (0.6, 6), (100.0, 10)])
def test_a_clip_ends_with_the_last_frame_that_begins_in_it(until_s, num_frames):
    file, clip = clipped((FILE, probe(num_frames=10, fps=10.0)), until_s)
    assert clip.num_frames == num_frames
    assert clip.end_s == pytest.approx(num_frames / 10)
    assert file.end_s == (None if num_frames == 10 else clip.end_s)


def test_the_audio_of_a_clip_ends_with_it_and_a_shorter_video_is_unchanged():
    track = AudioTrack(rate_hz=8000, channels=1, start_s=-0.1, duration_s=5.0)
    whole = probe(num_frames=10, audio=track)
    assert clipped((FILE, whole), 0.5)[1].audio.duration_s == pytest.approx(0.6)
    assert clipped((FILE, whole), 1.0) == (FILE, whole)


@pytest.mark.parametrize("until_s", [0.25, 0.3, 0.72])
def test_the_first_seconds_of_a_clip_have_the_frames_that_a_run_finds(until_s):
    """Also of a clip that begins between two frames, with an excluded stretch."""
    jump = replace(FILE, start_s=1.04, end_s=2.5, excluded_s=((1.2, 1.35), (1.7, 2.0)))
    whole = probe(num_frames=40, fps=10.0)
    file, shorter = clipped(probed_clip(jump, whole), until_s)
    found = probed_clip(file, whole)[1]
    assert shorter.frame_times_s.tolist() == found.frame_times_s.tolist()
    assert shorter.excluded_frames == found.excluded_frames
    assert shorter.end_s == pytest.approx(found.end_s)


def test_the_sample_covers_every_stream():
    sound = AudioTrack(rate_hz=8000, channels=1, start_s=0, duration_s=1)
    streams = [stream("seen"), stream("heard", audio=AudioNeed(8000))]
    clips = [(VideoFile(name, Path(name)), probe(audio=sound if name == "c" else None)) for name in "abc"]
    assert [file.video_id for file, _ in choose_sample(clips, streams)] == ["c", "a"]
    assert [file.video_id for file, _ in choose_sample(clips, streams[:1])] == ["a", "b"]

"""Which video and audio stream of a file is decoded: FFmpeg's choice, or the one that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from decoding_checks import deliver
from track_files import DESCRIPTION, LOUD, SILENT, Sound, write_tracks, write_two_programs, write_two_recordings

from arabesque.pipeline.decoding.decoders import Decoder
from arabesque.pipeline.records import Hole
from arabesque.pipeline.stages.decode import truncation


def loudness(decoder: Decoder, path: Path, audio_track: int | str = "best") -> float:
    metadata = decoder.probe(path, audio_track=audio_track)
    assert metadata.audio is not None
    return float(
        max(np.abs(block).max() for block in decoder.audio(path, metadata, 0.4) if not isinstance(block, Hole))
    )


@pytest.mark.parametrize(
    ("name", "sounds"),
    [
        ("a.mkv", [Sound(SILENT), Sound(LOUD, Disposition.default)]),
        ("b.mp4", [Sound(SILENT), Sound(LOUD, Disposition.default)]),
        ("c.mkv", [Sound(DESCRIPTION, Disposition.visual_impaired), Sound(LOUD)]),
        ("d.mkv", [Sound(DESCRIPTION, Disposition.hearing_impaired), Sound(SILENT), Sound(LOUD, Disposition.default)]),
        ("e.mkv", [Sound(LOUD), Sound(DESCRIPTION, Disposition.visual_impaired)]),
    ],
)
def test_the_audio_that_ffmpeg_prefers_is_decoded(decoder, tmp_path, name, sounds):
    path = write_tracks(tmp_path / name, sounds)
    with av.open(path) as container:
        best: Any = container.streams.best("audio").index  # pyright: ignore
    metadata = decoder.probe(path)
    assert metadata.audio is not None
    assert metadata.audio.stream_index == best
    assert metadata.num_audio_tracks == len(sounds)
    assert loudness(decoder, path) == pytest.approx(LOUD, abs=0.1)
    assert metadata.tracks(with_audio=True) == f"audio={best}"
    assert metadata.tracks(with_audio=False) == ""


def test_picture_and_audio_come_from_one_program(pyav, tmp_path):
    path = write_two_programs(tmp_path / "two.ts")
    metadata = pyav.probe(path)
    assert (metadata.num_video_tracks, metadata.num_audio_tracks) == (2, 2)
    assert not metadata.has_other_recording
    numbers, complaint = deliver(pyav, path, metadata=metadata)
    assert not complaint
    assert numbers == [*range(100, 112)]
    assert loudness(pyav, path) == pytest.approx(LOUD, abs=0.1)
    with av.open(path) as container:
        video: Any = container.streams.best("video")
        audio: Any = container.streams.best("audio", related=video)
        best = video.index, audio.index
    assert metadata.audio is not None
    assert (metadata.video_index, metadata.audio.stream_index) == best
    assert metadata.tracks(with_audio=True) == "video={} audio={}".format(*best)


def test_a_recipe_may_name_the_audio_track(pyav, tmp_path):
    sounds = [
        Sound(SILENT, Disposition.default, "eng"),
        Sound(DESCRIPTION, language="deu"),
        Sound(LOUD, language="fra"),
    ]
    path = write_tracks(tmp_path / "a.mkv", sounds)
    assert loudness(pyav, path) == pytest.approx(SILENT, abs=0.01)
    assert loudness(pyav, path, 2) == pytest.approx(LOUD, abs=0.1)
    assert loudness(pyav, path, "FRA") == pytest.approx(LOUD, abs=0.1)
    assert loudness(pyav, path, "deu") == pytest.approx(DESCRIPTION, abs=0.05)
    for missing in (3, "spa"):
        assert pyav.probe(path, audio_track=missing).audio is None


def test_a_file_with_one_track_of_each_kind_has_no_tracks_in_its_key(decoder, write):
    metadata = decoder.probe(write("a.mp4", num_frames=10, beeps_s=[0.1]))
    assert (metadata.num_video_tracks, metadata.num_audio_tracks) == (1, 1)
    assert metadata.tracks(with_audio=True) == ""


@pytest.mark.parametrize("num_frames", [(75, 25), (25, 75), (50, 50)])
def test_a_second_recording_in_tracks_of_its_own_is_reported(pyav, tmp_path, num_frames):
    metadata = pyav.probe(write_two_recordings(tmp_path / "joined.ts", num_frames))
    assert metadata.has_other_recording
    assert metadata.num_frames in num_frames
    assert metadata.declared_end_s == pytest.approx(sum(num_frames) / 25, rel=0.25)
    hole = truncation(metadata)
    assert hole is not None
    assert "another recording" in hole.reason


def test_recordings_with_the_same_tracks_are_joined(pyav, tmp_path):
    metadata = pyav.probe(write_two_recordings(tmp_path / "joined.ts", (30, 20), same_pids=True))
    assert (metadata.num_frames, metadata.has_other_recording, truncation(metadata)) == (50, False, None)


def test_bytes_after_a_recording_are_not_another_one(pyav, tmp_path):
    path = write_two_recordings(tmp_path / "a.ts", (30, 20), same_pids=True)
    null_packet = bytes([0x47, 0x1F, 0xFF, 0x10]).ljust(188, b"\xff")
    path.write_bytes(path.read_bytes() + 5000 * null_packet)
    metadata = pyav.probe(path)
    assert (metadata.num_frames, metadata.has_other_recording) == (50, False)

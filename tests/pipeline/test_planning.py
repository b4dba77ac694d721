"""What a video owes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import PLAIN, stream, video

from arabesque.extractors.protocol import AudioNeed, FrameNeed
from arabesque.manifests.streams import Geometry, Sampling
from arabesque.pipeline.keys import row_key
from arabesque.pipeline.planning import plan_video
from arabesque.pipeline.records import AudioTrack
from arabesque.pipeline.sampling import BLANK

GRAY = Geometry(steps=(), gray=True)


def test_streams_share_a_geometry_and_the_union_of_frames_is_decoded():
    plan, outcomes = plan_video(
        video(num_frames=10),
        [stream("all"), stream("slow", fps=5.0, length=5), stream("gray", frames=FrameNeed(GRAY), length=10)],
        {},
    )
    assert outcomes == []
    assert list(plan.frames_by_geometry) == [PLAIN, GRAY]
    assert plan.frames_by_geometry[PLAIN].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]  # 8 for the slow stream alone
    assert plan.wanted.tolist() == list(range(10))


def test_the_next_frame_is_wanted_where_there_is_one():
    plan, _ = plan_video(video(num_frames=10), [stream(frames=FrameNeed(PLAIN, next_frame=True))], {})
    assert plan.wanted.tolist() == list(range(9))


def test_a_silent_video_is_empty_for_a_listening_stream_only():
    plan, outcomes = plan_video(video(), [stream("ear", audio=AudioNeed(8000), frames=None), stream("eye")], {})
    assert list(plan.streams) == ["eye"]
    assert plan.audio_until_s is None
    assert [(outcome.stream, outcome.kind, outcome.reason) for outcome in outcomes] == [
        ("ear", "empty", "no audio track")
    ]
    assert outcomes[0].key == row_key("digest-of-a", "settings-of-ear")


def test_sound_is_wanted_to_the_end_of_the_last_segment():
    track = AudioTrack(8000, 1, 0.0, None)
    plan, _ = plan_video(video(audio=track), [stream("ear", audio=AudioNeed(8000), frames=None)], {})
    assert plan.audio_until_s == pytest.approx(0.8)
    assert len(plan.wanted) == 0


def test_a_video_shorter_than_a_segment_is_empty_and_says_how_short():
    plan, outcomes = plan_video(video(num_frames=3), [stream()], {})
    assert plan.streams == {}
    assert outcomes[0].kind == "empty"
    assert "0.30 s at its own rate are shorter than one segment of 4 frames" in outcomes[0].reason


def test_sound_that_is_cut_as_a_whole_is_wanted_to_its_end_and_a_minute_on():
    need = AudioNeed(8000, windows="equal-split")
    for duration_s, until_s in ((None, 61.0), (30.0, 90.5)):
        track = AudioTrack(8000, 1, 0.5, duration_s)
        plan, _ = plan_video(video(audio=track), [stream("ear", audio=need, frames=None)], {})
        assert plan.audio_until_s == pytest.approx(until_s)


def test_a_blank_frame_is_not_decoded():
    fake = stream()
    quirks = {"fps": 5.0, "frame_choice": "integer-stride", "zero_last_frame": True, "frames_per_segment": 3}
    sampling = Sampling(**{**fake.spec.sampling.model_dump(), "frames_per_step": 3, **quirks})
    strided = replace(fake, spec=fake.spec.model_copy(update={"sampling": sampling}))
    plan, _ = plan_video(video(num_frames=5), [strided], {})
    assert plan.streams["fake"].segments.frame_indices.tolist() == [[1, 3, BLANK]]
    assert plan.wanted.tolist() == [1, 3]

"""Plans of videos."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import PLAIN, stream, video

from arabesque.extractors.geometry import output_size
from arabesque.extractors.protocol import AudioNeed, FrameNeed
from arabesque.manifests.streams import CenterCrop, Geometry, Sampling, ShortSide
from arabesque.pipeline.digests import row_key
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.planning.sampling import BLANK
from arabesque.pipeline.records import AudioTrack

GRAY = Geometry(steps=(), gray=True)


def test_streams_with_one_geometry_share_the_union_of_frames():
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


def test_a_video_without_audio_is_empty_for_audio_streams_only():
    plan, outcomes = plan_video(video(), [stream("ear", audio=AudioNeed(8000), frames=None), stream("eye")], {})
    assert list(plan.streams) == ["eye"]
    assert plan.audio_until_s is None
    assert [(outcome.stream, outcome.kind, outcome.reason) for outcome in outcomes] == [
        ("ear", "empty", "no audio track")
    ]
    assert outcomes[0].key == row_key("digest-of-a", "settings-of-ear")


def test_audio_is_decoded_to_the_end_of_the_last_segment():
    track = AudioTrack(8000, 1, 0.0, None)
    plan, _ = plan_video(video(audio=track), [stream("ear", audio=AudioNeed(8000), frames=None)], {})
    assert plan.audio_until_s == pytest.approx(0.8)
    assert len(plan.wanted) == 0


def test_a_video_shorter_than_a_segment_is_empty_and_says_how_short():
    plan, outcomes = plan_video(video(num_frames=3), [stream()], {})
    assert plan.streams == {}
    assert outcomes[0].kind == "empty"
    assert "0.30 s at its own rate are shorter than one segment of 4 frames" in outcomes[0].reason


def test_audio_divided_as_a_whole_is_decoded_to_a_minute_after_its_end():
    need = AudioNeed(8000, windows="equal-split")
    for duration_s, until_s in ((None, 61.0), (30.0, 90.5)):
        track = AudioTrack(8000, 1, 0.5, duration_s)
        plan, _ = plan_video(video(audio=track), [stream("ear", audio=need, frames=None)], {})
        assert plan.audio_until_s == pytest.approx(until_s)


def test_audio_divided_as_a_whole_cannot_exclude_a_stretch():
    track, metadata = AudioTrack(8000, 1, 0.5, None), {"excluded_frames": ((2, 4),)}
    for windows, failed in (("equal-split", ["ear"]), ("interval", [])):
        ear = stream("ear", audio=AudioNeed(8000, windows=windows), frames=None, length=2)
        _, outcomes = plan_video(video(audio=track, **metadata), [ear], {})
        assert [outcome.stream for outcome in outcomes if outcome.kind == "failed"] == failed
        assert all('windows = "interval"' in outcome.reason for outcome in outcomes)


def test_excluded_frames_are_not_decoded():
    for exclude, wanted, todo in (("cut", [0, 1, 4, 5, 6, 7], [0, 1, 2]), ("mask", [0, 1, 4, 5, 6, 7], [0, 2, 3])):
        facts = {"num_frames": 8, "excluded_frames": ((2, 3),) if exclude == "mask" else ((2, 4),)}
        flow = stream(frames=FrameNeed(PLAIN, next_frame=True), length=2)
        plan, _ = plan_video(video(**facts, exclude=exclude), [flow], {})
        assert plan.wanted.tolist() == wanted
        assert plan.streams[flow.name].todo == todo
        assert plan.streams[flow.name].segments.next_frame_index[0] == -1  # the next frame is excluded


def test_a_blank_frame_is_not_decoded():
    fake = stream()
    quirks = {"fps": 5.0, "frame_choice": "integer-stride", "zero_last_frame": True, "frames_per_segment": 3}
    sampling = Sampling(**{**fake.spec.sampling.model_dump(), "frames_per_step": 3, **quirks})
    strided = replace(fake, spec=fake.spec.model_copy(update={"sampling": sampling}))
    plan, _ = plan_video(video(num_frames=5), [strided], {})
    assert plan.streams["fake"].segments.frame_indices.tolist() == [[1, 3, BLANK]]
    assert plan.wanted.tolist() == [1, 3]


WIDE = Geometry(steps=(ShortSide(short_side_px=144),))


def test_pixels_that_are_not_square_are_resized_first_where_asked():
    narrow = video(width_px=180, height_px=144, pixel_aspect=64 / 45)
    eye = stream(frames=FrameNeed(WIDE))
    shown = replace(eye, spec=eye.spec.model_copy(update={"pixel_aspect": "display"}))
    for of, size_px in ((eye, (144, 180)), (shown, (144, 256))):
        plan, _ = plan_video(narrow, [of], {})
        [geometry] = plan.frames_by_geometry
        assert output_size(144, 180, geometry) == size_px
        assert plan.streams["fake"].geometry == geometry
    plan, _ = plan_video(video(width_px=180, height_px=144), [shown], {})
    assert list(plan.frames_by_geometry) == [WIDE]


def test_a_pixel_shape_that_no_format_has_fails_the_streams_that_follow_it():
    absurd = video(width_px=180, height_px=144, pixel_aspect=1e6)
    eye = stream(frames=FrameNeed(WIDE))
    shown = replace(
        stream("shown", frames=FrameNeed(WIDE)), spec=eye.spec.model_copy(update={"pixel_aspect": "display"})
    )
    plan, [outcome] = plan_video(absurd, [eye, shown], {})
    assert list(plan.streams) == ["fake"]
    assert (outcome.stream, outcome.kind) == ("shown", "failed")
    assert "pixel_aspect" in outcome.reason


@pytest.mark.parametrize("steps", [(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))), WIDE.steps])
def test_a_narrow_strip_that_would_become_a_huge_picture_fails(steps):
    eye = stream(frames=FrameNeed(Geometry(steps=steps)))
    for width_px, height_px in ((65536, 16), (16, 65536)):
        plan, [outcome] = plan_video(video(width_px=width_px, height_px=height_px), [eye], {})
        assert not plan.streams
        assert (outcome.kind, outcome.transient) == ("failed", False)
        assert "megapixels" in outcome.reason


def test_usual_shapes_and_sizes_are_planned_with_a_memory_limit_too():
    eyes = [stream("small", frames=FrameNeed(WIDE)), stream("whole", frames=FrameNeed(Geometry(steps=())))]
    for size in ((1920, 1080), (1080, 1920), (3840, 2160), (720, 576), (2560, 1080), (320, 240), (3840, 1080)):
        plan, outcomes = plan_video(video(width_px=size[0], height_px=size[1]), eyes, {}, limited_memory=True)
        assert (list(plan.streams), outcomes) == (["small", "whole"], [])
    _, [outcome] = plan_video(video(width_px=4096, height_px=128), eyes[:1], {}, limited_memory=True)
    assert outcome.transient
    assert plan_video(video(width_px=4096, height_px=128), eyes[:1], {})[1] == []

"""Sampling: segments from frame times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arabesque.manifests.streams import Sampling
from arabesque.pipeline.planning.holes import touched
from arabesque.pipeline.planning.sampling import BLANK, cut_segments, nearest_frames
from arabesque.pipeline.records import Hole


def sampling(
    fps: Any = "native", length: int = 4, step: int = 4, remainder: Any = "drop-tail", **quirks: Any
) -> Sampling:
    return Sampling(fps=fps, frames_per_segment=length, frames_per_step=step, remainder=remainder, **quirks)


def steady(num_frames: int, fps: float = 25.0) -> tuple[np.ndarray, float]:
    return np.arange(num_frames) / fps, num_frames / fps


def test_drop_tail_leaves_the_last_frames_out():
    segments = cut_segments(*steady(10), sampling())
    assert segments.frame_indices.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert segments.start_s.tolist() == [0.0, 0.16]
    assert segments.end_s.tolist() == [0.16, 0.32]
    assert segments.next_frame_index.tolist() == [4, 8]


def test_drop_both_centers_the_segments():
    segments = cut_segments(*steady(11), sampling(remainder="drop-both"))
    assert segments.frame_indices[:, 0].tolist() == [1, 5]  # three remaining frames: one at the head, two at the tail
    assert segments.start_s[0] == pytest.approx(0.04)


def test_pad_last_repeats_the_last_frame_and_ends_with_the_video():
    segments = cut_segments(*steady(10), sampling(remainder="pad-last"))
    assert segments.frame_indices[-1].tolist() == [8, 9, 9, 9]
    assert segments.end_s[-1] == pytest.approx(0.4)
    assert segments.next_frame_index.tolist() == [4, 8, -1]


@pytest.mark.parametrize(
    ("length", "step", "rows"),
    [
        (3, 1, [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]),
        (4, 2, [[0, 0, 0, 1], [0, 1, 2, 3], [2, 3, 4, 4]]),
        (1, 2, [[0], [2], [4]]),
        (9, 5, [[0, 0, 0, 0, 0, 1, 2, 3, 4]]),
    ],
)
def test_pad_both_centers_a_segment_on_every_step(length, step, rows):
    segments = cut_segments(*steady(5), sampling(length=length, step=step, remainder="pad-both"))
    assert segments.frame_indices.tolist() == rows
    starts = np.arange(0, 5, step) / 25
    assert segments.start_s.tolist() == pytest.approx(starts)
    assert segments.end_s.tolist() == pytest.approx([*starts[1:], 0.2])
    assert segments.next_frame_index.tolist()[-1] == -1 or length == 1
    assert segments.frames_start_s.tolist() == pytest.approx([row[0] / 25 for row in rows])
    assert segments.frames_end_s.tolist() == pytest.approx([(row[-1] + 1) / 25 for row in rows])


def test_pad_both_in_a_remaining_stretch_repeats_its_own_frames():
    segments = cut_segments(*steady(10), sampling(length=3, step=2, remainder="pad-both"), [(4, 6)])
    assert segments.frame_indices.tolist() == [[0, 0, 1], [1, 2, 3], [6, 6, 7], [7, 8, 9]]
    with pytest.raises(ValueError, match="remove frames_after"):
        sampling(remainder="pad-both", frames_after=1)


def test_a_hole_loses_the_centered_segments_whose_frames_reach_into_it():
    segments = cut_segments(*steady(20), sampling(length=5, step=4, remainder="pad-both"))
    lost = touched(segments, [Hole(0.08, 0.12, "frame 2 is damaged")], next_frame=False)
    assert lost.tolist() == [True, True, False, False, False]  # the second one has frames 2 to 6, its row 4 to 7


def test_pad_last_adds_nothing_when_all_frames_are_covered():
    assert len(cut_segments(*steady(8), sampling(remainder="pad-last"))) == 2
    assert len(cut_segments(*steady(8), sampling(step=2, remainder="pad-last"))) == 3


def test_the_last_full_segment_has_no_next_frame():
    assert cut_segments(*steady(8), sampling()).next_frame_index.tolist() == [4, -1]


def test_a_video_shorter_than_a_segment_has_none_unless_padded():
    assert len(cut_segments(*steady(3), sampling())) == 0
    assert cut_segments(*steady(3), sampling(remainder="pad-last")).frame_indices.tolist() == [[0, 1, 2, 2]]


def test_no_frames_make_no_segments():
    for remainder in ("drop-tail", "drop-both", "pad-last"):
        assert len(cut_segments(np.zeros(0), 0.0, sampling(remainder=remainder))) == 0


def test_fps_picks_the_nearest_frame():
    segments = cut_segments(*steady(60, fps=30), sampling(fps=5, length=5, step=5))
    assert segments.frame_indices.tolist() == [[0, 6, 12, 18, 24], [30, 36, 42, 48, 54]]
    assert segments.end_s.tolist() == [1.0, 2.0]


def test_fps_above_the_recorded_rate_repeats_frames():
    segments = cut_segments(*steady(4, fps=2), sampling(fps=4, length=8, step=8))
    assert segments.frame_indices.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_rounded_times_lose_no_frame_at_the_recorded_rate():
    fps = 20012 / 667
    rounded_s = np.round(np.arange(300) / fps, 3)  # as WebM stores them
    segments = cut_segments(rounded_s, 300 / fps, sampling(fps=fps, length=300, step=300))
    assert segments.frame_indices.tolist() == [list(range(300))]


def test_variable_rate_samples_by_time_not_by_count():
    times_s = np.array([0.0, 0.1, 0.2, 0.3, 1.0, 2.0, 3.0])
    segments = cut_segments(times_s, 4.0, sampling(fps=1))
    assert segments.frame_indices.tolist() == [[0, 4, 5, 6]]


def test_native_intervals_follow_a_gap():
    times_s = np.array([0.0, 0.08, 0.12, 0.16])  # the second frame was dropped by the recorder
    segments = cut_segments(times_s, 0.2, sampling(length=2, step=2))
    assert segments.start_s.tolist() == [0.0, 0.12]
    assert segments.end_s.tolist() == [0.12, 0.2]


@given(
    num_frames=st.integers(0, 200),
    length=st.integers(1, 40),
    step=st.integers(1, 40),
    remainder=st.sampled_from(["drop-tail", "drop-both", "pad-last", "pad-both"]),
    fps=st.one_of(st.just("native"), st.floats(0.5, 90)),
)
def test_segments_are_ordered_in_range_and_never_run_past_the_end(num_frames, length, step, remainder, fps):
    times_s, end_s = steady(num_frames)
    segments = cut_segments(times_s, end_s, sampling(fps, length, step, remainder))
    assert segments.frame_indices.shape == (len(segments), length)
    assert np.all((segments.frame_indices >= 0) & (segments.frame_indices < max(num_frames, 1)))
    assert np.all(np.diff(segments.frame_indices, axis=1) >= 0)
    assert np.all(np.diff(segments.start_s) > 0)
    assert np.all(segments.end_s > segments.start_s)
    assert np.all(segments.end_s <= max(end_s, (1 / fps if fps != "native" else 0)) + 1e-9)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50, unique=True), st.lists(st.floats(0, 100), max_size=50))
def test_nearest_frames_are_nearest(times, ticks):
    times_s, ticks_s = np.sort(times), np.array(ticks)
    chosen = nearest_frames(times_s, ticks_s)
    for tick_s, index in zip(ticks_s, chosen, strict=True):
        assert abs(times_s[index] - tick_s) == np.abs(times_s - tick_s).min()


def action_net(num_frames: int, recorded_fps: float, fps: int) -> tuple[int, list[int]]:
    """Stride and frames of ACTION-NET (docs/provenance.md): a counter from 1, zeros in unused rows of the buffer."""
    stride = int(num_frames / int(num_frames * fps / recorded_fps))
    rows = [BLANK] * -(-num_frames // stride)
    for counter in range(1, num_frames + 1):
        if counter % stride == 0:
            rows[counter // stride - 1] = counter - 1
    return stride, rows


@pytest.mark.parametrize(
    ("num_frames", "recorded_fps", "fps", "stride"),
    [(78, 25, 5, 5), (2375, 25, 5, 5), (2375, 25, 2, 12), (80, 25, 5, 5), (301, 30, 12, 2), (100, 30000 / 1001, 5, 6)],
)
def test_integer_stride_is_action_nets_arithmetic(num_frames, recorded_fps, fps, stride):
    expected_stride, rows = action_net(num_frames, recorded_fps, fps)
    assert expected_stride == stride
    asked = sampling(fps, length=2, step=2, frame_choice="integer-stride", zero_last_frame=True)
    segments = cut_segments(*steady(num_frames, recorded_fps), asked)
    assert segments.frame_indices.ravel().tolist() == rows[: len(rows) // 2 * 2]
    without = cut_segments(*steady(num_frames, recorded_fps), asked.model_copy(update={"zero_last_frame": False}))
    pictures = [row for row in rows if row != BLANK]
    assert without.frame_indices.ravel().tolist() == pictures[: len(pictures) // 2 * 2]


def test_a_remaining_frame_is_blank_and_ends_the_last_segment():
    asked = sampling(5, length=16, step=16, frame_choice="integer-stride", zero_last_frame=True)
    segments = cut_segments(*steady(78), asked)
    assert segments.frame_indices.tolist() == [[*range(4, 75, 5), BLANK]]
    assert (segments.start_s[0], segments.end_s[0]) == pytest.approx((0.16, 3.12))
    assert segments.next_frame_index.tolist() == [-1]
    assert len(cut_segments(*steady(75), asked)) == 0  # the stride divides 75: fifteen frames and no sixteenth


def test_a_whole_rate_shortens_the_stride():
    """30000 / 1001 fps count as 29: 31 frames are wanted of 900, not 30."""
    exact, whole = (
        cut_segments(*steady(900, 30000 / 1001), sampling(1, length=1, step=1, frame_choice=choice))
        for choice in ("integer-stride", "integer-stride-of-whole-rate")
    )
    assert exact.frame_indices.ravel().tolist() == list(range(29, 900, 30))
    assert whole.frame_indices.ravel().tolist() == list(range(28, 900, 29))


def test_a_stride_selects_no_frame_of_a_video_shorter_than_a_tick():
    for choice in ("integer-stride", "integer-stride-of-whole-rate"):
        assert len(cut_segments(*steady(20), sampling(1, length=1, step=1, frame_choice=choice))) == 0
        assert len(cut_segments(np.zeros(0), 0.0, sampling(1, length=1, step=1, frame_choice=choice))) == 0


def test_a_stride_never_skips_below_one_frame():
    asked = sampling(60, length=4, step=4, frame_choice="integer-stride")
    assert cut_segments(*steady(8), asked).frame_indices.ravel().tolist() == list(range(8))


def test_frames_after_a_segment_must_be_there():
    """video_features: a stack of 64 counts once the 65th frame is read."""
    for num_frames, expected in ((64, 0), (65, 1), (128, 1), (129, 2)):
        asked = sampling(length=64, step=64, frames_after=1)
        assert len(cut_segments(*steady(num_frames), asked)) == expected


@pytest.mark.parametrize(
    ("quirks", "complaint"),
    [
        ({"frame_choice": "integer-stride"}, "set fps to a number"),
        ({"fps": 5, "zero_last_frame": True}, 'set frame_choice = "integer-stride"'),
        (
            {"fps": 5, "frame_choice": "integer-stride", "zero_last_frame": True, "remainder": "pad-last"},
            "without a picture",
        ),
        ({"fps": 5, "frame_choice": "integer-stride", "zero_last_frame": True, "length": 1}, "without a picture"),
    ],
)
def test_quirks_that_contradict_each_other_are_refused(quirks, complaint):
    with pytest.raises(ValueError, match=complaint):
        sampling(**quirks)

"""Frame times in, segments out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arabesque.manifests.streams import Sampling
from arabesque.pipeline.sampling import cut_segments, nearest_frames


def sampling(fps: Any = "native", length: int = 4, step: int = 4, remainder: Any = "drop-tail") -> Sampling:
    return Sampling(fps=fps, frames_per_segment=length, frames_per_step=step, remainder=remainder)


def steady(num_frames: int, fps: float = 25.0) -> tuple[np.ndarray, float]:
    return np.arange(num_frames) / fps, num_frames / fps


def test_drop_tail_leaves_the_last_frames_out():
    segments = cut_segments(*steady(10), sampling())
    assert segments.frame_indices.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert segments.start_s.tolist() == [0.0, 0.16]
    assert segments.end_s.tolist() == [0.16, 0.32]
    assert segments.next_frame_index.tolist() == [4, 8]


def test_drop_both_centres_the_segments():
    segments = cut_segments(*steady(11), sampling(remainder="drop-both"))
    assert segments.frame_indices[:, 0].tolist() == [1, 5]  # three left over: one at the head, two at the tail
    assert segments.start_s[0] == pytest.approx(0.04)


def test_pad_last_repeats_the_last_frame_and_ends_with_the_video():
    segments = cut_segments(*steady(10), sampling(remainder="pad-last"))
    assert segments.frame_indices[-1].tolist() == [8, 9, 9, 9]
    assert segments.end_s[-1] == pytest.approx(0.4)
    assert segments.next_frame_index.tolist() == [4, 8, -1]


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
    remainder=st.sampled_from(["drop-tail", "drop-both", "pad-last"]),
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

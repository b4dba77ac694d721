"""Progress in seconds of video."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arabesque.pipeline.items import PhaseStarted, SegmentFeature, VideoOpened, VideoSettled, WorkerProgress
from arabesque.pipeline.progress import ProgressTracker
from arabesque.pipeline.records import VideoFile

FILES = [VideoFile(name, Path(f"{name}.mp4")) for name in ("a", "b", "c")]
SIZES = {"a": 100.0, "b": 200.0, "c": 300.0}


def feature(video_id: str, stream: str) -> SegmentFeature:
    plan: Any = SimpleNamespace(video=SimpleNamespace(video_id=video_id))
    named: Any = SimpleNamespace(name=stream)
    return SegmentFeature(plan, named, 0, 0.0, 1.0, None, 0.0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_unopened_files_are_estimated_by_their_size(clock: Clock):
    tracker = ProgressTracker(FILES, {}, SIZES, clock)
    assert tracker.now.total_video_s == 0  # nothing is known yet
    assert tracker.now.phase == "loading networks"
    tracker.add(VideoOpened("a", 10.0, {"vst": 5}))
    assert tracker.now.total_video_s == pytest.approx(60)
    tracker.add(VideoOpened("b", 40.0, {"vst": 5}))
    assert tracker.now.total_video_s == pytest.approx(50 + 300 * 50 / 300)
    assert tracker.now.current == ("a", "b")
    assert ProgressTracker(FILES, {"a": 5.0}, SIZES, clock).now.total_video_s == pytest.approx(30)


def test_the_progress_of_a_video_is_that_of_its_slowest_stream(clock: Clock):
    tracker = ProgressTracker(FILES, {"a": 10.0, "b": 10.0, "c": 10.0}, SIZES, clock)
    tracker.add(VideoOpened("a", 10.0, {"vst": 5, "ast": 5, "finished": 0}))
    for _ in range(5):
        tracker.add(feature("a", "ast"))
    assert tracker.now.video_s == 0
    tracker.add(feature("a", "vst"))
    assert tracker.now.video_s == pytest.approx(2)
    tracker.add(WorkerProgress(2, {}, {("a", "vst"): 2}))
    assert tracker.now.video_s == pytest.approx(6)
    tracker.add(VideoSettled("a"))
    assert (tracker.now.video_s, tracker.now.num_videos, tracker.now.current) == (10, 1, ())
    tracker.add(VideoSettled("b"))  # failed before it was opened: its seconds are not counted
    assert (tracker.now.video_s, tracker.now.total_video_s) == (10, 20)


def test_unreadable_files_count_as_zero_seconds(clock: Clock):
    tracker = ProgressTracker(FILES, {}, SIZES, clock)
    tracker.add(VideoSettled("c"))
    tracker.add(VideoOpened("a", 10.0, {"vst": 5}))
    assert tracker.now.total_video_s == pytest.approx(10 + 200 * 10 / 100)
    tracker.add(VideoSettled("a"))
    tracker.add(VideoSettled("b"))
    assert (tracker.now.video_s, tracker.now.num_videos, tracker.now.share) == (10, 3, 1.0)


@pytest.mark.parametrize("first_s", [1.0, 40.0])
def test_loading_does_not_count_and_the_remaining_time_falls(first_s: float, clock: Clock):
    """Three clips at a constant speed: the estimate is right from its first value, and never rises.

    The first segment may take longer, because code is compiled.
    """
    tracker = ProgressTracker(FILES, {"a": 20.0, "b": 20.0, "c": 20.0}, SIZES, clock)
    clock.now_s = 60.0  # the networks are loaded
    tracker.add(PhaseStarted("extracting"))
    clock.now_s += first_s - 1.0
    left: list[float] = []
    for file in FILES:
        tracker.add(VideoOpened(file.video_id, 20.0, {"vst": 10}))
        for _ in range(10):
            clock.now_s += 1.0
            tracker.add(feature(file.video_id, "vst"))
            if (left_s := tracker.now.left_s) is not None:
                left.append(left_s)
        tracker.add(VideoSettled(file.video_id))
    assert left[0] == pytest.approx(26)
    assert left == sorted(left, reverse=True)
    assert (tracker.now.speed, tracker.now.left_s) == (pytest.approx(2), 0)


def test_the_speed_is_that_of_the_last_minutes(clock: Clock):
    tracker = ProgressTracker(FILES[:1], {"a": 4000.0}, SIZES, clock)
    tracker.add(PhaseStarted("extracting"))
    tracker.add(VideoOpened("a", 4000.0, {"vst": 4000}))
    now = tracker.now
    for speed in (10, 1):
        for _ in range(200):
            clock.now_s += 1.0
            tracker.add(WorkerProgress(speed, {}, {("a", "vst"): speed}))
            now = tracker.now
    assert now.speed == pytest.approx(1, rel=0.05)

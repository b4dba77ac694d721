"""Coordinator: reports, deaths and restarts of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.items import Notice, PoisonedVideo, VideoSettled, WorkerProgress
from arabesque.pipeline.records import ClippedFile, Outcome, VideoFile
from arabesque.pipeline.workers.coordinator import (
    MAX_RESTARTS,
    Coordinator,
    WorkerFailure,
    WorkerReport,
    raise_failures,
)
from arabesque.pipeline.workers.queue import MAX_DEATHS_PER_VIDEO


def coordinator_of(names: str = "ab") -> Coordinator:
    return Coordinator([VideoFile(name, Path(f"{name}.mp4")) for name in names], {}, clock=lambda: 0.0)


def pulled(coordinator: Coordinator, worker: str) -> str:
    found = coordinator.pull(worker)
    assert not isinstance(found, ClippedFile)
    return found.video_id if isinstance(found, VideoFile) else found


def test_a_run_ends_only_when_all_videos_are_on_disk():
    coordinator = coordinator_of("a")
    assert [pulled(coordinator, "1"), pulled(coordinator, "2")] == ["a", "later"]
    coordinator.report("1", WorkerReport(events=(VideoSettled("a"),)))
    assert pulled(coordinator, "2") == "later", "its worker may still die before it has written the rows"
    coordinator.report("1", WorkerReport(on_disk=("a",)))
    assert [pulled(coordinator, "1"), pulled(coordinator, "2")] == ["over", "over"]
    assert coordinator.num_remaining == 0


def test_a_video_that_is_processed_twice_is_reported_once():
    coordinator = coordinator_of("a")
    done = (Outcome("a", "vst", "done"), VideoSettled("a"))
    for worker in ("1", "2"):
        assert pulled(coordinator, worker) == "a"
        coordinator.report(worker, WorkerReport(events=done, segments={("a", "vst"): 3}))
        coordinator.worker_died(worker, "was killed")
    events = [event for event in coordinator.take_events() if not isinstance(event, Notice)]
    assert events == [*done, WorkerProgress(3, {}, {("a", "vst"): 3}), WorkerProgress(3, {}, {("a", "vst"): 3})]
    assert coordinator.take_events() == []


def test_a_video_that_kills_its_workers_is_poisoned_with_a_reason():
    coordinator = coordinator_of("a")
    for number in range(MAX_DEATHS_PER_VIDEO):
        worker = str(number)
        assert pulled(coordinator, worker) == "a"
        assert coordinator.worker_died(worker, "was killed (SIGKILL)")
    (poisoned,) = [event for event in coordinator.take_events() if isinstance(event, PoisonedVideo)]
    assert poisoned.video_id == "a"
    assert "a.mp4: 3 workers died while they processed this video" in poisoned.reason
    assert coordinator.num_remaining == 0


def test_a_worker_that_dies_repeatedly_is_not_restarted_unless_it_completed_a_video():
    coordinator = coordinator_of("abc")
    for _ in range(MAX_RESTARTS - 1):
        assert coordinator.register("1")
        assert coordinator.worker_died("1", "was killed")
    pulled(coordinator, "1")
    coordinator.report("1", WorkerReport(on_disk=("a",)))
    assert [coordinator.worker_died("1", "was killed") for _ in range(MAX_RESTARTS)] == [True] * (MAX_RESTARTS - 1) + [
        False
    ]
    assert not coordinator.register("1")


def test_videos_of_a_restarted_worker_return_to_the_queue():
    coordinator = coordinator_of("ab")
    coordinator.register("1")
    assert [pulled(coordinator, "1"), pulled(coordinator, "1")] == ["a", "b"]
    coordinator.register("1")
    assert pulled(coordinator, "2") == "a"


def test_workers_stop_when_the_run_stops():
    coordinator = coordinator_of()
    assert coordinator.report("1", WorkerReport())
    coordinator.is_stopping = True
    assert not coordinator.report("1", WorkerReport())
    assert pulled(coordinator, "1") == "over"


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (WorkerFailure("StoreError", "the disk is full", "…"), StoreError, "^the disk is full$"),
        (WorkerFailure("KeyError", "'x'", "Traceback …"), RuntimeError, "KeyError: 'x'"),
    ],
)
def test_a_failure_of_a_worker_ends_the_run(failure, kind, text):
    coordinator = coordinator_of()
    coordinator.report("1", WorkerReport(failure=failure))
    with pytest.raises(kind, match=text):
        list(raise_failures(coordinator.take_events()))

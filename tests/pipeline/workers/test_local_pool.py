"""Worker processes on this machine make the same store as one process, even if they are killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import known_workers
import pytest
import torch
from store_contents import stored_rows

from arabesque.manifests.errors import ArabesqueError, StoreError
from arabesque.pipeline.failure_budget import FailureBudget
from arabesque.pipeline.items import Event, Notice, VideoSettled, WorkerProgress
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.workers import coordinator
from arabesque.pipeline.workers.local_pool import LocalWorkers

CPU = torch.device("cpu")


def check_equal(out: Path, whole: Path) -> None:
    assert stored_rows(out) == stored_rows(whole)
    assert check_store(out).findings == []
    assert not list((out / ".claims").glob("*.json"))


def check_reported_once(events: list[Event], videos: Path) -> None:
    settled = Counter(event.video_id for event in events if isinstance(event, VideoSettled))
    assert settled == dict.fromkeys([path.stem for path in videos.iterdir()], 1)


@pytest.mark.slow
def test_two_workers_make_the_same_store_and_events_as_one_process(run, videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU]))
    check_equal(tmp_path / "out", whole)
    check_reported_once(events, videos)
    segments = sum(event.num_segments for event in events if isinstance(event, WorkerProgress))
    _, outcomes = stored_rows(whole)
    assert segments == sum(num_segments for _, _, _, num_segments, _ in outcomes.values())
    assert run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_workers.exits_at_once)) == []


def test_a_worker_that_is_killed_during_a_video_loses_nothing(run, videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_workers.is_killed_once))
    assert (tmp_path / "killed").exists()
    (notice,) = [event.text for event in events if isinstance(event, Notice)]
    assert "was killed (SIGKILL)" in notice
    check_reported_once(events, videos)
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_video_that_kills_every_worker_fails_and_the_others_are_done(run, videos, whole, tmp_path):
    run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_workers.is_killed_by_long_videos))
    rows, outcomes = stored_rows(tmp_path / "out")
    kind, reason, *_ = outcomes["long", "numbers"]
    assert kind == "failed"
    assert "3 workers died while they processed this video (the last one was killed (SIGKILL))" in reason
    expected, _ = stored_rows(whole)
    assert {name for name in expected if name[0] != "long"} <= set(rows)
    run(videos, tmp_path / "out")
    check_equal(tmp_path / "out", whole)


def test_workers_that_always_exit_end_the_run_with_their_status(run, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator, "MAX_RESTARTS", 2)
    with pytest.raises(ArabesqueError, match=r"worker 1: exited with status 7, as often as .* no other worker is left"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_workers.exits_at_once))


def test_an_error_in_a_worker_fails_the_run(run, videos, tmp_path):
    with pytest.raises(StoreError, match="the disk is full"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_workers.has_a_full_disk))


@pytest.mark.slow
def test_failures_of_all_workers_are_added_up(run, tmp_path):
    for index in range(4):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{index}.mp4").write_bytes(b"not a video %d" % index)
    workers = LocalWorkers([CPU, CPU])
    with pytest.raises(ArabesqueError, match=r"[34] of 4 videos failed, more than --max-failures 2"):
        run(tmp_path / "videos", tmp_path / "out", workers, max_failures=FailureBudget("2"))

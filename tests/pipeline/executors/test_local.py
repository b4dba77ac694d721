"""Worker processes on this machine: what they leave is what one process leaves, whatever becomes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import known_work
import pytest
import torch
from store_contents import stored_rows

from arabesque.manifests.errors import ArabesqueError, StoreError
from arabesque.pipeline.executors import dispatching
from arabesque.pipeline.executors.local import LocalWorkers
from arabesque.pipeline.failure_budget import FailureBudget
from arabesque.pipeline.runner import Event
from arabesque.pipeline.store.verifying import check_store
from arabesque.pipeline.work import Notice, VideoSettled, WorkDone

CPU = torch.device("cpu")


def check_equal(out: Path, whole: Path) -> None:
    assert stored_rows(out) == stored_rows(whole)
    assert check_store(out).findings == []
    assert not list((out / ".claims").glob("*.json"))


def check_told_once(events: list[Event], videos: Path) -> None:
    settled = Counter(event.video_id for event in events if isinstance(event, VideoSettled))
    assert settled == dict.fromkeys([path.stem for path in videos.iterdir()], 1)


@pytest.mark.slow
def test_two_workers_leave_what_one_process_leaves_and_tell_what_it_tells(run, videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.known_work))
    check_equal(tmp_path / "out", whole)
    check_told_once(events, videos)
    segments = sum(event.num_segments for event in events if isinstance(event, WorkDone))
    _, ends = stored_rows(whole)
    assert segments == sum(num_segments for _, _, _, num_segments, _ in ends.values())
    assert run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.never_begins)) == []


def test_a_worker_that_is_killed_in_the_middle_of_a_video_loses_nothing(run, videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.killed_once))
    assert (tmp_path / "killed").exists()
    (notice,) = [event.text for event in events if isinstance(event, Notice)]
    assert "was killed (SIGKILL)" in notice
    check_told_once(events, videos)
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_video_that_costs_every_worker_its_life_fails_and_the_others_get_through(run, videos, whole, tmp_path):
    run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.killed_by_long_videos))
    rows, ends = stored_rows(tmp_path / "out")
    kind, reason, *_ = ends["long", "numbers"]
    assert kind == "failed"
    assert "each of the 3 times that a worker was lost (the last one was killed (SIGKILL))" in reason
    expected, _ = stored_rows(whole)
    assert {name for name in expected if name[0] != "long"} <= set(rows)
    run(videos, tmp_path / "out")
    check_equal(tmp_path / "out", whole)


def test_workers_that_die_for_good_end_the_run_with_their_status(run, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "DEATHS_ALLOWED", 2)
    with pytest.raises(ArabesqueError, match=r"no worker is left: worker 1 exited with status 7, again and again"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_work.never_begins))


def test_what_makes_the_run_fail_in_a_worker_makes_the_run_fail(run, videos, tmp_path):
    with pytest.raises(StoreError, match="the disk is full"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_work.finds_the_disk_full))


@pytest.mark.slow
def test_the_failures_of_all_workers_count_together(run, tmp_path):
    for index in range(4):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{index}.mp4").write_bytes(b"no video %d" % index)
    workers = LocalWorkers([CPU, CPU], known_work.known_work)
    with pytest.raises(ArabesqueError, match=r"[34] of 4 videos failed, more than --max-failures 2"):
        run(tmp_path / "videos", tmp_path / "out", workers, max_failures=FailureBudget("2"))

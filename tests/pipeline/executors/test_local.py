"""Worker processes on this machine: what they leave is what one process leaves, whatever becomes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import known_work
import pytest
import torch
from clips import Clip, write_clip
from known_extractors import RECIPE, known_extractors
from store_contents import stored_rows

from arabesque.manifests.errors import ArabesqueError, StoreError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.executors import dispatching
from arabesque.pipeline.executors.local import LocalWorkers
from arabesque.pipeline.extraction import Extraction, RunOptions
from arabesque.pipeline.failure_budget import FailureBudget
from arabesque.pipeline.runner import Event
from arabesque.pipeline.store.verifying import check_store
from arabesque.pipeline.work import Notice, VideoSettled, WorkDone

VIDEOS = {"a": 40, "b": 24, "c": 33, "d": 16, "e": 48, "long": 120}
"""Name → number of frames."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known():
    with known_extractors():
        yield


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in VIDEOS.items():
        write_clip(folder / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.2,)))
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


def run(videos: Path, out: Path, executor: LocalWorkers | None = None, **options) -> list[Event]:
    recipe = parse_recipe(RECIPE, "known.toml")
    chosen = RunOptions(num_decoders=1, num_cpu_threads=1, **options)
    return list(Extraction(videos, recipe, out, options=chosen, executor=executor))


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with known_extractors():
        run(videos, out)
    return out


def check_equal(out: Path, whole: Path) -> None:
    assert stored_rows(out) == stored_rows(whole)
    assert check_store(out).findings == []
    assert not list((out / ".claims").glob("*.json"))


def test_two_workers_leave_what_one_process_leaves_and_tell_what_it_tells(videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.known_work))
    check_equal(tmp_path / "out", whole)
    settled = Counter(event.video_id for event in events if isinstance(event, VideoSettled))
    assert settled == dict.fromkeys([*VIDEOS, "noise"], 1)
    segments = sum(event.num_segments for event in events if isinstance(event, WorkDone))
    assert segments == 2 * sum(num_frames // 8 for num_frames in VIDEOS.values())
    assert run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.never_begins)) == []


def test_a_worker_that_is_killed_in_the_middle_of_a_video_loses_nothing(videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.killed_once))
    assert (tmp_path / "killed").exists()
    (notice,) = [event.text for event in events if isinstance(event, Notice)]
    assert "was killed (SIGKILL)" in notice
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_video_that_costs_every_worker_its_life_fails_and_the_others_get_through(videos, whole, tmp_path):
    run(videos, tmp_path / "out", LocalWorkers([CPU, CPU], known_work.killed_by_long_videos))
    rows, ends = stored_rows(tmp_path / "out")
    kind, reason, *_ = ends["long", "numbers"]
    assert kind == "failed"
    assert "each of the 3 times that a worker was lost (the last one was killed (SIGKILL))" in reason
    expected, _ = stored_rows(whole)
    assert {name for name in expected if name[0] != "long"} <= set(rows)
    run(videos, tmp_path / "out")
    check_equal(tmp_path / "out", whole)


def test_workers_that_die_for_good_end_the_run_with_their_status(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "DEATHS_ALLOWED", 2)
    with pytest.raises(ArabesqueError, match=r"no worker is left: worker 1 exited with status 7, again and again"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_work.never_begins))


def test_what_makes_the_run_fail_in_a_worker_makes_the_run_fail(videos, tmp_path):
    with pytest.raises(StoreError, match="the disk is full"):
        run(videos, tmp_path / "out", LocalWorkers([CPU], known_work.finds_the_disk_full))


@pytest.mark.slow
def test_the_failures_of_all_workers_count_together(videos, tmp_path):
    for index in range(4):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{index}.mp4").write_bytes(b"no video %d" % index)
    workers = LocalWorkers([CPU, CPU], known_work.known_work)
    with pytest.raises(ArabesqueError, match=r"[34] of 4 videos failed, more than --max-failures 2"):
        run(tmp_path / "videos", tmp_path / "out", workers, max_failures=FailureBudget("2"))

"""Concurrent runs on one store lose no work and hardly repeat any."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from clips import Clip, write_clip
from store_rows import new_store, outcome_of, row, settings_of
from workloads import workload_process

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.items import Awaiting, VideoSettled
from arabesque.pipeline.planning import run_claims
from arabesque.pipeline.planning.resume_index import ResumeIndex
from arabesque.pipeline.planning.run_claims import Claim, OutcomeWatcher, RunClaims
from arabesque.pipeline.records import VideoFile
from arabesque.pipeline.store.concurrency import writer_locks
from arabesque.pipeline.store.concurrency.writer_locks import LockCoordination, WriterLock
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.store import Store
from arabesque.pipeline.store.writer import StoreWriter

NUM_VIDEOS, SEGMENTS_EACH = 8, 4
Order = Callable[..., dict[str, Any]]


def test_a_claim_excludes_others_until_it_is_released(tmp_path):
    with closing(WriterLock(tmp_path, "one")) as one, closing(WriterLock(tmp_path, "two")) as two:
        assert one.take("a/ö\n")
        assert one.take("a/ö\n"), "it is his already"
        assert not two.take("a/ö\n")
        assert not two.is_free("a/ö\n")
        assert two.take("b")
        one.release(["a/ö\n"])
        assert two.is_free("a/ö\n")
        assert two.take("a/ö\n")


HOLD = """
import sys, time
from pathlib import Path
from arabesque.pipeline.store.concurrency.writer_locks import WriterLock
lock = WriterLock(Path(sys.argv[1]), "other")
taken = lock.take("a")
assert lock.advance("a", 7) == 7
print(taken, flush=True)
sys.stdin.readline()
is_free = lock.is_free("a")
lock.release(["a"])
print(is_free, flush=True)
time.sleep(1000)
"""


def holder(root: Path) -> subprocess.Popen[str]:
    """A process that claims a video, and releases it at a line of its input."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_claim_ends_with_its_process(tmp_path):
    with closing(WriterLock(tmp_path, "mine")) as mine, holder(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not mine.take("a")
        os.kill(other.pid, signal.SIGSTOP)  # hung, not dead: it may continue
        assert not mine.take("a")
        other.kill()
        other.wait()
        assert mine.is_free("a")
        LockCoordination(LocalStorage(tmp_path)).sweep()
        assert not list((tmp_path / ".claims").glob("*.json"))
        assert mine.take("a")


def test_a_claim_of_a_stopped_process_is_taken_over_and_that_of_a_slow_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_PATIENCE_S", "1")  # the other process renews its lock ten times in it
    with (
        closing(WriterLock(tmp_path, "mine", patience_s=3)) as mine,
        closing(WriterLock(tmp_path, "patient", patience_s=1000)) as patient,
        holder(tmp_path) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        beats = set[int]()
        while len(beats) < 15:
            beats.add(writer_locks.heartbeat(tmp_path, "other"))
            assert not mine.is_free("a"), "its process runs, however long it takes"
            time.sleep(0.01)
        os.kill(other.pid, signal.SIGSTOP)
        while not mine.is_free("a"):
            assert not patient.take("a")
            time.sleep(0.01)
        assert mine.take("a")
        assert mine.advance("a", 1) == 8, "above what the other looked at it with"
        os.kill(other.pid, signal.SIGCONT)
        assert mine.is_free("a")
        print(file=other.stdin, flush=True)
        assert other.stdout.readline() == "False\n"
        assert list((tmp_path / ".claims").glob("*.json")), "it is not the other's any more"
        other.kill()


def test_a_truncated_claim_is_free(tmp_path):
    with closing(WriterLock(tmp_path, "mine")) as mine:
        mine.take("a")
        (path,) = (tmp_path / ".claims").glob("*.json")
        for text in ("", '{"wri', "[]", '"x"'):
            path.write_text(text)
            assert mine.is_free("a")


def test_news_contain_later_outcomes_of_other_runs(tmp_path):
    with StoreWriter(new_store(tmp_path)) as early:
        early.add(row("old"))
        early.add_outcome(outcome_of(row("old")))
    news = OutcomeWatcher(tmp_path)
    with StoreWriter(tmp_path) as mine, StoreWriter(tmp_path) as other:
        for writer, video_id in ((mine, "mine"), (other, "theirs")):
            writer.add(row(video_id))
            writer.add_outcome(outcome_of(row(video_id)))
            writer.flush()
        news.refresh(mine.writer_id)
    assert news.of_video("theirs").get("vst") == outcome_of(row("theirs"))
    assert news.of_video("mine").get("vst") is None
    assert news.of_video("old").get("vst") is None
    compact(tmp_path)
    news.refresh(mine.writer_id)
    assert news.of_video("old").get("vst") == outcome_of(row("old")), "a merged file repeats it; the ledger knows it"


def test_outcomes_are_reported_after_they_are_written(tmp_path):
    told: list[int] = []
    with StoreWriter(new_store(tmp_path), max_age_s=1000) as writer:
        writer.add_outcome(outcome_of(row("A"), "empty", reason="no sound"))
        writer.when_written(lambda: told.append(len(FeatureStore(tmp_path).outcomes())))
        assert told == []
        writer.flush()
        assert told == [1]
        writer.flush()
        assert told == [1]


@pytest.fixture
def two_runs(tmp_path, monkeypatch) -> Iterator[tuple[RunClaims, RunClaims, StoreWriter]]:
    """This run, the other run, and the other run's writer."""
    monkeypatch.setattr(run_claims, "POLL_S", 0.01)
    new_store(tmp_path)
    with StoreWriter(tmp_path) as mine, StoreWriter(tmp_path) as other:
        settings = {"vst": settings_of("vst")}
        yield (
            RunClaims(mine, ResumeIndex(), OutcomeWatcher(tmp_path), settings),
            RunClaims(other, ResumeIndex(), OutcomeWatcher(tmp_path), settings),
            other,
        )


def file(video_id: str) -> VideoFile:
    return VideoFile(video_id, Path(f"{video_id}.mp4"))


@pytest.mark.parametrize("kind", ["done", "failed"])
def test_a_run_waits_for_a_video_of_another_run_and_does_not_repeat_it(two_runs, kind):
    """A transient failure is not repeated either; the next run retries it."""
    mine, other, writer = two_runs
    assert other.claim(file("A")) is Claim.GRANTED
    assert mine.claim(file("A")) is Claim.HELD_BY_OTHER
    assert mine.claim(file("B")) is Claim.GRANTED
    remaining = mine.remaining()
    assert [next(remaining), next(remaining)] == [Awaiting(1), Awaiting(1)]
    writer.add_outcome(outcome_of(row("A"), kind, reason="decoder crashed", transient=kind == "failed"))
    writer.end_reading("A")
    assert next(remaining) == Awaiting(1), "it is not on disk yet"
    writer.flush()
    assert list(remaining) == [VideoSettled("A")]
    assert mine.claim(file("A")) is Claim.ALREADY_DONE, "also if it is claimed later"


def test_a_run_takes_over_the_videos_of_a_run_that_died(two_runs):
    mine, other, writer = two_runs
    assert other.claim(file("A")) is Claim.GRANTED
    assert mine.claim(file("A")) is Claim.HELD_BY_OTHER
    remaining = mine.remaining()
    assert next(remaining) == Awaiting(1)
    writer.close()
    assert list(remaining) == [file("A")]
    assert mine.claim(file("A")) is Claim.GRANTED


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    new_store(tmp_path)
    monkeypatch.setattr(writer_locks.fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked .*on a file system with file locks"):
        StoreWriter(tmp_path)


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    with workload_process("extraction_workload.py") as give:
        yield give


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(NUM_VIDEOS):
        write_clip(folder / f"{index}.mp4", Clip(num_frames=8 * SEGMENTS_EACH, beeps_s=(0.2,)))
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


def check_whole(out: Path) -> None:
    """Check that every row occurs once with the contents of its video, and that no damage and no leftover exists."""
    assert check_store(out).findings == []
    for stream in ("numbers", "loudness"):
        table = pd.read_parquet(out / f"stream={stream}")
        assert sorted(table.video_id) == [str(index) for index in range(NUM_VIDEOS)]
    store = FeatureStore(out)
    for video_id in store:
        assert store[video_id]["numbers"].values.ravel().tolist() == list(range(8 * SEGMENTS_EACH))
    kinds = {end.video_id: end.kind for end in store.outcomes()}
    assert kinds == {str(index): "done" for index in range(NUM_VIDEOS)} | {"noise": "failed"}
    assert not list((out / ".claims").glob("*.json"))
    assert not list(out.rglob(".tmp-*"))


def side_by_side(order: Order, videos: Path, out: Path, runs: int) -> None:
    """Runs that start together on a new store each end when all videos are done, and report that."""
    ends = order(videos=videos, out=out, runs=runs)["runs"]
    assert [end["status"] for end in ends] == [3] * runs, [end["said"] for end in ends]
    assert sum(end["computed"] for end in ends) == NUM_VIDEOS * SEGMENTS_EACH
    compact(out)
    check_whole(out)


def test_two_runs_share_the_work(order, videos, tmp_path):
    side_by_side(order, videos, tmp_path / "out", runs=2)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "rounds"), [(8, 5), (12, 3)])
def test_many_runs_share_the_work(order, videos, tmp_path, runs, rounds):
    for round in range(rounds):
        side_by_side(order, videos, tmp_path / f"out{round}", runs=runs)


@pytest.fixture(scope="module")
def impatient_process() -> Iterator[Order]:
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ARABESQUE_PATIENCE_S", "2")
            give = stack.enter_context(workload_process("extraction_workload.py"))
        yield give


@pytest.fixture
def impatient_order(impatient_process, monkeypatch) -> Order:
    monkeypatch.setenv("ARABESQUE_PATIENCE_S", "2")
    return impatient_process


def test_claims_of_a_stopped_run_are_taken_over_and_count_once(impatient_order, videos, tmp_path):
    out = tmp_path / "out"
    stopped, *others = impatient_order(videos=videos, out=out, runs=3, stop_first=True)["runs"]
    assert [end["status"] for end in (stopped, *others)] == [3, 3, 3], [end["said"] for end in (stopped, *others)]
    assert sum(end["computed"] for end in others) >= NUM_VIDEOS * SEGMENTS_EACH
    assert check_store(out).findings == []
    compact(out)
    check_whole(out)


def test_a_process_that_keeps_the_store_locked_does_not_stop_a_run(impatient_order, videos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with Store.open(out).coordination.reorganizing():
        (end,) = impatient_order(videos=videos, out=out, runs=1)["runs"]
    assert end["status"] == 3, end["said"]
    assert "small shards are not merged" in end["said"]
    compact(out)
    check_whole(out)


@pytest.mark.parametrize("moment_s", [0.8, *(pytest.param(other, marks=pytest.mark.slow) for other in (0.3, 1.3))])
def test_unfinished_videos_of_a_killed_run_are_done_by_the_other(order, videos, tmp_path, moment_s):
    killed, other = order(videos=videos, out=tmp_path / "out", runs=2, kill_after_s=moment_s, kill_runs=1)["runs"]
    assert killed["status"] in (-signal.SIGKILL, 3)
    assert other["status"] == 3, other["said"]
    compact(tmp_path / "out")
    check_whole(tmp_path / "out")

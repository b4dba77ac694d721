"""Runs that are killed or whose disk fails give the same store as an uninterrupted run after they are resumed.

The fast test kills 8 runs, the slow one 1,000. `test_compaction.py` kills about 50 processes that only write a store.
"""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, write_clip
from store_contents import stored_rows
from workloads import workload_process

from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import MANIFEST
from arabesque.pipeline.store.reader import FeatureStore

Order = Callable[..., dict[str, Any]]
VIDEOS = {"a": 40, "b": 24, "c": 33, "d": 16}
"""Name → number of frames."""


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    with workload_process("extraction_workload.py") as give:
        yield give


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in VIDEOS.items():
        write_clip(folder / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.2,)))
    write_clip(folder / "silent.avi", Clip(num_frames=20, codec="mpeg4", options={}))
    cut = write_clip(folder / "cut.mp4", Clip(num_frames=50), movflags="faststart")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


def run(order: Order, videos: Path, out: Path, **options: Any) -> dict[str, Any]:
    (end,) = order(videos=videos, out=out, **options)["runs"]
    return end


@pytest.fixture(scope="module")
def whole(order, videos, tmp_path_factory) -> Path:
    """The store of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(order, videos, out)["status"] == 3
    rows, ends = stored_rows(out)
    kinds = {name: kind for name, (kind, *_) in ends.items()}
    assert len(rows) == 2 * len(VIDEOS) + 2
    assert kinds["cut", "numbers"] == "partial"
    assert kinds["silent", "loudness"] == "empty"
    assert kinds["noise", "numbers"] == "failed"
    return out


@dataclass
class Figures:
    """Number of runs and kills, and their effect."""

    kills: int = 0
    runs: int = 0
    rows_seen: int = 0
    rows_lost: int = 0
    differing: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        self.kills += other.kills
        self.runs += other.runs
        self.rows_seen += other.rows_seen
        self.rows_lost += other.rows_lost
        self.differing += other.differing


def rows_on_disk(out: Path) -> set[tuple[str, str, str]]:
    """Check that the store of a killed run is undamaged, and return its rows."""
    if not (out / MANIFEST).exists():
        return set()
    assert check_store(out).findings == []
    store = FeatureStore(out, partial=True)
    return {(video_id, stream, key) for stream in store.streams for video_id, key in store.keys(stream).items()}


def kill_repeatedly(order: Order, videos: Path, out: Path, whole: Path, kills: list[dict[str, Any]]) -> Figures:
    """Kill the run of one store several times, then let it finish."""
    figures = Figures()
    seen: set[tuple[str, str, str]] = set()
    for kill in kills:
        end = run(order, videos, out, **kill)
        assert end["status"] in (-signal.SIGKILL, 3), end["said"]
        figures.runs += 1
        figures.kills += end["status"] == -signal.SIGKILL
        now = rows_on_disk(out)
        figures.rows_lost += len(seen - now)
        seen |= now
    assert run(order, videos, out)["status"] == 3
    figures.runs += 1
    figures.rows_seen = len(seen)
    figures.rows_lost += len(seen - rows_on_disk(out))
    if stored_rows(out) != stored_rows(whole):
        figures.differing.append(str(out))
    assert not list(out.rglob(".tmp-*"))
    assert not list((out / ".claims").glob("*.json"))
    return figures


def plan(chance: random.Random, calls: int, stores: int, kills_each: int) -> list[list[dict[str, Any]]]:
    """Plan the kills: the first of each store at evenly spread disk calls, the later ones at random moments."""

    def later() -> dict[str, Any]:
        if chance.random() < 0.6:
            return {"kill_at": chance.randrange(calls // 2)}
        return {"kill_after_s": chance.uniform(0.1, 1.2)}

    firsts = [{"kill_at": int((number + chance.random()) * calls / stores)} for number in range(stores)]
    return [[first, *(later() for _ in range(kills_each - 1))] for first in firsts]


def kill_runs(order: Order, videos: Path, whole: Path, folder: Path, stores: int, seed: int, processes: int) -> Figures:
    """Kill runs that several processes start, to use several cores."""
    calls = run(order, videos, folder / "counted")["calls"]
    plans = plan(random.Random(seed), calls, stores, kills_each=6)
    total = Figures()
    with ExitStack() as stack:
        more = (workload_process("extraction_workload.py") for _ in range(processes - 1))
        orders = [order, *(stack.enter_context(each) for each in more)]
        threads = stack.enter_context(ThreadPoolExecutor(len(orders)))

        def work(turn: int) -> Figures:
            mine = Figures()
            for number in range(turn, stores, len(orders)):
                (folder / str(turn)).mkdir(exist_ok=True)
                out = folder / str(turn) / f"out{number}"
                mine.add(kill_repeatedly(orders[turn], videos, out, whole, plans[number]))
            return mine

        for figures in threads.map(work, range(len(orders))):
            total.add(figures)
    return total


def kill_at_least(
    how_many: int, stores: int, order: Order, videos: Path, whole: Path, folder: Path, processes: int = 1
) -> Figures:
    """Repeat rounds of ``stores`` stores until enough runs were killed; some finish before their kill."""
    total, seed = Figures(), 0
    while total.kills < how_many:
        seed += 1
        (folder / str(seed)).mkdir()
        total.add(kill_runs(order, videos, whole, folder / str(seed), stores, seed, processes))
    return total


def test_killed_many_times_and_resumed_equals_an_uninterrupted_run(order, videos, whole, tmp_path):
    figures = kill_at_least(8, 2, order, videos, whole, tmp_path)
    assert (figures.rows_lost, figures.differing) == (0, [])
    assert figures.rows_seen > 8


@pytest.mark.slow
def test_killed_a_thousand_times(order, videos, whole, tmp_path, capsys):
    total = kill_at_least(1000, 40, order, videos, whole, tmp_path, processes=2)
    with capsys.disabled():
        print(
            f"\n{time.strftime('%Y-%m-%d')}: {total.runs} runs of arabesque extract, {total.kills} killed with -9, "
            f"rows lost: {total.rows_lost}, stores that differ from an uninterrupted run's: {len(total.differing)}"
        )
    assert (total.rows_lost, total.differing) == (0, [])


def copies_during_a_run(order: Order, videos: Path, folder: Path, how_many: int) -> list[Path]:
    """Copy a store with ``cp -r`` while a run writes and merges. Files that disappear during a copy are skipped."""
    out, copies = folder / "out", list[Path]()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run, order, videos, out, max_age_s=0.02)
        while not running.done() or not copies:
            if (out / MANIFEST).exists():
                copies.append(folder / f"copy{len(copies)}")
                subprocess.run(["cp", "-r", str(out), str(copies[-1])], stderr=subprocess.DEVNULL)
        assert running.result()["status"] == 3
    return copies[:: -(-len(copies) // how_many)]


def check_copies(order: Order, videos: Path, whole: Path, copies: list[Path]) -> int:
    """Check that each copy is undamaged and that a run completes it; return the number of missing rows."""
    missing = 0
    for copy in copies:
        check = check_store(copy)
        assert check.damaged_files == ()
        missing += len(check.missing)
        assert run(order, videos, copy)["status"] == 3
        assert stored_rows(copy) == stored_rows(whole)
        assert not list((copy / ".claims").glob("*.json"))
        assert not list(copy.rglob(".tmp-*"))
    return missing


def test_copies_of_a_store_during_a_run_can_be_verified_and_finished(order, videos, whole, tmp_path):
    copies = copies_during_a_run(order, videos, tmp_path, how_many=3)
    check_copies(order, videos, whole, copies)


@pytest.mark.slow
def test_many_copies_of_a_store_during_a_run(order, videos, whole, tmp_path, capsys):
    copies = copies_during_a_run(order, videos, tmp_path, how_many=30)
    missing = check_copies(order, videos, whole, copies)
    with capsys.disabled():
        print(f"\n{len(copies)} copies, damaged files: 0, missing rows that a run recomputed: {missing}")


@pytest.fixture(scope="module")
def num_writes(order, videos, whole, tmp_path_factory) -> int:
    """Number of writes to the store by an uninterrupted run that does not write because of age."""
    out, never = tmp_path_factory.mktemp("counted") / "out", [10**9, errno.ENOSPC]
    return run(order, videos, out, fail_from=never, max_age_s=1000)["calls"]


FULL = "the disk is full; free space and run the same command again"


@pytest.mark.parametrize(
    ("share", "code", "remedy"),
    [
        *(pytest.param(share, errno.ENOSPC, FULL, marks=pytest.mark.slow) for share in (0.0, 0.3)),
        (0.6, errno.ENOSPC, FULL),
        (0.9, errno.EDQUOT, FULL),
        (0.7, errno.EROFS, "allow writing there or choose another output folder"),
        (0.8, errno.EIO, "run the same command again"),
    ],
)
def test_a_failing_disk_damages_nothing_and_a_later_run_finishes(
    order, videos, whole, num_writes, tmp_path, share, code, remedy
):
    out = tmp_path / "out"
    end = run(order, videos, out, fail_from=[int(share * num_writes), code], max_age_s=1000)
    assert end["status"] == 1, end["said"]
    assert remedy in end["said"]
    assert "Traceback" not in end["said"]
    assert "unexpected" not in end["said"]
    rows_on_disk(out)
    assert run(order, videos, out)["status"] == 3
    assert stored_rows(out) == stored_rows(whole)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free_kib", [0, 48])
def test_a_full_disk(order, videos, whole, small_disk, free_kib):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((252 - free_kib) << 10))
    out = small_disk / "out"
    end = run(order, videos, out)
    assert end["status"] == 1, end["said"]
    assert FULL in end["said"]
    rows_on_disk(out)
    ballast.unlink()
    assert run(order, videos, out)["status"] == 3
    assert stored_rows(out) == stored_rows(whole)


def test_an_output_folder_that_cannot_be_written(order, videos, whole, small_disk):
    out = small_disk / "out"
    run(order, videos, out, kill_after_s=0.8)
    before = rows_on_disk(out)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    end = run(order, videos, out)
    assert end["status"] == 1, end["said"]
    assert "Read-only file system" in end["said"]
    assert rows_on_disk(out) == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert run(order, videos, out)["status"] == 3
    assert stored_rows(out) == stored_rows(whole)

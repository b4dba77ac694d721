from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from store_rows import DIMS, manifest, new_store, outcome_of, row, settings_of, shards, written
from store_workload import SILENT, VIDEOS, expected, filled
from workloads import workload_process

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.store.concurrency.writer_locks import LockCoordination
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.maintenance import compaction
from arabesque.pipeline.store.maintenance.compaction import archive_stale_rows, compact
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import MANIFEST, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_reading import read_tables
from arabesque.pipeline.store.shard_stamp import is_intact
from arabesque.pipeline.store.shard_writing import shard_bytes
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter

Order = Callable[..., dict[str, Any]]


def test_small_shards_become_one_and_rows_stay_as_they_were(tmp_path):
    new_store(tmp_path)
    for number in range(6):
        written(tmp_path, row(f"Ball_{number:03d}"))
    before = pd.read_parquet(tmp_path / "stream=vst").sort_values("video_id", ignore_index=True)
    done = compact(tmp_path)
    assert (done.shards_merged, done.shards_written, done.rows_dropped) == (12, 2, 0)
    assert len(shards(tmp_path)) == len(shards(tmp_path, "outcomes")) == 1
    after = pd.read_parquet(tmp_path / "stream=vst").sort_values("video_id", ignore_index=True)
    assert list(after.written_at) == list(before.written_at)
    assert list(after.writer) == list(before.writer)
    assert is_intact(shards(tmp_path)[0].read_bytes())
    assert all(np.array_equal(each["vst"], row(name).features) for name, each in items(FeatureStore(tmp_path)))
    assert compact(tmp_path) == type(done)(0, 0, 0)


def items(store: FeatureStore) -> Iterator[tuple[str, Any]]:
    return ((video_id, store[video_id]) for video_id in store)


def test_shards_stay_under_the_limit(tmp_path):
    new_store(tmp_path)
    for number in range(9):
        written(tmp_path, row(f"Ball_{number:03d}"))
    compact(tmp_path, max_shard_bytes=4 * row("A").features.nbytes)
    assert sorted(len(pd.read_parquet(shard)) for shard in shards(tmp_path)) == [1, 4, 4]
    assert len(FeatureStore(tmp_path)) == 9


def test_large_shards_are_left_alone(tmp_path):
    new_store(tmp_path)
    written(tmp_path, *(row(f"Clubs_{number:03d}") for number in range(3)))
    (large,) = shards(tmp_path)
    for number in range(2):
        written(tmp_path, row(f"Ball_{number:03d}"))
    compact(tmp_path, max_shard_bytes=4 * row("A").features.nbytes)
    assert large.exists()
    assert sorted(len(pd.read_parquet(shard)) for shard in shards(tmp_path)) == [2, 3]


def test_only_own_and_dead_writers_shards_are_touched(tmp_path):
    new_store(tmp_path)
    with StoreWriter(tmp_path, writer_id="alive") as other, StoreWriter(tmp_path, writer_id="me") as mine:
        for number in range(2):
            for writer in (other, mine):
                writer.add(row(f"{writer.writer_id}_{number}"))
                writer.add_progress(f"{writer.writer_id} {number}", 0, 0.0, 1.0, np.ones(4, np.float32))
                writer.flush()
        theirs = list(tmp_path.rglob("part-alive-*"))
        leftovers = [tmp_path / "stream=vst" / f".tmp-{name}-part-{name}-9.parquet" for name in ("alive", "dead")]
        for leftover in leftovers:
            leftover.write_bytes(b"half")
        compact(tmp_path, "me")
        assert all(path.exists() for path in theirs)
        assert [leftover.exists() for leftover in leftovers] == [True, False]
        assert len(shards(tmp_path)) == len(shards(tmp_path, ".progress")) == 3
        assert len(FeatureStore(tmp_path)) == 4
        assert len(WriteAheadLog(tmp_path)) == 4
    assert not list((tmp_path / ".writers").iterdir())


def test_rows_added_during_a_compaction_stay(tmp_path, monkeypatch):
    """This includes a writer that begins and ends between two steps: its shard is not in the list of removable ones."""
    new_store(tmp_path)
    written(tmp_path, row("A"))
    written(tmp_path, row("B"))
    added: list[str] = []

    def with_company(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            added.append(f"Guest_{len(added):03d}")
            written(tmp_path, row(added[-1]))
            return result

        return step

    monkeypatch.setattr(LockCoordination, "idle", with_company(LockCoordination.idle))
    for name in ("outcome_columns", "row_columns", "_row_shard", "_merge", "prune"):
        monkeypatch.setattr(compaction, name, with_company(getattr(compaction, name)))
    compact(tmp_path)
    monkeypatch.undo()
    assert len(added) > 6
    assert FeatureStore(tmp_path).video_ids == ("A", "B", *added)
    assert len(pd.read_parquet(tmp_path / "outcomes")) == 2 + len(added)


def test_rows_replaced_by_newer_ones_are_dropped(tmp_path):
    new_store(tmp_path)
    written(tmp_path, row("A", content="old"), row("B"))
    written(tmp_path, row("A", content="new"), row("B"))
    with StoreWriter(tmp_path) as writer:
        writer.add_outcome(outcome_of(row("B", content="rewritten"), "failed", reason="no video stream"))
    assert compact(tmp_path).rows_dropped == 3 + 3
    table = pd.read_parquet(tmp_path / "stream=vst")
    assert list(table.key) == [row("A", content="new").key]
    outcomes = pd.read_parquet(tmp_path / "outcomes")
    assert sorted(zip(outcomes.video_id, outcomes.kind, strict=True)) == [("A", "done"), ("B", "failed")]


def test_the_log_drops_complete_rows_and_keeps_the_rest(tmp_path):
    new_store(tmp_path)
    for _ in range(2):
        with StoreWriter(tmp_path) as writer:
            for name in ("A", "B"):
                writer.add_progress(row(name).key, 0, 0.0, 1.28, row(name).features[0])
    written(tmp_path, row("A"))
    compact(tmp_path)
    journal = WriteAheadLog(tmp_path)
    assert set(journal) == {row("B").key}
    assert np.array_equal(journal[row("B").key][0].feature, row("B").features[0])
    assert len(shards(tmp_path, ".progress")) == 1
    written(tmp_path, row("B"))
    compact(tmp_path)
    assert not shards(tmp_path, ".progress")


def merge_as_earlier_versions_did(root: Path) -> None:
    """Write all rows of a stream into one shard, with any settings."""
    names = [path.relative_to(root).as_posix() for path in shards(root)]
    data = shard_bytes(read_tables(LocalStorage(root), names))
    for name in names:
        (root / name).unlink()
    (root / "stream=vst" / "part-earlier-000000.parquet").write_bytes(data)


@pytest.mark.parametrize("is_mixed", [False, True])
def test_compaction_archives_rows_of_other_settings(tmp_path, is_mixed):
    """Such rows are from a killed run, or from one that continued to write after its record had expired."""
    new_store(tmp_path)
    written(tmp_path, row("A"), row("B"), row("A", "ast"))
    write_manifest(tmp_path, manifest(2))
    written(tmp_path, row("A", version=2), row("A", "ast", version=2))
    if is_mixed:
        merge_as_earlier_versions_did(tmp_path)
    compact(tmp_path)
    for stream, number in (("vst", 2), ("ast", 1)):
        current = pd.read_parquet(tmp_path / f"stream={stream}")
        assert set(current.settings_digest) == {settings_of(stream, 2)}
        assert len(current) == 1
        old = pd.read_parquet(tmp_path / "superseded" / settings_of(stream) / f"stream={stream}")
        assert len(old) == number
    assert np.array_equal(FeatureStore(tmp_path)["A"]["vst"].values, row("A", version=2).features)
    assert compact(tmp_path).shards_merged == 0
    assert not check_store(tmp_path).findings


def test_rows_of_other_settings_are_archived(tmp_path):
    new_store(tmp_path)
    written(tmp_path, row("A"), row("B"))
    write_manifest(tmp_path, manifest(2))
    written(tmp_path, row("A", version=2))
    merge_as_earlier_versions_did(tmp_path)
    assert len(shards(tmp_path)) == 1, "the shard is mixed now"
    written(tmp_path, row("C", version=2))
    assert archive_stale_rows(tmp_path, "vst", settings_of("vst", 2)) == 2
    assert sorted(pd.read_parquet(tmp_path / "stream=vst").video_id) == ["A", "C"]
    assert set(pd.read_parquet(tmp_path / "stream=vst").settings_digest) == {settings_of("vst", 2)}
    aside = pd.read_parquet(tmp_path / "superseded" / settings_of("vst") / "stream=vst")
    assert sorted(aside.video_id) == ["A", "B"]
    assert np.array_equal(np.stack(aside.features[0]), row("A").features)
    assert archive_stale_rows(tmp_path, "vst", settings_of("vst", 2)) == 0
    assert archive_stale_rows(tmp_path, "vst", settings_of("vst", 3)) == 2
    assert not shards(tmp_path)
    assert archive_stale_rows(tmp_path, "ast", settings_of("ast")) == 0


def test_a_folder_that_is_not_a_store_is_not_changed(tmp_path):
    for act in (compact, lambda root: archive_stale_rows(root, "vst", settings_of("vst"))):
        with pytest.raises(StoreError, match=r"does not exist; name a feature store"):
            act(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_settings_digest_cannot_lead_out_of_the_store(tmp_path, monkeypatch):
    changed = manifest()
    changed["streams"]["vst"]["settings_digest"] = "../../up"
    write_manifest(tmp_path, changed)
    monkeypatch.setattr("store_rows.settings_of", lambda stream, version=1: "../../up")
    written(tmp_path, row("A"))
    with pytest.raises(StoreError, match=r"settings digest '\.\./\.\./up' is invalid"):
        archive_stale_rows(tmp_path, "vst", settings_of("vst"))


@contextmanager
def workload() -> Iterator[Order]:
    """A process that fills stores: send an order, and get its result."""
    with workload_process("store_workload.py") as send:

        def give(do: str, root: Path, kill_at: int | None = None, kill_after_s: float | None = None) -> dict[str, Any]:
            return send(do=do, root=root, kill_at=kill_at, kill_after_s=kill_after_s)

        yield give


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    with workload() as give:
        yield give


def check_after_kill(root: Path) -> None:
    """Check that the store can be opened and contains only complete, correct rows."""
    assert all(is_intact(shard.read_bytes()) for shard in root.rglob("part-*.parquet"))
    if not (root / MANIFEST).exists():
        return
    store, wanted = FeatureStore(root), expected()
    for video_id, features in items(store):
        for stream in features:
            assert np.array_equal(features[stream], wanted[video_id, stream].features)
    done = {(end.video_id, end.stream) for end in store.outcomes() if end.kind == "done"}
    assert done == {(video_id, stream) for video_id in store for stream in store[video_id]}
    assert done == set(wanted) or not filled(root).exists()


def check_finished(root: Path) -> None:
    """Check that the store equals that of an uninterrupted run, row by row."""
    store, wanted = FeatureStore(root), expected()
    for stream in DIMS:
        table = pd.read_parquet(root / f"stream={stream}")
        assert sorted(table.video_id) == sorted(video_id for video_id, of in wanted if of == stream)
        for features in store.scan(stream):
            made = wanted[features.video_id, stream]
            assert features.values.tobytes() == made.features.tobytes()
            assert (
                features.start_s.tobytes() + features.end_s.tobytes() == made.start_s.tobytes() + made.end_s.tobytes()
            )
            assert (features.key, features.provenance) == (made.key, made.provenance)
    ends = {(end.video_id, end.stream): end.kind for end in store.outcomes()}
    assert ends == {
        (name, stream): "empty" if (name, stream) == (SILENT, "ast") else "done" for name in VIDEOS for stream in DIMS
    }
    assert not list(root.rglob(".tmp-*"))
    assert not list((root / ".writers").iterdir())
    assert not shards(root, ".progress")


def finish(order: Order, root: Path) -> None:
    assert not order("extract", root)["killed"]
    check_finished(root)


def kill_points(calls: int, how_many: int) -> list[int]:
    return sorted(random.Random(0).sample(range(calls), min(how_many, calls)))


def test_killed_at_any_disk_call_a_rerun_equals_an_uninterrupted_run(tmp_path, order):
    kill_everywhere(tmp_path, order, how_many=12)


@pytest.mark.slow
def test_killed_at_every_disk_call_a_rerun_equals_an_uninterrupted_run(tmp_path, order):
    kill_everywhere(tmp_path, order, how_many=10**6)


def kill_everywhere(tmp_path: Path, order: Order, how_many: int) -> None:
    calls = order("extract", tmp_path / "whole")["calls"]
    check_finished(tmp_path / "whole")
    points = kill_points(calls, how_many)
    assert len(points) >= min(how_many, 30)
    for point in points:
        root = tmp_path / f"killed {point}"
        assert order("extract", root, kill_at=point)["killed"]
        check_after_kill(root)
        finish(order, root)


def test_killed_repeatedly_at_random_moments_a_rerun_gives_the_same_store(tmp_path, order):
    """The timer flushes every 4 ms here, in a separate thread, at any point of the run."""
    rng = random.Random(1)
    latest_s = 0.15
    for round in range(3):
        root, kills, tries = tmp_path / str(round), 0, 0
        while kills < 4:
            tries += 1
            assert tries <= 40, "the run is over before it can be killed"
            killed = order("extract", root, kill_after_s=rng.uniform(0.002, latest_s))["killed"]
            check_after_kill(root)
            kills += killed
            if not killed:  # a fast machine had finished by then: start again, and kill earlier
                latest_s *= 0.7
                root = tmp_path / f"{round} after {tries}"
        finish(order, root)


def test_concurrent_runs_on_one_store_leave_the_store_of_one_run(tmp_path, order):
    """Both runs do all of the work, compact concurrently, and are killed repeatedly."""
    rng = random.Random(2)
    with workload() as other, ThreadPoolExecutor() as threads:
        for _ in range(6):
            moments = [rng.uniform(0.03, 0.4) for _ in range(2)]
            both = [
                threads.submit(give, "extract", tmp_path, None, moment)
                for give, moment in zip((order, other), moments, strict=True)
            ]
            assert all(one.result() for one in both)
            check_after_kill(tmp_path)
    finish(order, tmp_path)


def test_killed_while_archiving_no_row_is_lost_or_mixed(tmp_path, order):
    mixed = tmp_path / "mixed"
    write_manifest(mixed, manifest(2))
    written(mixed, *(row(name, stream, version=2) for name in "AB" for stream in DIMS))
    write_manifest(mixed, manifest())
    written(mixed, row("A"), row("A", "ast"))
    compact(mixed)
    written(mixed, row("B"), row("B", "ast"))

    calls = order("archive", shutil.copytree(mixed, tmp_path / "whole"))["calls"]
    for point in kill_points(calls, 20):
        root = shutil.copytree(mixed, tmp_path / str(point))
        assert order("archive", root, kill_at=point)["killed"]
        order("archive", root)
        for stream in DIMS:
            left = pd.read_parquet(root / f"stream={stream}")
            assert set(zip(left.video_id, left.settings_digest, strict=True)) == {
                (name, settings_of(stream)) for name in "AB"
            }
            aside = pd.read_parquet(root / "superseded" / settings_of(stream, 2) / f"stream={stream}")
            assert set(aside.video_id) == {"A", "B"}
        assert FeatureStore(root).video_ids == ("A", "B")


@pytest.mark.parametrize("num_points", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_during_a_repair_loses_no_row(tmp_path, order, num_points):
    damaged = written(new_store(tmp_path / "damaged"), *(row(name, stream) for name in "ABC" for stream in DIMS))
    for shard in damaged.rglob("part-*.parquet"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 4
        shard.write_bytes(data)
    (damaged / MANIFEST).write_bytes((damaged / MANIFEST).read_bytes()[:-1])
    calls = order("repair", shutil.copytree(damaged, tmp_path / "whole"))["calls"]
    for point in [None, *kill_points(calls, num_points)]:
        root = tmp_path / ("whole" if point is None else str(point))
        if point is not None:
            assert order("repair", shutil.copytree(damaged, root), kill_at=point)["killed"]
            order("repair", root)
        assert check_store(root).findings == []
        assert FeatureStore(root).video_ids == ("A", "B", "C")
        assert len(FeatureStore(root).outcomes()) == 6
        assert len(list((root / ".damaged").rglob("part-*.parquet"))) == 3

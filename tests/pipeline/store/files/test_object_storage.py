"""A store on object storage: the same store as on a disk, without its locks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from store_rows import manifest, new_store, outcome_of, row, settings_of, written

from arabesque.manifests.errors import InputError, MissingPackageError, StoreError
from arabesque.pipeline.planning.run_claims import OutcomeWatcher
from arabesque.pipeline.store.concurrency import coordination
from arabesque.pipeline.store.concurrency.coordination import LocklessCoordination
from arabesque.pipeline.store.files import urls
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.files.object_storage import ObjectStorage
from arabesque.pipeline.store.files.urls import UnreachableStore
from arabesque.pipeline.store.maintenance import compaction
from arabesque.pipeline.store.maintenance.compaction import archive_stale_rows, compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import MANIFEST, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_reading import read_places, read_table
from arabesque.pipeline.store.shards import shards_in, writer_of
from arabesque.pipeline.store.store import Store
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter


@pytest.fixture(params=["disk", "file", "memory", "s3"])
def place(request, tmp_path):
    """An empty place of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/features"
    return {"disk": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path.name}"}[request.param]


@pytest.fixture(params=["memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/features"
    return f"memory://{tmp_path.name}/features"


def shards(root, folder="stream=vst"):
    return shards_in(Store.open(root).storage, folder)


def overwrite(url, data):
    with fsspec.open(url, "wb") as file:
        file.write(data)


def read(url):
    with fsspec.open(url, "rb") as file:
        return file.read()


def make_old(monkeypatch):
    """Treat all writers as inactive, so that their shards count as leftovers."""
    monkeypatch.setattr(coordination, "IDLE_S", -10.0)


def test_files_are_complete_or_absent(place):
    folder = Store.open(place).storage
    assert folder.files("a") == folder.folders() == folder.entries() == []
    assert not folder.exists("a/one")
    folder.put("a/one", b"1", "w")
    folder.put("a/two", b"2", "w", new=True)
    folder.put("d/b/deep", b"3", "w")
    folder.put("top", b"", "w")
    assert folder.files("a") == ["a/one", "a/two"]
    assert (folder.folders(), folder.folders("d"), folder.entries()) == (["a", "d"], ["b"], ["a", "d", "top"])
    assert sorted(folder.all_files()) == ["a/one", "a/two", "d/b/deep", "top"]
    folder.put("a/one", b"other", "w")
    folder.move("a/two", "c/two")
    assert (folder.read("a/one"), folder.read("c/two"), folder.exists("a/two")) == (b"other", b"2", False)
    folder.remove("a/one")
    folder.remove("a/one")
    assert list(folder.each(folder.read, ["c/two", "d/b/deep"])) == [b"2", b"3"]
    with pytest.raises(FileNotFoundError):
        folder.read("a/one")


def test_a_listing_misses_no_merged_file_and_ends_while_others_write(place, monkeypatch):
    folder = Store.open(place).storage
    growing = [[f"part-{number}" for number in range(length)] for length in range(1, 6)]
    for lists, complete in (
        (growing, growing[1]),
        ([["a", "b"], ["b"], ["b", "merged"], ["b", "merged"]], ["b", "merged"]),
    ):
        coming = iter(lists if isinstance(folder, LocalStorage) else map(entries_of, lists))
        listing = (os, "listdir") if isinstance(folder, LocalStorage) else (type(folder), "_list")
        with monkeypatch.context() as patched:
            patched.setattr(*listing, lambda *_, coming=coming: next(coming))
            assert folder.files("x") == [f"x/{name}" for name in complete]


def entries_of(names):
    """Return the listing of an object store with these files."""
    return [{"name": name, "type": "file"} for name in names]


def test_a_new_object_does_not_replace_another(url):
    folder = Store.open(url).storage
    folder.put("part-w-0.parquet", b"first", "w", new=True)
    folder.put("part-w-0.parquet", b"first", "w", new=True)  # the response was lost, and the request repeated
    with pytest.raises(StoreError, match="another writer has written this file"):
        folder.put("part-w-0.parquet", b"second", "w", new=True)
    assert folder.read("part-w-0.parquet") == b"first"


def test_a_store_at_a_url_equals_one_on_a_disk(place):
    new_store(place)
    rows = [row(name, stream, segments=5) for name in "ABC" for stream in ("vst", "ast")]
    with StoreWriter(place) as writer:
        for number, one in enumerate(rows):
            writer.add(one)
            writer.add_outcome(outcome_of(one))
            if number % 2:
                writer.flush()
        writer.add_progress("unfinished", 3, 0.0, 1.0, np.ones(4, np.float32))
    assert len(shards(place)) == 3
    assert compact(place, writer.writer_id).shards_merged == 9
    store = FeatureStore(place)
    assert store.video_ids == ("A", "B", "C")
    for one in rows:
        stored = store[one.video_id][one.stream]
        assert stored.values.tobytes() == one.features.tobytes()
        assert stored.key == one.key
    assert [features.video_id for features in store.scan("vst")] == ["A", "B", "C"]
    assert store.outcomes() == sorted(map(outcome_of, rows), key=lambda end: (end.video_id, end.stream))
    assert list(WriteAheadLog(place)["unfinished"]) == [3]
    assert len(shards(place)) == len(shards(place, "outcomes")) == 1
    assert not check_store(place).findings


def test_pandas_reads_it_without_us(bucket):
    url = f"{bucket}/features"
    written(new_store(url), row("A"), row("B"))
    table = pd.read_parquet(f"{url}/stream=vst")
    assert list(table.video_id) == ["A", "B"]
    assert np.array_equal(np.stack(table.features[0]), row("A").features)


def test_rows_of_other_settings_are_archived(url):
    written(new_store(url), row("A"), row("B"))
    write_manifest(url, manifest(2))
    written(url, row("A", version=2))
    assert archive_stale_rows(url, "vst", settings_of("vst", 2)) == 2
    assert FeatureStore(url).video_ids == ("A",)
    assert len(shards(url)) == len(shards(url, f"superseded/{settings_of('vst')}/stream=vst")) == 1


def test_damage_is_found_and_repaired(url):
    written(new_store(url), row("A"), row("B"))
    (shard,) = shards(url)
    whole = read(f"{url}/{shard}")
    overwrite(f"{url}/{shard}", whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    found = check_store(url)
    assert found.damaged_files == (shard,)
    done = repair_store(url)
    assert done.set_aside == (shard,)
    assert Store.open(url).storage.exists(f".damaged/{shard}")
    assert done.rows_kept + len(done.missing) == 2
    assert not check_store(url).damaged_files


def test_a_lost_manifest_comes_back_from_its_copy(url):
    written(new_store(url), row("A"))
    Store.open(url).storage.remove(MANIFEST)
    with pytest.raises(StoreError, match=r"is not a feature store: it has no arabesque\.toml"):
        FeatureStore(url)
    assert repair_store(url).manifest_restored
    assert FeatureStore(url).video_ids == ("A",)


def test_a_prefix_with_other_objects_is_not_a_store(url):
    overwrite(f"{url}/holiday.jpg", b"x")
    with pytest.raises(StoreError, match=r"contains other files \(holiday\.jpg\)"):
        new_store(url)


def test_a_run_merges_its_own_shards_and_leaves_those_of_others(url):
    new_store(url)
    written(url, row("Theirs"))
    for name in ("A", "B"):
        written(url, row(name), writer_id=f"me.{name}")
    with StoreWriter(url) as writer:
        for name in ("C", "D"):
            writer.add(row(name))
            writer.flush()
    assert compact(url, writer.writer_id).shards_merged == 2
    assert len(shards(url)) == 4
    assert FeatureStore(url).video_ids == ("A", "B", "C", "D", "Theirs")


def test_shards_of_a_killed_run_are_merged_when_they_are_old(url, monkeypatch):
    new_store(url)
    for name in "ABC":
        written(url, row(name))
    Store.open(url).storage.put(".reorganizing", b"of a run that was killed", "w")
    assert compact(url).shards_merged == 0
    make_old(monkeypatch)
    assert compact(url).shards_merged == 6
    assert FeatureStore(url).video_ids == ("A", "B", "C")
    assert not Store.open(url).storage.exists(".reorganizing")


def test_during_a_compaction_another_run_merges_only_its_own_shards(url):
    folder = Store.open(new_store(url)).storage
    for name in "AB":
        written(url, row(name))
    theirs = {"stream=vst": shards(url)}
    listed = {name: {shard: writer_of(shard) for shard in found} for name, found in theirs.items()}
    first, second = LocklessCoordination(folder), LocklessCoordination(folder)
    with pytest.MonkeyPatch.context() as patch, first.reorganizing(), second.reorganizing():
        make_old(patch)
        assert first.idle(listed, None) == theirs
        assert second.idle(listed, None) == {"stream=vst": []}


def test_a_lease_that_is_released_during_a_request_is_not_granted(url, monkeypatch):
    folder = Store.open(new_store(url)).storage
    read = ObjectStorage.read

    def late(self: ObjectStorage, name: str) -> bytes:
        self.remove(name)
        return read(self, name)

    with LocklessCoordination(folder).reorganizing():
        monkeypatch.setattr(ObjectStorage, "read", late)
        assert not folder.create(".reorganizing", b"mine")


class Turns:
    """Threads of which one at a time makes a step, chosen at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._here = threading.local()
        self._arrived = threading.Semaphore(0)

    def step(self) -> None:
        self._arrived.release()
        self._turns[self._here.number].acquire()

    def run(self, *acts: Callable[[], object]) -> None:
        self._turns = [threading.Semaphore(0) for _ in acts]
        alive = set(range(len(acts)))

        def begin(number: int) -> None:
            self._here.number = number
            try:
                self.step()
                acts[number]()
            finally:
                alive.discard(number)
                self._arrived.release()

        with ThreadPoolExecutor(len(acts)) as pool:
            begun = [pool.submit(begin, number) for number in range(len(acts))]
            for _ in acts:
                self._arrived.acquire()
            while alive:
                chosen = self._random.choice(sorted(alive))  # for some steps: the others are suspended during a step
                for _ in range(self._random.choice([1, 5, 25, 125])):
                    if chosen in alive:
                        self._turns[chosen].release()
                        self._arrived.acquire()
        for one in begun:
            one.result()


def stepped(turns: Turns) -> type[ObjectStorage]:
    """An object store whose requests wait for the turn of their thread."""

    def step(name: str) -> Callable[..., Any]:
        def act(self: ObjectStorage, *arguments: Any, **options: Any) -> Any:
            turns.step()
            return getattr(ObjectStorage, name)(self, *arguments, **options)

        return act

    requests = {name: step(name) for name in ("times", "opened", "create", "remove")}
    return type("Stepped", (ObjectStorage,), requests | {"each": lambda self, act, names: map(act, names)})


def compact_twice(store, *sizes):
    for size in sizes:
        compact(store, max_shard_bytes=size)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))])
def test_concurrent_compactions_lose_no_row(seed, tmp_path, monkeypatch):
    """Three concurrent compactions without a lease, repeated, on a store with duplicated and replaced rows."""
    root = new_store(f"memory://{tmp_path.name}/features")
    make_old(monkeypatch)
    monkeypatch.setattr(coordination.LocklessCoordination, "_take_lease", lambda self: True)
    names = ["A", "B", "C"]
    rng = random.Random(seed)
    for name in names:
        written(root, row(name, content="old"))
    written(root, row("A"))
    kept = FeatureStore(root).keys("vst")
    for _ in range(3):
        turns = Turns(rng.random())
        stores = [Store(storage := stepped(turns)(root), LocklessCoordination(storage)) for _ in range(3)]
        turns.run(*(partial(compact_twice, store, *rng.choices([1, 200, 64 << 20], k=2)) for store in stores))
        assert FeatureStore(root).keys("vst") == kept
        assert {end.video_id: end.key for end in FeatureStore(root).outcomes()} == kept
    compact(root)
    stored = [place.video_id for shard in shards(root) for place in read_places(Store.open(root).storage, shard)]
    assert sorted(stored) == names
    assert not check_store(root).findings


def test_concurrent_compactions_do_not_remove_both_copies_of_a_row(tmp_path, monkeypatch):
    """One has chosen the first copy and is suspended; a second moves that copy, and a third chooses the other."""
    root = new_store(f"memory://{tmp_path.name}/features")
    for name in "AB":
        written(root, row(name), writer_id=".first", max_shard_bytes=1)
    first, copy = shards(root)[0], "stream=vst/part-.second-000000.parquet"
    Store.open(root).storage.put(copy, Store.open(root).storage.read(first), "")
    merge, in_parallel = compaction._merge, [partial(tidy, root, own=".first"), partial(tidy, root)]

    def late(*arguments: Any) -> int:
        monkeypatch.setattr(compaction, "_merge", merge)
        while in_parallel:
            in_parallel.pop(0)()
        return merge(*arguments)

    monkeypatch.setattr(compaction, "_merge", late)
    tidy(root)
    assert FeatureStore(root).video_ids == ("A", "B")


def tidy(root, own=None):
    """Merge the shards of ``own`` without a lease; or (None) take the lease, and rewrite shards only if necessary."""
    with pytest.MonkeyPatch.context() as patch:
        make_old(patch)
        patch.setattr(coordination.LocklessCoordination, "_take_lease", lambda self: own is None)
        compact(root, own, max_shard_bytes=1 if own is None else 64 << 20)


SIZE = 16 << 20
KILLED = f"""
import sys
from arabesque.pipeline.store.store import Store

folder, number = Store.open(sys.argv[1]).storage, 0
folder.put("a/0", b"0" * {SIZE}, "w")
print("begun", flush=True)
while True:
    number += 1
    folder.put("a/%d" % number, b"%d" % (number % 10) * {SIZE}, "w", new=True)
"""


def test_a_writer_that_is_killed_in_a_put_leaves_whole_objects_only(bucket):
    child = subprocess.Popen([sys.executable, "-c", KILLED, bucket], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(0.1)  # it does nothing but PUTs
    child.send_signal(signal.SIGKILL)
    child.communicate()
    folder = Store.open(bucket).storage
    assert folder.files("a")
    for name in folder.files("a"):
        assert folder.read(name) == name[-1].encode() * SIZE


def test_an_exception_while_a_shard_is_made_leaves_nothing_readable(url, monkeypatch):
    new_store(url)
    writer = StoreWriter(url)
    writer.add(row("A"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arabesque.pipeline.store.writer.shard_bytes", lambda table: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.flush()
    assert shards(url) == []
    writer.close()
    assert FeatureStore(url).video_ids == ("A",)


@pytest.mark.parametrize(("protocol", "extra"), [("s3", "s3"), ("gs", "gs")])
def test_a_missing_package_is_named_with_the_way_to_install_it(protocol, extra, monkeypatch):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(MissingPackageError, match=rf"{protocol}://: the package .* is not installed; .*\[{extra}\]"):
        FeatureStore(f"{protocol}://bucket/features")


def test_unknown_protocols_and_those_with_visible_unfinished_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="give a path or a supported URL"):
        FeatureStore("s4://bucket/features")
    with pytest.raises(InputError, match="incomplete files"):
        FeatureStore("sftp://host/features")


def test_unreachable_storage_is_not_reported_as_damaged(bucket, monkeypatch):
    url = f"{bucket}/features"
    written(new_store(url), row("A"))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise ConnectionResetError("reset by peer")

    store = FeatureStore(url)
    monkeypatch.setattr("s3fs.core.S3File._fetch_range", refuse)
    monkeypatch.setattr(urls.connect(url)[0], "cat_file", refuse)
    for act in (lambda: store.read("A", "vst"), lambda: list(store.scan("vst"))):
        with pytest.raises(UnreachableStore, match=r"cannot be reached \(ConnectionResetError: reset by peer"):
            act()
    with pytest.raises(UnreachableStore):
        repair_store(url)
    monkeypatch.undo()
    assert not check_store(url).findings


def test_missing_buckets_and_wrong_credentials_are_reported(bucket):
    with pytest.raises(StoreError, match="bucket does not exist"):
        new_store(f"{bucket}-other/features")


def test_outcomes_of_others_are_listed_at_intervals(url, monkeypatch):
    new_store(url)
    news, lists = OutcomeWatcher(url), []
    times = ObjectStorage.times
    monkeypatch.setattr(ObjectStorage, "times", lambda self, name: lists.append(name) or times(self, name))
    for _ in range(50):
        news.refresh("me")
    assert len(lists) == 2


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"LastModified": datetime(2026, 1, 1, tzinfo=UTC), "ETag": '"a"'}, 1767225600_829_654_686),
        ({"mtime": 1.5}, 1_500_000_000),
        ({"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, 1767225600_000_000_000),
        ({"modified": datetime(2026, 1, 1)}, 1767225600_000_000_000),
        ({"updated": "2026-01-01T00:00:00.250Z", "etag": "b"}, 1767225600_250_000_000),
        ({}, 0),
    ],
)
def test_times_of_objects_distinguish_contents_within_a_second(entry, expected):
    assert urls.modified_ns(entry) == expected


@pytest.mark.parametrize("request_name", ["sizes", "cat_ranges"])
def test_a_shard_that_is_merged_between_two_requests_is_gone_and_not_damaged(url, monkeypatch, request_name):
    written(new_store(url), row("a"))
    folder, (shard,) = ObjectStorage(url), shards(url)
    files, key = folder._at(shard)
    real = getattr(files, request_name)

    def merged_meanwhile(*arguments, **options):
        try:
            return real(*arguments, **options)
        finally:
            if files.exists(key):
                files.rm_file(key)

    monkeypatch.setattr(files, request_name, merged_meanwhile)
    with suppress(FileNotFoundError):
        read_table(folder, shard, ["video_id"])
    monkeypatch.undo()
    assert not files.exists(key)
    with pytest.raises(FileNotFoundError):
        read_table(folder, shard, ["video_id"])

"""Reads of single rows: by position in current shards, decoded in earlier ones; wrong numbers are always an error."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import new_store, outcome_of, row, shards

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.store import open_shards
from arabesque.pipeline.store.files.object_storage import ObjectStorage
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_reading import read_shard_table
from arabesque.pipeline.store.shard_stamp import BLANK, STAMP, stamped
from arabesque.pipeline.store.store import Store
from arabesque.pipeline.store.writer import StoreWriter

ROWS = [row(f"Ball_{number:03d}", segments=2 + number) for number in range(6)]


def written(root: Any, **options: Any) -> Any:
    with StoreWriter(new_store(root), **options) as writer:
        for made in ROWS:
            writer.add(made)
            writer.add_outcome(outcome_of(made))
    return root


def places(root: Any) -> np.ndarray:
    storage = Store.open(root).storage
    [shard] = [name for name in storage.files("stream=vst") if name.endswith(".parquet")]
    return read_shard_table(storage, shard).places


def rewritten(root: Path, **options: Any) -> Path:
    """Rewrite the shard in the form of another version."""
    [path] = shards(root)
    with pq.ParquetFile(path) as file:
        table, keys = file.read(), file.metadata.metadata[b"arabesque.keys"].decode()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=4)
        writer.add_key_value_metadata({"arabesque.keys": keys, STAMP: BLANK})
    path.write_bytes(stamped(sink.getvalue().to_pybytes()))
    return root


def check(root: Any) -> FeatureStore:
    store = FeatureStore(root)
    for made in (*reversed(ROWS), *ROWS):
        found = store.read(made.video_id, "vst")
        np.testing.assert_array_equal(found.values, made.features)
        np.testing.assert_array_equal(found.end_s, made.end_s)
        assert found.values.flags.writeable
        assert found.provenance == made.provenance
    return store


@pytest.mark.parametrize("float16", [False, True])
def test_each_row_is_read_by_its_place(tmp_path: Path, float16: bool) -> None:
    written(tmp_path, float16=float16)
    assert (places(tmp_path) > 0).all()
    store = FeatureStore(tmp_path)
    for made in reversed(ROWS):
        expected = made.features.astype(np.float16 if float16 else np.float32).astype(np.float32)
        np.testing.assert_array_equal(store.read(made.video_id, "vst").values, expected)


def test_nothing_is_decoded_for_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)

    def decoded(*_: Any) -> None:
        raise AssertionError("a row is decoded")

    monkeypatch.setattr(open_shards, "read_rows", decoded)
    store = check(tmp_path)
    os.unlink(shards(tmp_path)[0])  # merged by another process
    np.testing.assert_array_equal(store.read("Ball_001", "vst").values, ROWS[1].features)


LEAF = "features.list.element.list.element"


@pytest.mark.parametrize(
    ("options", "are_placed"),
    [
        ({"compression": "zstd", "use_dictionary": False, "column_encoding": {LEAF: "BYTE_STREAM_SPLIT"}}, False),
        ({"compression": "none", "use_dictionary": True}, False),
        ({"compression": "none", "use_dictionary": False, "data_page_size": 16, "write_batch_size": 1}, True),
        ({"compression": "none", "use_dictionary": False, "data_page_version": "2.0"}, True),
    ],
)
def test_shards_of_other_versions_are_read(tmp_path: Path, options: dict[str, Any], are_placed: bool) -> None:
    """Positions differ if a chunk has several pages: the checksum shows that, and the row is decoded."""
    rewritten(written(tmp_path), **options)
    assert bool((places(tmp_path) >= 0).any()) == are_placed
    check(tmp_path)


def test_shards_of_both_versions_are_merged(tmp_path: Path) -> None:
    options = {"compression": "zstd", "use_dictionary": False, "column_encoding": {LEAF: "BYTE_STREAM_SPLIT"}}
    rewritten(written(tmp_path), **options)
    with StoreWriter(tmp_path) as writer:
        writer.add(row("Hoop_001"))
        writer.add_outcome(outcome_of(row("Hoop_001")))
    compact(tmp_path, writer.writer_id)
    assert (places(tmp_path) > 0).all()
    assert len(check(tmp_path)) == len(ROWS) + 1


def test_every_damaged_number_is_an_error(tmp_path: Path) -> None:
    written(tmp_path)
    [path] = shards(tmp_path)
    content = path.read_bytes()
    at = places(tmp_path)
    for number, made in enumerate(ROWS):
        for offset in (0, made.features.nbytes - 1):
            damaged = bytearray(content)
            damaged[at[number] + offset] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(StoreError, match=r"damaged \("):
                FeatureStore(tmp_path).read(made.video_id, "vst")
    path.write_bytes(content)
    check(tmp_path)


def test_a_shard_that_is_cut_off_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    store = check(written(tmp_path))
    [path] = shards(tmp_path)
    os.truncate(path, int(places(tmp_path)[3]) + 1)
    np.testing.assert_array_equal(store.read("Ball_000", "vst").values, ROWS[0].features)
    with pytest.raises(StoreError, match="ends at"):
        store.read("Ball_003", "vst")


def _first(store: FeatureStore) -> list[float]:
    return [float(store.read(made.video_id, "vst").values[0, 0]) for made in ROWS]


@pytest.mark.parametrize("method", ["fork", "pickle"])
def test_other_processes_read_an_open_store(tmp_path: Path, method: str) -> None:
    store, expected = check(written(tmp_path)), [float(made.features[0, 0]) for made in ROWS]
    if method == "pickle":
        assert _first(pickle.loads(pickle.dumps(store))) == expected  # noqa: S301 - our own bytes
        return
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_first, [store, store]) == [expected, expected]


def test_few_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_shards, "MAX_OPEN", 1)
    new_store(tmp_path)
    for made in ROWS[:3]:
        with StoreWriter(tmp_path) as writer:
            writer.add(made)
    store = FeatureStore(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for made in (*ROWS[:3], *ROWS[:3]):
        np.testing.assert_array_equal(store.read(made.video_id, "vst").values, made.features)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    original: Callable[..., bytes] = ObjectStorage.read_range

    def read_range(self: ObjectStorage, name: str, start: int, end: int) -> bytes:
        ranges.append((start, end))
        return original(self, name, start, end)

    monkeypatch.setattr(ObjectStorage, "read_range", read_range)
    return ranges


def test_one_row_is_one_ranged_request_to_object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{tmp_path.name}/features"
    written(url)
    ranges = counted(monkeypatch)
    store = FeatureStore(url)
    np.testing.assert_array_equal(store.read("Ball_004", "vst").values, ROWS[4].features)
    assert [end - start for start, end in ranges] == [ROWS[4].features.nbytes]
    ranges.clear()
    found = store.read_many("vst", [made.video_id for made in ROWS])
    assert len(ranges) == 1, "rows that are near each other are one request"
    for made in ROWS:
        np.testing.assert_array_equal(found[made.video_id].values, made.features)

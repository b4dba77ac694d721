from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from store_rows import new_store, outcome_of, row, shards
from tripwire import TrippedOs

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.files import local
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_stamp import is_intact
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter


def within(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met


def test_rows_are_restored_bit_for_bit(tmp_path):
    wanted = row("Club/Ball_001", segments=7)
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(wanted)
        writer.add_outcome(outcome_of(wanted))
    found = FeatureStore(tmp_path)["Club/Ball_001"]["vst"]
    assert found.values.tobytes() == wanted.features.tobytes()
    assert found.start_s.tobytes() == wanted.start_s.tobytes()
    assert found.end_s.tobytes() == wanted.end_s.tobytes()
    assert (found.key, found.content_digest, found.outcome) == (wanted.key, wanted.content_digest, "done")
    assert found.provenance == wanted.provenance
    assert FeatureStore(tmp_path).outcomes() == [outcome_of(wanted)]


def test_changes_after_add_do_not_affect_the_row(tmp_path):
    made = row("Ball_001")
    before = made.features.copy()
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(made)
        made.features[:] = 0
    assert np.array_equal(FeatureStore(tmp_path)["Ball_001"]["vst"], before)


def written_in_turns(root: Path, count: int, **options: Any) -> list[str]:
    """Write each video into separate shards; return the ids."""
    names = [f"Ball_{number:03d}" for number in range(count)]
    with StoreWriter(new_store(root), **options) as writer:
        for name in names:
            writer.add(row(name))
            writer.add_outcome(outcome_of(row(name)))
            writer.flush()
    return names


def test_a_long_run_leaves_few_shards(tmp_path):
    names = written_in_turns(tmp_path, 21, max_small_shards=4)
    assert len(shards(tmp_path)) <= 4
    assert len(shards(tmp_path, "outcomes")) <= 4
    store = FeatureStore(tmp_path)
    assert all(np.array_equal(store[name]["vst"], row(name).features) for name in names)
    assert store.outcomes() == [outcome_of(row(name)) for name in names]
    assert check_store(tmp_path).findings == []


@pytest.mark.parametrize("merged", [["put"], ["put", "remove"]], ids=["whole", "half removed"])
def test_an_interrupted_merge_leaves_every_row_once(tmp_path, monkeypatch, merged):
    """The disk fails during a write: the store reads as if the write had not started."""
    removed: list[str] = []
    remove = LocalStorage.remove

    def refuse(folder: LocalStorage, name: str) -> None:
        if len(removed) == len(merged) - 1:
            raise StoreError("the plug is out")
        removed.append(name)
        remove(folder, name)

    monkeypatch.setattr(LocalStorage, "remove", refuse)
    with pytest.raises(StoreError, match="the plug is out"):
        written_in_turns(tmp_path, 4, max_small_shards=4)
    monkeypatch.undo()
    assert len(shards(tmp_path)) == 5 - len(removed)
    store = FeatureStore(tmp_path)
    assert [features.video_id for features in store.scan("vst")] == [f"Ball_{number:03d}" for number in range(4)]
    assert len(store.outcomes()) == 4
    compact(tmp_path)
    assert len(shards(tmp_path)) == 1
    assert len(FeatureStore(tmp_path)) == 4


def test_a_shard_closes_when_it_is_full(tmp_path):
    one = row("Ball_001")
    with StoreWriter(new_store(tmp_path), max_shard_bytes=2 * one.features.nbytes) as writer:
        for number in range(5):
            writer.add(row(f"Ball_{number:03d}"))
        assert len(shards(tmp_path)) == 2
        writer.add(row("Ball_000", "ast"))
        assert not shards(tmp_path, "stream=ast")
    assert len(shards(tmp_path)) == 3
    assert len(FeatureStore(tmp_path)) == 5


def test_data_is_on_disk_at_its_maximum_age_without_further_additions(tmp_path):
    with StoreWriter(new_store(tmp_path), max_age_s=0.2) as writer:
        for done in range(2):  # the second time after a flush
            writer.add(row(f"Ball_{done:03d}"))
            writer.add_progress("some key", done, 0.0, 1.0, np.ones(4, np.float32))
            for folder in ("stream=vst", ".progress"):
                assert within(10.0, lambda folder=folder, done=done: len(shards(tmp_path, folder)) == done + 1)


def test_nothing_is_written_before_it_is_old_or_large(tmp_path):
    with StoreWriter(new_store(tmp_path)) as writer:
        for number in range(50):
            writer.add(row(f"Ball_{number:03d}"))
            writer.add_outcome(outcome_of(row(f"Ball_{number:03d}")))
        assert not list(tmp_path.rglob("part-*"))
    assert len(list(tmp_path.rglob("part-*"))) == 2


def test_rows_are_on_disk_before_their_outcomes(tmp_path, monkeypatch):
    writer = StoreWriter(new_store(tmp_path), max_age_s=1000)
    order: list[str] = []
    put = LocalStorage.put

    def put_and_add(self: LocalStorage, name: str, data: bytes, owner: str, **options: bool) -> None:
        put(self, name, data, owner, **options)
        order.append(name.partition("/")[0])
        if len(order) == 1:  # arrives while a flush is under way, its row's stream written already
            writer.add(row("Late"))
            writer.add_outcome(outcome_of(row("Late")))

    monkeypatch.setattr(LocalStorage, "put", put_and_add)
    writer.add(row("Early"))
    writer.add_outcome(outcome_of(row("Early")))
    writer.flush()
    assert order == ["stream=vst", "outcomes"]
    stored = pd.read_parquet(tmp_path / "outcomes")
    assert list(stored.video_id) == ["Early"]
    writer.close()
    assert sorted(pd.read_parquet(tmp_path / "outcomes").video_id) == ["Early", "Late"]


def refusing(code: int, at: int = 0) -> TrippedOs:
    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        raise OSError(code, os.strerror(code))

    return TrippedOs(at, refuse, only="write")


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "disk is full; free space"), (errno.EROFS, "choose another output folder")]
)
def test_a_full_or_locked_disk_loses_nothing_and_is_named(tmp_path, monkeypatch, code, advice):
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("Ball_000"))
        writer.flush()
        writer.add(row("Ball_001"))
        with monkeypatch.context() as patch:
            patch.setattr(local, "os", refusing(code))
            with pytest.raises(StoreError, match=rf"stream=vst/part-\w+-000001.parquet: .*{advice}"):
                writer.flush()
            assert FeatureStore(tmp_path).video_ids == ("Ball_000",)
            assert not list(tmp_path.rglob(".tmp-*"))
        writer.flush()
        assert FeatureStore(tmp_path).video_ids == ("Ball_000", "Ball_001")


def test_errors_of_the_timer_are_raised_by_the_next_call_and_cleared_by_a_flush(tmp_path, monkeypatch):
    with StoreWriter(new_store(tmp_path), max_age_s=0.05) as writer:
        with monkeypatch.context() as patch:
            tripped = refusing(errno.ENOSPC)
            patch.setattr(local, "os", tripped)
            writer.add(row("Ball_000"))
            assert within(10.0, lambda: writer._error is not None)
            with pytest.raises(StoreError, match="free space"):
                writer.add(row("Ball_001"))
        writer.flush()
        writer.add(row("Ball_002"))
    assert FeatureStore(tmp_path).video_ids == ("Ball_000", "Ball_002")


def test_closing_raises_write_errors_and_still_ends_the_writer(tmp_path, monkeypatch):
    writer = StoreWriter(new_store(tmp_path), writer_id="w1")
    writer.add(row("Ball_000"))
    with monkeypatch.context() as patch:
        patch.setattr(local, "os", refusing(errno.ENOSPC))
        with pytest.raises(StoreError, match="free space"):
            writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.add(row("Ball_001"))
    StoreWriter(tmp_path, writer_id="w1").close()


def changed(**fields: Any) -> FeatureRow:
    return replace(row("Ball_001"), **fields)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (changed(stream="i3d"), "only vst, ast"),
        (changed(settings_digest="f" * 32), "has settings f+"),
        (changed(features=np.zeros((3, 5), np.float32)), r"float32 \[3, 5\], not float32 \[segments, 4\]"),
        (changed(features=np.zeros((3, 4))), "float64"),
        (changed(features=np.zeros((0, 4), np.float32)), "at least one segment"),
        (changed(start_s=np.zeros(2)), "for each of 3 segments"),
        (changed(end_s=np.zeros(3)), "before its end_s"),
        (changed(features=np.full((3, 4), np.nan, np.float32)), "reach nan"),
        (changed(features=np.full((3, 4), np.inf, np.float32)), "reach inf"),
    ],
)
def test_a_row_of_another_stream_or_dim_is_refused(tmp_path, bad, message):
    with StoreWriter(new_store(tmp_path)) as writer, pytest.raises(ValueError, match=rf"Ball_001, stream .*{message}"):
        writer.add(bad)
    assert not shards(tmp_path)


def test_float16_on_request(tmp_path):
    wanted = row("Ball_001")
    with StoreWriter(new_store(tmp_path), float16=True) as writer:
        writer.add(wanted)
        with pytest.raises(ValueError, match="reach 70000"):
            writer.add(changed(features=np.full((3, 4), 7e4, np.float32)))
    assert "halffloat" in str(pq.ParquetFile(shards(tmp_path)[0]).schema_arrow.field("features").type)
    values = FeatureStore(tmp_path)["Ball_001"]["vst"].values
    assert values.dtype == np.float32
    assert np.array_equal(values, wanted.features.astype(np.float16))
    with pytest.raises(StoreError, match="contains float16 features, not float32"):
        StoreWriter(tmp_path)


def test_a_folder_without_a_manifest_takes_no_rows(tmp_path):
    with pytest.raises(StoreError, match=r"is not a feature store"):
        StoreWriter(tmp_path)


def test_two_living_writers_never_share_an_id_and_a_reused_id_never_a_name(tmp_path):
    with StoreWriter(new_store(tmp_path), writer_id="node1") as writer:
        writer.add(row("Ball_000"))
        with pytest.raises(StoreError, match=r"node1\.lock: a living process uses this writer id"):
            StoreWriter(tmp_path, writer_id="node1")
    with StoreWriter(tmp_path, writer_id="node1") as writer:
        writer.add(row("Ball_001"))
    assert len(FeatureStore(tmp_path)) == 2
    with pytest.raises(ValueError, match="writer id 'a/b'"):
        StoreWriter(tmp_path, writer_id="a/b")


def test_shards_are_what_other_tools_expect(tmp_path):
    with StoreWriter(new_store(tmp_path)) as writer:
        for number in range(3):
            writer.add(row(f"Ball_{number:03d}", segments=2 + number))
            writer.add_outcome(outcome_of(row(f"Ball_{number:03d}", segments=2 + number)))
    file = pq.ParquetFile(shards(tmp_path)[0])
    features = file.metadata.row_group(0).column(file.schema_arrow.names.index("features"))
    assert features.compression == "UNCOMPRESSED"
    assert set(features.encodings) == {"PLAIN", "RLE"}
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert is_intact(shards(tmp_path)[0].read_bytes())

    table = pd.read_parquet(tmp_path / "stream=vst")
    assert list(table.stream) == ["vst"] * 3
    assert np.array_equal(np.stack(table.features[2]), row("Ball_002", segments=4).features)
    assert json.loads(table.provenance[0]) == row("Ball_000").provenance
    assert str(table.written_at.dtype) == "datetime64[us, UTC]"
    outcomes = pd.read_parquet(tmp_path / "outcomes")
    assert list(outcomes.kind) == ["done"] * 3
    assert outcomes.modified_ns[0] == 2**60 + 1


def test_polars_reads_all_streams_of_a_store_at_once(tmp_path):
    polars = pytest.importorskip("polars")
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("Ball_000"))
        writer.flush()
        writer.add(row("Ball_001"))
    table = polars.read_parquet(tmp_path / "stream=vst" / "*.parquet").sort("video_id")
    assert np.array_equal(np.array(table["features"][1].to_list(), np.float32), row("Ball_001").features)
    assert polars.scan_parquet(tmp_path / "stream=*" / "*.parquet").select("stream").collect().to_series()[0] == "vst"


def test_the_log_keeps_segments_of_unfinished_rows_only(tmp_path):
    whole, broken = row("Ball_000"), row("Ball_001")
    with StoreWriter(new_store(tmp_path)) as writer:
        for made in (whole, broken):
            for index in range(2):
                writer.add_progress(made.key, index, made.start_s[index], made.end_s[index], made.features[index])
        writer.add_progress(broken.key, 2, 2.56, 3.84, None)
        writer.flush()
        journal = WriteAheadLog(tmp_path)
        assert set(journal) == {whole.key, broken.key}
        assert journal[whole.key][1].feature.tobytes() == whole.features[1].tobytes()
        assert (journal[broken.key][1].start_s, journal[broken.key][1].end_s) == (1.28, 2.56)
        assert journal[broken.key][2].feature is None
        writer.add(whole)
        writer.flush()
        assert broken.key in WriteAheadLog(tmp_path)
        writer.add_outcome(outcome_of(broken, "failed", reason="out of memory", transient=True))
        writer.flush()
        assert broken.key in WriteAheadLog(tmp_path)
        writer.add_outcome(outcome_of(broken, "failed", reason="damaged"))
    assert not WriteAheadLog(tmp_path)
    assert not shards(tmp_path, ".progress")


def test_a_row_that_is_complete_in_time_is_never_logged(tmp_path):
    with StoreWriter(new_store(tmp_path)) as writer:
        made = row("Ball_000")
        writer.add_progress(made.key, 0, 0.0, 1.28, made.features[0])
        writer.add(made)
    assert not (tmp_path / ".progress").exists()


def test_every_flipped_bit_is_found(tmp_path):
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("Ball_000", segments=1))
    data = shards(tmp_path)[0].read_bytes()
    assert is_intact(data)
    undetected = [
        place
        for place in range(len(data))
        if is_intact(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
    ]
    assert undetected == []

"""Shards of earlier versions lack columns; they are read with defaults and merged with today's."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import outcome_of, row, shards, written

from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_reading import read_logged_segments, read_outcomes, read_places, read_rows
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter

EARLIER = Path(__file__).parents[2] / "golden" / "store_without_counters.zip"
"""Written by commit 663f00c with `store_rows`: two writers, a replaced row, an empty stream, two journaled segments."""
ADDED = {"source", "input_root", "holes", "lost_share", "counter"}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    with zipfile.ZipFile(EARLIER) as archive:
        archive.extractall(tmp_path)
    for shard in tmp_path.glob("*/part-*.parquet"):
        assert not ADDED & set(pq.read_schema(shard).names)
    return tmp_path


def check_rows(root: Path) -> FeatureStore:
    store = FeatureStore(root)
    made = {("Ball_001", "vst"): row("Ball_001"), ("Ball_001", "ast"): row("Ball_001", "ast")}
    made["Ball_002", "vst"] = row("Ball_002", content="changed")
    for (video_id, stream), expected in made.items():
        assert np.array_equal(store[video_id][stream].values, expected.features)
        assert store[video_id][stream].content_digest == expected.content_digest
    return store


def test_a_store_of_an_earlier_version_is_read_with_defaults(earlier):
    ends = check_rows(earlier).outcomes()
    assert {(end.video_id, end.stream): end.kind for end in ends} == {
        ("Ball_001", "ast"): "done",
        ("Ball_001", "vst"): "done",
        ("Ball_002", "ast"): "empty",
        ("Ball_002", "vst"): "done",
    }
    assert all((end.source, end.input_root, end.holes, end.lost_share) == ("", "", (), 0.0) for end in ends)
    assert ends[0] == outcome_of(row("Ball_001", "ast"))
    journaled = WriteAheadLog(earlier)[row("Ball_003").key]
    assert np.array_equal(journaled[0].feature, np.ones(4))
    assert journaled[1].feature is None
    assert not check_store(earlier).findings


def test_counters_of_an_earlier_version_are_zero(earlier):
    folder = LocalStorage(earlier)
    for shard in (path.relative_to(earlier).as_posix() for path in shards(earlier)):
        assert {place.counter for place in read_places(folder, shard)} == {0}
        assert {stored.counter for _, stored in read_rows(folder, shard, [0])} == {0}
    for shard in (path.relative_to(earlier).as_posix() for path in shards(earlier, "outcomes")):
        assert {stored.counter for stored in read_outcomes(folder, shard)} == {0}
    (chunk,) = (path.relative_to(earlier).as_posix() for path in shards(earlier, ".progress"))
    assert [entry.counter for entry in read_logged_segments(folder, chunk)] == [0, 0]


def test_shards_of_an_earlier_version_are_merged_with_new_ones(earlier):
    written(earlier, row("Ball_004"), row("Ball_004", "ast"))
    with StoreWriter(earlier) as writer:
        writer.add_progress(row("Ball_005").key, 0, 0.0, 1.28, np.zeros(4, np.float32))
    assert compact(earlier).rows_dropped
    for folder in ("stream=vst", "stream=ast", "outcomes", ".progress"):
        (shard,) = shards(earlier, folder)
        assert "counter" in pq.read_schema(shard).names
    store = check_rows(earlier)
    assert np.array_equal(store["Ball_004"]["ast"].values, row("Ball_004", "ast").features)
    assert set(WriteAheadLog(earlier)) == {row("Ball_003").key, row("Ball_005").key}
    assert not check_store(earlier).findings
    assert compact(earlier).shards_merged == 0


def test_a_damaged_shard_of_an_earlier_version_is_repaired(earlier):
    shard = next(path for path in shards(earlier) if len(pq.read_table(path, columns=["key"])) == 2)
    data = bytearray(shard.read_bytes())
    data[data.rfind(b"arabesque.sha256") + len(b"arabesque.sha256") + 5] ^= 1
    shard.write_bytes(data)
    assert repair_store(earlier).rows_kept
    check_rows(earlier)


def test_source_and_holes_of_an_outcome_are_restored(earlier):
    outcome = replace(
        outcome_of(row("Ball_006"), "partial", reason="two holes"),
        source="skate/Ball_006.MP4",
        input_root="/data/videos",
        holes=((1 / 3, 2.5), (7.0, 7.1)),
        lost_share=0.125,
    )
    whole = replace(outcome, video_id="Ball_007", kind="done", holes=(), lost_share=0.0)
    with StoreWriter(earlier) as writer:
        for end in (outcome, whole):
            writer.add(row(end.video_id, outcome="partial" if end is outcome else "done"))
            writer.add_outcome(replace(end, key=row(end.video_id).key, content_digest=row(end.video_id).content_digest))
    assert ends_of(earlier, "Ball_006") == [replace(outcome, key=row("Ball_006").key)]
    before = ends_of(earlier, "Ball_007")
    assert (before[0].holes, before[0].source) == ((), "skate/Ball_006.MP4")
    compact(earlier)
    assert ends_of(earlier, "Ball_006") == [replace(outcome, key=row("Ball_006").key)]
    assert ends_of(earlier, "Ball_007") == before


def ends_of(root: Path, video_id: str) -> list[Outcome]:
    return FeatureStore(root).outcome_table.of_video(video_id)

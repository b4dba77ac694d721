"""The order in which runs read a file, not the clocks, determines which row and which outcome count."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from store_rows import new_store, outcome_of, row, shards, written

from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.files.local import LocalStorage
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.shard_writing import outcomes_table, rows_table, shard_bytes
from arabesque.pipeline.store.shards import StoredOutcome, StoredRow, outcome_values, shard_name
from arabesque.pipeline.store.writer import StoreWriter

DAY_S = 86400
SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch) -> SetClock:
    """Shift the wall clock by a number of seconds."""
    right = time.time_ns

    def set_clock(ahead_s: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: right() + round(ahead_s * 1e9))

    return set_clock


def earlier_version(root: Path, made: FeatureRow, written_us: int, sequence: int) -> None:
    """Write a row and its outcome in the form of versions without counters."""
    folder = LocalStorage(root)
    for place, table in (
        ("stream=vst", rows_table([StoredRow(made, written_us, "old")], float16=False)),
        ("outcomes", outcomes_table([StoredOutcome(outcome_values(outcome_of(made)), written_us, "old")])),
    ):
        data = shard_bytes(table.drop_columns(["counter"]) if place == "outcomes" else table)
        folder.put(shard_name(place, "old", sequence), data, "old")


def key_of(root: Path) -> str:
    """Return the key of the valid row of A, which is also that of the valid outcome."""
    store = FeatureStore(root)
    (end,) = store.outcomes()
    assert (end.kind, end.key) == ("done", store["A"]["vst"].key)
    return end.key


@pytest.mark.parametrize("ahead_s", [90, DAY_S, -DAY_S])
def test_a_replaced_file_counts_though_the_clock_of_the_first_run_was_wrong(tmp_path, set_clock, ahead_s):
    new_store(tmp_path)
    set_clock(ahead_s)
    written(tmp_path, row("A", content="old"))
    set_clock(0)
    for _ in range(2):
        written(tmp_path, row("A", content="new"))
        assert key_of(tmp_path) == row("A", content="new").key
        compact(tmp_path)
        assert key_of(tmp_path) == row("A", content="new").key
    (stored,) = pd.read_parquet(tmp_path / "stream=vst").key
    assert stored == row("A", content="new").key
    assert check_store(tmp_path).findings == []


def test_a_failure_under_a_fast_clock_is_superseded(tmp_path, set_clock):
    new_store(tmp_path)
    set_clock(DAY_S)
    with StoreWriter(tmp_path) as writer:
        writer.add_outcome(outcome_of(row("A"), "failed", reason="decoder crashed", transient=True))
    set_clock(0)
    written(tmp_path, row("A"))
    assert key_of(tmp_path) == row("A").key
    compact(tmp_path)
    assert list(pd.read_parquet(tmp_path / "outcomes").kind) == ["done"]


def test_each_writer_begins_above_the_greatest_counter_of_the_store(tmp_path):
    new_store(tmp_path)
    for content in ("one", "two", "three"):
        with StoreWriter(tmp_path) as writer:
            assert writer.next_counter() > writer.store_stamps.counter
            writer.add(row("A", content=content))  # killed before its outcome
    written(tmp_path, row("B"))
    counters = pd.read_parquet(tmp_path / "stream=vst").set_index("key").counter
    keys = [row("A", content=content).key for content in ("one", "two", "three")]
    assert 0 < counters[keys[0]] < counters[keys[1]] < counters[keys[2]] < counters[row("B").key]
    assert FeatureStore(tmp_path)["A"]["vst"].key == keys[2]
    assert StoreWriter(tmp_path).store_stamps.counter >= counters.max()


def test_among_rows_of_earlier_versions_the_time_decides_and_anything_new_is_newer(tmp_path):
    new_store(tmp_path)
    now_us = time.time_ns() // 1000
    earlier_version(tmp_path, row("A", content="second"), now_us + 10**12, 0)
    earlier_version(tmp_path, row("A", content="first"), now_us, 1)
    assert key_of(tmp_path) == row("A", content="second").key
    compact(tmp_path)
    assert key_of(tmp_path) == row("A", content="second").key
    written(tmp_path, row("A", content="third"))
    compact(tmp_path)
    assert key_of(tmp_path) == row("A", content="third").key


def test_a_suspended_run_that_finishes_later_does_not_replace_newer_rows(tmp_path):
    new_store(tmp_path)
    with StoreWriter(tmp_path) as stopped, StoreWriter(tmp_path) as other:
        stopped.begin_reading("A", stopped.next_counter())
        other.begin_reading("A", other.next_counter(above=stopped.next_counter()))
        for writer, content in ((other, "new"), (stopped, "old")):
            writer.add(row("A", content=content))
            writer.add_outcome(outcome_of(row("A", content=content)))
            writer.flush()
            assert key_of(tmp_path) == row("A", content="new").key
    compact(tmp_path)
    assert list(pd.read_parquet(tmp_path / "stream=vst").key) == [row("A", content="new").key]


def test_a_compaction_keeps_the_row_of_the_newest_bytes(tmp_path):
    """A file was replaced and then restored, and the run that read the restored file already had its row."""
    new_store(tmp_path)
    written(tmp_path, row("A", content="first"))
    written(tmp_path, row("A", content="second"))
    with StoreWriter(tmp_path) as writer:
        writer.add_outcome(outcome_of(row("A", content="first")))
    assert key_of(tmp_path) == row("A", content="first").key
    compact(tmp_path)
    assert key_of(tmp_path) == row("A", content="first").key
    assert len(shards(tmp_path)) == 1
    assert list(pd.read_parquet(tmp_path / "stream=vst").key) == [row("A", content="first").key]


def test_every_reader_uses_the_same_of_two_independent_writers(tmp_path):
    for turn in range(2):
        root = new_store(tmp_path / str(turn))
        with StoreWriter(root, writer_id="one") as one, StoreWriter(root, writer_id="two") as two:
            for writer, content in [(one, "a"), (two, "b")][:: 1 - 2 * turn]:
                writer.begin_reading("A", 7)
                writer.add(row("A", content=content))
                writer.add_outcome(outcome_of(row("A", content=content)))
        before = key_of(root)
        assert before == row("A", content="ba"[turn]).key, "of equal counters the one that was written later"
        compact(root)
        assert key_of(root) == before
        assert check_store(root).findings == []

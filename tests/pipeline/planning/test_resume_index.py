"""Disk accesses of planning a large folder, and that `are_done` agrees with `is_done`."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from store_rows import new_store, outcome_of, row, settings_of

from arabesque.pipeline.planning.discovery import find_videos
from arabesque.pipeline.planning.resume_index import ResumeIndex, read_resume_index
from arabesque.pipeline.planning.run_claims import OutcomeWatcher
from arabesque.pipeline.records import FileState, VideoFile
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store.index import OUTCOME_COLUMNS
from arabesque.pipeline.store.outcomes import OutcomeTable
from arabesque.pipeline.store.writer import StoreWriter

SETTINGS = {stream: settings_of(stream) for stream in ("vst", "ast")}
STATE = FileState(1000, 2**60 + 1, 0)
"""State of a file, as `outcome_of` records it"""
REPOSITORY = Path(__file__).parents[3]


class Watch:
    """Count the files that Python opens and the folders that it lists. An audit hook can be disabled, not removed."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.listens = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.listens and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
            self.counts["opened" if event == "open" else "listed", str(arguments[0])] += 1


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.listens = False


def write_video(path: Path) -> None:
    path.write_bytes(bytes(STATE.size_bytes))
    os.utime(path, ns=(STATE.modified_ns, STATE.modified_ns))


def store_of(root: Path, video_ids: list[str], per_shard: int) -> Path:
    with StoreWriter(new_store(root)) as writer:
        for number, video_id in enumerate(video_ids):
            for stream in SETTINGS:
                writer.add(row(video_id, stream))
                writer.add_outcome(outcome_of(row(video_id, stream)))
            if number % per_shard == 0:
                writer.flush()
    return root


def test_planning_reads_keys_only_opens_no_done_video_and_lists_folders_few_times(tmp_path, monkeypatch, watch):
    names = [f"{number:03d}" for number in range(40)]
    store = store_of(tmp_path / "store", names, per_shard=4)
    (tmp_path / "videos").mkdir()
    for name in [*names, "new"]:
        write_video(tmp_path / "videos" / f"{name}.mp4")

    read_columns: list[str] = []
    read = pq.ParquetFile.read

    def recorded(file: pq.ParquetFile, *, columns: Sequence[str] | None, use_threads: bool):
        read_columns.extend(columns or file.schema_arrow.names)
        return read(file, columns=columns, use_threads=use_threads)

    monkeypatch.setattr(pq.ParquetFile, "read", recorded)
    watch.counts.clear()
    news = OutcomeWatcher(store)
    videos = find_videos(tmp_path / "videos").videos
    settled = read_resume_index(store).are_done(videos, SETTINGS)
    watch.listens = False

    assert [file.video_id for file, is_settled in zip(videos, settled, strict=True) if not is_settled] == ["new"]
    assert set(read_columns) == set(OUTCOME_COLUMNS), "of rows the footers alone are read"
    assert not [path for kind, path in watch.counts if kind == "opened" and path.endswith(".mp4")]
    listed = {path: count for (kind, path), count in watch.counts.items() if kind == "listed"}
    assert listed.pop(str(tmp_path / "videos")) == 1
    assert len(list((store / "outcomes").iterdir())) > 8
    assert listed == {str(store / "outcomes"): 4, str(store / "stream=vst"): 2, str(store / "stream=ast"): 2}
    assert news.of_video("000").get("vst") is None


KINDS = {
    "done": outcome_of(row("A")),
    "of other bytes": outcome_of(row("A", content="other")),
    "of other settings": outcome_of(row("A", version=2)),
    "of another size": replace(outcome_of(row("A")), size_bytes=1),
    "not recorded": replace(outcome_of(row("A")), size_bytes=0, modified_ns=0),
    "empty": replace(outcome_of(row("A")), kind="empty"),
    "partial": replace(outcome_of(row("A")), kind="partial"),
    "failed": replace(outcome_of(row("A")), kind="failed"),
    "failed today": replace(outcome_of(row("A")), kind="failed", transient=True),
    "never read": replace(outcome_of(row("A")), kind="failed", key="", content_digest="", settings_digest=""),
    "nothing": None,
}


@pytest.mark.parametrize("retry_failed", [False, True])
def test_are_done_agrees_with_is_done(tmp_path, retry_failed):
    ends, files = [], []
    for kinds in product(KINDS, repeat=2):
        video_id = " and ".join(kinds)
        write_video(tmp_path / f"{video_id}.mp4")
        files.append(VideoFile(video_id, tmp_path / f"{video_id}.mp4", None if len(files) % 2 else STATE))
        for kind, stream in zip(kinds, SETTINGS, strict=True):
            version = 2 if kind == "of other settings" else 1
            made = row("A", stream, version=version, content="other" if kind == "of other bytes" else None)
            if (end := KINDS[kind]) is not None:
                keys = {"key": made.key, "settings_digest": made.settings_digest} if end.key else {}
                ends.append(replace(end, video_id=video_id, stream=stream, **keys))
    resume_index = ResumeIndex(OutcomeTable.of(ends), retry_failed=retry_failed)
    expected = {file.video_id: not resume_index.remaining_streams(file, SETTINGS) for file in files}
    assert dict(zip(expected, resume_index.are_done(files, SETTINGS).tolist(), strict=True)) == expected
    assert sum(expected.values()) == (9 if retry_failed else 25)
    assert not resume_index.are_done([VideoFile("done and done", tmp_path / "gone.mp4")], SETTINGS).any()
    assert ResumeIndex().are_done(files, SETTINGS).tolist() == [False] * len(files)


def test_shards_of_an_earlier_version_are_read_by_their_columns(tmp_path):
    """Earlier versions have no copy of the keys in the footer."""
    store = store_of(tmp_path / "store", ["A", "B"], per_shard=1)
    shards = sorted(store.glob("stream=vst/*.parquet"))
    assert len(shards) == 2
    for shard in shards:
        assert b"arabesque.keys" in (pq.read_metadata(shard).metadata or {})
        pq.write_table(pq.read_table(shard, partitioning=None), shard)
        assert b"arabesque.keys" not in (pq.read_metadata(shard).metadata or {})
    assert read_status(store).streams["vst"].counts == {"done": 2}


def test_planning_imports_nothing_for_each_shard(tmp_path, monkeypatch):
    """pyarrow's type inference of a list imports modules, which took longer than reading the shard."""
    stores = [store_of(tmp_path / str(count), list("ABCDEF")[:count], per_shard=1) for count in (2, 6)]
    real, counts = builtins.__import__, Counter[str]()

    def spy(name: str, *rest: Any, **more: Any) -> Any:
        counts[store.name] += name.startswith(("dateutil", "pandas"))
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", spy)
    for store in stores:
        read_resume_index(store)
    monkeypatch.undo()
    assert counts["6"] == counts["2"]


@pytest.mark.slow
def test_a_hundred_thousand_videos_are_planned_in_little_memory(tmp_path):
    steps = ["imports", "plan (Extraction.pending)", "read_status"]
    command = [sys.executable, REPOSITORY / "benchmarks" / "planning.py", "--json", "out.json", "--steps", *steps]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)})
    idle, planned, status = json.loads((tmp_path / "out.json").read_text())["results"]
    assert planned["told"] == "1000 pending"
    assert "motion {'done': 99000} 1000 left" in status["told"]
    assert planned["peak_mb"] - idle["peak_mb"] < 500

"""Manipulated stores: nothing outside of their folder is changed or removed."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing, suppress
from pathlib import Path

import pytest
from store_rows import manifest, new_store, row, settings_of, shards, written

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.store.concurrency.writer_locks import WriterLock
from arabesque.pipeline.store.maintenance.compaction import archive_stale_rows, compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import MANIFEST, MANIFEST_COPY, read_manifest, write_manifest
from arabesque.pipeline.store.shards import MAX_COUNTER
from arabesque.pipeline.store.writer import StoreWriter


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of the user with files of every kind that a store removes or moves in its own folders."""
    folder = written(new_store(tmp_path / "outside"), row("theirs"))
    for name in ("poetry.lock", "notes.json", ".tmp-dead-part-dead-9.parquet"):
        (folder / name).write_text("theirs")
    for shard in [*shards(folder), *shards(folder, "outcomes")]:
        (folder / shard.name).write_bytes(shard.read_bytes())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def use(root: Path) -> None:
    """Do everything that writes to a store; a store that cannot be used is refused with a StoreError."""
    for act in (
        lambda: compact(root),
        lambda: archive_stale_rows(root, "vst", settings_of("vst", 2)),
        lambda: written(root, row("B"), max_age_s=1000),
        lambda: repair_store(root),
        lambda: write_manifest(root, manifest()),
    ):
        with suppress(StoreError):
            act()
    with suppress(StoreError), closing(WriterLock(root, "mine")) as mine:
        if mine.take("A"):
            mine.release(["A"])


def claim_path(root: Path, video_id: str) -> Path:
    return root / ".claims" / f"{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.json"


@pytest.mark.parametrize("writer", ["../../outside/poetry", "/tmp/poetry", "..", "a/b", "a\0b", "", "ü", 7, None])
def test_a_claim_that_names_another_file_as_its_writer_is_free_and_removes_nothing(tmp_path, outside, writer):
    root, before = new_store(tmp_path / "store"), contents(outside)
    claim_path(root, "A").parent.mkdir()
    claim_path(root, "A").write_text(json.dumps({"writer": writer, "video_id": "A"}))
    with closing(WriterLock(root, "mine")) as mine:
        assert mine.take("A")
    claim_path(root, "B").write_text(json.dumps({"writer": writer, "video_id": "B"}))
    compact(root)
    assert not list((root / ".claims").glob("*.json"))
    assert contents(outside) == before


@pytest.mark.parametrize("counter", [10**30, 2**63 - 1, MAX_COUNTER - 1, -5, 1.5, "9", None])
def test_a_claim_with_a_counter_that_no_run_writes_is_free_and_ignored(tmp_path, counter):
    root = new_store(tmp_path / "store")
    claim_path(root, "A").parent.mkdir()
    claim_path(root, "A").write_text(json.dumps({"writer": "dead", "video_id": "A", "counter": counter}))
    with closing(WriterLock(root, "mine")) as mine:
        assert mine.take("A")
        assert mine.advance("A", 7) == 7
        assert mine.advance("A", 7) == 8


def test_a_row_with_the_greatest_counter_is_a_clear_error(tmp_path):
    root = new_store(tmp_path / "store")
    with StoreWriter(root) as writer:
        writer.begin_reading("A", MAX_COUNTER)
        writer.add(row("A"))
    with StoreWriter(root) as writer, pytest.raises(StoreError, match="a counter beyond"):
        writer.next_counter()


@pytest.mark.parametrize(
    "name", ["stream=vst", "stream=ast", "outcomes", ".progress", ".claims", ".writers", "superseded", ".damaged"]
)
def test_a_folder_of_a_store_that_leads_elsewhere_changes_nothing_there(tmp_path, outside, name):
    root, before = written(new_store(tmp_path / "store"), row("A"), row("A", "ast")), contents(outside)
    shard = shards(root)[0]
    shard.write_bytes(shard.read_bytes()[:-1])  # something to repair
    if (root / name).exists():
        (root / name).rename(tmp_path / "moved")
    (root / name).symlink_to(outside)
    use(root)
    assert contents(outside) == before


def test_settings_of_other_rows_cannot_lead_through_a_link(tmp_path, outside):
    root, before = written(new_store(tmp_path / "store"), row("A")), contents(outside)
    (root / "superseded").mkdir()
    (root / "superseded" / settings_of("vst")).symlink_to(outside)
    with pytest.raises(StoreError, match=r"a symbolic link leads to .*outside.*; replace the link by a folder"):
        archive_stale_rows(root, "vst", settings_of("vst", 2))
    assert contents(outside) == before
    assert len(shards(root)) == 1


@pytest.mark.parametrize(
    "name", [".reorganizing.lock", ".claims/lock", ".writers/x.lock", MANIFEST, MANIFEST_COPY, "claim", "temporary"]
)
def test_a_file_of_a_store_that_is_a_link_changes_nothing_behind_it(tmp_path, outside, name):
    root, before = written(new_store(tmp_path / "store"), row("A")), contents(outside)
    names = {"claim": claim_path(root, "A"), "temporary": root / "stream=vst" / ".tmp-x-part-x-1.parquet"}
    path = names.get(name, root / name)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "notes.json")
    use(root)
    assert contents(outside) == before


@pytest.mark.parametrize("stream", ["../up", "a/b", "/tmp", "..", "", "a\nb", "vst\n", "-a"])
def test_stream_names_in_a_manifest_are_names(tmp_path, stream):
    changed = manifest()
    changed["streams"] = {stream: changed["streams"]["vst"]}
    with pytest.raises(ValueError, match=MANIFEST):
        write_manifest(tmp_path, changed)
    new_store(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace("[streams.vst]", f"[streams.{json.dumps(stream)}]"))
    with pytest.raises(StoreError, match=MANIFEST):
        read_manifest(tmp_path)


def test_folders_that_only_look_like_streams_are_left_alone(tmp_path):
    root = written(new_store(tmp_path), row("A"))
    (root / "stream=my stream").mkdir()
    (root / "stream=my stream" / "part-a-1.parquet").write_bytes(b"not a shard")
    compact(root)
    assert check_store(root).findings == []


def test_the_folder_of_a_store_itself_may_be_a_link(tmp_path):
    root = new_store(tmp_path / "store")
    (tmp_path / "link").symlink_to(root)
    written(tmp_path / "link", row("A"))
    compact(tmp_path / "link")
    assert check_store(root).num_rows == 1

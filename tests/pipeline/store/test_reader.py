from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import manifest, new_store, outcome_of, row, settings_of

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.manifest import read_manifest, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter


def written(root: Path, *rows: FeatureRow, outcomes: bool = True) -> Path:
    """Write rows with a new writer, which is newer than those of earlier calls."""
    with StoreWriter(root if (root / "arabesque.toml").exists() else new_store(root)) as writer:
        for made in rows:
            writer.add(made)
            if outcomes:
                writer.add_outcome(outcome_of(made))
    return root


def only_shard(root: Path, folder: str = "stream=vst") -> Path:
    (shard,) = (root / folder).glob("part-*.parquet")
    return shard


def test_a_store_is_a_mapping_of_videos_to_streams(tmp_path):
    store = FeatureStore(written(tmp_path, row("B"), row("A"), row("A", "ast")))
    assert store.video_ids == ("A", "B")
    assert list(store) == ["A", "B"]
    assert len(store) == 2
    assert store.streams == ("vst", "ast")
    assert "A" in store
    assert "C" not in store
    assert list(store["A"]) == ["vst", "ast"]
    assert list(store["B"]) == ["vst"]
    assert "ast" not in store["B"]
    assert store["A"]["ast"].values.shape == (3, 3)
    assert np.asarray(store["A"]["ast"], np.float64).dtype == np.float64
    assert store.keys("vst") == {"A": row("A").key, "B": row("B").key}
    assert store.manifest == manifest()


def test_missing_names_are_reported_with_suggestions(tmp_path):
    store = FeatureStore(written(tmp_path, row("Ball_001"), row("Ball_002"), row("Clubs_001", "ast")))
    with pytest.raises(KeyError, match=r"no features of video 'Bal_001' in .*did you mean Ball_001"):
        store["Bal_001"]
    with pytest.raises(KeyError, match=r"no stream 'i3d' in .*it has vst, ast"):
        store["Ball_001"]["i3d"]
    with pytest.raises(KeyError, match=r"no 'ast' features of video 'Ball_001'.*there are 1 others"):
        store["Ball_001"]["ast"]


def test_partial_rows_are_shown_only_when_asked_for(tmp_path):
    written(tmp_path, row("A", outcome="partial"), row("A", "ast"), row("B", outcome="partial"))
    store = FeatureStore(tmp_path)
    assert store.video_ids == ("A",)
    assert list(store["A"]) == ["ast"]
    with pytest.raises(KeyError, match=r"partial; use FeatureStore\(path, partial=True\)"):
        store["A"]["vst"]
    with pytest.raises(KeyError, match="video 'B' is partial"):
        store["B"]
    assert [features.video_id for features in store.scan("vst")] == []
    assert set(store.keys("vst")) == {"A", "B"}
    asked = FeatureStore(tmp_path, partial=True)
    assert asked["B"]["vst"].outcome == "partial"
    assert len(list(asked.scan("vst"))) == 2


def test_rows_of_other_settings_are_not_shown(tmp_path):
    written(tmp_path, row("A"), row("A", "ast"))
    changed = manifest()
    changed["streams"]["vst"] |= {"settings_digest": settings_of("vst", 2)}
    write_manifest(tmp_path, changed)
    store = FeatureStore(tmp_path)
    assert list(store["A"]) == ["ast"]
    assert store.keys("vst") == {}
    assert [(end.video_id, end.stream) for end in store.outcomes()] == [("A", "ast")]
    written(tmp_path, row("A", version=2))
    assert FeatureStore(tmp_path)["A"]["vst"].key == row("A", version=2).key


def test_the_newest_of_several_rows_counts(tmp_path):
    for content in ("first", "second", "third"):
        written(tmp_path, row("A", content=content))
    store = FeatureStore(tmp_path)
    assert store.keys("vst") == {"A": row("A", content="third").key}
    assert np.array_equal(store["A"]["vst"], row("A", content="third").features)
    assert [end.key for end in store.outcomes()] == [row("A", content="third").key]


def test_equal_files_under_two_names_are_two_videos(tmp_path):
    store = FeatureStore(written(tmp_path, row("A", content="same"), row("B", content="same")))
    assert store["A"]["vst"].key == store["B"]["vst"].key
    assert store.video_ids == ("A", "B")


def test_a_row_is_not_shown_once_its_video_has_changed_and_failed(tmp_path):
    written(tmp_path, row("A"), row("B"))
    with StoreWriter(tmp_path) as writer:
        writer.add_outcome(outcome_of(row("A", content="rewritten"), "failed", reason="no video stream"))
        writer.add_outcome(Outcome("B", "vst", "failed", reason="permission denied"))
    store = FeatureStore(tmp_path)
    assert store.video_ids == ("B",)
    assert [(end.video_id, end.kind) for end in store.outcomes()] == [("A", "failed"), ("B", "done")]


def test_rows_decide_about_outcomes(tmp_path):
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add_outcome(outcome_of(row("A"), "failed", reason="out of memory", transient=True))
        writer.add_outcome(outcome_of(row("B")))  # its outcome is done, but it has no row
        writer.add_outcome(outcome_of(row("C", "ast"), "empty", reason="no audio track"))
    written(tmp_path, row("A"), row("D", outcome="partial"), outcomes=False)
    ends = {end.video_id: end for end in FeatureStore(tmp_path).outcomes()}
    assert {name: end.kind for name, end in ends.items()} == {"A": "done", "C": "empty", "D": "partial"}
    assert (ends["A"].key, ends["A"].segments, ends["A"].transient) == (row("A").key, 3, False)
    assert ends["C"] == outcome_of(row("C", "ast"), "empty", reason="no audio track")


def test_scanning_gives_every_row_once(tmp_path):
    wanted = [row(f"Ball_{number:03d}", segments=400) for number in range(700)]
    store = FeatureStore(written(tmp_path, *wanted, outcomes=False))
    found = {features.video_id: features for features in store.scan("vst")}
    assert len(found) == 700
    assert all(np.array_equal(found[made.video_id], made.features) for made in wanted)
    assert np.array_equal(store["Ball_650"]["vst"], wanted[650].features)


def test_a_compaction_does_not_affect_a_reader(tmp_path):
    rows = [row(f"Ball_{number:03d}") for number in range(4)]
    for made in rows:
        written(tmp_path, made)
    store = FeatureStore(tmp_path)
    scan = store.scan("vst")
    seen = [next(scan).video_id, next(scan).video_id]
    assert compact(tmp_path).shards_written == 2
    assert sorted(seen + [features.video_id for features in scan]) == [made.video_id for made in rows]
    written(tmp_path, row("Ball_009"))
    store.keys("vst")
    compact(tmp_path)
    assert np.array_equal(store["Ball_003"]["vst"], rows[3].features)
    assert "Ball_009" not in store, "an open shard is read although it is merged"
    store.refresh()
    assert "Ball_009" in store
    assert len(FeatureStore(tmp_path).outcomes()) == 5


def test_refresh_shows_what_was_written_since(tmp_path):
    store = FeatureStore(written(tmp_path, row("A")))
    assert len(store) == 1
    written(tmp_path, row("B"))
    assert len(store) == 1
    store.refresh()
    assert len(store) == 2


def test_a_store_can_be_sent_to_worker_processes(tmp_path):
    store = FeatureStore(written(tmp_path, row("A")))
    store.keys("vst")
    assert np.array_equal(pickle.loads(pickle.dumps(store))["A"]["vst"], row("A").features)  # noqa: S301 our own bytes


def test_values_may_be_changed_without_changing_the_store(tmp_path):
    store = FeatureStore(written(tmp_path, row("A")))
    store["A"]["vst"].values[:] = 0
    assert np.array_equal(store["A"]["vst"], row("A").features)


def test_a_folder_that_is_not_a_store_is_reported(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere: the folder does not exist; name a feature store"):
        FeatureStore(tmp_path / "nowhere")
    (tmp_path / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore(tmp_path)
    with pytest.raises(StoreError, match=r"contains other files \(holiday\.mp4\).*choose a new or empty folder"):
        write_manifest(tmp_path, manifest())
    with pytest.raises(StoreError, match=r"holiday\.mp4: is a file"):
        write_manifest(tmp_path / "holiday.mp4", manifest())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("format = ", "Invalid value"),
        ("format = 2", "format: Input should be 1"),
        ("format = 1", "recipe: is missing"),
    ],
)
def test_an_invalid_manifest_is_reported(tmp_path, text, problem):
    (tmp_path / "arabesque.toml").write_text(text)
    with pytest.raises(StoreError, match=rf"arabesque\.toml: {problem}"):
        FeatureStore(tmp_path)


def test_a_manifest_is_replaced_as_a_whole(tmp_path):
    new_store(tmp_path)
    with pytest.raises(ValueError, match=r"streams\.vst\.dim"):
        write_manifest(tmp_path, manifest() | {"streams": {"vst": {"settings_digest": "a"}}})
    assert read_manifest(tmp_path) == manifest()
    write_manifest(tmp_path, manifest(2))
    assert read_manifest(tmp_path) == manifest(2)


@pytest.mark.parametrize("place", [0, 10, 400, -3000, -400, -10, -1])
def test_a_damaged_shard_is_reported_and_never_read_wrong(tmp_path, place):
    """Damage in the header, in pages and in the footer, parts of which have no checksum when they are read."""
    wanted = row("A", segments=50)
    shard = only_shard(written(tmp_path, wanted))
    data = bytearray(shard.read_bytes())
    data[place] ^= 0xFF
    shard.write_bytes(data)
    try:
        values = FeatureStore(tmp_path)["A"]["vst"].values
    except StoreError as error:
        assert f"{shard}: damaged (" in str(error)  # noqa: PT017 reading well is right, too
    else:
        assert np.array_equal(values, wanted.features)


def test_numbers_that_do_not_match_their_checksum_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("arabesque.pipeline.store.shard_writing.checksum", lambda *arrays: "0" * 32)
    written(tmp_path, row("A"))
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"part-.*damaged \(the checksum of A's row does not match\)"):
        FeatureStore(tmp_path)["A"]["vst"]


def test_truncated_empty_and_foreign_shards_are_reported(tmp_path):
    shard = only_shard(written(tmp_path, row("A")))
    data = shard.read_bytes()
    for broken in (b"", data[:-1], data[: len(data) // 2], b"PAR1" * 100):
        shard.write_bytes(broken)
        with pytest.raises(StoreError, match=rf"{shard.name}: damaged"):
            FeatureStore(tmp_path).keys("vst")
    shard.write_bytes(data)
    pq.write_table(pq.ParquetFile(shard).read().replace_schema_metadata(None), shard)
    with pytest.raises(StoreError, match=rf"{shard.name}: not written by arabesque"):
        FeatureStore(tmp_path).keys("vst")


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("arabesque.pipeline.store.shard_writing.FORMAT", 2)
    written(tmp_path, row("A"))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="has format 2, this version reads format 1; update arabesque"):
        FeatureStore(tmp_path).keys("vst")


def test_leftovers_of_a_killed_writer_are_not_shards(tmp_path):
    written(tmp_path, row("A"))
    (tmp_path / "stream=vst" / ".tmp-dead-part-dead-000000.parquet").write_bytes(b"half a sh")
    assert FeatureStore(tmp_path).video_ids == ("A",)


def test_a_row_keeps_its_place_among_videos_of_any_name(tmp_path):
    names = ["Gala 2024/Ball 001", "ё", "a\nb", "x" * 300, "../up"]
    store = FeatureStore(written(tmp_path, *(replace(row("A"), video_id=name) for name in names)))
    assert set(store) == set(names)
    assert all(store[name]["vst"].video_id == name for name in names)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes as a name")
def test_a_store_below_a_name_that_is_not_utf8(tmp_path):
    root = tmp_path / os.fsdecode(b"w\xff") / "store"
    root.parent.mkdir()
    written(root, row("A"))
    assert list(FeatureStore(root)) == ["A"]
    assert FeatureStore(root)["A"]["vst"].values.size

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import new_store, outcome_of, row
from tripwire import TrippedOs

from arabesque.cli.status import print_status
from arabesque.extractors.protocol import PersonBoxes
from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.box_files import export_boxes
from arabesque.pipeline.planning.resume_index import read_resume_index
from arabesque.pipeline.records import FeatureRow, Outcome, VideoBoxes
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store.files import local
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter


def boxes(num_frames: int = 3, shift_px: float = 0.0) -> PersonBoxes:
    """Two people in every frame, of which the first is the athlete, and a last frame without people."""
    times_s = np.repeat(np.arange(num_frames - 1) / 5, 2)
    count = len(times_s)
    edges = np.tile(np.array([[10, 20, 110, 220], [300, 5, 330.5, 70]], np.float32), (num_frames - 1, 1)) + shift_px
    empty = PersonBoxes.without_people([num_frames / 5], height_px=480, width_px=640)
    return PersonBoxes(
        np.append(times_s, empty.time_s),
        np.concatenate([edges, empty.edges_px]).astype(np.float32),
        np.append(np.linspace(0.3, 0.9, count), empty.confidence).astype(np.float32),
        np.append(np.arange(count) % 2, -1).astype(np.int32),
        np.append(np.arange(count) % 2 == 0, False),
        480,
        640,
    )


def same(one: PersonBoxes, other: PersonBoxes) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name in ("edges_px", "confidence"))
        for name in ("time_s", "edges_px", "confidence", "track", "chosen", "height_px", "width_px")
    )


def video_boxes(of: FeatureRow, found: PersonBoxes) -> VideoBoxes:
    return VideoBoxes(of.video_id, of.stream, of.key, of.settings_digest, found)


def searched(of: FeatureRow, found: PersonBoxes) -> Outcome:
    return replace(
        outcome_of(of), frames_seen=found.num_frames, frames_with_person=found.num_frames_with_person, modified_ns=1
    )


def write(root: Path, videos: Sequence[str], shift_px: float = 0.0) -> None:
    with StoreWriter(root) as writer:
        for video in videos:
            made, found = row(video), boxes(shift_px=shift_px)
            writer.add_boxes(video_boxes(made, found))
            writer.add(made)
            writer.add_outcome(searched(made, found))


def test_boxes_are_restored_bit_for_bit_and_as_pandas(tmp_path: Path) -> None:
    write(new_store(tmp_path), ["a", "b"])
    store = FeatureStore(tmp_path)
    assert same(store.boxes("a")["vst"], boxes())
    assert list(store.boxes("b")) == ["vst"]
    table = store.boxes_to_pandas()
    edges = "left top right bottom confidence track chosen frame_width frame_height"
    assert list(table.columns) == f"video_id stream time_s {edges}".split()
    assert len(table) == 2 * len(boxes())
    assert table[table.chosen].right.tolist() == [110.0] * 4
    assert len(store.boxes_to_pandas(["b"])) == len(boxes())
    assert [one.person_share for one in store.outcomes()] == [2 / 3, 2 / 3]
    with pytest.raises(KeyError, match="'c'"):
        store.boxes("c")


def test_other_programs_read_the_table(tmp_path: Path) -> None:
    write(new_store(tmp_path), ["a"])
    table = pq.read_table(tmp_path / "boxes").to_pylist()
    names = ("video_id", "left", "track", "chosen")
    assert [table[0][name] for name in names] == ["a", 10.0, 0, True]
    assert [table[-1][name] for name in names] == ["a", None, None, False]


def test_a_store_without_boxes_has_none(tmp_path: Path) -> None:
    with StoreWriter(new_store(tmp_path)) as writer:
        writer.add(row("a"))
        writer.add_outcome(outcome_of(row("a")))
    store = FeatureStore(tmp_path)
    assert store.boxes("a") == {}
    assert len(store.boxes_to_pandas()) == 0
    assert store.outcomes()[0].person_share is None
    assert not (tmp_path / "boxes").exists()


def test_the_newest_boxes_of_a_row_count_and_compaction_keeps_only_them(tmp_path: Path) -> None:
    root = new_store(tmp_path)
    write(root, ["a", "b"])
    write(root, ["a"], shift_px=7.0)
    with StoreWriter(root) as writer:  # killed before the row: nothing else has this key
        writer.add_boxes(replace(video_boxes(row("c"), boxes()), key="f" * 32))
    for _ in range(2):
        compact(root)
        store = FeatureStore(root)
        assert same(store.boxes("a")["vst"], boxes(shift_px=7.0))
        assert same(store.boxes("b")["vst"], boxes())
        assert len(list((root / "boxes").glob("*.parquet"))) == 1
        assert pq.read_table(root / "boxes").num_rows == 2 * len(boxes())


def test_changed_settings_drop_their_boxes(tmp_path: Path) -> None:
    root = new_store(tmp_path)
    write(root, ["a"])
    changed = row("a", content="another file")
    with StoreWriter(root) as writer:
        writer.add(changed)
        writer.add_outcome(outcome_of(changed))
    assert FeatureStore(root).boxes("a") == {}
    compact(root)
    assert list((root / "boxes").glob("*.parquet")) == []


def test_a_row_whose_boxes_are_lost_is_computed_again(tmp_path: Path) -> None:
    root = new_store(tmp_path)
    write(root, ["a", "b"])
    [shard] = (root / "boxes").glob("*.parquet")
    whole = shard.read_bytes()
    assert check_store(root).findings == []
    shard.write_bytes(whole[: len(whole) // 3] + bytes(len(whole) - len(whole) // 3))
    found = check_store(root)
    assert found.damaged_files == (f"boxes/{shard.name}",)
    assert found.missing == (("a", "vst"), ("b", "vst"))
    repaired = repair_store(root)
    assert repaired.missing == (("a", "vst"), ("b", "vst"))
    assert read_resume_index(root).of_video("a") == []
    assert FeatureStore(root)["a"]["vst"].values.shape == (3, 4), "the features are still there"
    write(root, ["a", "b"])
    assert check_store(root).findings == []
    assert len(read_resume_index(root).of_video("a")) == 1


def test_small_damage_of_boxes_is_repaired(tmp_path: Path) -> None:
    root = new_store(tmp_path)
    write(root, ["a"])
    [shard] = (root / "boxes").glob("*.parquet")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    assert check_store(root).damaged_files
    repair_store(root)
    assert check_store(root).findings == []
    assert same(FeatureStore(root).boxes("a")["vst"], boxes())


def test_impossible_boxes_are_reported(tmp_path: Path) -> None:
    root = new_store(tmp_path)
    write(root, ["a"], shift_px=400.0)  # beyond the right edge
    assert next(iter(check_store(root).findings)).problem == "a box has no area or lies outside of its frame"


def fail(name: str, arguments: tuple[Any, ...]) -> None:
    raise OSError(errno.EIO, "the disk is gone")


def test_a_disk_that_fails_at_any_call_loses_no_boxes_of_a_stored_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_failed = 0
    for at in (2, 5, 8, 11, 14, 40):
        root = new_store(tmp_path / str(at))
        with monkeypatch.context() as patched:
            patched.setattr(local, "os", TrippedOs(at, fail, onwards=True))
            try:
                write(root, ["a"])
            except StoreError:
                num_failed += 1
        store = FeatureStore(root)
        for outcome in store.outcomes():
            assert same(store.boxes(outcome.video_id)["vst"], boxes())
        write(root, ["a"])
        compact(root)
        assert same(FeatureStore(root).boxes("a")["vst"], boxes())
        assert check_store(root).findings == []
    assert 2 <= num_failed < 6


def test_status_names_videos_with_an_athlete_in_too_few_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_store(tmp_path)
    write(root, ["a", "b"])  # two of three frames
    found = read_status(root)
    assert [one.video_id for one in found.unseen] == ["a", "b"]
    assert print_status(found, max_reasons=1) == 0
    printed = capsys.readouterr().out
    assert "warning: 'a' [vst]: an athlete was found in 2 of 3 frames (67%)" in printed
    assert "2 such videos in all" in printed


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_boxes_are_exported_with_their_holes(tmp_path: Path, suffix: str) -> None:
    import pandas

    root = new_store(tmp_path / "store")
    write(root, ["b", 'a,"1"'])
    out = tmp_path / f"boxes{suffix}"
    store = FeatureStore(root)
    assert export_boxes(store, out) == 2 * len(boxes())
    found = pandas.read_csv(out) if suffix == ".csv" else pandas.read_parquet(out)
    pandas.testing.assert_frame_equal(
        found, store.boxes_to_pandas(sorted(["b", 'a,"1"'])), check_dtype=False, rtol=1e-6
    )
    assert found["left"].isna().tolist() == [False] * 4 + [True] + [False] * 4 + [True]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]
    assert export_boxes(store, out) == 2 * len(boxes())  # the same command continues and updates an export
    with pytest.raises(InputError, match="no boxes of people of ast to export"):
        export_boxes(store, out, ["ast"], force=True)
    out.write_text("time_s,mine\n")
    with pytest.raises(InputError, match="already exists; --force overwrites it"):
        export_boxes(store, out)
    assert export_boxes(store, out, ["vst"], force=True) == 2 * len(boxes())

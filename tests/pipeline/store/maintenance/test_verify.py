"""All damage is found, and a repair loses no intact row."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import DIMS, manifest, new_store, outcome_of, row, settings_of, written

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.maintenance import verify as verifying
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import MANIFEST, MANIFEST_COPY, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter

VIDEOS = [f"Ball_{number:03d}" for number in range(4)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A store with every kind of file in it."""
    root = new_store(tmp_path_factory.mktemp("stores") / "sound")
    with StoreWriter(root) as writer:
        for made in (row(video_id, stream, segments=40) for video_id in VIDEOS for stream in DIMS):
            writer.add(made)
            writer.add_outcome(outcome_of(made))
        writer.add_progress("b" * 32, 0, 0.0, 1.28, np.ones(4, np.float32))
    return root


def files_of(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.stat().st_size
    )


def shard_of(root: Path, folder: str = "stream=vst") -> Path:
    (shard,) = (root / folder).glob("part-*.parquet")
    return shard


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


MAGIC, STAMP = b"arabesque.parity", b"arabesque.sha256"


def without_parity(shard: bytes) -> bytes:
    """Rewrite the shard in the form of earlier versions."""
    data = shard[: shard.find(MAGIC)] + shard[shard.rfind(MAGIC) + len(MAGIC) :]
    place = data.rfind(STAMP) + len(STAMP) + 2
    before, after = data[:place], data[place + 64 :]
    return before + hashlib.sha256(before + b"0" * 64 + after).hexdigest().encode() + after


def damaged(shard: bytes, kind: str, chance: random.Random) -> bytes:
    """``kind``: ``flips N`` single bits, ``random N`` or ``zero N`` contiguous bytes, or ``cut N`` bytes at the end."""
    what, size, data = kind.split()[0], int(kind.split()[1]), bytearray(shard)
    place = chance.randrange(len(data) - size)
    if what == "flips":
        for bit in chance.sample(range(8 * len(data)), size):
            data[bit // 8] ^= 1 << bit % 8
    elif what == "cut":
        del data[-size:]
    else:
        data[place : place + size] = bytes(size) if what == "zero" else chance.randbytes(size)
    return bytes(data)


def check_rows(root: Path) -> int:
    """Check that every row of the store has its original contents; return the number of rows."""
    rows = [features for stream in DIMS for features in FeatureStore(root).scan(stream)]
    for features in rows:
        assert features.values.tobytes() == row(features.video_id, features.stream, segments=40).features.tobytes()
    return len(rows)


def test_an_intact_store_has_no_finding(sound):
    check = check_store(sound)
    assert check.findings == []
    assert (check.num_files, check.num_rows, check.num_outcomes) == (4, 8, 8)
    done = repair_store(sound)
    assert (done.set_aside, done.rows_kept, done.missing) == ((), 0, ())


def check_flip(sound: Path, root: Path, name: str, bit: int) -> None:
    """A flipped bit is found and restored, and nothing is lost."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root)
    flip(root / name, bit)
    assert check_store(root).damaged_files == (name,)
    done = repair_store(root)
    assert done.set_aside == (name,)
    assert (root / ".damaged" / name).exists()
    after = check_store(root)
    assert (after.findings, done.missing, after.num_outcomes) == ([], (), 8)
    assert check_rows(root) == 8
    assert done.rows_kept == (4 if "stream=" in name else 0)
    assert len(WriteAheadLog(root)) == 1
    if name == MANIFEST:
        assert done.manifest_restored


@settings(max_examples=12, deadline=None)  # `test_a_flipped_bit_of_every_byte_is_found_and_repaired` tests every byte
@given(data=st.data())
def test_a_bit_flipped_anywhere_is_found_and_repaired(sound, tmp_path_factory, data):
    name = data.draw(st.sampled_from(files_of(sound)))
    bit = data.draw(st.integers(0, 8 * (sound / name).stat().st_size - 1))
    check_flip(sound, tmp_path_factory.getbasetemp() / "flipped", name, bit)


@pytest.mark.slow
def test_a_flipped_bit_of_every_byte_is_found_and_repaired(sound, tmp_path):
    """Page headers and the footer have no separate checksum; this test includes all of their bytes."""
    chance = np.random.default_rng(0)
    for name in files_of(sound):
        for place in range((sound / name).stat().st_size):
            check_flip(sound, tmp_path / "flipped", name, 8 * place + int(chance.integers(8)))


def kept_rows(root: Path, kind: str, trials: int, *, parity: bool) -> float:
    """Return the average number of rows, of twelve, that a repair keeps; a wrong row is an error."""
    videos = {f"Ball_{number:03d}": row(f"Ball_{number:03d}", segments=40) for number in range(12)}
    written(new_store(root), *videos.values())
    shard, chance, kept = shard_of(root), random.Random(0), 0
    whole = shard.read_bytes() if parity else without_parity(shard.read_bytes())
    for _ in range(trials):
        for path in (root / "stream=vst").iterdir():
            path.unlink()
        shard.write_bytes(damaged(whole, kind, chance))
        done, found = repair_store(root), list(FeatureStore(root).scan("vst"))
        assert all(features.values.tobytes() == videos[features.video_id].features.tobytes() for features in found)
        assert len(found) == 12 - len(done.missing)
        kept += len(found)
    return kept / trials


@pytest.mark.parametrize(
    ("kind", "least"), [("flips 1", 12), ("flips 3", 9), ("random 64", 11.5), ("zero 512", 11), ("cut 100", 12)]
)
def test_small_damage_of_a_shard_loses_no_row(tmp_path, kind, least):
    assert kept_rows(tmp_path, kind, 15, parity=True) >= least


@pytest.mark.parametrize(("kind", "least"), [("flips 1", 6), ("random 64", 2)])
def test_rows_whose_checksum_holds_are_kept_where_there_is_no_parity(tmp_path, kind, least):
    assert kept_rows(tmp_path, kind, 15, parity=False) >= least


def test_a_column_whose_type_was_damaged_is_reported_and_its_rows_are_dropped(tmp_path):
    """A flipped bit of the schema can turn text into bytes."""
    written(new_store(tmp_path), row("a"))
    shard = shard_of(tmp_path)
    table = pq.read_table(shard)
    place = table.schema.get_field_index("content_digest")
    column = table.column(place).cast(pa.binary())
    pq.write_table(table.set_column(place, "content_digest", column), shard)
    assert check_store(tmp_path).damaged_files == (shard.relative_to(tmp_path).as_posix(),)
    assert repair_store(tmp_path).rows_kept == 0
    assert list(FeatureStore(tmp_path)) == []


@pytest.mark.slow
def test_figures_of_rows_kept_by_a_repair(tmp_path, capsys):
    for parity in (True, False):
        for kind in ("flips 1", "flips 3", "flips 10", "random 64", "random 700", "zero 512", "cut 100", "cut 4000"):
            kept = kept_rows(tmp_path / f"{kind} {parity}", kind, 200, parity=parity)
            with capsys.disabled():
                print(f"\n{kind}, {'with' if parity else 'without'} parity: {kept:.2f} of 12 rows kept, 0 wrong")
            if parity:  # contiguous damage over the border of the parity record and the footer loses the shard
                assert kept >= {"flips 1": 12, "cut 100": 12, "random 64": 11.5}.get(kind, 0)


def test_rows_of_a_damaged_shard_are_kept_only_if_an_outcome_confirms_them(tmp_path):
    """A damaged page header may have assigned rows to other videos."""
    with StoreWriter(new_store(tmp_path)) as writer:
        for video_id in ("told", "untold"):
            writer.add(row(video_id))
        writer.add_outcome(outcome_of(row("told")))
    shard = shard_of(tmp_path)
    shard.write_bytes(without_parity(shard.read_bytes()))
    footer_bit = 8 * (len(shard.read_bytes()) - 40)  # the version of the writer, which readers ignore
    flip(shard, footer_bit)
    assert set(FeatureStore(tmp_path)) == {"told", "untold"}
    done = repair_store(tmp_path)
    assert done.rows_kept == 1
    assert set(FeatureStore(tmp_path)) == {"told"}


@pytest.mark.parametrize(
    ("mar", "files", "unreadable", "missing"),
    [
        (lambda root: shard_of(root).unlink(), (), 4, 4),
        (lambda root: shard_of(root).write_bytes(b""), ("shard",), 4, 4),
        (lambda root: shard_of(root).write_bytes(shard_of(root).read_bytes()[:-1]), ("shard",), 4, 0),
        (lambda root: shard_of(root).write_bytes(shard_of(root).read_bytes()[:-4000]), ("shard",), 4, 4),
        (lambda root: (root / MANIFEST).unlink(), (MANIFEST,), 0, 0),
        (lambda root: (root / MANIFEST).write_text("format = "), (MANIFEST,), 0, 0),
        (lambda root: (root / MANIFEST_COPY).write_text("format = "), (MANIFEST_COPY,), 0, 0),
    ],
)
def test_truncated_empty_and_lost_files_are_found_and_repaired(
    sound, tmp_path, mar: Callable[[Path], object], files, unreadable, missing
):
    root = shutil.copytree(sound, tmp_path / "store")
    shard = shard_of(root).relative_to(root).as_posix()
    mar(root)
    wanted = tuple(shard if name == "shard" else name for name in files)
    check = check_store(root)
    assert (check.damaged_files, len(check.missing)) == (wanted, unreadable)
    done = repair_store(root)
    assert (done.set_aside, len(done.missing)) == (wanted, missing)
    assert check_store(root).damaged_files == ()
    assert check_rows(root) == 8 - missing


def test_a_store_without_manifests_is_reported_and_usable_after_the_next_run(sound, tmp_path):
    root = shutil.copytree(sound, tmp_path / "store")
    for name in (MANIFEST, MANIFEST_COPY):
        flip(root / name, 100)
    assert check_store(root).damaged_files == (MANIFEST, MANIFEST_COPY)
    assert not repair_store(root).manifest_restored
    with pytest.raises(StoreError, match="is not a feature store"):
        check_store(root)
    write_manifest(root, manifest())
    assert check_rows(root) == 8


def changed(**fields) -> FeatureRow:
    return replace(row("Ball_009", segments=3), **fields)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (changed(key="0" * 32), "its key does not fit its content and settings"),
        (changed(features=np.full((3, 4), np.nan, np.float32)), "not finite"),
        (changed(features=np.zeros((3, 5), np.float32)), "3 × 5, not × 4"),
        (changed(stream="ast"), "of stream 'ast'"),
        (changed(end_s=np.zeros(3)), "does not end after its start"),
        (changed(start_s=np.array([0.0, 2.56, 1.28]), end_s=np.full(3, 4.0)), "not in temporal order"),
        (changed(start_s=np.array([0.0, 1.27, 2.56])), "overlap"),
        (changed(start_s=np.array([0.0, 1.3, 2.56]), end_s=np.array([1.28, 2.56, 3.84])), "not on the recipe's grid"),
        (changed(end_s=np.array([1.28, 2.56, 4.0])), "its last segment is too long"),
    ],
)
def test_a_row_that_was_written_wrong_is_found_and_removed(tmp_path, monkeypatch, bad, problem):
    facts = manifest()
    grid = {"fps": 25, "frames_per_segment": 32, "frames_per_step": 32, "remainder": "drop-tail"}
    facts["recipe"]["streams"] = {"vst": {"sampling": grid}}
    write_manifest(tmp_path, facts)
    monkeypatch.setattr("arabesque.pipeline.store.writer.validated_row", lambda made, *_, **__: made)
    with StoreWriter(tmp_path) as writer:
        for made in (bad, row("Ball_001")) if bad.features.shape[1] == 4 else (bad,):
            writer._rows["vst"].append(verifying.StoredRow(made, 1, writer.writer_id))
    (found,) = check_store(tmp_path).findings
    assert problem in found.problem
    assert (found.video_id, found.fixed_by) == ("Ball_009", "repair")
    repair_store(tmp_path)
    assert check_store(tmp_path).findings == []
    assert set(FeatureStore(tmp_path)) == ({"Ball_001"} if bad.features.shape[1] == 4 else set())


def test_old_rows_and_those_of_other_settings_are_not_findings(tmp_path):
    new_store(tmp_path)
    written(tmp_path, row("A", content="old"), row("B"))
    with StoreWriter(tmp_path) as writer:
        writer.add(row("A", content="new"))  # killed before its outcome
    write_manifest(tmp_path, manifest(2))
    written(tmp_path, row("A", version=2))
    assert check_store(tmp_path).findings == []
    assert check_store(tmp_path).num_rows == 4


def test_a_store_may_be_merged_while_it_is_checked(tmp_path, monkeypatch):
    new_store(tmp_path)
    for video_id in VIDEOS:
        written(tmp_path, row(video_id))
    merged: list[object] = []

    def merging(data: bytes) -> bool:
        if not merged:
            merged.append(compact(tmp_path))
        return real(data)

    real = verifying.is_intact
    monkeypatch.setattr(verifying, "is_intact", merging)
    check = check_store(tmp_path)
    assert check.findings == []
    assert check.num_rows == len(VIDEOS)


def test_archived_rows_and_the_log_are_checked_and_restored_too(sound, tmp_path):
    root = shutil.copytree(sound, tmp_path / "store")
    aside = root / "superseded" / settings_of("vst") / "stream=vst"
    aside.parent.mkdir(parents=True)
    (root / "stream=vst").rename(aside)
    flip(aside / next(aside.iterdir()).name, 200)
    journal = shard_of(root, ".progress")
    flip(journal, 8 * 200)
    assert len(WriteAheadLog(sound)) == 1
    done = repair_store(root)
    assert len(done.set_aside) == 2
    assert len(WriteAheadLog(root)) == 1
    shard_of(root, ".progress").write_bytes(b"")
    repair_store(root)
    assert len(WriteAheadLog(root)) == 0


def test_a_folder_that_is_not_a_store_is_not_changed(tmp_path):
    for act in (check_store, repair_store):
        with pytest.raises(StoreError, match="is not a feature store"):
            act(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_newer_format_is_not_reported_as_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("arabesque.pipeline.store.shard_writing.FORMAT", 2)
    written(new_store(tmp_path), row("A"))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="update arabesque"):
        repair_store(tmp_path)
    assert shard_of(tmp_path).exists()

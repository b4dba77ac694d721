"""The cache returns the metadata of unchanged files, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clip, write_clip
from fakes import probe as fake_probe
from hypothesis import given
from hypothesis import strategies as st
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.decoding.decoder_pool import DecoderPool, DecoderProcess
from arabesque.pipeline.decoding.source_files import Content, read_content
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.planning import metadata_cache
from arabesque.pipeline.planning.metadata_cache import (
    MetadataCache,
    by_length,
    open_metadata_cache,
    packed_times,
    unpacked_times,
)
from arabesque.pipeline.records import AudioTrack, VideoFile, VideoMetadata, state_of
from arabesque.pipeline.stages.decode import read_metadata
from arabesque.pipeline.store.reader import FeatureStore

PROBE = replace(fake_probe(7, audio=AudioTrack(44100, 2, -0.01, None)), lost_at=(7, 9), declared_end_s=None)
CONTENT = Content("ab" * 32, 5, 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"bytes")
    return path


def open_cache(tmp_path: Path, **options) -> MetadataCache:
    """A cache that also keeps files that were written a moment ago."""
    return MetadataCache(tmp_path / "cache", settled_ns=0, **options)


def filled(tmp_path: Path, *files: Path) -> MetadataCache:
    cache = open_cache(tmp_path)
    for path in files:
        cache.keep(path, state_of(path), PROBE)
        cache.keep(path, state_of(path), CONTENT)
    cache.close()
    return open_cache(tmp_path)


def equal(one: VideoMetadata | None, other: VideoMetadata | None) -> bool:
    assert one is not None
    assert other is not None
    times = one.frame_times_s.tobytes() == other.frame_times_s.tobytes()
    return times and astuple(replace(one, frame_times_s=None)) == astuple(replace(other, frame_times_s=None))


def test_metadata_of_an_unchanged_file_are_cached(tmp_path, file):
    cache = filled(tmp_path, file)
    assert equal(cache.probe(file), PROBE)
    assert cache.content(file) == CONTENT
    assert cache.durations_s([VideoFile("a", file), VideoFile("b", tmp_path / "b.mp4")]) == {"a": 0.7}


def test_lengths_are_as_probed_or_by_size(tmp_path, file):
    (tmp_path / "b.mp4").write_bytes(b"twice long")
    files = [VideoFile(name, tmp_path / f"{name}.mp4") for name in ("a", "b", "gone")]
    assert by_length(files, open_cache(tmp_path)) == {"a": 5, "b": 10}
    assert by_length(files, filled(tmp_path, file)) == {"a": 0.7, "b": 1.4}


@pytest.mark.parametrize("change", ["bytes", "bytes of another time set back", "time", "another file in its place"])
def test_metadata_of_a_changed_file_are_not_used(tmp_path, file, change):
    cache = filled(tmp_path, file)
    before = file.stat()
    if change == "time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "another file in its place":
        (tmp_path / "b").write_bytes(b"bytes")
        os.utime(tmp_path / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "b").replace(file)
    else:
        file.write_bytes(b"bytez" if "back" in change else b"more bytes")
        if "back" in change:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.probe(file) is None
    assert cache.content(file) is None
    assert cache.durations_s([VideoFile("a", file)]) == {}
    file.unlink()
    assert cache.content(file) is None


def test_recently_changed_files_get_no_entry(tmp_path, file):
    cache = open_cache(tmp_path)
    before = state_of(file)
    file.write_bytes(b"other bytes")
    cache.keep(file, before, CONTENT)
    assert cache.content(file) is None
    hasty = MetadataCache(tmp_path / "cache")
    hasty.keep(file, state_of(file), CONTENT)
    assert hasty.content(file) is None


def test_another_decoder_or_other_code_around_it_reads_the_metadata_again(tmp_path, file):
    filled(tmp_path, file)
    other = open_cache(tmp_path, decoder="decord")
    assert other.probe(file) is None
    assert other.durations_s([VideoFile("a", file)]) == {}
    assert other.content(file) == CONTENT
    assert open_cache(tmp_path, reader="pyav of another version").probe(file) is None


def database(tmp_path: Path) -> Path:
    return tmp_path / "cache" / metadata_cache.FILE_NAME


@pytest.mark.parametrize("size_bytes", [None, 10, 3000])
def test_a_damaged_database_is_replaced(tmp_path, file, size_bytes):
    filled(tmp_path, file).close()
    data = database(tmp_path).read_bytes()
    database(tmp_path).write_bytes(bytes(len(data)) if size_bytes is None else b"x" + data[1:size_bytes])
    cache = open_cache(tmp_path)
    assert cache.probe(file) is None
    cache.keep(file, state_of(file), CONTENT)
    cache.close()
    assert open_cache(tmp_path).content(file) == CONTENT


def test_a_flipped_bit_anywhere_gives_no_wrong_entry(tmp_path, file):
    filled(tmp_path, file).close()
    whole = database(tmp_path).read_bytes()
    rng = np.random.default_rng(1)
    known = 0
    for _ in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        database(tmp_path).write_bytes(data)
        cache = open_cache(tmp_path)
        content, probe = cache.content(file), cache.probe(file)
        cache.close()
        assert content in (CONTENT, None)
        assert probe is None or equal(probe, PROBE)
        known += content is not None
        database(tmp_path).unlink(missing_ok=True)
    assert known > 0


def plant(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change all entries with correct checksums, as a user with write access could."""
    with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM entries").fetchall():
            values = dict(row)
            change(values)
            values["checksum"] = metadata_cache.checksum(*list(values.values())[:9])
            columns = ", ".join(f"{name} = :{name}" for name in values)
            connection.execute(f"UPDATE entries SET {columns} WHERE number = :number", values)


FACTS: dict[str, dict[str, Any]] = {
    "text as a number": {"width_px": "128"},
    "negative": {"height_px": -6},
    "endless": {"end_s": 1e300},
    "not finite": {"fps": float("nan")},
    "another turn": {"rotation_deg": 45},
    "a list": {"audio": []},
    "no such clock": {"timed_by": "wishes"},
    "another field": {"more": 1},
    "more times": {"frame_times_s": [8]},
    "losses that fall": {"lost_at": [9, 7]},
}


@pytest.mark.parametrize("fault", FACTS)
def test_planted_metadata_are_ignored(tmp_path, file, fault):
    filled(tmp_path, file).close()
    plant(tmp_path, lambda values: values.update(data=json.dumps(json.loads(values["data"]) | FACTS[fault])))
    assert open_cache(tmp_path).probe(file) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", "null"),
        ("data", "[" * 100_000),
        ("data", '{"digest": "../../x", "size_bytes": 5, "longest_zeros_bytes": 0}'),
        ("data", '{"digest": "' + "AB" * 32 + '", "size_bytes": 5, "longest_zeros_bytes": 0}'),
        ("data", '{"digest": "' + "ab" * 32 + '", "size_bytes": 6, "longest_zeros_bytes": 0}'),
        ("data", None),
        ("data", 7),
        ("times", b""),
        ("times", None),
        ("times", b"\0\0\0\0" + zlib.compress(bytes(100_000_000))[:1000]),
        ("times", b"\0\0\0\0" + zlib.compress(np.array([0.0, 2.0, 1.0]).tobytes())),
        ("times", b"\0\0\0\0" + zlib.compress(b"odd")),
        ("duration_s", float("inf")),
        ("duration_s", -1.0),
        ("duration_s", "1.0 s"),
        ("size_bytes", None),
        ("size_bytes", "many"),
    ],
)
def test_planted_columns_are_ignored(tmp_path, file, column, value):
    filled(tmp_path, file).close()
    plant(tmp_path, lambda values: values.update({column: value}))
    cache = open_cache(tmp_path)
    if column != "duration_s":
        assert cache.probe(file) is None
    if column in ("data", "size_bytes"):
        assert cache.content(file) is None
    durations = cache.durations_s([VideoFile("a", file)])
    assert durations == ({"a": 0.7} if column in ("data", "times") else {})


def test_a_database_with_other_tables_is_replaced(tmp_path, file):
    filled(tmp_path, file).close()
    with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
        connection.execute("DROP TABLE entries")
        connection.execute("CREATE TABLE entries (path TEXT)")
        connection.execute("PRAGMA user_version = 7")
    assert filled(tmp_path, file).content(file) == CONTENT


@pytest.mark.parametrize("error", ["locking protocol", "disk I/O error", "database is locked"])
def test_without_locks_there_is_no_cache(tmp_path, file, monkeypatch, caplog, error):
    """A network file system without locks fails in the first statement that needs one."""

    class Unlockable(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            failure = sqlite3.OperationalError(error)
            failure.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise failure

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *paths, **options: connect(*paths, **options, factory=Unlockable))
    cache = filled(tmp_path, file)
    assert cache.probe(file) is None
    assert cache.durations_s([VideoFile("a", file)]) == {}
    assert f"the metadata cache is not used: {database(tmp_path)}: {error}" in caplog.text


def test_a_process_that_holds_the_lock_disables_the_cache_only(tmp_path, file, monkeypatch):
    filled(tmp_path, file).close()
    monkeypatch.setattr(metadata_cache, "LOCK_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        cache = open_cache(tmp_path)
        assert cache.content(file) is None
        cache.keep(file, state_of(file), CONTENT)
        cache.close()
    assert open_cache(tmp_path).content(file) == CONTENT


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_database_that_others_may_write_is_not_used(tmp_path, file, caplog, place):
    filled(tmp_path, file).close()
    (database(tmp_path) if place == "file" else tmp_path / "cache").chmod(0o777)
    before = database(tmp_path).read_bytes()
    cache = open_cache(tmp_path)
    assert cache.content(file) is None
    assert cache.durations_s([VideoFile("a", file)]) == {}
    assert "other users may write to it; remove the folder" in caplog.text
    cache.keep(file, state_of(file), CONTENT)
    cache.close()
    assert database(tmp_path).read_bytes() == before


def test_a_link_is_not_followed(tmp_path, file):
    (tmp_path / "cache").mkdir(mode=0o700)
    database(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert filled(tmp_path, file).content(file) is None
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_not_used(tmp_path, file):
    filled(tmp_path, file).close()
    os.chown(database(tmp_path), 12345, -1)
    assert open_cache(tmp_path).content(file) is None
    assert database(tmp_path).exists()


def test_the_cache_is_private_whatever_the_umask(tmp_path, file):
    before = os.umask(0o002)
    try:
        cache = filled(tmp_path, file)
    finally:
        os.umask(before)
    assert cache.content(file) == CONTENT


def test_an_unwritable_folder_disables_the_cache_only(tmp_path, file):
    (tmp_path / "cache").write_text("a file")
    cache = filled(tmp_path, file)
    assert cache.content(file) is None
    nowhere = MetadataCache()
    nowhere.keep(file, state_of(file), CONTENT)
    assert nowhere.content(file) is None


def test_the_oldest_entries_are_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata_cache, "MAX_ENTRIES", 4)
    paths = [tmp_path / f"{number}.mp4" for number in range(4)]
    for path in [*paths, paths[0]]:
        path.write_bytes(b"bytes")
        filled(tmp_path, path).close()
    cache = open_cache(tmp_path)
    assert [cache.content(path) is not None for path in paths] == [True, False, False, True]


KEEP = """
import sys
from pathlib import Path
from arabesque.pipeline.planning.metadata_cache import MetadataCache
from arabesque.pipeline.decoding.source_files import Content
from arabesque.pipeline.records import state_of
root, name = Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    cache = MetadataCache(root / "cache", settled_ns=0)
    path = root / f"{name}{number}.mp4"
    path.write_bytes(b"bytes")
    cache.keep(path, state_of(path), Content("ab" * 32, 5, 0))
    cache.close()
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    pair = [subprocess.Popen([sys.executable, "-c", KEEP, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in pair] == [0, 0]
    cache = open_cache(tmp_path)
    assert all(cache.content(tmp_path / f"{name}{number}.mp4") for name in "ab" for number in range(10))


def test_names_that_are_not_text_are_kept_too(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(b"bytes")
    assert filled(tmp_path, path).content(path) == CONTENT


def test_a_known_video_is_probed_by_no_decoder(tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_METADATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata_cache, "SETTLED_NS", 0)
    path = tmp_path / "a.mp4"
    write_clip(path, Clip(num_frames=20, beeps_s=(0.2,)))
    with open_metadata_cache("pyav") as cache, closing(DecoderPool(1)) as pool, pool.decoder() as decoder:
        found = read_metadata(decoder, cache, path)
        cache.keep(path, state_of(path), read_content(path))
    with open_metadata_cache("pyav") as cache:
        decoder = DecoderProcess()
        assert equal(read_metadata(decoder, cache, path), found)
        assert decoder.pid is None  # no process was started
        assert cache.content(path) == read_content(path)


WRONG_METADATA = {
    "half of the frames": lambda whole: replace(
        whole, frame_times_s=whole.frame_times_s[:32], end_s=32 / 25, declared_end_s=32 / 25
    ),
    "audio track as video": lambda whole: replace(whole, video_index=whole.audio.stream_index),
    "video track as audio": lambda whole: replace(whole, audio=replace(whole.audio, stream_index=whole.video_index)),
    "a track that does not exist": lambda whole: replace(whole, audio=replace(whole.audio, stream_index=7)),
}


@pytest.mark.parametrize("fault", WRONG_METADATA)
def test_wrong_metadata_lose_no_frame(tmp_path, monkeypatch, fault):
    path = write_clip(tmp_path / "a.mp4", Clip(num_frames=64, beeps_s=(0.2,)))
    monkeypatch.setenv("ARABESQUE_METADATA_CACHE", str(tmp_path / "cache"))
    with closing(DecoderPool(1)) as slots, slots.decoder() as slot:
        wrong = WRONG_METADATA[fault](slot.probe(path))
    cache = open_cache(tmp_path)
    cache.keep(path, state_of(path), wrong)
    cache.close()
    for _ in Extraction(path, parse_recipe(RECIPE, "known.toml"), tmp_path / "out"):
        pass
    store = FeatureStore(tmp_path / "out", partial=True)
    assert {end.kind for end in store.outcomes()} == {"done"}
    assert store["a"]["numbers"].values.ravel().tolist() == list(range(64))
    assert {"numbers", "loudness"} <= set(store["a"])


@given(
    st.sampled_from([(1, 25), (1001, 30000), (1, 12800), (1, 90000), (1, 1000), (3, 7)]),
    st.lists(st.integers(1, 5000), max_size=200),
)
def test_times_are_restored_to_the_last_bit(time_base, steps):
    ticks = np.cumsum([0, *steps])
    times = ticks.astype(np.float64) * time_base[0] / time_base[1]
    assert unpacked_times(packed_times(times)).tobytes() == times.tobytes()


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
def test_irregular_times_are_restored_too(times):
    given_times = np.sort(np.array(times))
    assert unpacked_times(packed_times(given_times)).tolist() == given_times.tolist()


def test_regular_times_take_few_bytes():
    assert len(packed_times(np.arange(100_000) * 1001 / 30000)) < 2_000

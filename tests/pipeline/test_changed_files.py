"""A file that is replaced or written to while it is read leaves no row, and the next run reads it again."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, FrameNumbers

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.decoding.decoder_pool import DecoderSettings
from arabesque.pipeline.decoding.source_files import FileChangedError, WatchedFile
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.reader import FeatureStore

NUM_FRAMES = 160
WINDOWS_OF_FOUR = DecoderSettings(buffer_bytes=4 * 128 * 96 * 3)


def replace(path: Path, other: Path) -> None:
    os.replace(other, path)


def append(path: Path, other: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite_and_set_the_time_back(path: Path, other: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(100))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def replace_and_put_back(path: Path, other: Path) -> None:
    os.replace(path, path.with_name("aside"))
    os.replace(other, path)
    os.replace(path.with_name("aside"), path)


def remove(path: Path, other: Path) -> None:
    path.unlink()


CHANGES = [replace, append, overwrite_and_set_the_time_back, truncate, replace_and_put_back, remove]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clips")
    first = write_clip(folder / "first.mp4", Clip(num_frames=NUM_FRAMES, beeps_s=[0.3]))
    return first, write_clip(folder / "second.mp4", Clip(num_frames=80, beeps_s=[0.3]))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_detected(tmp_path, change):
    path, other = tmp_path / "a.mp4", tmp_path / "other"
    path.write_bytes(bytes(5000))
    other.write_bytes(bytes(5000))
    with closing(WatchedFile(path)) as watched:
        watched.check()
        change(path, other)
        with pytest.raises(FileChangedError):
            watched.check()


def test_reading_is_not_a_change_and_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"bytes")
    with closing(WatchedFile(path)) as watched:
        path.read_bytes()
        watched.check()
        assert watched.state.size_bytes == 5
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        WatchedFile(tmp_path / "pipe")


def extracted(path: Path, out: Path) -> dict[str, Outcome]:
    options = RunOptions(decoding=WINDOWS_OF_FOUR)
    list(Extraction(path, parse_recipe(RECIPE, "known.toml"), out, options=options))
    return {end.stream: end for end in FeatureStore(out, partial=True).outcomes()}


@pytest.mark.parametrize("change", [replace, overwrite_and_set_the_time_back])
def test_a_video_that_changes_while_it_is_decoded_is_read_again_by_the_next_run(tmp_path, clips, monkeypatch, change):
    """The first segment is computed while the decoder is at most a few windows ahead of it."""
    path, other = tmp_path / "videos" / "a.mp4", tmp_path / "other"
    path.parent.mkdir()
    shutil.copy(clips[0], path)
    shutil.copy(clips[1], other)
    pending = [lambda: change(path, other)]
    monkeypatch.setattr(FrameNumbers, "on_segment", lambda: pending.pop()() if pending else None)
    ends = extracted(path, tmp_path / "out")
    assert not pending
    assert {(end.kind, end.transient) for end in ends.values()} == {("failed", True)}
    assert all("a.mp4: changed while it was read" in end.reason for end in ends.values())
    store = FeatureStore(tmp_path / "out", partial=True)
    assert not any(store.holds("a", stream) for stream in ends)

    again = extracted(path, tmp_path / "out")
    assert again["numbers"].kind == "done"
    assert again["numbers"].content_digest != ends["numbers"].content_digest
    numbers = FeatureStore(tmp_path / "out", partial=True)["a"]["numbers"].values.ravel().tolist()
    assert numbers == list(range(len(numbers)))
    if change is replace:
        assert len(numbers) == 80


def test_a_stored_digest_is_not_used_for_a_file_with_an_earlier_time(tmp_path, clips):
    """A stream that is added later gets the digest of the bytes that it is computed from."""
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    shutil.copy(clips[1], path)
    recipe = parse_recipe(RECIPE, "known.toml")
    list(Extraction(path, recipe, tmp_path / "out", streams=["numbers"]))
    overwrite_and_set_the_time_back(path, path)
    list(Extraction(path, recipe, tmp_path / "out"))
    ends = {end.stream: end for end in FeatureStore(tmp_path / "out", partial=True).outcomes()}
    assert ends["loudness"].content_digest == hashlib.sha256(path.read_bytes()).hexdigest()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_rows import new_store, row

from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.exporting import export, written_whole
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    root = new_store(tmp_path / "store")
    with StoreWriter(root) as writer:
        for video_id in ("Ball_001", "Ball_002"):
            writer.add(row(video_id, "vst"))
        writer.add(row("Ball_001", "ast"))
        writer.add(row("Ball_003", "vst", outcome="partial"))
    return FeatureStore(root)


def test_a_store_is_exported_as_pamfns_files(store: FeatureStore, tmp_path: Path):
    done = export(store, tmp_path / "out", "pamfn-folder")
    names = {path.name for path in done.files}
    assert names == {"Ball_001_video.npy", "Ball_001_audio.npy", "Ball_002_video.npy"}  # no incomplete file
    assert done.num_arrays == 3
    found = np.load(tmp_path / "out" / "Ball_001_video.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, row("Ball_001", "vst").features)


def test_numbers_have_the_requested_type(store: FeatureStore, tmp_path: Path):
    export(store, tmp_path / "out", "npy-folder", streams=["ast"], number="float16")
    found = np.load(tmp_path / "out" / "Ball_001.npy")
    np.testing.assert_array_equal(found, row("Ball_001", "ast").features.astype(np.float16))


def test_numbers_too_large_for_float16_are_refused(tmp_path: Path):
    from dataclasses import replace

    root = new_store(tmp_path / "store")
    with StoreWriter(root) as writer:
        writer.add(replace(row("a"), features=row("a").features * 1e6))
    with pytest.raises(StoreError, match="too large for float16"):
        export(FeatureStore(root), tmp_path / "out", "npy-folder", streams=["vst"], number="float16")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_replaced_without_force(store: FeatureStore, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Ball_002.npy").write_text("mine")
    with pytest.raises(InputError, match=r"Ball_002\.npy: already exists; --force overwrites"):
        export(store, tmp_path / "out", "npy-folder", streams=["vst"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Ball_002.npy"]  # not even the others are written
    export(store, tmp_path / "out", "npy-folder", streams=["vst"], force=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "Ball_002.npy"), row("Ball_002").features)


def test_a_file_is_complete_or_absent(tmp_path: Path):
    path = tmp_path / "a.npy"
    path.write_text("before")

    def break_off() -> None:
        with written_whole(path) as handle:
            handle.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        break_off()
    assert path.read_text() == "before"
    assert [other.name for other in tmp_path.iterdir()] == ["a.npy"]


def test_a_write_error_is_reported(store: FeatureStore, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written \(Not a directory\)|cannot be written \(File exists\)"):
        export(store, tmp_path / "file" / "out", "npy-folder")


def test_streams_with_the_same_file_are_refused(store: FeatureStore, tmp_path: Path):
    with pytest.raises(InputError, match="would both have the label 'x'"):
        export(store, tmp_path / "out", "npy-folder", names={"vst": "x", "ast": "x"})
    with pytest.raises(InputError, match="one file cannot hold vst, ast"):
        export(store, tmp_path / "out.npz", "npz")
    assert not (tmp_path / "out").exists()


def test_wrong_names_are_refused(store: FeatureStore, tmp_path: Path):
    with pytest.raises(InputError, match="no stream 'rgb'; it has vst, ast"):
        export(store, tmp_path / "out", "npy-folder", streams=["rgb"])
    with pytest.raises(InputError, match="format 'csv' is not known"):
        export(store, tmp_path / "out", "csv")

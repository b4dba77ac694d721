from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.manifests.errors import InputError, StoreError
from arabesque.models.features import label_samples, read_store
from arabesque.models.released_features import read_features
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.aligned_dataset import AlignedDataset
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

DIMS = {"vst": 2, "ast": 1}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """``a`` is complete, ``b`` silent, ``c`` lacks its ast row, ``d`` has audio from the second segment on."""
    root = tmp_path / "features"
    entries = {
        stream: {"settings_digest": stream.ljust(32, "0"), "dim": dim, "extractor_version": 1, "weights": {}}
        for stream, dim in DIMS.items()
    }
    write_manifest(root, {"format": 1, "recipe": {}, "streams": entries, "made_with": {}})
    with StoreWriter(root) as writer:
        for name in "abcd":
            writer.add(row(name, "vst", np.arange(8.0).reshape(4, 2), np.arange(4.0)))
        writer.add(row("a", "ast", np.array([[1.0], [3.0]]), np.array([0.0, 2.0]), length_s=2.0))
        writer.add_outcome(Outcome("b", "ast", "empty", settings_digest="ast".ljust(32, "0")))
        writer.add(row("d", "ast", np.array([[5.0], [6.0], [7.0]]), np.array([1.0, 2.0, 3.0])))
    return root


def row(name: str, stream: str, values: np.ndarray, start_s: np.ndarray, length_s: float = 1.0) -> FeatureRow:
    key = f"{name}{stream}".ljust(32, "0")
    settings = stream.ljust(32, "0")
    return FeatureRow(
        name, stream, key, name * 64, settings, "done", values.astype(np.float32), start_s, start_s + length_s
    )


def test_streams_keep_their_own_grids(store: Path) -> None:
    found = read_store(FeatureStore(store))
    assert set(found.videos) == {"a", "b", "d"}
    samples = label_samples(found, {"a": 1.0, "b": 2.0, "d": 3.0}).samples
    assert samples.lengths["vst"].tolist() == [4, 4, 4]
    assert samples.lengths["ast"].tolist() == [2, 0, 3]
    assert found.streams["vst"]["settings_digest"] == "vst".ljust(32, "0")


def test_one_grid_is_that_of_the_first_stream(store: Path) -> None:
    found = read_store(FeatureStore(store), ["vst", "ast"], one_grid=True)
    batch = label_samples(found, dict.fromkeys("abd", 1.0)).samples.whole(torch.arange(3))
    assert batch.features["ast"][..., 0].tolist() == [[1, 1, 3, 3], [0, 0, 0, 0], [0, 5, 6, 7]]
    assert batch.masks["ast"].tolist() == [[True] * 4, [False] * 4, [False, True, True, True]]
    assert bool(batch.masks["vst"].all())


def test_rows_around_a_hole_are_not_mixed(store: Path) -> None:
    """Streams lack different segments at a gap. Segments are combined by overlap in time, not across the gap."""
    times = {"vst": np.array([0.0, 1.0, 2.0, 6.0, 7.0]), "ast": np.array([0.5, 1.5, 5.5, 6.5, 8.5])}
    with StoreWriter(store) as writer:
        for stream, start_s in times.items():
            values = np.arange(5.0 * DIMS[stream]).reshape(5, DIMS[stream])
            writer.add(row("e", stream, values, start_s))
    apart = label_samples(read_store(FeatureStore(store)), {"e": 1.0}).samples
    assert [apart.lengths[stream].tolist() for stream in DIMS] == [[5], [5]]
    found = read_store(FeatureStore(store), ["vst", "ast"], one_grid=True)
    batch = label_samples(found, {"e": 1.0}).samples.whole(torch.arange(1))
    assert batch.features["ast"][0, :, 0].tolist() == [0, 0.5, 1, 2.5, 3]
    assert batch.masks["ast"].tolist() == [[True] * 5]
    samples = AlignedDataset(FeatureStore(store), ["vst", "ast"])
    sample = samples[samples.video_ids.index("e")]
    assert sample["ast"][:, 0].tolist() == [0, 0.5, 1, 2.5, 3]
    assert sample["start_s"].tolist() == times["vst"].tolist()


def test_unmatched_videos_and_labels_are_listed(store: Path) -> None:
    data = label_samples(read_store(FeatureStore(store)), {"a": 1.0, "c": 2.0, "x": 3.0})
    assert data.samples.video_ids == ("a",)
    assert data.unfinished == ("c",)
    assert data.without_video == ("x",)
    assert data.without_label == ("b", "d")
    with pytest.raises(InputError, match="no stream 'i3d' in this store; it has vst, ast"):
        read_store(FeatureStore(store), ["i3d"])


@pytest.mark.parametrize("form", ["npz", "folder"])
def test_released_arrays(tmp_path: Path, form: str) -> None:
    halves = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    arrays = {"1": np.ones((4, 2), np.float16), "2": halves}
    if form == "npz":
        source = tmp_path / "features.npz"
        np.savez(source, **arrays)
    else:
        source = tmp_path / "features"
        source.mkdir()
        for name, array in arrays.items():
            np.save(source / f"{name}.npy", array)
    found = read_features(source, ["vst"])
    assert found.dims == {"vst": 2}
    assert found.videos["1"]["vst"].values.dtype == np.float32
    np.testing.assert_array_equal(found.videos["2"]["vst"].values, [[1, 2], [5, 6], [9, 10]])
    digest = found.streams["vst"]["settings_digest"]
    assert read_features(source, ["vst"]).streams["vst"]["settings_digest"] == digest
    with pytest.raises(InputError, match="have one stream; name it"):
        read_features(source)


def test_the_digest_depends_on_the_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", a=np.ones((4, 2)))
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 2)))
    one, two = (read_features(tmp_path / f"{name}.npz", ["vst"]).streams["vst"] for name in ("one", "two"))
    assert one["settings_digest"] != two["settings_digest"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(3)}, r"a: is an array of shape \(3,\)"),
        ({"a": np.ones((0, 2))}, r"a: is an array of shape \(0, 2\)"),
        ({"a": np.full((2, 2), np.nan)}, "a: some values are not finite"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 3))}, r"found 2 \(a\), 3 \(b\)"),
        ({}, "no array"),
        ({"a": np.array([{"x": 1}])}, "cannot be read as NumPy arrays"),
    ],
)
def test_invalid_arrays_are_rejected_by_name(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "features.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message):
        read_features(tmp_path / "features.npz", ["vst"])


def test_a_folder_without_features_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a feature store"):
        read_features(tmp_path, ["vst"])


def test_partial_videos_are_included_on_request(learnable: Callable[..., tuple[Path, Path]]) -> None:
    store, _ = learnable(4, partial=1)
    assert len(read_features(store).videos) == 3
    assert len(read_features(store, partial=True).videos) == 4

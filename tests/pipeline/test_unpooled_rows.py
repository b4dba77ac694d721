"""Segments with more than one row keep their shape from the video to the store, to files and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clips import Clip, write_clip
from fakes import stream, video
from known_extractors import SEGMENT
from store_rows import new_store, row
from torch.utils.data import DataLoader

import arabesque
from arabesque.manifests.errors import InputError
from arabesque.manifests.recipes import parse_recipe
from arabesque.models.features import read_store
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.interop.exporting import export
from arabesque.pipeline.interop.feature_comparison import compare_features
from arabesque.pipeline.interop.feature_files import opened
from arabesque.pipeline.interop.importing import import_features
from arabesque.pipeline.planning import plan
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.write_ahead_log import FinishedSegment, WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter

RECIPE = f"""
name = "known"
summary = "frame numbers, and maps of a network"
[sampling]
fps = "native"
frames_per_segment = {SEGMENT}
frames_per_step = {SEGMENT}
remainder = "drop-tail"
[streams.grid]
extractor = "known_extractors:FrameGrid"
[streams.maps]
extractor = "torchvision:resnet18"
output = "map"
settings = {{ geometry = {{ steps = [{{ size_px = [64, 64] }}] }} }}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("unpooled")
    (folder / "videos").mkdir()
    for name, num_frames in (("a", 24), ("b", 17)):
        write_clip(folder / "videos" / f"{name}.mp4", Clip(num_frames=num_frames))
    run = Extraction(folder / "videos", parse_recipe(RECIPE, "known.toml"), folder / "features", weights="random:0")
    for _ in run:
        pass
    return FeatureStore(folder / "features")


def test_the_store_has_the_shape_of_every_row(store: FeatureStore) -> None:
    grid = store["a"]["grid"]
    assert grid.values.tolist() == np.arange(24).reshape(3, 4, 2).tolist()
    assert repr(grid) == "StreamFeatures('a', 'grid': 3 segments × 4 × 2 features, 0.0 to 1.0 s, done)"
    assert grid.row_means.tolist() == np.arange(24).reshape(3, 4, 2).mean(axis=1).tolist()
    assert store["b"]["maps"].values.shape == (2, 2, 2, 512)
    with pytest.raises(ValueError, match="a segment has 4 × 2 values, which are not one row of a table"):
        grid.to_pandas()
    [shard] = (Path(str(store.path)) / "stream=grid").glob("*.parquet")
    table = pq.read_table(shard, columns=["segments", "dim", "shape", "features"]).to_pylist()
    assert sorted((each["segments"], each["dim"], each["shape"]) for each in table) == [
        (2, 8, [2, 4, 2]),
        (3, 8, [3, 4, 2]),
    ]
    assert {len(vector) for each in table for vector in each["features"]} == {8}
    assert store.manifest["streams"]["grid"]["shape"] == [4, 2]
    assert not check_store(store.path).findings


@pytest.mark.parametrize("format", ["npy-folder", "npz", "hdf5", "finefs-folder", "webdataset", "logo-dict"])
def test_exported_files_have_the_shape_and_come_back(store: FeatureStore, tmp_path: Path, format: str) -> None:
    export(store, tmp_path / "files", format, streams=["grid"])
    with opened(tmp_path / "files") as found:
        import_features(found, found.arrays, tmp_path / "again", grids={})
    again = FeatureStore(tmp_path / "again")
    assert again["b"]["grid"].values.tolist() == store["b"]["grid"].values.tolist()
    assert compare_features(store.path, tmp_path / "again", stream="grid").same
    assert compare_features(store.path, tmp_path / "files", stream="grid").same
    if format == "npy-folder":
        assert np.load(tmp_path / "files" / "a.npy").shape == (3, 4, 2)


def test_a_difference_of_pooling_is_explained(store: FeatureStore, tmp_path: Path) -> None:
    maps = store["a"]["maps"].values
    for name, values in (("rows", maps.mean(axis=(1, 2))), ("maps", maps)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", values)
    found = compare_features(tmp_path / "rows", tmp_path / "maps", stream="maps")
    assert found.streams[0].explanation is not None
    assert found.streams[0].explanation.sentence == "B has 4 vectors for each segment; their mean is A's"


def test_training_samples_have_the_shape_and_scoring_models_refuse_it(store: FeatureStore) -> None:
    dataset = arabesque.AlignedDataset(store, ["grid", "maps"])
    [batch] = DataLoader(dataset, batch_size=2, collate_fn=arabesque.collate_padded)
    assert batch["grid"].shape == (2, 3, 4, 2)
    assert batch["maps"].shape == (2, 3, 2, 2, 512)
    assert torch.equal(batch["grid"][0], torch.arange(24.0).reshape(3, 4, 2))
    with pytest.raises(
        InputError, match="stream 'grid' has 4 × 2 values for each segment, but scoring models need one"
    ):
        read_store(store)


def test_segments_of_a_killed_run_keep_their_shape(tmp_path: Path) -> None:
    new_store(tmp_path / "features")
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    with StoreWriter(tmp_path / "features") as writer:
        writer.add_progress("key", 0, 0.0, 1.0, values)
        writer.flush()
    [segment] = WriteAheadLog(tmp_path / "features")["key"].values()
    grid = stream("grid", dim=8)
    grid.extractor.shape = (4, 2)  # type: ignore[attr-defined]
    [outcome] = plan_video(video(num_frames=2), [grid], {})[1]
    known = {outcome.key: {0: FinishedSegment(0.0, 0.4, segment.feature)}}
    planned, _ = plan_video(video(num_frames=8), [grid], known)
    assert planned.streams["grid"].known[0].tolist() == values.tolist()


def test_too_many_values_of_a_video_fail_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_ROW_BYTES", 100)
    grid = stream("grid", dim=8)
    assert not plan_video(video(num_frames=16), [grid], {})[1]  # ordinary rows have no limit
    grid.extractor.shape = (4, 2)  # type: ignore[attr-defined]
    rows, (outcome,) = plan_video(video(num_frames=16), [grid], {})
    assert not rows.streams
    assert 'set output = "time" or "pooled"' in outcome.reason


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    new_store(tmp_path / "features")
    made = row("a", "vst")
    other = replace(made, features=made.features.reshape(len(made.features), 2, 2))
    with StoreWriter(tmp_path / "features") as writer, pytest.raises(ValueError, match=r"not float32 \[segments, 4\]"):
        writer.add(other)

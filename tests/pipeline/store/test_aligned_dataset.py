from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from store_rows import DIMS, manifest, new_store, outcome_of, row
from torch.utils.data import DataLoader

from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.aligned_dataset import AlignedDataset, collate_padded, on_grid
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.stream_features import StreamFeatures
from arabesque.pipeline.store.writer import StoreWriter

SILENT = row("Silent", "ast")


def store_of(root: Path, *rows: FeatureRow, partial: bool = False) -> FeatureStore:
    """The rows, and the outcome that a video named Silent has no sound."""
    with StoreWriter(new_store(root)) as writer:
        for made in rows:
            writer.add(made)
            writer.add_outcome(outcome_of(made))
        writer.add_outcome(outcome_of(SILENT, "empty", reason="no audio track"))
    return FeatureStore(root, partial=partial)


def features(values: list[list[float]], start_s: list[float], end_s: list[float]) -> StreamFeatures:
    array = np.array(values, np.float32)
    return StreamFeatures("A", "ast", array, np.array(start_s), np.array(end_s), "", "", "done", {})


def test_a_sample_holds_every_stream_on_one_grid(tmp_path):
    vst, ast = row("A", segments=5), row("A", "ast", segments=5)
    samples = AlignedDataset(store_of(tmp_path, vst, ast), ["vst", "ast"], labels={"A": 14.25})
    sample = samples[0]
    assert len(samples) == 1
    assert sample["video_id"] == "A"
    assert sample["vst"].dtype == torch.float32
    assert np.array_equal(sample["vst"].numpy(), vst.features)
    assert np.array_equal(sample["ast"].numpy(), ast.features)
    assert sample["masks"]["ast"].tolist() == [True] * 5
    assert sample["start_s"].numpy().tobytes() == vst.start_s.tobytes()
    assert sample["end_s"].numpy().tobytes() == vst.end_s.tobytes()
    assert sample["label"] == 14.25


def test_a_segment_takes_the_mean_of_what_it_overlaps_weighted_by_the_overlap():
    other = features([[1, 10], [2, 20], [4, 40]], [0, 1, 2], [1, 2, 3])
    values, mask = on_grid(other, np.array([0.5, 2.25, 2.9, -1.0, 0.0]), np.array([1.25, 2.5, 7.0, 0.0, 3.0]))
    assert mask.tolist() == [True, True, True, False, True]
    assert np.allclose(values[:, 0], [(0.5 * 1 + 0.25 * 2) / 0.75, 4, 4, 0, 7 / 3], atol=1e-6)
    assert np.allclose(values[:, 1], 10 * values[:, 0], atol=1e-5)
    assert values.dtype == np.float32


def test_touching_intervals_do_not_mix_despite_rounding():
    wanted = row("A", segments=200)
    grid = np.arange(201) * (32 / 29.97)
    same = StreamFeatures("A", "vst", wanted.features, grid[:-1] - 1e-9, grid[1:] + 1e-9, "", "", "done", {})
    values, mask = on_grid(same, grid[:-1], grid[1:])
    assert values.tobytes() == wanted.features.tobytes()
    assert mask.all()


def test_segments_that_a_stream_skipped_are_masked(tmp_path):
    whole = row("A", "ast", segments=4)
    gap = [0, 1, 3]
    sparse = replace(whole, features=whole.features[gap], start_s=whole.start_s[gap], end_s=whole.end_s[gap])
    sample = AlignedDataset(store_of(tmp_path, row("A", segments=4), sparse), ["vst", "ast"])[0]
    assert sample["masks"]["ast"].tolist() == [True, True, False, True]
    assert np.array_equal(sample["ast"][gap].numpy(), sparse.features)
    assert not sample["ast"][2].any()
    assert "label" not in sample


def test_an_empty_stream_is_zeros_and_other_missing_streams_exclude_the_video(tmp_path):
    rows = [row("Silent"), row("A"), row("A", "ast"), row("NoSound?"), row("Cut", outcome="partial"), row("Cut", "ast")]
    store = store_of(tmp_path, *rows)
    samples = AlignedDataset(
        store, ["vst", "ast"], labels={"A": 1.0, "Silent": 2.0, "Cut": 3.0, "Lost": 4.0, "NoSound?": 5.0}
    )
    assert samples.video_ids == ["A", "Silent"]
    assert samples.left_out == {"Cut": "vst is partial", "Lost": "no vst features", "NoSound?": "no ast features"}
    silent = samples[1]
    assert silent["ast"].shape == (3, DIMS["ast"])
    assert not silent["ast"].any()
    assert not silent["masks"]["ast"].any()
    assert silent["masks"]["vst"].all()
    with_reference = AlignedDataset(store, ["vst", "ast"], reference="ast")
    assert with_reference.left_out["Silent"] == "ast is empty"
    assert AlignedDataset(store, ["vst"], labels={"A": 1.0}).left_out["Silent"] == "no label"
    assert "Cut" in AlignedDataset(FeatureStore(tmp_path, partial=True), ["vst", "ast"]).video_ids


def test_invalid_arguments_are_reported(tmp_path):
    store = store_of(tmp_path, row("Ball_001"))
    with pytest.raises(ValueError, match=r"no stream 'i3d' in .*it has vst, ast"):
        AlignedDataset(store, ["vst", "i3d"])
    with pytest.raises(ValueError, match="reference 'ast' is not one of the streams vst"):
        AlignedDataset(store, ["vst"], reference="ast")
    with pytest.raises(ValueError, match=r"no video of .* \(Ball_001: no label; ball_001: no vst features\)"):
        AlignedDataset(store, ["vst"], labels={"ball_001": 1.0})


def test_a_stream_cannot_take_the_name_of_another_field(tmp_path):
    clashing = manifest()
    clashing["streams"]["label"] = clashing["streams"]["vst"]
    write_manifest(tmp_path, clashing)
    with pytest.raises(ValueError, match="stream 'label' has the name of a sample's own field"):
        AlignedDataset(FeatureStore(tmp_path), ["label"])


@pytest.mark.parametrize("in_memory", [False, True])
def test_samples_in_memory_are_the_same_and_may_be_changed(tmp_path, in_memory):
    rows = [row(name, stream) for name in ("A", "B") for stream in DIMS]
    samples = AlignedDataset(store_of(tmp_path, *rows), ["ast", "vst"], in_memory=in_memory)
    samples[1]["vst"].zero_()
    assert np.array_equal(samples[1]["vst"].numpy(), row("B").features)


def test_samples_in_memory_need_no_disk(tmp_path):
    samples = AlignedDataset(store_of(tmp_path, row("A"), row("A", "ast")), ["vst", "ast"], in_memory=True)
    for shard in tmp_path.rglob("part-*"):
        shard.unlink()
    assert np.array_equal(samples[0]["ast"].numpy(), row("A", "ast").features)


def test_a_batch_is_padded_with_masks(tmp_path):
    lengths = {"A": 2, "B": 5, "Silent": 3}
    rows = [row(name, stream, segments=count) for name, count in lengths.items() for stream in DIMS]
    store = store_of(tmp_path, *(made for made in rows if made.key != SILENT.key))
    samples = AlignedDataset(store, ["vst", "ast"], labels={"A": [1.0, 2.0], "B": [3.0, 4.0], "Silent": [5.0, 6.0]})
    batch = collate_padded([samples[index] for index in range(3)])
    assert batch["video_id"] == ["A", "B", "Silent"]
    assert batch["vst"].shape == (3, 5, 4)
    assert batch["start_s"].shape == batch["valid"].shape == batch["masks"]["ast"].shape == (3, 5)
    assert batch["valid"].sum(1).tolist() == batch["num_segments"].tolist() == [2, 5, 3]
    assert batch["valid"][2].tolist() == [True, True, True, False, False]
    assert batch["masks"]["ast"].sum(1).tolist() == [2, 5, 0]
    assert not batch["vst"][0, 2:].any()
    assert np.array_equal(batch["vst"][1].numpy(), row("B", segments=5).features)
    assert batch["label"].tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.slow
def test_a_loader_gives_the_same_with_and_without_workers(tmp_path):
    rows = [row(f"Ball_{number:03d}", stream, segments=2 + number) for number in range(6) for stream in DIMS]
    samples = AlignedDataset(store_of(tmp_path, *rows), ["vst", "ast"])
    alone, shared = (DataLoader(samples, 4, collate_fn=collate_padded, num_workers=workers) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert one["video_id"] == other["video_id"]
        assert torch.equal(one["ast"], other["ast"])

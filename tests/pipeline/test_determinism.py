"""Features do not depend on the batch, the number of decoders or interruptions (design.md, promise 5)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from numpy.typing import NDArray

from arabesque.extractors.engines import Engine
from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.table import extractor_kind
from arabesque.manifests.recipes import Recipe, parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import SegmentFeature
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.store.reader import FeatureStore

RECIPE = """
name = "small"
summary = "every kind of stream, with small pictures and short sound"
[sampling]
fps = "native"
frames_per_segment = 16
frames_per_step = 16
remainder = "drop-tail"
[streams.clips]
extractor = "pytorchvideo:x3d_xs"
weights = { network = "x3d_xs_k400" }
settings.geometry.steps = [{ size_px = [64, 64] }]
[streams.half]
extractor = "pytorchvideo:x3d_xs"
weights = { network = "x3d_xs_k400" }
precision = "bfloat16"
settings.geometry.steps = [{ size_px = [64, 64] }]
[streams.images]
extractor = "resnet_frame"
weights = { network = "resnet50_imagenet" }
settings.geometry.steps = [{ size_px = [64, 64] }]
sampling = { fps = 2, frames_per_segment = 1, frames_per_step = 1 }
[streams.sound]
extractor = "ast"
weights = { network = "ast_audioset_10_10_hf" }
settings = { input_frames = 26 }
[streams.split_sound]
extractor = "ast"
weights = { network = "ast_audioset_10_10_hf" }
settings = { input_frames = 26, windows = "equal-split", remove_mean = true, resampler = "sinc-hann" }
[streams.motion]
extractor = "motion"
[streams.rhythm]
extractor = "rhythm"
"""
Rows = dict[tuple[str, str], NDArray[np.float32]]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return parse_recipe(RECIPE, "small.toml")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of different lengths, rates and sizes, so that they are mixed in full and partial batches."""
    folder = tmp_path_factory.mktemp("videos")
    for index, (num_frames, fps) in enumerate([(52, 25), (40, 30), (67, 24)]):
        clip = Clip(num_frames=num_frames, fps=Fraction(fps), width_px=112 + 32 * index, beeps_s=[0.1, 0.7, 1.2])
        write_clip(folder / f"{index}.mp4", clip)
    return folder


@pytest.fixture(scope="module", params=["torch", "openvino"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of all runs of a test; networks are exported into a cache of this module."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield request.param


@pytest.fixture(scope="module")
def whole_run(videos: Path, recipe: Recipe, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    out = tmp_path_factory.mktemp("whole") / "out"
    list(run(videos, recipe, out, engine))
    return rows_of(out)


def run(videos: Path, recipe: Recipe, out: Path, engine: Engine, num_decoders: int = 1) -> Iterator[object]:
    options = RunOptions(num_decoders=num_decoders, num_cpu_threads=4, engine=engine)
    return iter(Extraction(videos, recipe, out, weights="random:0", options=options))


def rows_of(out: Path) -> Rows:
    store = FeatureStore(out)
    return {(video, stream): np.asarray(row) for video in store for stream, row in store[video].items()}


def same(found: Rows, expected: Rows, recipe: Recipe) -> None:
    """Check that rows agree within `TOLERANCES`, or exactly for streams without a network.

    Measured on one core: 1.4e-7 at most.
    """
    assert found.keys() == expected.keys()
    for (video, stream), row in expected.items():
        spec = recipe.streams[stream]
        allowed = TOLERANCES[spec.precision] if extractor_kind(spec.extractor).weight_roles else 0.0
        off = np.abs(found[video, stream] - row).max(axis=1) / np.abs(row).max(axis=1)
        assert off.max() <= allowed, (video, stream, off)


@pytest.mark.slow
def test_features_do_not_depend_on_other_videos(
    videos: Path, recipe: Recipe, engine: Engine, whole_run: Rows, tmp_path: Path
) -> None:
    """Each video is extracted in a separate run, with other batches and batch sizes."""
    assert len(whole_run) == 3 * len(recipe.streams)
    alone: Rows = {}
    for video in sorted(videos.iterdir()):
        list(run(video, recipe, tmp_path / video.stem, engine))
        alone |= rows_of(tmp_path / video.stem)
    same(alone, whole_run, recipe)


@pytest.mark.slow
def test_features_do_not_depend_on_the_number_of_decoders(
    videos: Path, recipe: Recipe, engine: Engine, whole_run: Rows, tmp_path: Path
) -> None:
    list(run(videos, recipe, tmp_path / "out", engine, num_decoders=3))
    same(rows_of(tmp_path / "out"), whole_run, recipe)


@pytest.mark.slow
def test_features_do_not_depend_on_interruptions(
    videos: Path, recipe: Recipe, engine: Engine, whole_run: Rows, tmp_path: Path
) -> None:
    """Runs are stopped after a few segments: stored segments are kept, and the others are computed in other batches."""
    out, told = tmp_path / "out", 0
    for stop_after in (3, 7):
        events = run(videos, recipe, out, engine)
        for event in events:
            told += isinstance(event, SegmentFeature)
            if told >= stop_after:
                break
        events.close()  # type: ignore[attr-defined]
    list(run(videos, recipe, out, engine))
    same(rows_of(out), whole_run, recipe)

"""`compare --as`: released features whose settings are documented, as side B."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from straight_line import Glance
from typer.testing import CliRunner, Result

import arabesque
from arabesque.cli.demo_videos.routines import write_routines
from arabesque.cli.main import commands
from arabesque.extractors import i3d
from arabesque.manifests.errors import ConfigError, InputError
from arabesque.manifests.public_features import all_public_features
from arabesque.manifests.recipes import parse_recipe
from arabesque.manifests.weights import load_weights_manifest
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.interop.documented import documented_streams

COLOR = """
name = "color"
summary = "I3D on color"
[streams.mine]
extractor = "i3d_rgb"
weights = {{ network = "i3d_rgb_k400" }}
sampling = {{ fps = {fps}, frames_per_segment = {length}, frames_per_step = {step}, remainder = "drop-tail" }}
settings.geometry.steps = [{{ size_px = [64, 64] }}]
settings.batch_norm_eps = {eps}
"""
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Extract a stream ``mine`` of two drawn videos, with a linear function of all pixels in place of I3D."""
    videos = tmp_path_factory.mktemp("videos")
    write_routines(videos, 2, duration_s=2.6)

    def run(length: int = 16, step: int = 4, fps: str = '"native"', eps: float = 1e-3) -> Path:
        out = tmp_path_factory.mktemp("runs") / "out"
        recipe = parse_recipe(COLOR.format(length=length, step=step, fps=fps, eps=eps), "r.toml")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(i3d, "load_i3d", lambda *_, **__: Glance())
            list(Extraction(videos, recipe, out, weights="random:0"))
        return out

    return run


@pytest.fixture(scope="module")
def theirs(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write files like ActionFormer's: color and flow in one row, and one row less than possible."""
    folder = tmp_path_factory.mktemp("i3d_features")
    for features in arabesque.FeatureStore(run()).scan("mine"):
        color = features.values[:-1]
        flow = np.random.default_rng(0).normal(size=color.shape)
        np.save(folder / f"{features.video_id}.npy", np.concatenate([color, flow], axis=1))
    return folder


def compared(*arguments: Any) -> Result:
    return CliRunner().invoke(commands, ["compare", *map(str, arguments)])


def test_the_same_settings_give_the_same_features(run: Run, theirs: Path) -> None:
    result = compared(run(), theirs, "--as", "actionformer-i3d", "--stream", "mine")
    assert result.exit_code == 0
    assert "i3d_rgb: 2 same" in result.output
    assert "not documented" not in result.output
    assert "setting weights.network: random:0 (A), i3d_rgb_k400_piergiaj or i3d_rgb_k400 (B)" in result.output
    assert "setting sampling" not in result.output
    assert "setting batch_norm_eps" not in result.output


def test_a_setting_that_differs_is_named(run: Run, theirs: Path) -> None:
    result = compared(run(step=16, eps=1e-5), theirs, "--as", "actionformer-i3d", "--stream", "i3d_rgb")
    assert result.exit_code == 3
    text = " ".join(result.output.split())
    assert "setting sampling.frames_per_step: 16 (A), 4 (B)" in text
    assert "setting batch_norm_eps: 1e-05 (A), 0.001 (B)" in text
    assert "the rows of the same time agree" in text  # every fourth row of theirs
    assert text.endswith("DIFFERENT")


def test_json_has_settings_and_what_is_not_documented(run: Run, theirs: Path) -> None:
    result = compared(run(step=16), theirs, "--as", "actionformer-i3d", "--stream", "mine", "--json")
    report = json.loads(result.output)
    assert report["as"] == "actionformer-i3d"
    [stream] = report["streams"]
    assert stream["settings"]["sampling.frames_per_step"] == ["16", "4"]
    assert len(stream["not_documented"]) == 1


def test_two_rows_for_each_window_are_averaged(run: Run, tmp_path: Path) -> None:
    """VSLNet: I3D's pool leaves two steps of time for 24 frames."""
    mine = run(length=24, step=24, fps="24")
    for features in arabesque.FeatureStore(mine).scan("mine"):
        values = features.values
        spread = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
        np.save(
            tmp_path / f"{features.video_id}.npy", np.stack([values - spread, values + spread], 1).reshape(-1, 1024)
        )
    result = compared(mine, tmp_path, "--as", "vslnet-charades")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("SAME\n")
    assert "setting geometry.steps" in result.output


def test_a_recipe_is_documented_in_full(run: Run) -> None:
    out = run(length=64, step=64)
    result = arabesque.compare(out, out, published="video-features-i3d", stream="mine")
    assert result.same
    names = {each.name for each in result.settings["rgb"]}
    assert names == {
        "sampling.frames_after",
        "batch_norm_eps",
        "geometry.resize_arithmetic",
        "geometry.steps",
        "weights.network",
    }


def test_features_without_settings_are_compared_by_their_numbers(theirs: Path) -> None:
    result = compared(theirs, theirs, "--as", "actionformer-i3d")
    assert result.exit_code == 0
    assert "i3d_rgb: 2 same" in result.output
    assert "i3d_flow: 2 same" in result.output
    assert "the settings of A are not known; actionformer-i3d is compared by its numbers only" in result.output


def test_wrong_names_are_one_line(run: Run, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean actionformer-i3d"):
        arabesque.compare(tmp_path / "nowhere", theirs, published="actionformer-i3")
    with pytest.raises(InputError, match=r"no stream like those of video-features-vggish in it; it has mine"):
        arabesque.compare(run(), theirs, published="video-features-vggish")


@pytest.mark.parametrize("name", all_public_features())
def test_documented_settings_are_settings_of_a_recipe(name: str) -> None:
    from arabesque.extractors.table import extractor_kind
    from arabesque.manifests.streams import Sampling

    known = load_weights_manifest().weights
    for stream in documented_streams(name).values():
        assert set(stream.sampling) <= set(Sampling.model_fields)
        assert {weights for names in stream.weights.values() for weights in names} <= set(known)
        if stream.extractor:
            assert set(stream.settings) <= set(extractor_kind(stream.extractor).Settings.model_fields)
        assert stream.unknown

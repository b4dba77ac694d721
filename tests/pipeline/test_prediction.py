"""Class names that networks with a classifier give for a video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.class_scores import class_names, logits_kind
from arabesque.extractors.i3d import I3D_RGB, load_i3d
from arabesque.extractors.table import build, resolve
from arabesque.manifests.errors import ConfigError, ExtractionError, WeightsError
from arabesque.manifests.recipes import load_recipe, parse_recipe
from arabesque.manifests.streams import StreamSpec
from arabesque.manifests.weights import load_weights_manifest
from arabesque.pipeline.prediction import predict

ENTRY = load_weights_manifest().entry
SHARED = Path(__file__).resolve().parents[3] / "shared"
SMALL = """
name = "small"
summary = "a small network with a classifier, and a stream without one"
[sampling]
fps = "native"
frames_per_segment = 4
frames_per_step = 4
remainder = "drop-tail"
[streams.x3d]
extractor = "pytorchvideo:x3d_xs"
weights = { network = "x3d_xs_k400" }
settings = { geometry = { steps = [{ size_px = [64, 64] }] } }
[streams.motion]
extractor = "motion"
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    write_clip(path, Clip(num_frames=10))
    return path


def test_a_video_has_the_classes_of_the_mean_of_its_segments(video: Path):
    found = predict(video, parse_recipe(SMALL, "small.toml"), weights="random:0", top=400)
    (stream,) = found.streams
    assert "no known classifier" in found.skipped["motion"]
    assert len(stream.segments) == 2
    names = class_names(resolve(parse_recipe(SMALL, "small.toml").streams["x3d"]), ENTRY)
    tables = [{score.name: score.probability for score in part.classes} for part in (stream, *stream.segments)]
    whole, first, second = (np.array([table[name] for name in names]) for table in tables)
    for probabilities in (whole, first, second):
        assert probabilities.sum() == pytest.approx(1)
    mean = np.sqrt(first * second)  # the mean before the softmax is the geometric mean after it
    np.testing.assert_allclose(whole, mean / mean.sum(), rtol=1e-5)
    assert [score.probability for score in stream.classes] == sorted(whole, reverse=True)


def test_the_command_prints_the_classes(video: Path, tmp_path: Path):
    (tmp_path / "small.toml").write_text(SMALL)
    command = ["predict", str(video), "--recipe", str(tmp_path / "small.toml"), "--weights", "random:0"]
    text = CliRunner().invoke(commands, [*command, "--top", "3"])
    assert text.exit_code == 0, text.output
    lines = [line for line in text.stdout.splitlines() if "%" in line]
    assert len(lines) == 3
    found = json.loads(CliRunner().invoke(commands, [*command, "--top", "1", "--json"]).stdout)
    assert found["streams"][0]["classes"][0]["name"] in lines[0]
    assert CliRunner().invoke(commands, [*command, "--stream", "motion"]).exit_code != 0


def test_streams_without_a_classifier_are_an_error(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(ConfigError, match=r"no stream can name classes; .*motion.*no known classifier"):
        predict(video, load_recipe("starter"))
    with pytest.raises(ConfigError, match=r"stream motion: .*no known classifier"):
        predict(video, parse_recipe(SMALL, "small.toml"), streams=["motion"], weights="random:0")
    with pytest.raises(WeightsError, match="x3d_xs_k400"):
        predict(video, parse_recipe(SMALL, "small.toml"))
    long = SMALL.replace("frames_per_segment = 4", "frames_per_segment = 40")
    with pytest.raises(ExtractionError, match=r"clip\.mp4: .*stream x3d: .*40"):
        predict(video, parse_recipe(long, "long.toml"), weights="random:0")
    with pytest.raises(ConfigError, match="names of its classes are not known"):
        predict(video, load_recipe("gdlt"))


@pytest.mark.parametrize(
    ("extractor", "checkpoint", "first", "number"),
    [
        ("i3d_rgb", "i3d_rgb_k400", "abseiling", 400),
        ("i3d_flow", "i3d_flow_k400", "abseiling", 400),
        ("video_swin_b", "video_swin_b_k400", "abseiling", 400),
        ("resnet_frame", "resnet50_imagenet", "tench", 1000),
        ("torchvision:r2plus1d_18.KINETICS400_V1", "torchvision:r2plus1d_18.KINETICS400_V1", "abseiling", 400),
        ("pytorchvideo:slow_r50", "slow_r50_k400", "abseiling", 400),
    ],
)
def test_networks_with_classes(extractor: str, checkpoint: str, first: str, number: int):
    sampling = load_recipe("video-features-i3d").streams["rgb"].sampling
    spec = resolve(StreamSpec(extractor=extractor, sampling=sampling, weights={"network": checkpoint}))
    names = class_names(spec, ENTRY)
    assert (names[0], len(names)) == (first, number)
    assert logits_kind(extractor).weight_roles == ("network",)


def test_the_stream_of_logits_is_the_classifier_of_the_network():
    sampling = load_recipe("video-features-i3d").streams["rgb"].sampling
    given = {"extractor": "logits:i3d_rgb", "sampling": sampling, "weights": {"network": "i3d_rgb_k400"}}
    made = build(resolve(StreamSpec.model_validate(given)), {"network": RandomWeights(0)}, torch.device("cpu"))
    assert made.dim == 400
    frames = torch.randint(0, 256, (9, 3, 196, 196), dtype=torch.uint8)
    (row,) = made.forward([frames])
    network = load_i3d(RandomWeights(0), in_channels=3, batch_norm_eps=I3D_RGB.Settings().batch_norm_eps)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.inference_mode():
        expected = network.logits((2 * frames / 255 - 1).transpose(0, 1)[None])[0]
    assert row is not None
    torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
def test_the_skater_is_ice_skating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path))
    file = SHARED / "weights" / "i3d_rgb_kinetics400_fp16.pt"
    assert CliRunner().invoke(commands, ["weights", "add", "i3d_rgb_k400_fp16", str(file)]).exit_code == 0
    labels = (SHARED / "weights" / "kinetics400_labels.txt").read_text().splitlines()
    recipe = load_recipe("video-features-i3d", changes={"streams.rgb.weights.network": "i3d_rgb_k400_fp16"})
    assert list(class_names(recipe.streams["rgb"], ENTRY)) == labels
    found = predict(SHARED / "videos" / "skating_720x1280_portrait.mp4", recipe)
    assert found.streams[0].classes[0].name == "ice skating"
    assert "i3d_flow_k400" in found.skipped["flow"]

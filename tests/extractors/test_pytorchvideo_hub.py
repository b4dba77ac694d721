from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.precision import inference
from arabesque.extractors.protocol import Extractor, SegmentInput
from arabesque.extractors.pytorchvideo_hub import NAMES, load_hub_network, pytorchvideo_card
from arabesque.extractors.table import build
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.manifests.streams import Sampling, StreamSpec

CPU = torch.device("cpu")
TRAINED_CLIPS = {
    "x3d_xs": (4, 160),
    "x3d_s": (13, 160),
    "slow_r50": (8, 224),
    "slowfast_r50": (32, 224),
    "mvit_base_16": (1, 224),
}
"""Frames and side for which the classifier's pooling is defined."""


DEEPER = ("x3d_s", "x3d_m", "x3d_l", "efficient_x3d_s")
"""More of the layers of x3d_xs and efficient_x3d_xs."""


def clips(count: int, frames: int, side: int) -> Tensor:
    return torch.randn(count, 3, frames, side, side, generator=torch.Generator().manual_seed(0))


def run(network: nn.Module, inputs: Tensor) -> Tensor:
    with inference(CPU, "float32"):
        return network(inputs)


def published(name: str, seed: int) -> nn.Module:
    load_hub_network(name, RandomWeights(seed))  # suppresses a warning when the package is imported
    from pytorchvideo.models import hub

    torch.manual_seed(seed)
    return getattr(hub, name)().eval()


def test_the_names_are_all_of_the_hub_but_the_detectors() -> None:
    load_hub_network("x3d_xs", RandomWeights(0))
    from pytorchvideo.models import hub

    there = {name for name, member in vars(hub).items() if inspect.isfunction(member)}
    assert set(NAMES) == {name for name in there if not name.endswith("_detection")}
    assert not any(name.startswith("pytorchvideo.transforms") for name in sys.modules)


@pytest.mark.parametrize(
    "name",
    [
        "x3d_xs",
        "mvit_base_16",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("x3d_s", "slow_r50", "slowfast_r50", "mvit_base_16x4")
        ),
    ],
)
def test_features_are_the_inputs_of_the_published_projection(name: str) -> None:
    """For a clip of the trained size: the input of the untouched network's own classifier."""
    frames, side = TRAINED_CLIPS.get(name, (16, 224))
    network = published(name, seed=3)
    head: Any = network.head if name.startswith("mvit") else network.get_submodule("blocks")[-1]  # pyright: ignore
    seen: list[Tensor] = []
    head.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip = clips(1, frames, side)
    run(network, theirs(name, clip))
    ours, dim = load_hub_network(name, RandomWeights(3))
    features = run(ours, clip)
    assert features.shape == (1, dim) == (1, pytorchvideo_card(name).dim)
    assert (features - seen[0].reshape(1, dim)).abs().max() <= 1e-5 * features.abs().max()


def theirs(name: str, clip: Tensor) -> Any:
    """Return a clip in the form of the published network; SlowFast's sampling is described in the model zoo."""
    if name.startswith("slowfast"):
        slow = torch.tensor([0, 4, 8, 13, 17, 22, 26, 31])
        return [clip[:, :, slow], clip]
    return clip[:, :, 0] if name == "mvit_base_16" else clip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if "101" in name or name in DEEPER else [])
        for name in NAMES
        if not name.startswith("mvit")
    ],
)
def test_every_convolutional_network_takes_short_and_small_clips(name: str) -> None:
    network, dim = load_hub_network(name, RandomWeights(0))
    features = run(network, clips(2, 8, 64))
    assert features.shape == (2, dim) == (2, pytorchvideo_card(name).dim)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_dims() -> None:
    """Other tests compare them with those of the networks."""
    dims = {name: pytorchvideo_card(name).dim for name in ("x3d_m", "slowfast_r50", "mvit_base_16")}
    assert dims == {"x3d_m": 2048, "slowfast_r50": 2304, "mvit_base_16": 768}


def test_sizes_that_a_network_cannot_take_are_named() -> None:
    slowfast, _ = load_hub_network("slowfast_r50", RandomWeights(0))
    with pytest.raises(ValueError, match="segment: has 6 frames; SlowFast needs a multiple of 4"):
        run(slowfast, clips(1, 6, 64))
    mvit, _ = load_hub_network("mvit_base_16x4", RandomWeights(0))
    with pytest.raises(ValueError, match=r"segment: is \[8, 224, 224\].*accepts \[16, 224, 224\]"):
        run(mvit, clips(1, 8, 224))


@pytest.mark.parametrize("name", ["pytorchvideo:x3d", "pytorchvideo:slow_r50_detection", "pytorchvideo"])
def test_a_wrong_name_is_answered_with_all_names(name: str) -> None:
    sampling = Sampling(fps="native", frames_per_segment=4, frames_per_step=4, remainder="drop-tail")
    spec = StreamSpec(extractor=name, sampling=sampling, weights={"network": "any"})
    with pytest.raises(ConfigError, match=r"is not known; NAME is one of c2d_r50, .*, x3d_xs"):
        build(spec, {"network": RandomWeights(0)}, CPU)


def test_loads_a_file_of_the_model_zoo_and_no_other(save_checkpoint: Callable[..., CheckpointFile]) -> None:
    """The published files keep their state dict under ``model_state``, with the classifier in it."""
    state_dict = published("x3d_xs", seed=5).state_dict()
    from_file, _ = load_hub_network("x3d_xs", save_checkpoint({"model_state": state_dict}, "pytorchvideo-hub"))
    from_seed, _ = load_hub_network("x3d_xs", RandomWeights(5))
    clip = clips(1, 4, 64)
    assert torch.equal(run(from_file, clip), run(from_seed, clip))
    with pytest.raises(WeightsError, match="does not fit its network"):
        load_hub_network("x3d_l", save_checkpoint({"model_state": state_dict}, "pytorchvideo-hub"))
    with pytest.raises(WeightsError, match="key layout 'other'"):
        load_hub_network("x3d_xs", save_checkpoint({"model_state": state_dict}, "other"))


def test_normalizes_with_the_zoos_statistics() -> None:
    extractor = build_x3d()
    frames = torch.full((4, 3, 64, 64), 200, dtype=torch.uint8)
    [row] = extractor.forward([extractor.prepare(SegmentInput(0, 0.0, 1.0, frames=frames))])
    network, _ = load_hub_network("x3d_xs", RandomWeights(0))
    expected = run(network, torch.full((1, 3, 4, 64, 64), (200 / 255 - 0.45) / 0.225))[0]
    assert row is not None
    assert (row - expected).abs().max() <= 1e-5 * expected.abs().max()


def build_x3d() -> Extractor:
    card = pytorchvideo_card("x3d_xs")
    return card(settings=card.Settings(), weights={"network": RandomWeights(0)}, device=CPU, precision="float32")

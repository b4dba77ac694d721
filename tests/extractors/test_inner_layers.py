"""Time steps, maps and inner layers of networks: their means are the rows, and missing ones are errors of one line."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from arabesque.extractor_contract import ExtractorContract
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.engines import building_for
from arabesque.extractors.protocol import SegmentInput, shape_of
from arabesque.extractors.table import build, extractor_kind, resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.streams import Sampling, StreamSpec

CPU = torch.device("cpu")
SMALL = {"geometry": {"steps": [{"size_px": [64, 96]}]}}


class Case(NamedTuple):
    frames: int
    shape: tuple[int, ...]
    """Of a map: of an oblong picture where the network takes one."""
    settings: dict[str, Any] = SMALL


I3D_SIZE = {"geometry": {"steps": [{"size_px": [193, 193]}]}}
CASES = {
    "i3d_rgb": Case(17, (2, 7, 7, 1024), I3D_SIZE),
    "i3d_flow": Case(
        17,
        (2, 7, 7, 1024),
        {"flow": {"method": "farneback"}, "flow_geometry": {"steps": []}}
        | {"geometry": {"steps": [{"size_px": [193, 193]}], "gray": True}},
    ),
    "s3d": Case(24, (2, 2, 3, 1024)),
    "r2plus1d_34": Case(16, (2, 4, 6, 512)),
    "resnet_frame": Case(2, (2, 3, 2048)),
    "torchvision:resnet18": Case(1, (2, 3, 512)),
    "torchvision:efficientnet_b0": Case(1, (2, 3, 1280)),
    "torchvision:swin_t": Case(1, (2, 3, 768)),
    "torchvision:r3d_18": Case(16, (2, 4, 6, 512)),
    "torchvision:swin3d_t": Case(4, (2, 2, 3, 768)),
    "pytorchvideo:slow_r50": Case(2, (2, 2, 3, 2048)),
    "timm:resnet18": Case(1, (2, 3, 512)),
}


def spec(name: str, frames: int, **settings: Any) -> StreamSpec:
    sampling = Sampling(fps="native", frames_per_segment=frames, frames_per_step=frames, remainder="drop-tail")
    weights = dict.fromkeys(extractor_kind(name).weight_roles, "any")
    return StreamSpec(extractor=name, sampling=sampling, weights=weights, settings=settings)


def values(resolved: StreamSpec, segment: SegmentInput | None = None) -> Tensor:
    """Return the output of an extractor with random weights for a segment of noise."""
    extractor = build(resolved, dict.fromkeys(resolved.weights, RandomWeights(0)), CPU)
    assert extractor.frames is not None
    if segment is None:
        [step] = extractor.frames.geometry.model_dump()["steps"]
        shape = (resolved.sampling.frames_per_segment, 1 if extractor.frames.geometry.gray else 3, *step["size_px"])
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        segment = SegmentInput(0, 0.0, 1.0, frames=frames)
    with torch.inference_mode():
        [found] = extractor.forward([extractor.prepare(segment)])
    assert found is not None
    assert tuple(found.shape) == shape_of(extractor)
    assert found.numel() == extractor.dim
    return found


FAST = {"i3d_rgb", "s3d", "resnet_frame", "torchvision:resnet18", "torchvision:swin3d_t"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CASES])
def test_the_mean_of_a_map_is_the_row(name: str) -> None:
    for package in ("timm", "pytorchvideo"):
        if name.startswith(f"{package}:"):
            pytest.importorskip(package)
    case = CASES[name]
    row = values(resolve(spec(name, case.frames, **case.settings)))
    on_map = values(resolve(spec(name, case.frames, output="map", **case.settings)))
    assert tuple(on_map.shape) == case.shape

    def assert_same(found: Tensor, expected: Tensor) -> None:
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5

    assert_same(on_map.flatten(0, -2).mean(dim=0), row)
    if len(case.shape) == 4:
        in_time = values(resolve(spec(name, case.frames, output="time", **case.settings)))
        assert_same(in_time, on_map.mean(dim=(1, 2)))
        assert_same(in_time.mean(dim=0), row)


def test_a_layer_is_named_by_the_end_of_its_path() -> None:
    resolved = resolve(spec("i3d_rgb", 17, layer="Mixed_4f", output="map"))
    assert resolved.settings["layer"] == "trunk.mixed_4f"
    assert resolved.settings["row_shape"] == [5, 14, 14, 832]
    assert resolve(resolved) == resolved
    row = values(resolve(spec("torchvision:resnet18", 1, layer="layer3", **SMALL)))
    on_map = values(resolve(spec("torchvision:resnet18", 1, layer="layer3", output="map", **SMALL)))
    assert tuple(on_map.shape) == (4, 6, 256)
    assert torch.allclose(on_map.mean(dim=(0, 1)), row, rtol=1e-5, atol=1e-6)


def test_rows_of_several_crops_are_averaged_in_time() -> None:
    settings = {"geometry": {"steps": [{"center_crop_px": [64, 64]}]}, "crops": "five", "output": "time"}
    resolved = resolve(spec("torchvision:r3d_18", 9, **settings))
    frames = torch.randint(0, 256, (9, 3, 80, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    segment = SegmentInput(0, 0.0, 1.0, frames=frames)
    pooled = resolve(spec("torchvision:r3d_18", 9, **{**settings, "output": "pooled"}))
    assert torch.allclose(values(resolved, segment).mean(dim=0), values(pooled, segment), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "frames", "settings", "message"),
    [
        ("i3d_rgb", 17, {"layer": "mixed_4h"}, "did you mean trunk.mixed_4[a-f]"),
        ("i3d_rgb", 17, {"layer": "mixed_4h"}, "`arabesque recipes RECIPE --layers STREAM` lists them"),
        (
            "i3d_rgb",
            17,
            {"layer": "conv"},
            "[0-9]+ paths of layers end with .conv., such as trunk.conv3d_1a_7x7.conv and",
        ),
        ("i3d_rgb", 17, {"output": "map", "crops": "ten"}, "cannot be averaged over crops"),
        ("i3d_rgb", 17, {"output": "map", "geometry": {"steps": [{"short_side_px": 224}]}}, "pictures of one size"),
        ("i3d_rgb", 8, {"output": "map"}, "the network takes at least 9 frames, not 8"),
        ("i3d_rgb", 17, {"output": "map", **SMALL}, "does not take input of .* at least 9 frames of 193 × 193 px"),
        ("i3d_rgb", 17, {"output": "maps"}, "Input should be 'pooled', 'time' or 'map'"),
        ("logits:i3d_rgb", 17, {"output": "time"}, "classes have a single row; remove output and layer"),
        ("logits:i3d_flow", 17, {"layer": "trunk"}, "classes have a single row; remove output and layer"),
        ("resnet_frame", 1, {"output": "time"}, "single frames; set sampling.frames_per_segment = 1"),
        ("c3d", 16, {"output": "map"}, "does not have; set layer, e.g. layer = 'conv5b'"),
        ("torchvision:vit_b_16", 1, {"output": "map"}, "does not have; its only output is pooled"),
        ("torchvision:vit_b_16", 1, {"output": "map", "layer": "encoder_layer_6"}, "197 tokens without height"),
        ("ast", 16, {"output": "time"}, "a segment has one row, the only output of this extractor; remove output"),
        ("resnet_crop", 1, {"layer": "layer3"}, "a segment has one row, the only output"),
        ("motion", 16, {"output": "map"}, "a segment has one row, the only output of this extractor; remove output"),
    ],
)
def test_a_missing_layer_or_output_is_an_error_of_one_line(
    name: str, frames: int, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        resolve(spec(name, frames, **settings))
    assert "\n" not in str(raised.value)


def test_a_stream_may_have_output_and_layer_beside_its_settings() -> None:
    fields = spec("i3d_rgb", 17).model_dump()
    assert StreamSpec.model_validate({**fields, "output": "time"}) == spec("i3d_rgb", 17, output="time")
    with pytest.raises(ValueError, match="output is also in settings; set it once"):
        StreamSpec.model_validate({**fields, "output": "time", "settings": {"output": "map"}})


@pytest.mark.slow
def test_time_steps_keep_the_contract_of_extractors() -> None:
    contract = ExtractorContract("torchvision:r3d_18", num_frames=16, settings={**SMALL, "output": "time"})
    for check in ("check_a_resolved_spec_is_complete", "check_rows_are_finite_float32", "check_half_precision"):
        getattr(contract, check)()
    contract.check_rows_are_in_order_and_the_same_alone()


@pytest.mark.slow
def test_openvino_computes_time_steps() -> None:
    pytest.importorskip("openvino")
    resolved = resolve(spec("torchvision:r3d_18", 16, output="time", **SMALL))
    expected = values(resolved)
    with building_for("openvino"):
        found = values(resolved)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-4

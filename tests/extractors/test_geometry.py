from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.functional import ten_crop

from arabesque.extractors import geometry as geometry_module
from arabesque.extractors.geometry import (
    apply_geometry,
    center_crop,
    normalize,
    output_size,
    several_crops,
    size_after,
    to_gray,
)
from arabesque.extractors.network import NetworkCard
from arabesque.extractors.protocol import FrameNeed, SegmentInput
from arabesque.extractors.table import resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.streams import (
    CenterCrop,
    Geometry,
    GeometryStep,
    Height,
    Interpolation,
    Normalization,
    Patches,
    Sampling,
    ShortSide,
    Size,
    StreamSpec,
)
from arabesque.pipeline.digests import settings_digest

PIL_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
CV2_FLAGS: dict[Interpolation, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
SIZES = [(66, 104), (56, 56), (90, 160), (211, 301)]
"""From 180 × 320: down, squeezed, halved (a special case in OpenCV), up; the first has pixels half-way."""


def picture(height: int = 180, width: int = 320, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture ``[height, width, channels]`` with edges, gradients and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width][..., None]
    waves = 100 + 80 * np.sin(rows / 9 + np.arange(channels)) * np.cos(columns / 13) + 60 * (rows // 20 % 2)
    return (waves + rng.normal(0, 25, (height, width, channels))).clip(0, 255).astype(np.uint8)


def as_frames(*images: NDArray[np.uint8]) -> Tensor:
    """Return frames in the form of decoders: channels last in memory, channels second in shape."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def differences(frames: Tensor, image: NDArray[Any]) -> NDArray[np.int64]:
    found = frames[0].permute(1, 2, 0).numpy().astype(np.int64)
    return np.abs(found - image.reshape(found.shape).astype(np.int64))


def resized(frames: Tensor, size: tuple[int, int], interpolation: Interpolation, *, antialias: bool) -> Tensor:
    steps = (Size(size_px=size),)
    return apply_geometry(frames, Geometry(steps=steps, interpolation=interpolation, antialias=antialias))


def test_gray_is_opencvs_on_every_device() -> None:
    image = picture()
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray = apply_geometry(as_frames(image), Geometry(steps=(), gray=True))
    assert gray.shape == (1, 1, 180, 320)
    assert differences(gray, np.asarray(expected)).max() == 0
    assert torch.equal(geometry_module._gray_in_torch(as_frames(image)), gray)
    assert torch.equal(apply_geometry(gray, Geometry(steps=(), gray=True)), gray)


def test_some_frames_are_turned_gray_without_the_others() -> None:
    frames = torch.randint(256, (5, 6, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    gray = to_gray(frames)
    assert torch.equal(to_gray(frames, [0, 3]), gray[[0, 3]])
    assert torch.equal(to_gray(gray, [4]), gray[[4]])


def test_gray_comes_before_the_first_step() -> None:
    image = picture()
    expected = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (56, 56), interpolation=cv2.INTER_LINEAR)
    gray = apply_geometry(as_frames(image), Geometry(steps=(Size(size_px=(56, 56)),), antialias=False, gray=True))
    assert differences(gray, np.asarray(expected)).max() == 0


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), crop=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=200, deadline=None)
def test_center_crop_is_torchvisions(size: tuple[int, int], crop: tuple[int, int]) -> None:
    frames = as_frames(picture(*size))
    assert torch.equal(center_crop(frames, crop), v2.functional.center_crop(frames, list(crop)))


@pytest.mark.parametrize(
    ("step", "size", "expected"),
    [
        (ShortSide(short_side_px=256), (480, 640), (256, 341)),
        (ShortSide(short_side_px=256), (1280, 720), (455, 256)),
        (ShortSide(short_side_px=256), (256, 300), (256, 300)),
        (Height(height_px=224), (496, 394), (224, 178)),
        (Height(height_px=224), (480, 640), (224, 299)),
        (Height(height_px=10), (4000, 3), (10, 1)),
        (Size(size_px=(224, 224)), (496, 394), (224, 224)),
        (CenterCrop(center_crop_px=(224, 300)), (256, 256), (224, 300)),
    ],
)
def test_sizes(step: GeometryStep, size: tuple[int, int], expected: tuple[int, int]) -> None:
    geometry = Geometry(steps=(step,))
    assert output_size(*size, geometry) == expected
    assert apply_geometry(torch.zeros(1, 3, *size, dtype=torch.uint8), geometry).shape[-2:] == expected


def test_steps_follow_each_other() -> None:
    gdlt = Geometry(
        steps=(ShortSide(short_side_px=64), CenterCrop(center_crop_px=(56, 75)), Size(size_px=(56, 56))),
    )
    image = picture()
    pil = Image.fromarray(image).resize((113, 64), Image.Resampling.BILINEAR)
    pil = pil.crop((19, 4, 94, 60)).resize((56, 56), Image.Resampling.BILINEAR)
    assert output_size(180, 320, gdlt) == (56, 56)
    assert differences(apply_geometry(as_frames(image), gdlt), np.asarray(pil)).max() <= 2


def test_action_nets_steps_mix_opencv_and_pil() -> None:
    """ACTION-NET: OpenCV without antialiasing to a height, then PIL's squeeze of 300 × 224 into a square."""
    mixed = Geometry(
        steps=(Height(height_px=64), CenterCrop(center_crop_px=(64, 86)), Size(size_px=(64, 64), antialias=True)),
        antialias=False,
    )
    image = picture()
    plain = cv2.resize(image, (int(320 / 180 * 64 + 0.5), 64), interpolation=cv2.INTER_LINEAR)
    pil = Image.fromarray(plain[:, 14:100]).resize((64, 64), Image.Resampling.BILINEAR)
    assert differences(apply_geometry(as_frames(image), mixed), np.asarray(pil)).max() <= 2
    all_antialiased = mixed.model_copy(update={"antialias": True})
    assert differences(apply_geometry(as_frames(image), all_antialiased), np.asarray(pil)).mean() > 2


def test_an_odd_margin_is_halved_as_torchvision_or_as_video_features() -> None:
    frames = as_frames(picture(256, 455))
    torchvisions = apply_geometry(frames, Geometry(steps=(CenterCrop(center_crop_px=(224, 224)),)))
    video_features = Geometry(steps=(CenterCrop(center_crop_px=(224, 224), odd_margin="down"),))
    assert torch.equal(torchvisions, frames[..., 16:240, 116:340])
    assert torch.equal(apply_geometry(frames, video_features), frames[..., 16:240, 115:339])


def test_frames_are_not_copied_without_steps() -> None:
    frames = as_frames(picture())
    geometry = Geometry(
        steps=(Size(size_px=(180, 320)), ShortSide(short_side_px=180), CenterCrop(center_crop_px=(180, 320)))
    )
    assert apply_geometry(frames, geometry).data_ptr() == frames.data_ptr()


def test_frames_are_left_as_they_are() -> None:
    frames = as_frames(picture())
    before = frames.clone()
    out = apply_geometry(frames, Geometry(steps=(CenterCrop(center_crop_px=(90, 90)), Size(size_px=(40, 40)))))
    normalize(out, Normalization(mean=(0.5,) * 3, std=(0.5,) * 3))
    assert torch.equal(frames, before)


def test_an_empty_batch_stays_empty() -> None:
    none = torch.zeros(0, 3, 30, 40, dtype=torch.uint8)
    for antialias in (True, False):
        assert resized(none, (10, 12), "bilinear", antialias=antialias).shape == (0, 3, 10, 12)


def test_normalize_is_the_published_arithmetic() -> None:
    frames = as_frames(picture(), picture(seed=1))[None]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = v2.functional.normalize(frames.float() / 255, list(mean), list(std))
    found = normalize(frames, Normalization(mean=mean, std=std))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(normalize(frames, Normalization(mean=mean, std=std), torch.bfloat16), found.bfloat16())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: apply_geometry(torch.zeros(3, 8, 8, dtype=torch.uint8), Geometry(steps=())), "uint8 .n, channels"),
        (lambda: apply_geometry(torch.zeros(1, 3, 8, 8), Geometry(steps=())), "float32"),
        (
            lambda: apply_geometry(torch.zeros(1, 2, 8, 8, dtype=torch.uint8), Geometry(steps=(), gray=True)),
            "1 or 3 channels, not 2",
        ),
        (
            lambda: normalize(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Normalization(mean=(0, 0, 0), std=(1, 1, 1))),
            "1 channels, the normalization 3 means",
        ),
        (
            lambda: normalize(torch.zeros(1, 1, 8, 8).half(), Normalization(mean=(0,), std=(1,))),
            "must be uint8 or float32",
        ),
    ],
)
def test_wrong_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("most", [16, 64, 256, 1024])
def test_as_many_patches_as_fit_are_those_of_siglip2(most: int) -> None:
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

    step = Patches(max_patches=most, patch_px=16)
    rng = np.random.default_rng(most)
    for height, width in [(480, 640), (1080, 1920), (2000, 3), *rng.integers(8, 2000, (200, 2)).tolist()]:
        found = size_after(step, height, width)
        assert found == get_image_size_for_max_num_patches(height, width, 16, most)
        assert found[0] * found[1] <= most * 256


@pytest.mark.parametrize(("height", "width"), [(20, 33), (16, 16), (9, 30)])
def test_several_crops_are_those_of_torchvision(height, width):
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    step = CenterCrop(center_crop_px=(16, 14))
    padded = center_crop(frames, (max(height, 16), max(width, 14)))
    ten = several_crops(frames, step, mirrored=True)
    assert torch.equal(ten, torch.stack(ten_crop(padded, [16, 14])))
    assert torch.equal(several_crops(frames, step, mirrored=False), ten[:5])


class MeanColor(nn.Module):
    """A network whose row is the mean color, of one image or of all frames of a clip."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(2).mean(dim=2)


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_a_row_is_the_mean_over_the_crops(kind):
    card = NetworkCard(
        input=kind,
        load=lambda settings, weights: MeanColor(),
        dim=3,
        layouts=(),
        batch_size=(2, 2),
        geometry=Geometry(steps=(CenterCrop(center_crop_px=(4, 6)),)),
    )
    segments = [
        SegmentInput(number, 0.0, 1.0, frames=torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8))
        for number, size in enumerate([(9, 11), (9, 11), (12, 8)])
    ]
    for crops, mirrored in (("five", False), ("ten", True)):
        settings = card.Settings.model_validate({"crops": crops})
        made = card(settings=settings, weights={"network": None}, device=torch.device("cpu"), precision="float32")  # pyright: ignore[reportArgumentType]
        assert made.frames == FrameNeed(Geometry(steps=()))
        rows = made.forward([made.prepare(segment) for segment in segments])
        for row, segment in zip(rows, segments, strict=True):
            assert segment.frames is not None
            cut = several_crops(segment.frames, CenterCrop(center_crop_px=(4, 6)), mirrored=mirrored)
            expected = (cut.float() / 255 - 0.5).div(0.5).mean(dim=(0, 1, 3, 4))
            torch.testing.assert_close(row, expected)


def test_several_crops_need_a_crop_and_leave_the_keys_of_a_single_one():
    sampling = Sampling(fps=1, frames_per_segment=1, frames_per_step=1, remainder="drop-tail")
    given = {"extractor": "resnet_frame", "sampling": sampling, "weights": {"network": "random:0"}}
    plain = resolve(StreamSpec.model_validate(given))
    ten = resolve(StreamSpec.model_validate(given | {"settings": {"crops": "ten"}}))
    without = plain.model_copy(
        update={"settings": {name: value for name, value in plain.settings.items() if name != "crops"}}
    )
    digests = [settings_digest(spec, {"network": "random:0"}, 1) for spec in (plain, without, ten)]
    assert digests[0] == digests[1] != digests[2]
    whole = {"crops": "five", "geometry": {"steps": [{"size_px": [224, 224]}]}}
    with pytest.raises(ConfigError, match="so that it ends with center_crop_px"):
        resolve(StreamSpec.model_validate(given | {"settings": whole}))


@pytest.mark.parametrize(("height", "width"), [(90, 61), (61, 90), (480, 640), (480, 960), (56, 56)])
def test_one_factor_is_torchs_scale_factor(height: int, width: int) -> None:
    frames = as_frames(picture(height, width))
    geometry = Geometry(
        steps=(ShortSide(short_side_px=56, one_factor=True),), antialias=False, resize_arithmetic="float"
    )
    theirs = torch.nn.functional.interpolate(
        frames / 255, scale_factor=56 / min(height, width), mode="bilinear", recompute_scale_factor=False
    )
    ours = apply_geometry(frames, geometry)
    assert ours.shape[-2:] == theirs.shape[-2:] == output_size(height, width, geometry)
    assert (ours / 255 - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_float_is_torchs_resize_without_rounding(interpolation: Any, antialias: bool) -> None:
    frames = as_frames(picture(61, 90))
    theirs = v2.functional.resize(frames.float(), [40, 50], v2.InterpolationMode(interpolation), antialias=antialias)
    geometry = Geometry(
        steps=(Size(size_px=(40, 50)),), interpolation=interpolation, antialias=antialias, resize_arithmetic="float"
    )
    assert torch.equal(apply_geometry(frames, geometry), theirs)
    rounded = geometry.model_copy(update={"resize_arithmetic": "float-rounded"})
    assert torch.equal(apply_geometry(frames, rounded), theirs.round().clamp(0, 255).to(torch.uint8))


def test_float_arithmetic_gives_float_pixels_without_a_resize() -> None:
    frames = as_frames(picture(8, 9))
    geometry = Geometry(steps=(Size(size_px=(8, 9)),), resize_arithmetic="float")
    assert torch.equal(apply_geometry(frames, geometry), frames.float())


@pytest.mark.parametrize(
    "other",
    [{}, {"antialias": False}, {"resize_arithmetic": "float"}, {"antialias": False, "interpolation": "nearest"}],
)
def test_one_factor_needs_a_resize_that_has_it(other: Any) -> None:
    with pytest.raises(ValueError, match="one_factor requires antialias = false"):
        Geometry(steps=(ShortSide(short_side_px=9, one_factor=True),), **other)


def test_float_pixels_are_refused_where_an_extractor_takes_8_bits() -> None:
    sampling = Sampling(fps="native", frames_per_segment=16, frames_per_step=16, remainder="drop-tail")
    settings = {"flow_geometry": {"steps": [], "resize_arithmetic": "float"}}
    spec = StreamSpec(extractor="i3d_flow", sampling=sampling, weights={"network": "random:0"}, settings=settings)
    with pytest.raises(ConfigError, match=r"takes 8-bit frames only; set settings\.flow_geometry\.resize_arithmetic"):
        resolve(spec)


def test_a_network_normalizes_float_pixels() -> None:
    card = NetworkCard(
        input="image",
        load=lambda settings, weights: nn.Flatten(),
        layouts=(),
        dim=3 * 2 * 4,
        geometry=Geometry(steps=(Size(size_px=(2, 4)),), antialias=False, resize_arithmetic="float"),
        normalization=Normalization(mean=(0.5,) * 3, std=(0.25,) * 3),
        batch_size=(2, 2),
    )
    frames = as_frames(picture(7, 9), picture(7, 9, seed=1))
    made = card(settings=card.Settings(), weights={"network": None}, device=torch.device("cpu"), precision="float32")  # pyright: ignore[reportArgumentType]
    shown = apply_geometry(frames, card.geometry)
    (row,) = made.forward([made.prepare(SegmentInput(0, 0.0, 1.0, frames=shown))])
    expected = torch.nn.functional.interpolate(frames / 255, (2, 4), mode="bilinear").sub(0.5).div(0.25)
    torch.testing.assert_close(row, expected.flatten(1).mean(dim=0))

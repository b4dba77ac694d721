"""The resize of every library is reproduced bit for bit on the CPU and on other devices."""

from __future__ import annotations

import random
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from arabesque.extractors import resize as resize_module
from arabesque.extractors.crops import Crop, cut_and_resize, resize_together
from arabesque.extractors.geometry import apply_geometry
from arabesque.extractors.resize import Filter, Library, resize, resize_nearest, resize_on_device
from arabesque.manifests.streams import CenterCrop, Geometry, ShortSide, Size

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CV2_FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
VIDEO_SIZES = [((720, 1280), (256, 455)), ((480, 640), (256, 341)), ((240, 320), (256, 341)), ((1080, 607), (455, 256))]
SMALL_SIZES = [
    ((180, 320), (72, 128)),
    ((256, 300), (224, 224)),
    ((300, 64), (20, 60)),  # Pillow 13 resizes the columns first here
]


def noise(height: int, width: int, channels: int, seed: int = 0, count: int = 1) -> Tensor:
    """Frames ``[count, channels, height, width]``, channels last in memory, as decoders give them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def random_sizes(count: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    sides = random.Random(0)
    return [((sides.randint(1, 200), sides.randint(1, 200)), (sides.randint(1, 200), sides.randint(1, 200)))] + [
        ((sides.randint(1, 120), sides.randint(1, 120)), (sides.randint(1, 120), sides.randint(1, 120)))
        for _ in range(count - 1)
    ]


def image_of(frames: Tensor) -> NDArray[np.uint8]:
    image = np.ascontiguousarray(frames[0].permute(1, 2, 0).numpy())
    return image[..., 0] if image.shape[2] == 1 else image


def frames_of(image: NDArray[np.uint8], like: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(image.reshape(*size, like.shape[1]).copy()).permute(2, 0, 1)[None]


def by_library(frames: Tensor, size: tuple[int, int], interpolation: Filter, library: Library) -> Tensor:
    """Resize with the library itself, called as in published code."""
    if library == "torch":
        return functional.interpolate(frames, size, mode=interpolation, antialias=True)
    height, width = size
    if library == "pil":
        image = Image.fromarray(image_of(frames))
        rows_first = image.resize((width, image.height), PIL_FILTERS[interpolation])  # as all releases before 13
        return frames_of(np.asarray(rows_first.resize((width, height), PIL_FILTERS[interpolation])), frames, size)
    return frames_of(
        cv2.resize(image_of(frames), (width, height), interpolation=CV2_FLAGS[interpolation]), frames, size
    )


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(SMALL_SIZES + random_sizes(8), id="small"),
        pytest.param(VIDEO_SIZES + random_sizes(30)[8:], id="videos", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("library", ["torch", "pil", "opencv"])
def test_resize_is_the_librarys_on_every_device(
    library: Library, interpolation: Filter, sizes: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    tolerance = 1 if (library, interpolation) == ("opencv", "bicubic") else 0
    for number, ((height, width), size) in enumerate(sizes):
        if tolerance and (height, width) == size:
            continue
        frames = noise(height, width, channels=1 if number % 2 else 3, seed=number)
        expected = by_library(frames, size, interpolation, library)
        assert torch.equal(resize(frames, size, interpolation, library), expected), (height, width, size)
        off = (resize_on_device(frames, size, interpolation, library).int() - expected.int()).abs()
        assert off.max() <= tolerance, (height, width, size)
        assert off.bool().float().mean() <= 0.2, (height, width, size)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("library", ["torch", "pil", "opencv"])
def test_each_channel_is_resized_by_itself(library: Library, channels: int) -> None:
    """PIL weights colors with the last of two or four channels, which it treats as alpha. Flow has two channels."""
    frames = noise(40, 50, channels, count=2)
    expected = [resize(frames[:, [each]], (24, 30), "bilinear", library) for each in range(channels)]
    assert resize(frames, (24, 30), "bilinear", library).equal(torch.cat(expected, 1))
    assert resize_on_device(frames, (24, 30), "bilinear", library).equal(torch.cat(expected, 1))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
def test_gray_frames_are_resized_as_each_alone(count: int) -> None:
    frames = noise(40, 50, channels=1, count=count)
    alone = [functional.interpolate(frame[None], (24, 30), mode="bilinear", antialias=True) for frame in frames]
    assert resize(frames, (24, 30), "bilinear", "torch").equal(torch.cat([frames[:0, :, :24, :30], *alone]))


def test_memory_layout_does_not_matter() -> None:
    frames = noise(72, 128, channels=3)
    for layout in (torch.contiguous_format, torch.channels_last):
        for compute in (resize, resize_on_device):
            for library in ("torch", "pil", "opencv"):
                found = compute(frames.contiguous(memory_format=layout), (40, 50), "bilinear", library)
                assert torch.equal(found, resize(frames, (40, 50), "bilinear", library))


def test_the_libraries_differ_by_one_level_or_by_antialiasing() -> None:
    """The tests above are meaningful only if they do."""
    frames = noise(180, 320, channels=3)
    by_torch, by_pil, by_opencv = (
        resize(frames, (64, 113), "bilinear", library).int() for library in ("torch", "pil", "opencv")
    )
    assert (by_torch - by_pil).abs().max() == 1
    assert 0 < (by_torch != by_pil).float().mean() < 0.01
    assert (by_torch - by_opencv).abs().float().mean() > 5


@pytest.mark.parametrize("centered", [True, False])
def test_nearest_pixels_are_the_librarys(centered: bool) -> None:
    for number, ((height, width), size) in enumerate([((180, 320), (66, 104)), *random_sizes(20)]):
        frames = noise(height, width, channels=3, seed=number)
        image = image_of(frames).reshape(height, width, 3)
        expected = (
            np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST))
            if centered
            else cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
        )
        assert torch.equal(resize_nearest(frames, size, centered=centered), frames_of(expected, frames, size))


def test_a_geometry_chooses_the_library() -> None:
    frames = noise(180, 320, channels=3)
    steps = (Size(size_px=(64, 113)),)
    choices: list[tuple[Library, Geometry]] = [
        ("torch", Geometry(steps=steps)),
        ("pil", Geometry(steps=steps, resize_arithmetic="pil")),
        ("opencv", Geometry(steps=steps, antialias=False, resize_arithmetic="pil")),
    ]
    for library, geometry in choices:
        assert torch.equal(apply_geometry(frames, geometry), resize(frames, (64, 113), "bilinear", library))


def test_a_device_resizes_large_batches_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device computes no values; what counts is the size of each part."""
    sizes: list[int] = []

    def spy(frames: Tensor, size: tuple[int, int], interpolation: Filter, library: Library) -> Tensor:
        sizes.append(len(frames))
        return resize_on_device(frames, size, interpolation, library)

    monkeypatch.setattr(resize_module, "resize_on_device", spy)
    frames = torch.zeros(30, 3, 1080, 1920, dtype=torch.uint8, device="meta")
    assert resize(frames, (256, 455), "bilinear", "torch").shape == (30, 3, 256, 455)
    assert sum(sizes) == 30
    assert max(sizes) * 3 * 1080 * 1920 <= 2**26


@pytest.mark.parametrize("library", ["torch", "pil"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_that_are_resized_together_are_those_resized_alone(
    library: Literal["torch", "pil"], interpolation: Filter
) -> None:
    """Frames of two sizes, crops of the target's size in one direction or both, and steps after the resize."""
    shown = [noise(90, 120, 3)[0], noise(60, 80, 3, seed=1)[0], noise(90, 120, 3, seed=2)[0]]
    crops = [
        Crop(0, 3, 5, 50, 31),
        Crop(1, 0, 0, 60, 80),
        Crop(2, 80, 110, 1, 1),
        Crop(0, 0, 0, 24, 18),
        Crop(2, 7, 9, 24, 40),
    ]
    for steps in ((Size(size_px=(24, 18)),), (ShortSide(short_side_px=20), CenterCrop(center_crop_px=(16, 16)))):
        geometry = Geometry(steps=steps, interpolation=interpolation, resize_arithmetic=library)
        alone = cut_and_resize(shown, crops, geometry)
        together = resize_together(shown, crops, geometry)
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))

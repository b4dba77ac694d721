"""Quantization of flow: each convention is compared with its published formula."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from arabesque.extractors.optical_flow.conventions import (
    Clamp20,
    Denseflow8,
    NoQuantization,
    Quantization,
    VideoFeatures,
    as_network_input,
    as_stored,
    clamp20,
    denseflow_images,
    from_images,
    through_jpeg,
    video_features,
)


def through(flow: Tensor, quantization: Quantization) -> Tensor:
    return as_network_input(as_stored(flow, quantization), quantization)


@pytest.mark.parametrize(
    ("quantization", "offset"),
    [
        (NoQuantization(), 0.0),
        (Clamp20(), 0.0),
        (Denseflow8(bound_px=15), 1 / 255),
        (Denseflow8(bound_px=20), 1 / 255),
        (Denseflow8(bound_px=32), 1 / 255),
        (Denseflow8(bound_px=20, jpeg_quality=95), 1 / 255),
        (Denseflow8(bound_px=20, jpeg_quality=30), 1 / 255),
        (VideoFeatures(), 1 / 255),
    ],
)
def test_zero_flow_has_an_offset_only_in_level_formats(quantization: Quantization, offset: float) -> None:
    still = torch.zeros(3, 2, 16, 24)
    torch.testing.assert_close(through(still, quantization), torch.full_like(still, offset))


def test_none_keeps_pixels() -> None:
    flow = torch.tensor([[-300.0, -0.01, 0.5, 45.0]])[None, None]
    assert torch.equal(through(flow, NoQuantization()), flow)


def test_clamp20_maps_twenty_pixels_to_one() -> None:
    flow = torch.tensor([0.0, 5.0, -20.0, 35.0, -1000.0])
    assert clamp20(flow).tolist() == [0.0, 0.25, -1.0, 1.0, -1.0]


@pytest.mark.parametrize("bound_px", [8.0, 20.0, 32.0])
def test_denseflow8_is_an_image_of_256_levels(bound_px: float) -> None:
    flow = torch.linspace(-40, 40, 10001)
    images = denseflow_images(flow, bound_px)
    quantized = from_images(images)
    assert images.dtype == torch.uint8
    assert len(quantized.unique()) == 256
    assert (quantized.min(), quantized.max()) == (-1, 1)
    inside = flow.abs() <= bound_px
    assert (quantized[inside] * bound_px - flow[inside]).abs().max() <= bound_px / 255 + 1e-5


def test_denseflow8_rounds_halves_to_the_even_level() -> None:
    """As OpenCV's cvRound does; a bound of 127.5 px makes halves of half pixels."""
    flow = torch.tensor([-127.5, -126.0, -125.0, 0.0, 1.0, 127.5])
    assert denseflow_images(flow, bound_px=127.5).tolist() == [0, 2, 2, 128, 128, 255]


def test_video_features_rounds_without_storing() -> None:
    """docs/provenance.md: 128 + 255 / 40 · flow; 20 px become level 256, which exceeds a byte."""
    flow = torch.tensor([-100.0, -20.0, 0.05, 1.0, 20.0, 100.0])
    levels = torch.tensor([0.0, 0.0, 128.0, 134.0, 256.0, 256.0])
    torch.testing.assert_close(video_features(flow), 2 * levels / 255 - 1)


def test_jpeg_quality_gives_the_levels_of_a_jpeg_file(tmp_path) -> None:
    """denseflow sets no quality, and OpenCV's default is 95."""
    flow = 10 * torch.randn(2, 2, 40, 56, generator=torch.Generator().manual_seed(0))
    images = denseflow_images(flow, bound_px=20)
    kept = through_jpeg(images, 95)
    assert kept.shape == images.shape
    for image, expected in zip(images.flatten(0, 1), kept.flatten(0, 1), strict=True):
        cv2.imwrite(str(tmp_path / "flow_x_00000.jpg"), image.numpy())
        assert np.array_equal(cv2.imread(str(tmp_path / "flow_x_00000.jpg"), cv2.IMREAD_GRAYSCALE), expected)
    loss = {quality: (through_jpeg(images, quality).int() - images.int()).abs().float().mean() for quality in (50, 95)}
    assert 0 < loss[95] < loss[50]


def test_jpeg_is_part_of_the_convention() -> None:
    flow = 10 * torch.randn(2, 2, 40, 56, generator=torch.Generator().manual_seed(0))
    with_jpeg, without = (Denseflow8(bound_px=20, jpeg_quality=quality) for quality in (95, "none"))
    assert torch.equal(as_stored(flow, with_jpeg), through_jpeg(as_stored(flow, without), 95))
    assert not torch.equal(as_stored(flow, with_jpeg), as_stored(flow, without))


@pytest.mark.parametrize("wrong", [{"bound_px": 0}, {"jpeg_quality": 101}, {"jpeg_quality": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Denseflow8.model_validate(wrong)

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from arabesque.extractors.optical_flow import (
    METHODS,
    MethodName,
    clamp20,
    denseflow_images,
    from_images,
    video_features,
)


def moving(pixels: float, frames: int = 3, side: int = 128, seed: int = 0) -> Tensor:
    """A texture that moves to the right by ``pixels`` and down by half of that, each frame: ``uint8 [t, h, w]``."""
    noise = np.random.default_rng(seed).normal(size=(side, side))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), noise, 0, 255, cv2.NORM_MINMAX)
    images = [
        cv2.warpAffine(
            texture,
            np.array([[1, 0, index * pixels], [0, 1, index * pixels / 2]]),
            (side, side),
            borderMode=cv2.BORDER_REFLECT,
        )
        for index in range(frames)
    ]
    return torch.from_numpy(np.stack(images).astype(np.uint8))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pixels", [-3.0, 0.5, 4.0])
def test_flow_is_pixels_to_the_right_and_down(method: MethodName, pixels: float) -> None:
    flow = METHODS[method].make("medium")(moving(pixels))
    assert flow.shape == (2, 2, 128, 128)
    assert flow.dtype == torch.float32
    inside = flow[:, :, 30:-30, 30:-30].mean((0, 2, 3))
    torch.testing.assert_close(inside, torch.tensor([pixels, pixels / 2]), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_no_motion_is_next_to_nothing(method: MethodName) -> None:
    flow = METHODS[method].make("medium")(moving(0))
    assert flow[..., 20:-20, 20:-20].abs().max() < 0.05


def test_presets_differ() -> None:
    frames = moving(2.5)
    fast, medium = (METHODS["dis"].make(preset)(frames) for preset in ("ultrafast", "medium"))
    assert (fast - medium).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_threads_do_not_disturb_each_other(method: MethodName) -> None:
    """One shared OpenCV object would mix their buffers up."""
    flow = METHODS[method].make("medium")
    clips = [moving(pixels, seed=seed) for seed, pixels in enumerate([-4.0, -1.0, 2.0, 5.0] * 4)]
    alone = [flow(clip) for clip in clips]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(flow, clips))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_dis_does_not_depend_on_opencvs_threads() -> None:
    frames = moving(3.5, side=256)
    before = cv2.getNumThreads()
    try:
        flows = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            flows.append(METHODS["dis"].make("medium")(frames))
    finally:
        cv2.setNumThreads(before)
    assert torch.equal(*flows)


def test_channels_last_views_are_read_right() -> None:
    """Gray frames may be one channel of something wider."""
    frames = moving(2.0)
    wide = torch.stack([frames, frames.flip(2), frames], dim=-1)
    flow = METHODS["dis"].make("medium")
    assert torch.equal(flow(wide[..., 0]), flow(frames))


@pytest.mark.parametrize("wrong", [torch.zeros(1, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32)])
def test_wrong_input_is_named(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[2 or more, h, w\]"):
        METHODS["dis"].make("medium")(wrong)


def test_clamp20_maps_twenty_pixels_to_one() -> None:
    flow = torch.tensor([0.0, 5.0, -20.0, 35.0, -1000.0])
    assert clamp20(flow).tolist() == [0.0, 0.25, -1.0, 1.0, -1.0]


def test_denseflow8_is_an_image_of_256_levels() -> None:
    flow = torch.linspace(-40, 40, 10001)
    images = denseflow_images(flow, bound_px=32)
    quantised = from_images(images)
    assert images.dtype == torch.uint8
    assert len(quantised.unique()) == 256
    assert (quantised.min(), quantised.max()) == (-1, 1)
    inside = flow.abs() <= 32
    assert (quantised[inside] * 32 - flow[inside]).abs().max() <= 32 / 255 + 1e-5


def test_no_motion_leaves_an_offset_in_eight_bits_only() -> None:
    still = torch.zeros(4)
    assert clamp20(still).tolist() == [0.0] * 4
    for bound_px in (15.0, 20.0, 32.0):
        torch.testing.assert_close(from_images(denseflow_images(still, bound_px)), torch.full((4,), 1 / 255))
    torch.testing.assert_close(video_features(still), torch.full((4,), 1 / 255))


def test_video_features_rounds_without_storing() -> None:
    """field-notes A7: 128 + 255 / 40 · flow; 20 px come to level 256, which no byte holds."""
    flow = torch.tensor([-100.0, -20.0, 0.05, 1.0, 20.0, 100.0])
    levels = torch.tensor([0.0, 0.0, 128.0, 134.0, 256.0, 256.0])
    torch.testing.assert_close(video_features(flow), 2 * levels / 255 - 1)

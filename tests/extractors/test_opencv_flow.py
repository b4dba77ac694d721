from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from arabesque.extractors.optical_flow.opencv import Dis, Farneback, Preset, dis, farneback

Flow = Callable[[Tensor], Tensor]
FLOWS: dict[str, Flow] = {"dis": partial(dis, settings=Dis()), "farneback": partial(farneback, settings=Farneback())}


@pytest.fixture(params=FLOWS)
def flow_of(request: pytest.FixtureRequest) -> Flow:
    return FLOWS[request.param]


@pytest.fixture
def opencv_threads() -> Iterator[Callable[[int], None]]:
    before = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(before)


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


@pytest.mark.parametrize("pixels", [-3.0, 0.5, 4.0])
def test_flow_is_pixels_to_the_right_and_down(flow_of: Flow, pixels: float) -> None:
    flow = flow_of(moving(pixels))
    assert flow.shape == (2, 2, 128, 128)
    assert flow.dtype == torch.float32
    inside = flow[:, :, 30:-30, 30:-30].mean((0, 2, 3))
    torch.testing.assert_close(inside, torch.tensor([pixels, pixels / 2]), rtol=0.05, atol=0.1)


def test_no_motion_is_next_to_nothing(flow_of: Flow) -> None:
    assert flow_of(moving(0))[..., 20:-20, 20:-20].abs().max() < 0.05


def test_pairs_come_in_their_order(flow_of: Flow) -> None:
    """The order does not depend on which thread finishes first."""
    clip = torch.cat([moving(pixels, frames=2) for pixels in (1.0, 5.0, -3.0, 2.0)])
    flow = flow_of(clip)
    assert all(torch.equal(flow[first : first + 1], flow_of(clip[first : first + 2])) for first in range(len(flow)))


def test_presets_differ() -> None:
    presets: tuple[Preset, ...] = ("ultrafast", "fast", "medium")
    ultrafast, fast, medium = (dis(moving(2.5), Dis(preset=preset)) for preset in presets)
    assert (ultrafast - fast).abs().max() > 1e-3
    assert (fast - medium).abs().max() > 1e-3


def test_segments_do_not_disturb_each_other(flow_of: Flow) -> None:
    """One shared OpenCV object would mix their buffers up."""
    clips = [moving(pixels, seed=seed) for seed, pixels in enumerate([-4.0, -1.0, 2.0, 5.0] * 4)]
    alone = [flow_of(clip) for clip in clips]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(flow_of, clips))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_flow_does_not_depend_on_the_number_of_threads(flow_of: Flow, opencv_threads: Callable[[int], None]) -> None:
    """This holds for our number of threads, which is torch's, and for OpenCV's."""
    frames = moving(3.5, frames=6, side=256)
    flows: list[Tensor] = []
    before = torch.get_num_threads()
    try:
        for ours, opencvs in ((1, 1), (3, 1), (4, 3)):
            opencv_threads(opencvs)
            torch.set_num_threads(ours)
            flows.append(flow_of(frames))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(flows[0], flows[1])
    assert torch.equal(flows[0], flows[2])


def test_channels_last_views_are_read_right(flow_of: Flow) -> None:
    """Gray frames may be a view of one channel of color frames."""
    frames = moving(2.0)
    wide = torch.stack([frames, frames.flip(2), frames], dim=-1)
    assert torch.equal(flow_of(wide[..., 0]), flow_of(frames))


@pytest.mark.parametrize("wrong", [torch.zeros(1, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32)])
def test_wrong_input_is_named(flow_of: Flow, wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[2 or more, h, w\]"):
        flow_of(wrong)

"""The rules of OpenCV's TV-L1, tested separately."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from arabesque.extractors.optical_flow import tvl1_torch
from arabesque.extractors.optical_flow.tvl1 import tvl1
from arabesque.extractors.optical_flow.tvl1_pyramid import grow, level_sizes, linear_taps, pyramid, with_gradients
from arabesque.extractors.optical_flow.tvl1_settings import ARITHMETIC, TVL1, Variant


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 255, size=(1, 49, 61)).astype(np.float32))


def warped(image: Tensor, flow: tuple[float, float], variant: Variant) -> tvl1_torch.DataTerm:
    arithmetic = ARITHMETIC[variant]
    mode = "constant" if arithmetic.border == "zero" else "replicate"
    following = pad(with_gradients(image), (tvl1_torch.MARGIN_PX,) * 4, mode=mode)
    everywhere = torch.tensor(flow)[None, :, None, None].expand(1, 2, *image.shape[1:])
    return tvl1_torch.linearize(torch.zeros_like(image), following, everywhere, arithmetic)


def brightness(data: tvl1_torch.DataTerm, flow: tuple[float, float]) -> Tensor:
    """Return the second image warped by ``flow``."""
    return data.constant + (data.gradient * torch.tensor(flow)[:, None, None]).sum(1)


def test_levels_are_resized_as_by_opencv(image: Tensor) -> None:
    coarse = pyramid(image, 2, pixel_centers=True)[1]
    shrunk = cv2.resize(image[0].numpy(), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(coarse[0].numpy(), shrunk, atol=2e-3)
    grown = cv2.resize(shrunk, (61, 49), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(grow(coarse, 49, 61, True)[0].numpy(), grown * 1.25, atol=2e-3)


def test_opencv_cuda_maps_corners_on_each_other() -> None:
    left, weight = linear_taps(10, 8, 1.25, pixel_centers=False)
    np.testing.assert_allclose(left + weight, np.arange(8) * 1.25)


@pytest.mark.parametrize("flow", [(0.3, -0.6), (2.0, 0.0), (-1.25, 3.5)])
def test_opencv5_warps_as_remap_does_with_zeros_around(image: Tensor, flow: tuple[float, float]) -> None:
    """Compared at multiples of 1/32 px, where all releases of OpenCV agree."""
    flow = (round(flow[0] * 32) / 32, round(flow[1] * 32) / 32)
    columns, rows = np.meshgrid(np.arange(61, dtype=np.float32), np.arange(49, dtype=np.float32))
    remapped = cv2.remap(image[0].numpy(), columns + flow[0], rows + flow[1], cv2.INTER_CUBIC)
    ours = brightness(warped(image, flow, "opencv5"), flow)[0].numpy()
    np.testing.assert_allclose(ours, remapped, atol=0.01)


def test_opencv4_rounds_positions_to_32nds(image: Tensor) -> None:
    exact, rounded = warped(image, (0.28125, -0.6875), "opencv5"), warped(image, (0.29, -0.68), "opencv4")
    torch.testing.assert_close(rounded.gradient, exact.gradient)
    assert (warped(image, (0.29, -0.68), "opencv5").gradient - exact.gradient).abs().max() > 0.1


def test_opencv_cuda_repeats_the_border(image: Tensor) -> None:
    far = (1000.0, 0.0)
    last_column = image[0, :, -1:].expand(-1, 61)
    torch.testing.assert_close(brightness(warped(image, far, "cuda"), far)[0], last_column, rtol=0, atol=0.1)
    assert not brightness(warped(image, far, "opencv5"), far).any()


@pytest.mark.parametrize(("a", "error"), [(-0.5, 0.0), (-0.75, 0.125)])
def test_cubic_weights_keep_a_parabola_for_half(a: float, error: float) -> None:
    """Keys's kernel is of third order for a = -1/2 only; for -3/4 the weights half way are (-3, 19, 19, -3) / 32."""
    weights = torch.stack(tvl1_torch.cubic_weights(torch.tensor(0.5), a))
    places = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    assert weights.sum().item() == pytest.approx(1)
    assert abs((weights * places**2).sum().item() - 0.25) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize(
    ("variant", "quiet_from", "iterations"),
    [("opencv5", 0, 1), ("opencv5", 3, 4), ("cuda", 0, 2), ("cuda", 1, 2), ("cuda", 2, 6), ("cuda", 6, 10)],
)
def test_stop_is_tested_when_its_variant_does(
    variant: Variant, quiet_from: int, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every iteration changes every pixel by 3.5 times the limit, until the changes are zero. OpenCV-CUDA tests the
    iterations 1, 5 and 9: each error skips the next three tests, and even iterations are never tested."""
    settings = TVL1(variant=variant, warps=1, scales=1, median_px=1, epsilon=0.1)
    moves = [(0.035 / 2) ** 0.5] * quiet_from + [0.0] * 300
    done: list[float] = []

    def move(data: tvl1_torch.DataTerm, flow: Tensor, dual: Tensor) -> Tensor:
        done.append(moves[len(done)])
        return flow + done[-1]

    ascents: list[Tensor] = []
    monkeypatch.setattr(tvl1_torch, "primal_step", move)
    monkeypatch.setattr(tvl1_torch, "dual_step", lambda flow, dual: ascents.append(flow) or dual)
    monkeypatch.setattr(tvl1_torch, "ITERATIONS_PER_LOOK", 1)
    tvl1(torch.zeros(2, 8, 8, dtype=torch.uint8), settings.model_copy(update={"kernel": "torch"}))
    assert len(done) == len(ascents) == iterations


@pytest.mark.parametrize(
    ("size", "scales", "sizes"),
    [
        ((256, 341), 5, [(256, 341), (205, 273), (164, 218), (131, 174), (105, 139)]),
        ((25, 40), 5, [(25, 40), (20, 32), (16, 26)]),
        ((8, 200), 3, [(8, 200)]),
    ],
)
def test_pyramid_ends_before_sides_under_16(size: tuple[int, int], scales: int, sizes: list[tuple[int, int]]) -> None:
    assert level_sizes(size, scales) == sizes

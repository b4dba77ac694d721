"""TV-L1 in plain torch operations on any device, with all pairs in one batch: the reference for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .tvl1_pyramid import coarse_to_fine, with_gradients
from .tvl1_settings import ARITHMETIC, LAMBDA, TAU, THETA, TVL1, Arithmetic

MARGIN_PX = 4
"""A cubic kernel at this distance outside an image does not reach any pixel of it, so positions are clamped to it."""
ITERATIONS_PER_LOOK = 10
"""Number of iterations between two tests whether all pairs are done. Each test waits for the device."""


def flow_of_pairs(gray: Tensor, settings: TVL1) -> Tensor:
    """Compute flow ``float32 [time - 1, 2, h, w]`` of frames ``uint8 [time, h, w]``."""
    arithmetic = ARITHMETIC[settings.variant]

    def solve(before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
        return _solve_level(before, after, flow, settings, arithmetic)

    return coarse_to_fine([gray], settings.scales, arithmetic.pixel_centers, solve)


def _solve_level(before: Tensor, after: Tensor, flow: Tensor, settings: TVL1, arithmetic: Arithmetic) -> Tensor:
    margin = (MARGIN_PX,) * 4
    mode = "constant" if arithmetic.border == "zero" else "replicate"
    following = pad(with_gradients(after), margin, mode=mode)
    dual = flow.new_zeros((len(flow), 2, 2, *flow.shape[-2:]))  # [pair, component of the flow, derivative, h, w]
    for _ in range(settings.warps):
        data = linearize(before, following, flow, arithmetic)
        flow, dual = _solve_warp(data, flow, dual, settings, arithmetic)
    return flow


@dataclass(frozen=True)
class DataTerm:
    """The brightness difference ``constant + gradient · flow``."""

    constant: Tensor
    """``[pair, h, w]``"""
    gradient: Tensor
    """``[pair, 2, h, w]``"""


def linearize(images: Tensor, following: Tensor, flow: Tensor, arithmetic: Arithmetic) -> DataTerm:
    """Return the data term at ``flow``.

    ``following [pair, 3, h, w]`` contains the second images and their gradients, with a margin.
    """
    warped = _bicubic(following, flow, arithmetic)
    gradient = warped[:, 1:]
    return DataTerm(warped[:, 0] - (gradient * flow).sum(1) - images, gradient)


def _bicubic(fields: Tensor, flow: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Sample ``fields [pair, 3, margin + h + margin, margin + w + margin]`` at positions moved by the flow."""
    height, width = flow.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    x, y = columns + flow[:, 0], rows + flow[:, 1]
    if arithmetic.positions_per_px:
        x, y = ((place * arithmetic.positions_per_px).round() / arithmetic.positions_per_px for place in (x, y))
    x, y = x.clamp(1 - MARGIN_PX, width + 1), y.clamp(1 - MARGIN_PX, height + 1)
    first_column, first_row = (place.floor().long() - 1 + MARGIN_PX for place in (x, y))
    across, down = (cubic_weights(place - place.floor(), arithmetic.cubic) for place in (x, y))
    flat = fields.flatten(2)
    result = fields.new_zeros((len(flow), 3, height, width))
    for row in range(4):
        for column in range(4):
            index = (first_row + row) * fields.shape[-1] + first_column + column
            taps = flat.gather(2, index.flatten(1)[:, None].expand(-1, 3, -1))
            result += (across[column] * down[row])[:, None] * torch.unflatten(taps, 2, (height, width))
    return result


def cubic_weights(fraction: Tensor, a: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of four pixels for a position that is ``fraction`` after the second pixel."""

    def near(distance: Tensor) -> Tensor:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1

    behind = fraction + 1
    first = ((a * behind - 5 * a) * behind + 8 * a) * behind - 4 * a
    second, third = near(fraction), near(1 - fraction)
    return first, second, third, 1 - first - second - third


def _solve_warp(
    data: DataTerm, flow: Tensor, dual: Tensor, settings: TVL1, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor]:
    """Iterate until each pair meets the stop criterion. A pair that is done does not change any more."""
    limit = settings.epsilon**2 * flow[0, 0].numel()
    running = torch.ones(len(flow), dtype=torch.bool, device=flow.device)
    bound = torch.zeros(len(flow), device=flow.device)
    for iteration in range(settings.outer_iterations * settings.inner_iterations):
        if iteration % ITERATIONS_PER_LOOK == 0 and not running.any():
            break
        select = running[:, None, None, None]
        if settings.median_px > 1 and iteration % settings.inner_iterations == 0:
            flow = torch.where(select, median(flow, settings.median_px), flow)
        moved = primal_step(data, flow, dual)
        error = ((moved - flow) ** 2).sum((1, 2, 3))
        flow = torch.where(select, moved, flow)
        dual = torch.where(select[..., None], dual_step(flow, dual), dual)
        tested = (bound < limit) & (iteration % 2 == 1) if arithmetic.lazy_test else torch.ones_like(running)
        bound = torch.where(tested, error, bound - limit)
        running = running & ~(tested & (error <= limit))
    return flow, dual


def primal_step(data: DataTerm, flow: Tensor, dual: Tensor) -> Tensor:
    """Change the flow by thresholding of the data term and by the divergence of the dual variable."""
    residual = data.constant + (data.gradient * flow).sum(1)
    square = (data.gradient**2).sum(1)
    step = LAMBDA * THETA
    newton = torch.where(square > torch.finfo(torch.float32).eps, -residual / square, 0)
    factor = torch.where(residual < -step * square, step, torch.where(residual > step * square, -step, newton))
    return flow + factor[:, None] * data.gradient + THETA * divergence(dual)


def dual_step(flow: Tensor, dual: Tensor) -> Tensor:
    """Change the dual variable ``[pair, 2, 2, h, w]`` along the forward differences of the flow and normalize it."""
    along_x = pad(flow[..., 1:] - flow[..., :-1], (0, 1))
    along_y = pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1))
    step = TAU / THETA
    shrink = 1 + step * torch.sqrt(along_x**2 + along_y**2)
    return (dual + step * torch.stack([along_x, along_y], dim=2)) / shrink[:, :, None]


def divergence(dual: Tensor) -> Tensor:
    """Return the divergence ``[pair, 2, h, w]`` of ``[pair, 2, 2, h, w]`` by backward differences; zero outside."""
    along_x, along_y = dual.unbind(2)
    return along_x - pad(along_x, (1, 0))[..., :-1] + along_y - pad(along_y, (0, 0, 1, 0))[..., :-1, :]


def median(flow: Tensor, side_px: int) -> Tensor:
    """Apply a median of ``side_px`` × ``side_px`` neighbors, with repeated edges."""
    padded = pad(flow, (side_px // 2,) * 4, mode="replicate")
    return padded.unfold(2, side_px, 1).unfold(3, side_px, 1).flatten(-2).median(-1).values

"""A synthetic scene with known optical flow: a texture that slides, turns and grows by fractions of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

MARGIN_PX = 24
"""Width of the border that errors leave out, because pixels may enter the picture there."""


@dataclass(frozen=True, eq=False)
class MovingTexture:
    """Frames, and the flow from each frame to the next."""

    frames: Tensor
    """``uint8 [time, 3, height, width]``: RGB"""
    flow: Tensor
    """``float32 [time - 1, 2, height, width]``, x and y, in pixels."""

    @property
    def gray(self) -> Tensor:
        """``uint8 [time, height, width]``: OpenCV's fixed-point luma."""
        red, green, blue = self.frames.int().unbind(1)
        return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).to(torch.uint8)

    def error_px(self, flow: Tensor) -> tuple[float, float]:
        """Return mean and 95th percentile of the end-point error of a flow, without the border."""
        error = (flow.cpu() - self.flow).norm(dim=1)[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        return float(error.mean()), float(error.flatten(1).quantile(0.95, dim=1).mean())


def moving_texture(num_frames: int, height: int, width: int, seed: int = 0) -> MovingTexture:
    """Return a scene that slides by up to 4 px, turns by up to 1° and scales by up to 1 % from frame to frame."""
    canvas = _noise(2 * height, 2 * width, torch.Generator().manual_seed(seed))
    poses = [_pose(index, height, width) for index in range(num_frames)]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]).double().flatten(1)
    frames = torch.cat([_seen(canvas, (pose @ points)[:2].view(2, height, width)) for pose in poses])
    flows = [(later.inverse() @ pose @ points - points)[:2].view(2, height, width) for pose, later in pairwise(poses)]
    return MovingTexture(frames, torch.stack(flows).float())


def _noise(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return ``[1, 3, height, width]``, 0 … 255: noise with detail of 3 to 50 px."""
    total = torch.zeros(1, 3, height, width)
    for size_px in (3, 7, 17, 50):
        coarse = torch.randn(1, 3, height // size_px + 2, width // size_px + 2, generator=generator)
        total += functional.interpolate(coarse, (height, width), mode="bicubic")
    return (128 + 30 * total).clamp(0, 255)


def _pose(index: int, height: int, width: int) -> Tensor:
    """Return the transform ``[3, 3]`` from pixels of a frame to pixels of the canvas."""
    shift_x, shift_y = 30 * math.sin(index / 9), 20 * math.sin(index / 7)
    angle, scale = 0.06 * math.sin(index / 5), 1 + 0.04 * math.sin(index / 6)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    rows = [
        [cos, -sin, width - cos * center_x + sin * center_y + shift_x],
        [sin, cos, height - sin * center_x - cos * center_y + shift_y],
        [0.0, 0.0, 1.0],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _seen(canvas: Tensor, places: Tensor) -> Tensor:
    """Return the canvas at ``places [2, height, width]`` (bicubic) as ``uint8 [1, 3, height, width]``."""
    last = torch.tensor([canvas.shape[-1] - 1, canvas.shape[-2] - 1], dtype=places.dtype)
    grid = (2 * places.permute(1, 2, 0) / last - 1)[None].float()
    return functional.grid_sample(canvas, grid, mode="bicubic", align_corners=True).round().clamp(0, 255).byte()

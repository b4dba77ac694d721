"""Rotated crops around people, the input of pose networks, and the conversion of their key points to the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .device_copies import constant, upload
from .person import Box

MARGIN = 1.25
"""Size of a crop relative to the box, as in ViTPose and BlazePose."""


@dataclass(frozen=True)
class PoseCrop:
    """A rectangle of a frame, in pixels. Its upper edge is in the expected direction of the head."""

    center_x: float
    center_y: float
    height_px: float
    width_px: float
    up: float
    """Direction of its upper edge: 0 is up, π/2 to the right."""

    @classmethod
    def around(cls, box: Box, up: float, aspect: float) -> PoseCrop:
        """Return the smallest crop with ``aspect`` (width / height) that contains a box, with a margin."""
        width, height = box.right - box.left, box.bottom - box.top
        across = abs(width * cos(up)) + abs(height * sin(up))
        along = abs(width * sin(up)) + abs(height * cos(up))
        height_px = MARGIN * max(along, across / aspect)
        return cls((box.left + box.right) / 2, (box.top + box.bottom) / 2, height_px, height_px * aspect, up)

    def matrix(self, height: int, width: int) -> NDArray[np.float64]:
        """Return the matrix ``[2, 3]`` from pixels of the picture, ``height`` × ``width``, to those of the frame.

        The centers of the picture's outer pixels are on the edges of the crop, as in ViTPose.
        """
        across = np.array([cos(self.up), sin(self.up)]) * self.width_px / (width - 1)
        along = np.array([-sin(self.up), cos(self.up)]) * self.height_px / (height - 1)
        center = np.array([self.center_x - 0.5, self.center_y - 0.5])
        corner = center - across * (width - 1) / 2 - along * (height - 1) / 2
        return np.column_stack([across, along, corner])

    def to_frame(self, points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Convert points ``[n, 2]`` of the picture to pixels of the frame from its upper left corner."""
        matrix = self.matrix(height, width)
        return (points @ matrix[:, :2].T + matrix[:, 2] + 0.5).astype(np.float32)


def cut_crops(frames: Sequence[Tensor], crops: Sequence[PoseCrop], height: int, width: int) -> Tensor:
    """Resample crops to pictures of one size, black outside of the frame.

    Args:
        frames: ``uint8 [3, h, w]``, one for each crop.
        crops: The crops.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.

    Returns:
        ``float32 [crops, 3, height, width]``, 0 to 1.
    """
    matrices = torch.tensor(np.stack([crop.matrix(height, width) for crop in crops]), dtype=torch.float32)
    pairs = zip(frames, upload(matrices, frames[0].device), strict=True)
    return torch.cat([_cut(frame, matrix, height, width) for frame, matrix in pairs])


def _cut(frame: Tensor, matrix: Tensor, height: int, width: int) -> Tensor:
    frame_height, frame_width = frame.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=frame.device)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32, device=frame.device)[None].expand(height, width)
    at = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1) @ matrix.T
    size = constant((frame_width, frame_height), frame.device)
    grid = (at + 0.5) / size * 2 - 1
    picture = frame[None].float() / 255
    return torch.nn.functional.grid_sample(picture, grid[None], align_corners=False)


def body_direction(points: NDArray[np.float32]) -> float:
    """Return the direction from the hips to the shoulders of ``[17, 2]`` key points: 0 is up, π/2 to the right."""
    trunk = points[[5, 6]].mean(axis=0) - points[[11, 12]].mean(axis=0)
    return float(np.arctan2(trunk[0], -trunk[1]))


def angle_between(one: float, other: float) -> float:
    """Return the absolute angle between two directions, 0 to π."""
    return abs((one - other + pi) % (2 * pi) - pi)

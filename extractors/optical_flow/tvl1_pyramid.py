"""The levels of TV-L1's pyramid: sizes, resampling and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .tvl1_settings import MIN_SIDE_PX, SCALE_STEP

Taps = tuple[NDArray[np.int64], NDArray[np.float32]]
"""For each sample the index of its left neighbor ``[out]`` and the weight of the right neighbor ``[out]``."""


DeviceTaps = tuple[Tensor, Tensor]
"""`Taps` that are kept on a device."""


def level_sizes(size: Sequence[int], scales: int) -> list[tuple[int, ...]]:
    """Return height and width of each level for the size of a frame, the finest level first."""
    sizes = [tuple(size)]
    while len(sizes) < scales:
        smaller = tuple(round(side * SCALE_STEP) for side in sizes[-1])  # halves to even, as OpenCV's cvRound
        if min(smaller) < MIN_SIDE_PX:
            break
        sizes.append(smaller)
    return sizes


def linear_taps(side: int, out_side: int, step: float, pixel_centers: bool) -> Taps:
    """Return the taps of ``out_side`` samples at distances of ``step`` on ``side`` pixels; edges are repeated."""
    offset = 0.5 if pixel_centers else 0.0
    positions = ((np.arange(out_side) + offset) * step - offset).astype(np.float32).clip(0, side - 1)
    left = np.minimum(np.floor(positions), max(side - 2, 0))
    return left.astype(np.int64), (positions - left).astype(np.float32)


def shrinking_taps(side: int, out_side: int, pixel_centers: bool) -> Taps:
    """Return the taps for the next coarser level, at distances of ``1 / SCALE_STEP`` independent of rounded sizes."""
    return linear_taps(side, out_side, 1 / SCALE_STEP, pixel_centers)


def growing_taps(side: int, out_side: int, pixel_centers: bool) -> Taps:
    """Return the taps for a finer level, at distances of ``side / out_side``."""
    return linear_taps(side, out_side, side / out_side, pixel_centers)


@lru_cache(maxsize=256)
def _on_device(
    taps: Callable[[int, int, bool], Taps], side: int, out_side: int, pixel_centers: bool, device: torch.device
) -> DeviceTaps:
    left, weight = (torch.as_tensor(array).to(device) for array in taps(side, out_side, pixel_centers))
    return left, weight


def resize(images: Tensor, rows: DeviceTaps, columns: DeviceTaps) -> Tensor:
    """Resize ``[..., h, w]`` to ``[..., out_h, out_w]`` bilinearly."""
    for axis, (left, weight) in ((-1, columns), (-2, rows)):
        right = (left + 1).clamp(max=images.shape[axis] - 1)
        weight = weight if axis == -1 else weight[:, None]
        before, after = images.index_select(axis, left), images.index_select(axis, right)
        images = before + weight * (after - before)
    return images


def pyramid(images: Tensor, scales: int, pixel_centers: bool) -> list[Tensor]:
    """Return images ``[time, h, w]`` at each level, the finest first. Each level is resized from the one before."""
    levels = [images]
    for out_height, out_width in level_sizes(images.shape[-2:], scales)[1:]:
        height, width = levels[-1].shape[-2:]
        rows = _on_device(shrinking_taps, height, out_height, pixel_centers, images.device)
        columns = _on_device(shrinking_taps, width, out_width, pixel_centers, images.device)
        levels.append(resize(levels[-1], rows, columns))
    return levels


def grow(flow: Tensor, height: int, width: int, pixel_centers: bool) -> Tensor:
    """Resample a flow ``[..., h, w]`` to the next finer level, in its pixels."""
    rows, columns = (
        _on_device(growing_taps, *sides, pixel_centers, flow.device)
        for sides in zip(flow.shape[-2:], (height, width), strict=True)
    )
    return resize(flow, rows, columns) / SCALE_STEP


Solve = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``solve(before, after, flow)`` improves the flow ``[pairs, 2, h, w]`` between images ``[pairs, h, w]``."""


def coarse_to_fine(clips: Sequence[Tensor], scales: int, pixel_centers: bool, solve: Solve) -> Tensor:
    """Compute flow between consecutive frames of clips, from zero at the coarsest level to the finest level.

    Args:
        clips: ``uint8 [time, h, w]`` of one size, each with two frames or more.
        scales: Maximum number of levels.
        pixel_centers: See `Arithmetic`.
        solve: Computes one level of all pairs.

    Returns:
        ``float32 [pairs, 2, h, w]``: the pairs of all clips, one clip after another.
    """
    lengths = [len(clip) for clip in clips]
    levels = pyramid(torch.cat([*clips]).float(), scales, pixel_centers)
    flow = clips[0].new_zeros((sum(lengths) - len(lengths), 2, *levels[-1].shape[-2:]), dtype=torch.float32)
    for images in reversed(levels):
        height, width = images.shape[-2:]
        if flow.shape[-2:] != (height, width):
            flow = grow(flow, height, width, pixel_centers)
        of_clips = torch.split(images, lengths)
        before, after = torch.cat([clip[:-1] for clip in of_clips]), torch.cat([clip[1:] for clip in of_clips])
        flow = solve(before, after, flow)
    return flow


def with_gradients(images: Tensor) -> Tensor:
    """Return images ``[time, h, w]`` and their central differences along x and y, ``[time, 3, h, w]``; repeat edges."""
    padded = torch.nn.functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    along_y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return torch.stack([images, along_x, along_y], dim=1)

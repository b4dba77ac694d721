"""The levels of TV-L1's pyramid: sizes, resampling, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .tvl1_settings import MIN_SIDE_PX, SCALE_STEP

Taps = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Of each sample the index of its left neighbor ``[out]`` and the weight of the right one ``[out]``."""


DeviceTaps = tuple[Tensor, Tensor]
"""`Taps` on a device, where they stay."""


def level_sizes(size: Sequence[int], scales: int) -> list[tuple[int, ...]]:
    """Heights and widths, the finest first, from those of a frame."""
    sizes = [tuple(size)]
    while len(sizes) < scales:
        smaller = tuple(round(side * SCALE_STEP) for side in sizes[-1])  # halves to even, as OpenCV's cvRound
        if min(smaller) < MIN_SIDE_PX:
            break
        sizes.append(smaller)
    return sizes


def linear_taps(side: int, out_side: int, step: float, pixel_centers: bool) -> Taps:
    """Where ``out_side`` samples, ``step`` input pixels apart, lie on ``side`` pixels; outside is the edge."""
    offset = 0.5 if pixel_centers else 0.0
    positions = ((np.arange(out_side) + offset) * step - offset).astype(np.float32).clip(0, side - 1)
    left = np.minimum(np.floor(positions), max(side - 2, 0))
    return left.astype(np.int64), (positions - left).astype(np.float32)


def shrinking_taps(side: int, out_side: int, pixel_centers: bool) -> Taps:
    """To the next level: exactly ``1 / SCALE_STEP`` apart, whatever the sizes were rounded to."""
    return linear_taps(side, out_side, 1 / SCALE_STEP, pixel_centers)


def growing_taps(side: int, out_side: int, pixel_centers: bool) -> Taps:
    """Back to a finer level: ``side / out_side`` apart."""
    return linear_taps(side, out_side, side / out_side, pixel_centers)


@lru_cache(maxsize=256)
def _on_device(
    taps: Callable[[int, int, bool], Taps], side: int, out_side: int, pixel_centers: bool, device: torch.device
) -> DeviceTaps:
    left, weight = (torch.as_tensor(array).to(device) for array in taps(side, out_side, pixel_centers))
    return left, weight


def resize(images: Tensor, rows: DeviceTaps, columns: DeviceTaps) -> Tensor:
    """Bilinear, ``[..., h, w]`` to ``[..., out_h, out_w]``."""
    for axis, (left, weight) in ((-1, columns), (-2, rows)):
        right = (left + 1).clamp(max=images.shape[axis] - 1)
        weight = weight if axis == -1 else weight[:, None]
        before, after = images.index_select(axis, left), images.index_select(axis, right)
        images = before + weight * (after - before)
    return images


def pyramid(images: Tensor, scales: int, pixel_centers: bool) -> list[Tensor]:
    """``[time, h, w]`` on each level, the finest first; each made of the one before, without blur."""
    levels = [images]
    for out_height, out_width in level_sizes(images.shape[-2:], scales)[1:]:
        height, width = levels[-1].shape[-2:]
        rows = _on_device(shrinking_taps, height, out_height, pixel_centers, images.device)
        columns = _on_device(shrinking_taps, width, out_width, pixel_centers, images.device)
        levels.append(resize(levels[-1], rows, columns))
    return levels


def grow(flow: Tensor, height: int, width: int, pixel_centers: bool) -> Tensor:
    """A flow ``[..., h, w]`` on the next finer level, in its pixels."""
    rows, columns = (
        _on_device(growing_taps, *sides, pixel_centers, flow.device)
        for sides in zip(flow.shape[-2:], (height, width), strict=True)
    )
    return resize(flow, rows, columns) / SCALE_STEP


Solve = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``solve(before, after, flow)`` improves the flow ``[pairs, 2, h, w]`` between images ``[pairs, h, w]``."""


def coarse_to_fine(clips: Sequence[Tensor], scales: int, pixel_centers: bool, solve: Solve) -> Tensor:
    """Flow between consecutive frames of clips, from zero on the coarsest level up to the finest one.

    Args:
        clips: ``uint8 [time, h, w]`` of one size, each with two frames or more.
        scales: Levels.
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
    """``[time, h, w]`` to ``[time, 3, h, w]``: the image and its central differences along x and y, edges repeated."""
    padded = torch.nn.functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    along_y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return torch.stack([images, along_x, along_y], dim=1)

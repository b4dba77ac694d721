"""Cut and resize crops of frames. On an accelerator, crops of different sizes are resized together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..manifests.streams import CenterCrop, Geometry
from .device_copies import upload
from .geometry import apply_geometry, size_after
from .resize import ImageSize, antialias_table

_CHUNK_NUMBERS = 2**24
"""Limit of the int32 numbers between the two passes, for crops that are resized at once on a device."""


class Crop(NamedTuple):
    """A rectangle of whole pixels in one of several frames."""

    frame: int
    """Number of the frame."""
    top: int
    left: int
    height: int
    width: int


def cut_and_resize(frames: Sequence[Tensor], crops: Sequence[Crop], geometry: Geometry) -> list[Tensor]:
    """Cut crops and apply a geometry to each. The result is the same on every device.

    Args:
        frames: ``uint8 [3, height, width]``, on one device.
        crops: Rectangles inside their frames.
        geometry: Steps that are applied to each crop.

    Returns:
        For each crop ``[channels, h, w]``, of the type that `apply_geometry` returns.

    Example:
        >>> frame = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
        >>> cut_and_resize([frame], [Crop(0, 1, 2, 2, 2)], Geometry(steps=()))[0].tolist()
        [[[6, 7], [10, 11]]]
    """
    if not crops or frames[0].device.type == "cpu" or not _starts_with_antialiased_resize(geometry):
        return [apply_geometry(_cut(frames[crop.frame], crop)[None], geometry)[0] for crop in crops]
    return resize_together(frames, crops, geometry)


def resize_together(frames: Sequence[Tensor], crops: Sequence[Crop], geometry: Geometry) -> list[Tensor]:
    """Return the result of `cut_and_resize` in few operations, if the first step resizes with antialiasing."""
    first, later = geometry.steps[0], geometry.model_copy(update={"steps": geometry.steps[1:]})
    sizes = [size_after(first, crop.height, crop.width) for crop in crops]
    results: dict[int, Tensor] = {}
    by_frame_size: dict[torch.Size, list[int]] = {}
    for place, crop in enumerate(crops):
        by_frame_size.setdefault(frames[crop.frame].shape, []).append(place)
    for places in by_frame_size.values():
        shown = sorted({crops[place].frame for place in places})
        stacked = torch.stack([frames[number] for number in shown])
        tallest = max(crops[place].height for place in places)
        widest = max(sizes[place][1] for place in places)
        step = max(_CHUNK_NUMBERS // (len(stacked[0]) * tallest * widest), 1)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            chosen = [crops[place]._replace(frame=shown.index(crops[place].frame)) for place in some]
            resized = _resize(stacked, chosen, [sizes[place] for place in some], geometry)
            results.update(zip(some, resized, strict=True))
    return [apply_geometry(results[place][None], later)[0] for place in range(len(crops))]


def _cut(frame: Tensor, crop: Crop) -> Tensor:
    return frame[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def _starts_with_antialiased_resize(geometry: Geometry) -> bool:
    if not geometry.steps or isinstance(geometry.steps[0], CenterCrop) or geometry.gray:
        return False
    if geometry.resize_arithmetic not in ("torch", "pil"):
        return False
    step = geometry.steps[0].antialias
    return geometry.interpolation != "nearest" and (geometry.antialias if step == "as-geometry" else step)


def _resize(frames: Tensor, crops: Sequence[Crop], sizes: Sequence[ImageSize], geometry: Geometry) -> list[Tensor]:
    """Resize crops of ``frames [n, channels, h, w]``: columns, then rows, with a table for each crop."""
    assert geometry.interpolation != "nearest"
    library = geometry.resize_arithmetic
    assert library in ("torch", "pil")
    across = _Tables([(crop.width, size[1]) for crop, size in zip(crops, sizes, strict=True)], geometry, library)
    down = _Tables([(crop.height, size[0]) for crop, size in zip(crops, sizes, strict=True)], geometry, library)
    tallest = max(crop.height for crop in crops)
    rows = np.array([crop.top + np.minimum(np.arange(tallest), crop.height - 1) for crop in crops])
    lefts = np.array([crop.left for crop in crops])
    numbers = [
        *(np.array([crop.frame for crop in crops]), rows, across.taps + lefts[None, :, None], across.weights),
        *(across.bits, down.taps, down.weights, down.bits),
    ]
    frame, row, column, weight_x, bits_x, tap_y, weight_y, bits_y = _uploaded(numbers, frames.device)

    across_frames = (frames[frame[:, None, None], :, row[:, :, None], each[:, None, :]] for each in column)
    narrowed = _weighted_sum(across_frames, weight_x[:, :, None, :, None], bits_x)  # [crops, rows, columns, channels]
    number = torch.arange(len(crops), device=frames.device)[:, None]
    resized = _weighted_sum((narrowed[number, each] for each in tap_y), weight_y[:, :, :, None, None], bits_y)
    pictures = resized.permute(0, 3, 1, 2)
    return [picture[:, : size[0], : size[1]] for picture, size in zip(pictures, sizes, strict=True)]


class _Tables:
    """The tables of several crops along one axis, padded with weights of 0 to equal sizes.

    Args:
        sides: Pixels of each crop before and after resizing.
        geometry: Steps of the resizing.
        library: The library whose arithmetic is used.
    """

    def __init__(self, sides: Sequence[tuple[int, int]], geometry: Geometry, library: Literal["torch", "pil"]) -> None:
        found = [_table(*pair, geometry, library) for pair in sides]
        shape = max(len(taps) for taps, _, _ in found), len(sides), max(wanted for _, wanted in sides)
        self.taps, self.weights = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        """``[taps, crops, pixels]``"""
        for number, (taps, weights, _) in enumerate(found):
            self.taps[: len(taps), number, : taps.shape[1]] = taps
            self.weights[: len(taps), number, : taps.shape[1]] = weights
        self.bits = np.array([bits for _, _, bits in found])


def _table(
    given: int, wanted: int, geometry: Geometry, library: Literal["torch", "pil"]
) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    if given == wanted:  # unchanged
        return np.arange(given)[None], np.full((1, given), 2, np.int32), 1
    assert geometry.interpolation != "nearest"
    return antialias_table(given, wanted, geometry.interpolation, library)


def _uploaded(numbers: Sequence[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Copy arrays to a device in one copy."""
    flat = torch.as_tensor(np.concatenate([each.ravel() for each in numbers]))
    parts = torch.split(upload(flat, device), [each.size for each in numbers])
    return [part.view(each.shape) for part, each in zip(parts, numbers, strict=True)]


def _weighted_sum(values: Iterable[Tensor], weights: Tensor, bits: Tensor) -> Tensor:
    """Return the rounded uint8 sum of ``values · weights / 2^bits`` over taps; ``bits [crops]``."""
    total: Tensor | None = None
    for value, weight in zip(values, weights, strict=True):
        product = value.int().mul_(weight.int())
        total = product if total is None else total.add_(product)
    assert total is not None
    shift = bits.int().view(-1, *[1] * (total.dim() - 1))
    half = torch.ones_like(shift).bitwise_left_shift_(shift - 1)
    return total.add_(half).bitwise_right_shift_(shift).clamp_(0, 255).to(torch.uint8)

"""From decoded frames to network input: gray, resize and crop on uint8, then normalization in floating point.

Published features were computed with PIL, torch or OpenCV, so a recipe selects the arithmetic; see `resize`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..manifests.streams import CenterCrop, Geometry, GeometryStep, Height, Normalization, Patches, ShortSide
from .device_copies import constant
from .resize import ImageSize, resize, resize_in_float, resize_nearest

MAX_PICTURE_PX = 1 << 26
"""Largest picture that a step may produce. It limits the length of a narrow strip whose short side is enlarged."""


def output_size(height: int, width: int, geometry: Geometry) -> ImageSize:
    """Return the output size for an input frame of the given size."""
    for step in geometry.steps:
        height, width = size_after(step, height, width)
    return height, width


def largest_px(height: int, width: int, geometry: Geometry) -> int:
    """Return the pixels of the largest picture that a step produces from a frame of this size; 0 without steps."""
    largest = 0
    for step in geometry.steps:
        height, width = size_after(step, height, width)
        largest = max(largest, height * width)
    return largest


def apply_geometry(frames: Tensor, geometry: Geometry) -> Tensor:
    """Apply every step to frames.

    Args:
        frames: ``uint8 [n, channels, height, width]``, in any memory layout.
        geometry: The steps.

    Returns:
        ``uint8 [n, channels, height, width]``, which may be a view of the frames; float32 levels from 0 to 255 with
        ``resize_arithmetic = "float"`` (a bicubic filter goes beyond them).

    Raises:
        ValueError: The frames have another type or shape, or a step makes a picture that is too large.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4:
        raise ValueError(f"frames: must be uint8 [n, channels, h, w], not {frames.dtype} {list(frames.shape)}")
    if geometry.gray:
        frames = to_gray(frames)
    for step in geometry.steps:
        size = size_after(step, frames.shape[-2], frames.shape[-1])
        if size[0] * size[1] > max(MAX_PICTURE_PX, frames.shape[-2] * frames.shape[-1]):
            height, width = frames.shape[-2:]
            raise ValueError(f"a frame of {width}×{height} pixels would be enlarged to {size[1]}×{size[0]}")
        if isinstance(step, CenterCrop):
            frames = center_crop(frames, size, step.odd_margin)
        elif size != tuple(frames.shape[-2:]):
            antialias = geometry.antialias if step.antialias == "as-geometry" else step.antialias
            if geometry.interpolation == "nearest":
                frames = resize_nearest(frames, size, centered=antialias)
            elif geometry.resize_arithmetic in ("torch", "pil"):
                library = geometry.resize_arithmetic if antialias else "opencv"
                frames = resize(frames, size, geometry.interpolation, library)
            else:
                factor = step.short_side_px / min(frames.shape[-2:]) if _has_one_factor(step) else None
                frames = resize_in_float(frames, size, geometry.interpolation, antialias=antialias, factor=factor)
                if geometry.resize_arithmetic == "float-rounded":
                    frames = frames.round_().clamp_(0, 255).to(torch.uint8)
    return frames.float() if geometry.resize_arithmetic == "float" else frames


def crop(values: Tensor, geometry: Geometry) -> Tensor:
    """Apply a geometry of crops to ``[..., height, width]`` of any type; raise ValueError if it has other steps."""
    for step in geometry.steps:
        if not isinstance(step, CenterCrop):
            raise ValueError(f"values that are not pixels can only be cropped; {type(step).__name__} is not a crop")
        values = center_crop(values, step.center_crop_px, step.odd_margin)
    return values


def normalize(frames: Tensor, normalization: Normalization, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``(x / 255 - mean) / std`` for levels ``[..., channels, height, width]`` in uint8 or float32."""
    if frames.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"frames to normalize must be uint8 or float32, not {frames.dtype}")
    if not frames.shape[-3] == len(normalization.mean) == len(normalization.std):
        raise ValueError(
            f"frames have {frames.shape[-3]} channels, the normalization {len(normalization.mean)} means "
            f"and {len(normalization.std)} standard deviations; set one of each per channel"
        )
    mean, std = (constant(each, frames.device)[:, None, None] for each in (normalization.mean, normalization.std))
    return frames.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std).to(dtype)


def center_crop(frames: Tensor, size: ImageSize, odd_margin: Literal["half-even", "down"] = "half-even") -> Tensor:
    """Return the center of ``[..., height, width]``. Smaller frames are padded with zeros; see `CenterCrop`."""
    short_of = [max(wanted - given, 0) for wanted, given in zip(size, frames.shape[-2:], strict=True)]
    if any(short_of):
        (above, below), (left, right) = ((missing // 2, (missing + 1) // 2) for missing in short_of)
        frames = functional.pad(frames, (left, right, above, below))
    margins = (given - wanted for wanted, given in zip(size, frames.shape[-2:], strict=True))
    top, left = (round(margin / 2) if odd_margin == "half-even" else margin // 2 for margin in margins)
    return frames[..., top : top + size[0], left : left + size[1]]


def several_crops(frames: Tensor, step: CenterCrop, *, mirrored: bool) -> Tensor:
    """Return the crops at the four corners and at the center, as torchvision's ``five_crop`` and ``ten_crop`` do.

    Args:
        frames: ``[..., height, width]``; smaller frames are padded with zeros.
        step: Size of the crops, and the rounding of the center.
        mirrored: Append the five crops of the mirrored frames.

    Returns:
        ``[5 or 10, ..., crop height, crop width]``: top left, top right, bottom left, bottom right, center.
    """
    height, width = step.center_crop_px
    frames = center_crop(frames, (max(height, frames.shape[-2]), max(width, frames.shape[-1])), step.odd_margin)
    crops: list[Tensor] = []
    for each in (frames, frames.flip(-1)) if mirrored else (frames,):
        rows, columns = (each[..., :height, :], each[..., -height:, :]), (slice(None, width), slice(-width, None))
        crops += [row[..., column] for row in rows for column in columns]
        crops.append(center_crop(each, step.center_crop_px, step.odd_margin))
    return torch.stack(crops)


def size_after(step: GeometryStep, height: int, width: int) -> ImageSize:
    """Return the size of a frame of the given size after one step."""
    if isinstance(step, ShortSide):
        side = step.short_side_px
        if step.one_factor:  # as torch computes it
            factor = side / min(height, width)
            return int(height * factor), int(width * factor)
        return (side, side * width // height) if height <= width else (side * height // width, side)
    if isinstance(step, Height):
        return step.height_px, max((2 * step.height_px * width + height) // (2 * height), 1)
    if isinstance(step, Patches):
        return _most_patches(step, height, width)
    return step.center_crop_px if isinstance(step, CenterCrop) else step.size_px


def _has_one_factor(step: GeometryStep) -> TypeGuard[ShortSide]:
    return isinstance(step, ShortSide) and step.one_factor


def _most_patches(step: Patches, height: int, width: int) -> ImageSize:
    """Return the largest size with the aspect of a frame, in whole patches, within the maximum number of patches."""
    sides = [
        min(rows / height, (step.max_patches // rows) / width) for rows in range(1, step.max_patches + 1)
    ]  # patches per pixel for each number of rows
    scale = max(sides) * (1 - 1e-9)  # so that rounding does not add a patch
    rows, columns = (max(math.ceil(side * scale), 1) for side in (height, width))
    return rows * step.patch_px, columns * step.patch_px


def to_gray(frames: Tensor, places: Sequence[int] | None = None) -> Tensor:
    """Return OpenCV's gray levels of some of the frames.

    Args:
        frames: ``uint8 [n, 1 or 3, height, width]``, in any memory layout.
        places: Indices of the frames to convert; None for all.

    Returns:
        ``uint8 [n or places, 1, height, width]``; frames with one channel are returned unchanged.

    Raises:
        ValueError: The frames have another number of channels.
    """
    _, channels, height, width = frames.shape
    if channels == 1:
        return frames if places is None else frames[list(places)]
    if channels != 3:
        raise ValueError(f"frames to convert to gray must have 1 or 3 channels, not {channels}")
    if frames.device.type != "cpu":
        return _gray_in_torch(frames if places is None else torch.stack([frames[place] for place in places]))
    import cv2

    places = range(len(frames)) if places is None else places
    gray = np.empty((len(places), 1, height, width), dtype=np.uint8)
    for place, result in zip(places, gray, strict=True):
        frame = np.ascontiguousarray(frames[place].permute(1, 2, 0).numpy())
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=result[0])
    return torch.as_tensor(gray)


def _gray_in_torch(frames: Tensor) -> Tensor:
    """Return the same luma as OpenCV's fixed-point arithmetic, bit for bit."""
    red, green, blue = frames.to(torch.int32).unbind(1)
    return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).to(torch.uint8)[:, None]

"""From decoded frames to what a network sees: gray, resize, crop on uint8, and the step to floating point.

Published features were made by PIL or OpenCV, so their arithmetic is part of a recipe. On the CPU the libraries
do the work themselves (torch's uint8 kernel is PIL's algorithm); on another device the same arithmetic runs in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..manifests.streams import CenterCrop, Geometry, GeometryStep, Height, Interpolation, Normalisation, ShortSide

ImageSize = tuple[int, int]
"""``(height, width)`` in pixels."""

_CHUNK_BYTES = 2**26
"""Frames that a device resizes at once, in bytes of uint8: bounds the floating-point copies, four times as large."""


def output_size(height: int, width: int, geometry: Geometry) -> ImageSize:
    """What a frame of this size becomes."""
    for step in geometry.steps:
        height, width = _size_after(step, height, width)
    return height, width


def apply_geometry(frames: Tensor, geometry: Geometry) -> Tensor:
    """Frames ``uint8 [n, channels, height, width]``, in any memory layout, after every step; may be a view of them."""
    if frames.dtype != torch.uint8 or frames.ndim != 4:
        raise ValueError(f"frames must be uint8 [n, channels, h, w], not {frames.dtype} {list(frames.shape)}")
    if geometry.gray:
        frames = _gray(frames)
    for step in geometry.steps:
        size = _size_after(step, frames.shape[-2], frames.shape[-1])
        if isinstance(step, CenterCrop):
            frames = center_crop(frames, size, step.odd_margin)
        elif size != tuple(frames.shape[-2:]):
            antialias = geometry.antialias if step.antialias == "as-geometry" else step.antialias
            frames = _resize(frames, size, geometry.interpolation, antialias)
    return frames


def crop(values: Tensor, geometry: Geometry) -> Tensor:
    """The crops of a geometry alone, for ``[..., height, width]`` of any type; its other steps raise ValueError."""
    for step in geometry.steps:
        if not isinstance(step, CenterCrop):
            raise ValueError(f"only crops suit values that are no picture, not {type(step).__name__}")
        values = center_crop(values, step.center_crop_px, step.odd_margin)
    return values


def normalise(frames: Tensor, normalisation: Normalisation, dtype: torch.dtype = torch.float32) -> Tensor:
    """``(x / 255 - mean) / std`` of ``uint8 [..., channels, height, width]``, computed in float32."""
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames to normalise must be uint8, not {frames.dtype}")
    if not frames.shape[-3] == len(normalisation.mean) == len(normalisation.std):
        raise ValueError(
            f"frames have {frames.shape[-3]} channels, the normalisation {len(normalisation.mean)} means "
            f"and {len(normalisation.std)} standard deviations; set one of each per channel"
        )
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=frames.device).view(-1, 1, 1)
        for values in (normalisation.mean, normalisation.std)
    )
    return frames.to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


def center_crop(frames: Tensor, size: ImageSize, odd_margin: Literal["half-even", "down"] = "half-even") -> Tensor:
    """The centre of ``[..., height, width]``, padded with zeros where it is smaller; see `CenterCrop`."""
    short_of = [max(wanted - given, 0) for wanted, given in zip(size, frames.shape[-2:], strict=True)]
    if any(short_of):
        (above, below), (left, right) = ((missing // 2, (missing + 1) // 2) for missing in short_of)
        frames = functional.pad(frames, (left, right, above, below))
    margins = (given - wanted for wanted, given in zip(size, frames.shape[-2:], strict=True))
    top, left = (round(margin / 2) if odd_margin == "half-even" else margin // 2 for margin in margins)
    return frames[..., top : top + size[0], left : left + size[1]]


def _size_after(step: GeometryStep, height: int, width: int) -> ImageSize:
    if isinstance(step, ShortSide):
        side = step.short_side_px
        return (side, side * width // height) if height <= width else (side * height // width, side)
    if isinstance(step, Height):
        return step.height_px, max((2 * step.height_px * width + height) // (2 * height), 1)
    return step.center_crop_px if isinstance(step, CenterCrop) else step.size_px


def _gray(frames: Tensor) -> Tensor:
    _, channels, height, width = frames.shape
    if channels == 1:
        return frames
    if channels != 3:
        raise ValueError(f"frames to turn gray must have 1 or 3 channels, not {channels}")
    if frames.device.type != "cpu":
        return _gray_in_torch(frames)
    import cv2

    return _by_image(frames, (height, width, 1), lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _gray_in_torch(frames: Tensor) -> Tensor:
    """OpenCV's fixed-point luma, bit for bit."""
    red, green, blue = frames.to(torch.int32).unbind(1)
    return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).to(torch.uint8)[:, None]


def _resize(frames: Tensor, size: ImageSize, interpolation: Interpolation, antialias: bool) -> Tensor:
    if interpolation == "nearest":
        rows, columns = (
            torch.from_numpy(_nearest_taps(given, wanted, centred=antialias)).to(frames.device)
            for given, wanted in zip(frames.shape[-2:], size, strict=True)
        )
        return frames[..., rows, :][..., columns]
    resize = _resize_on_cpu if frames.device.type == "cpu" else _resize_on_device
    return resize(frames, size, interpolation, antialias)


def _nearest_taps(given: int, wanted: int, *, centred: bool) -> NDArray[np.int64]:
    """The source pixel of each output pixel: PIL walks from centre to centre, OpenCV starts at the corner.

    In double precision and in each library's own order of operations: halfway cases depend on the last bit.
    """
    if centred:
        step = given / wanted
        return np.add.accumulate(np.array([step / 2] + [step] * (wanted - 1))).astype(np.int64)
    return (np.arange(wanted) * (1 / (wanted / given))).astype(np.int64)


def _resize_on_cpu(frames: Tensor, size: ImageSize, interpolation: Interpolation, antialias: bool) -> Tensor:
    if antialias:
        return functional.interpolate(frames, size, mode=interpolation, antialias=True)
    import cv2

    flag = cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_CUBIC
    return _by_image(frames, (*size, frames.shape[1]), lambda image: cv2.resize(image, size[::-1], interpolation=flag))


def _by_image(frames: Tensor, shape: tuple[int, int, int], convert: Callable[[NDArray], NDArray]) -> Tensor:
    """``convert`` applied to every frame as ``[height, width, channels]``, each result of the given shape."""
    results = np.empty((len(frames), *shape), dtype=np.uint8)
    for frame, result in zip(frames, results, strict=True):
        # OpenCV drops a channel axis of length 1
        result[...] = convert(np.ascontiguousarray(frame.permute(1, 2, 0).numpy())).reshape(shape)
    return torch.from_numpy(results).permute(0, 3, 1, 2)


def _resize_on_device(frames: Tensor, size: ImageSize, interpolation: Interpolation, antialias: bool) -> Tensor:
    chunk = max(_CHUNK_BYTES // max(frames[:1].numel(), 1), 1)
    return torch.cat([_resize_in_torch(part, size, interpolation, antialias) for part in frames.split(chunk)])


def _resize_in_torch(frames: Tensor, size: ImageSize, interpolation: Interpolation, antialias: bool) -> Tensor:
    if antialias:
        # PIL resizes along the rows and rounds to uint8 before it goes down the columns
        frames = _round(_antialiased(frames, (frames.shape[-2], size[1]), interpolation))
        return _round(_antialiased(frames, size, interpolation))
    if interpolation == "bilinear":
        return _bilinear_in_fixed_point(frames, size)
    return _round(functional.interpolate(frames.float(), size, mode=interpolation))


def _antialiased(frames: Tensor, size: ImageSize, interpolation: Interpolation) -> Tensor:
    return functional.interpolate(frames.contiguous().float(), size, mode=interpolation, antialias=True)


def _round(values: Tensor) -> Tensor:
    """To uint8, halves up, as fixed-point arithmetic rounds."""
    return values.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


def _bilinear_in_fixed_point(frames: Tensor, size: ImageSize) -> Tensor:
    """OpenCV's: weights of 11 bits; the vertical pass drops 4 bits before and 16 after each product."""
    (top, bottom, upper, lower), (left, right, near, far) = (
        _taps(given, wanted, frames.device) for given, wanted in zip(frames.shape[-2:], size, strict=True)
    )
    rows = frames[..., left].int() * near + frames[..., right].int() * far
    above = (rows[..., top, :] >> 4) * upper[:, None] >> 16
    below = (rows[..., bottom, :] >> 4) * lower[:, None] >> 16
    return ((above + below + 2) >> 2).to(torch.uint8)


def _taps(given: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two source pixels of each output pixel, and their int32 weights of 2048 in all."""
    position = (torch.arange(wanted, dtype=torch.float64) + 0.5) * (given / wanted) - 0.5
    position = position.float().clamp(0, given - 1)
    first = position.floor()
    fraction = position - first
    second = (first + 1).clamp(max=given - 1)
    first_weight, second_weight = ((weight * 2048).round().int() for weight in (1 - fraction, fraction))
    return (
        first.long().to(device),
        second.long().to(device),
        first_weight.to(device),
        second_weight.to(device),
    )

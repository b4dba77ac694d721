"""Resizing of 8-bit pictures with the arithmetic of the published pipelines.

Three libraries resize pictures in this field with integer weights, so that their results can be reproduced exactly,
equal bit for bit on every device:

- ``torch``: `torch.nn.functional.interpolate(antialias=True)` on uint8: 16-bit weights (torchvision v2, tensors).
- ``pil``: Pillow's `Image.resize`: 22-bit weights (torchvision on PIL images). It differs from torch by one level in
  .05 to .5 % of the pixels of real videos.
- OpenCV's `cv2.resize` does not antialias: two (bilinear) or four (bicubic) source pixels, weights of 11 bits. Its
  bicubic filter is not equal on all devices: on processors with vector instructions OpenCV computes the columns in
  floating point, and other devices differ by one level in about 5 % of the pixels. No recipe uses it.

On the CPU the library itself is called. On other devices the same integers are computed with torch operations; their
tables stay on the device, so that the host does not wait for it. Other pipelines convert to floating point before they
resize; `resize_in_float` does so, and devices differ by the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ImageSize = tuple[int, int]
"""``(height, width)`` in pixels."""
Filter = Literal["bilinear", "bicubic"]
Library = Literal["torch", "pil", "opencv"]

_CHUNK_BYTES = 2**26
"""Size in bytes of uint8 frames that are resized at once on a device. Bounds the int32 copies, four times as large."""
_PIL_BITS = 22
_OPENCV_BITS = 11


def resize(frames: Tensor, size: ImageSize, interpolation: Filter, library: Library) -> Tensor:
    """Resize frames as the library does on the CPU.

    Args:
        frames: uint8 ``[n, channels, height, width]``, in any memory layout; channels are resized independently.
        size: Height and width of the result in pixels.
        interpolation: Filter.
        library: The library whose arithmetic is used; see the module's docstring.

    Returns:
        uint8 ``[n, channels, *size]`` on the device of the frames.

    Example:
        >>> frames = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
        >>> resize(frames, (2, 2), "bilinear", "pil").tolist()
        [[[[4, 5], [10, 11]]]]
    """
    if frames.device.type == "cpu":
        return _ON_CPU[library](frames, size, interpolation)
    chunk = max(_CHUNK_BYTES // max(frames[:1].numel(), 1), 1)
    return torch.cat([resize_on_device(part, size, interpolation, library) for part in torch.split(frames, chunk)])


def resize_in_float(
    frames: Tensor, size: ImageSize, interpolation: Filter, *, antialias: bool, factor: float | None = None
) -> Tensor:
    """Resize frames in floating point, as `torch.nn.functional.interpolate` does, without rounding.

    Args:
        frames: Levels ``[n, channels, height, width]``, uint8 or float32.
        size: Height and width of the result in pixels.
        interpolation: Filter.
        antialias: Whether the filter is widened when pictures become smaller.
        factor: Scale of the coordinates on both sides (torch's ``scale_factor``). None: the ratio of the sizes, which
            differs between the sides where one was truncated.

    Returns:
        float32 ``[n, channels, *size]``, on the device of the frames.

    Raises:
        ValueError: The factor does not lead to the size.

    Example:
        >>> frames = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
        >>> resize_in_float(frames, (2, 2), "bilinear", antialias=False).tolist()
        [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    how: dict[str, Any] = {"mode": interpolation, "antialias": antialias, "size": size}
    if factor is not None:
        how |= {"size": None, "scale_factor": factor, "recompute_scale_factor": False}
    chunk = max(_CHUNK_BYTES // max(4 * frames[:1].numel(), 1), 1)
    resized = torch.cat([functional.interpolate(part.float(), **how) for part in torch.split(frames, chunk)])
    if tuple(resized.shape[-2:]) != tuple(size):
        raise ValueError(f"a factor of {factor} produces pictures of {list(resized.shape[-2:])}, not {list(size)}")
    return resized


def resize_nearest(frames: Tensor, size: ImageSize, *, centered: bool) -> Tensor:
    """Choose the nearest source pixel for each pixel, as PIL (``centered``) or OpenCV do."""
    rows, columns = (
        _nearest(given, wanted, centered, frames.device) for given, wanted in zip(frames.shape[-2:], size, strict=True)
    )
    return frames.index_select(-2, rows).index_select(-1, columns)


def _torch_on_cpu(frames: Tensor, size: ImageSize, interpolation: Filter) -> Tensor:
    if len(frames) < 2 or frames.shape[1] > 1:
        return functional.interpolate(frames, size, mode=interpolation, antialias=True)
    # torch always computes four channels: four gray frames take the time of one
    fours = (frames[first : first + 4].transpose(0, 1) for first in range(0, len(frames), 4))
    resized = [functional.interpolate(four, size, mode=interpolation, antialias=True) for four in fours]
    return torch.cat(resized, dim=1).transpose(0, 1)


def _pil_on_cpu(frames: Tensor, size: ImageSize, interpolation: Filter) -> Tensor:
    from PIL import Image

    kind = Image.Resampling.BILINEAR if interpolation == "bilinear" else Image.Resampling.BICUBIC
    height, width = size

    def resized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # in two calls, because Pillow ≥ 13 resizes the columns first if that is cheaper
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((width, image.height), kind).resize((width, height), kind))

    return _by_image(frames, size, resized)


def _opencv_on_cpu(frames: Tensor, size: ImageSize, interpolation: Filter) -> Tensor:
    import cv2

    kind = cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_CUBIC
    return _by_image(
        frames, size, lambda image: np.asarray(cv2.resize(image, size[::-1], interpolation=kind), np.uint8)
    )


_ON_CPU: dict[Library, Callable[[Tensor, ImageSize, Filter], Tensor]] = {
    "torch": _torch_on_cpu,
    "pil": _pil_on_cpu,
    "opencv": _opencv_on_cpu,
}


def _by_image(frames: Tensor, size: ImageSize, convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Tensor:
    """Apply ``convert`` to each frame as ``[height, width, 3]``, or to each channel as ``[height, width]``."""
    if frames.shape[1] not in (1, 3):  # in two or four channels, PIL weights the others by the last one (alpha)
        channels = _by_image(frames.flatten(0, 1)[:, None], size, convert)
        return torch.unflatten(channels, 0, frames.shape[:2])[:, :, 0]
    results = np.empty((len(frames), *size, frames.shape[1]), dtype=np.uint8)
    for frame, result in zip(frames, results, strict=True):
        image = frame[0] if len(frame) == 1 else frame.permute(1, 2, 0)
        result[...] = convert(np.ascontiguousarray(image.numpy())).reshape(result.shape)
    return torch.as_tensor(results).permute(0, 3, 1, 2)


def resize_on_device(frames: Tensor, size: ImageSize, interpolation: Filter, library: Library) -> Tensor:
    """Compute `resize` with torch operations on integers, on the device of the frames, or for tests on the CPU."""
    if library == "opencv":
        opencv = _opencv_bilinear if interpolation == "bilinear" else _opencv_bicubic
        return opencv(frames, size)
    for axis, wanted in ((-1, size[1]), (-2, size[0])):  # rows first, rounded to uint8 between the two
        if frames.shape[axis] != wanted:
            first, weights, bits = _table_on_device(frames.shape[axis], wanted, interpolation, library, frames.device)
            total = _weighted_sum(frames, axis, first, weights).add_(1 << (bits - 1)).bitwise_right_shift_(bits)
            frames = total.clamp_(0, 255).to(torch.uint8)
    return frames


def _weighted_sum(frames: Tensor, axis: int, taps: Tensor, weights: Tensor) -> Tensor:
    """Return the int32 sum over taps of ``frames[taps[:, t]] * weights[:, t]`` along an axis (-1 or -2)."""
    shape = (-1,) if axis == -1 else (-1, 1)
    total: Tensor | None = None
    for indices, factors in zip(taps.unbind(), weights.unbind(), strict=True):
        product = frames.index_select(axis, indices).int().mul_(factors.view(shape))
        total = product if total is None else total.add_(product)
    assert total is not None
    return total


@lru_cache(maxsize=256)
def antialias_table(
    given: int, wanted: int, interpolation: Filter, library: Literal["torch", "pil"]
) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Return source pixels ``[taps, wanted]``, their integer weights, and the number of fraction bits of the weights.

    The triangle or cubic filter (a = -0.5) is widened by the ratio when the picture becomes smaller. torch uses as many
    bits as the largest weight allows in an int16, PIL always 22.
    """
    scale = given / wanted
    support, kernel = (1.0, _triangle) if interpolation == "bilinear" else (2.0, _cubic)
    support, inverse = (support * scale, 1 / scale) if scale >= 1 else (support, 1.0)
    center = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    end = np.minimum((center + support + 0.5).astype(np.int64), given)
    pixels = first + np.arange(int((end - first).max()))[:, None]
    values = np.where(pixels < end, kernel((pixels - center + 0.5) * inverse), 0.0)
    total = np.add.accumulate(values, axis=0)[-1]  # sequential sum, as in the libraries
    values = np.divide(values, total, out=values, where=total != 0)
    bits = _PIL_BITS
    while library == "torch" and bits and int(0.5 + values.max() * 2**bits) >= 2**15:
        bits -= 1
    weights = (np.where(values < 0, -0.5, 0.5) + values * 2**bits).astype(np.int32)
    return np.minimum(pixels, given - 1), weights, bits


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - abs(x), 0.0)


def _cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    x = abs(x)
    outer = np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0)
    return np.where(x < 1, ((a + 2) * x - (a + 3)) * x * x + 1, outer)


@lru_cache(maxsize=256)
def _table_on_device(
    given: int, wanted: int, interpolation: Filter, library: Literal["torch", "pil"], device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Return `antialias_table` on the device."""
    taps, weights, bits = antialias_table(given, wanted, interpolation, library)
    return torch.as_tensor(taps).to(device), torch.as_tensor(weights).to(device), bits


def _opencv_bilinear(frames: Tensor, size: ImageSize) -> Tensor:
    """Return OpenCV's bilinear resize. Its vertical pass drops 4 bits before and 16 bits after each product."""
    down, vertical = _opencv_table(frames.shape[-2], size[0], "bilinear", False, frames.device)
    across, horizontal = _opencv_table(frames.shape[-1], size[1], "bilinear", True, frames.device)
    rows = _weighted_sum(frames, -1, across, horizontal).bitwise_right_shift_(4)
    above, below = (
        rows.index_select(-2, indices).mul_(weights[:, None]).bitwise_right_shift_(16)
        for indices, weights in zip(down.unbind(), vertical.unbind(), strict=True)
    )
    return above.add_(below).add_(2).bitwise_right_shift_(2).to(torch.uint8)


def _opencv_bicubic(frames: Tensor, size: ImageSize) -> Tensor:
    down, vertical = _opencv_table(frames.shape[-2], size[0], "bicubic", False, frames.device)
    across, horizontal = _opencv_table(frames.shape[-1], size[1], "bicubic", False, frames.device)
    rows = _weighted_sum(frames, -1, across, horizontal)
    total = _weighted_sum(rows, -2, down, vertical).add_(1 << (2 * _OPENCV_BITS - 1))
    return total.bitwise_right_shift_(2 * _OPENCV_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=256)
def _opencv_table(
    given: int, wanted: int, interpolation: Filter, clamp_position: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the source pixels ``[taps, wanted]`` of OpenCV's filter and their int32 weights, whose sum is 2048.

    Outside the picture OpenCV moves the position to the edge (bilinear, along rows) or repeats the pixel at the edge.
    """
    position = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).astype(np.float32)
    if clamp_position:
        position = position.clip(0, given - 1)
    first = np.floor(position)
    x = position - first
    if interpolation == "bilinear":
        offsets, weights = (0, 1), np.stack([1 - x, x])
    else:
        a = np.float32(-0.75)
        one = np.float32(1)
        outer = ((a * (x + one) - 5 * a) * (x + one) + 8 * a) * (x + one) - 4 * a
        left = ((a + 2) * x - (a + 3)) * x * x + one
        right = ((a + 2) * (one - x) - (a + 3)) * (one - x) * (one - x) + one
        offsets, weights = (-1, 0, 1, 2), np.stack([outer, left, right, one - outer - left - right])
    taps = (first.astype(np.int64) + np.array(offsets)[:, None]).clip(0, given - 1)
    fixed = np.rint(weights * 2**_OPENCV_BITS).astype(np.int32)
    return torch.as_tensor(taps).to(device), torch.as_tensor(fixed).to(device)


@lru_cache(maxsize=256)
def _nearest(given: int, wanted: int, centered: bool, device: torch.device) -> Tensor:
    """Return the source pixel of each output pixel. PIL maps centers of pixels, OpenCV corners.

    The arithmetic is float64 in each library's order of operations, because halfway cases depend on the last bit.
    """
    if centered:
        step = given / wanted
        pixels = np.add.accumulate(np.array([step / 2] + [step] * (wanted - 1))).astype(np.int64)
    else:
        pixels = (np.arange(wanted) * (1 / (wanted / given))).astype(np.int64)
    return torch.as_tensor(pixels).to(device)

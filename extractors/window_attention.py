"""Video Swin's attention without its matrices of weights in memory: torchvision's parameters, PyTorch's fused kernels.

torchvision writes every window's weights out, adds bias and mask, and reads them back: 300 MB for a clip's first block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d  # pyright: ignore[reportMissingTypeStubs]

from .engines import is_exported

Network = TypeVar("Network", bound=nn.Module)
Extent = tuple[int, int, int]
"""``(time, height, width)``"""
APART = -100.0
"""Added to the score of two tokens that are neighbors by the shift alone, as published."""


class WindowAttention(ShiftedWindowAttention3d):
    """Takes the place of a `ShiftedWindowAttention3d` in evaluation; equal but for the order of sums."""

    def forward(self, x: Tensor) -> Tensor:
        """``[n, time, height, width, channels]`` → the same shape."""
        if is_exported():  # OpenVINO has no rule for the assignment to a group of windows
            return super().forward(x)
        size = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = _fitted(size, self.window_size, self.shift_size)
        missing = [-length % side for length, side in zip(size, window, strict=True)]
        padded = functional.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        whole = (padded.shape[1], padded.shape[2], padded.shape[3])
        shifted = torch.roll(padded, [-step for step in shift], (1, 2, 3)) if any(shift) else padded
        found = self._attend(_cut(shifted, window), whole, window, shift)
        joined = _join(found, whole, window)
        joined = torch.roll(joined, shift, (1, 2, 3)) if any(shift) else joined
        return joined[:, : size[0], : size[1], : size[2]].contiguous()

    def _attend(self, windows: Tensor, size: Extent, window: Extent, shift: Extent) -> Tensor:
        """``[n, windows, tokens, channels]``, each window by itself."""
        parts = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)
        bias = self.get_relative_position_bias(list(window))
        if not any(shift):
            return self.proj(_heads_joined(query, key, value, bias))
        found = torch.empty_like(windows)
        for chosen, apart in window_kinds(size, window, shift, windows.device):
            mask = bias if apart is None else bias + apart
            found[:, chosen] = _heads_joined(query[:, chosen], key[:, chosen], value[:, chosen], mask).to(found.dtype)
        return self.proj(found)


def with_window_attention(network: Network) -> Network:
    """The same network, every `ShiftedWindowAttention3d` in it turned into a `WindowAttention`."""
    for module in network.modules():
        if type(module) is ShiftedWindowAttention3d:
            module.__class__ = WindowAttention
    return network


@torch.compiler.assume_constant_result  # pyright: ignore[reportUnknownMemberType]
def window_kinds(
    size: Extent, window: Extent, shift: Extent, device: torch.device
) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Group the windows of a shifted volume by the pairs of tokens that may not attend to each other.

    There are at most eight groups: the last window along each axis is where the shift joins the ends of the volume.
    The tables are kept on the device, because a copy in each forward pass would make the host wait for it (168 copies
    for Video Swin-B on 32 frames).

    Args:
        size: Extent of the padded volume in tokens.
        window: Extent of a window.
        shift: By how many tokens the volume was shifted along each axis.
        device: Where the tables are needed.

    Returns:
        For each group the indices of its windows, and what is added to the scores ``[tokens, tokens]`` of their token
        pairs: 0, or `APART` for tokens that are neighbors only by the shift. None if all tokens are neighbors.
    """
    return _window_kinds(size, window, shift, device)  # a cached function itself cannot be a constant of torch.compile


@lru_cache(maxsize=64)
def _window_kinds(
    size: Extent, window: Extent, shift: Extent, device: torch.device
) -> tuple[tuple[Tensor, Tensor | None], ...]:
    volume = np.zeros(size, np.int64)
    for axis, step in enumerate(shift):
        if step:
            np.moveaxis(volume, axis, 0)[-step:] += 1 << axis
    (t, h, w), (windows_t, windows_h, windows_w) = window, (n // side for n, side in zip(size, window, strict=True))
    blocks = volume.reshape(windows_t, t, windows_h, h, windows_w, w).transpose(0, 2, 4, 1, 3, 5)
    parts, group_of = np.unique(blocks.reshape(-1, t * h * w), axis=0, return_inverse=True)
    groups: list[tuple[Tensor, Tensor | None]] = []
    for number, part in enumerate(parts):
        chosen = torch.as_tensor(np.flatnonzero(group_of.ravel() == number)).to(device)
        apart = part[:, None] != part[None, :]
        groups.append((chosen, torch.as_tensor(apart * np.float32(APART)).to(device) if apart.any() else None))
    return tuple(groups)


def _fitted(size: Extent, window: list[int], shift: list[int]) -> tuple[Extent, Extent]:
    """No window is larger than the volume, and an axis that one window covers is not shifted."""
    t, h, w = (min(length, side) for length, side in zip(size, window, strict=True))
    moved = [0 if length <= side else step for length, side, step in zip(size, window, shift, strict=True)]
    return (t, h, w), (moved[0], moved[1], moved[2])


def _cut(volume: Tensor, window: Extent) -> Tensor:
    """``[n, time, height, width, channels]`` → ``[n, windows, tokens, channels]``"""
    t, h, w = window
    blocks = volume
    for axis, side in ((3, w), (2, h), (1, t)):
        blocks = torch.unflatten(blocks, axis, (-1, side))
    return blocks.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def _join(windows: Tensor, size: Extent, window: Extent) -> Tensor:
    counts = [length // side for length, side in zip(size, window, strict=True)]
    blocks = torch.unflatten(torch.unflatten(windows, 2, window), 1, counts)
    return blocks.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _heads_joined(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """``[n, windows, heads, tokens, dim]`` each → ``[n, windows, tokens, heads · dim]``"""
    together = [part.flatten(0, 1) for part in (query, key, value)]
    found = functional.scaled_dot_product_attention(*together, attn_mask=mask.to(query.dtype))
    return torch.unflatten(found.transpose(1, 2).flatten(2), 0, query.shape[:2])

"""Video Swin's attention without its matrices of weights in memory: torchvision's parameters, PyTorch's fused kernels.

torchvision writes every window's weights out, adds bias and mask, and reads them back: 300 MB for a clip's first block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

Network = TypeVar("Network", bound=nn.Module)
Extent = tuple[int, int, int]
"""``(time, height, width)``"""
APART = -100.0
"""Added to the score of two tokens that are neighbours by the shift alone, as published."""


class WindowAttention(ShiftedWindowAttention3d):
    """Takes the place of a `ShiftedWindowAttention3d` in evaluation; equal but for the order of sums."""

    def forward(self, x: Tensor) -> Tensor:
        """``[n, time, height, width, channels]`` → the same shape."""
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
        for places, apart in window_kinds(size, window, shift):
            chosen = places.to(windows.device)
            mask = bias if apart is None else bias + apart.to(bias.device) * APART
            found[:, chosen] = _heads_joined(query[:, chosen], key[:, chosen], value[:, chosen], mask).to(found.dtype)
        return self.proj(found)


def with_window_attention(network: Network) -> Network:
    """The same network, every `ShiftedWindowAttention3d` in it turned into a `WindowAttention`."""
    for module in network.modules():
        if type(module) is ShiftedWindowAttention3d:
            module.__class__ = WindowAttention
    return network


@lru_cache(maxsize=64)
def window_kinds(size: Extent, window: Extent, shift: Extent) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Which windows of a shifted volume are alike, and which of their tokens are apart (None: none).

    At most eight kinds: the last window along each axis is where the shift joins the volume's ends.
    """
    volume = torch.zeros(1, *size, 1, dtype=torch.int64)
    for axis, step in enumerate(shift):
        if step:
            volume.movedim(axis + 1, 0)[-step:] += 1 << axis
    kinds, kind_of = torch.unique(_cut(volume, window).flatten(0, 1).squeeze(-1), dim=0, return_inverse=True)
    parts = [row[:, None] != row[None, :] for row in kinds]
    return tuple(
        ((kind_of == number).nonzero()[:, 0], apart if bool(apart.any()) else None)
        for number, apart in enumerate(parts)
    )


def _fitted(size: Extent, window: list[int], shift: list[int]) -> tuple[Extent, Extent]:
    """No window is larger than the volume, and an axis that one window covers is not shifted."""
    t, h, w = (min(length, side) for length, side in zip(size, window, strict=True))
    moved = [0 if length <= side else step for length, side, step in zip(size, window, shift, strict=True)]
    return (t, h, w), (moved[0], moved[1], moved[2])


def _cut(volume: Tensor, window: Extent) -> Tensor:
    """``[n, time, height, width, channels]`` → ``[n, windows, tokens, channels]``"""
    t, h, w = window
    blocks = volume.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, t))
    return blocks.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def _join(windows: Tensor, size: Extent, window: Extent) -> Tensor:
    counts = [length // side for length, side in zip(size, window, strict=True)]
    blocks = windows.unflatten(2, window).unflatten(1, counts)
    return blocks.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _heads_joined(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """``[n, windows, heads, tokens, dim]`` each → ``[n, windows, tokens, heads · dim]``"""
    together = [part.flatten(0, 1) for part in (query, key, value)]
    found = functional.scaled_dot_product_attention(*together, attn_mask=mask.to(query.dtype))
    return found.transpose(1, 2).flatten(2).unflatten(0, query.shape[:2])

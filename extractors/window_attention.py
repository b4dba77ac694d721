"""Video Swin's attention with torchvision's parameters and PyTorch's fused kernels, which save memory.

torchvision writes the attention weights of all windows to memory, 300 MB for the first block of a clip. The fused
kernels do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d  # pyright: ignore[reportMissingTypeStubs]

from .engines import is_exported

Network = TypeVar("Network", bound=nn.Module)
Extent = tuple[int, int, int]
"""``(time, height, width)``"""
APART = -100.0
"""Added to the score of two tokens that are neighbors only because of the shift, as published."""
ANY = 1e30
"""Larger than any score."""


class WindowAttention(ShiftedWindowAttention3d):
    """Replaces a `ShiftedWindowAttention3d` in evaluation. Results are equal except for the order of sums."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, time, height, width, channels]`` to the same shape."""
        size = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = _fitted(size, self.window_size, self.shift_size)
        order, places, kinds = windows_of(size, window, shift, x.device)
        tokens = x.flatten(1, 3)
        if len(order) > len(places):  # windows extend beyond the volume, where tokens are zero
            tokens = functional.pad(tokens, (0, 0, 0, 1))
        windows = torch.unflatten(tokens.index_select(1, order), 1, (-1, math.prod(window)))
        return torch.unflatten(self._attend(windows, window, kinds).index_select(1, places), 1, size)

    def _attend(self, windows: Tensor, window: Extent, kinds: Sequence[tuple[int, Tensor | None]]) -> Tensor:
        """Map ``[n, windows, tokens, channels]`` to ``[n, windows · tokens, channels]`` by attention in each window."""
        counts = [count for count, _ in kinds]
        query, key, value = (
            torch.split(torch.unflatten(part, -1, (self.num_heads, -1)), counts, 1) for part in self._projected(windows)
        )
        bias = self.get_relative_position_bias(list(window))
        found = [
            _heads_joined(parts, bias, apart)
            for parts, (_, apart) in zip(zip(query, key, value, strict=True), kinds, strict=True)
        ]
        return self.proj(torch.cat(found, 1).flatten(1, 2))

    def _projected(self, windows: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, each ``[…, channels]``."""
        if not is_exported():
            return self.qkv(windows).chunk(3, -1)
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        return [functional.linear(windows, *layer) for layer in zip(weights, biases, strict=True)]  # no copies


def with_window_attention(network: Network) -> Network:
    """Turn every `ShiftedWindowAttention3d` of a network into a `WindowAttention`, in place."""
    for module in network.modules():
        if type(module) is ShiftedWindowAttention3d:
            module.__class__ = WindowAttention
    return network


@torch.compiler.assume_constant_result  # pyright: ignore[reportUnknownMemberType]
def windows_of(
    size: Extent, window: Extent, shift: Extent, device: torch.device
) -> tuple[Tensor, Tensor, tuple[tuple[int, Tensor | None], ...]]:
    """Cut a shifted volume into windows, in groups of equal pairs of tokens that may not attend to each other.

    There are at most eight groups, because only the last window along each axis contains both ends of the shifted
    volume. The tables are kept on the device, because a copy in each forward pass would make the host wait (168 copies
    for Video Swin-B on 32 frames).

    Args:
        size: Extent of the volume in tokens. Windows may extend beyond its ends.
        window: Extent of a window.
        shift: By how many tokens the volume is shifted along each axis.
        device: Device of the tables.

    Returns:
        The position in the volume of each token of the windows, or the number of tokens of the volume where a window
        extends beyond it; the position in the windows of each token of the volume; for each group the number of its
        windows, and what is added to the scores ``[tokens, tokens]`` of their token pairs: 0, or `APART` for tokens
        that are neighbors only by the shift. None if all tokens are neighbors.
    """
    return _windows_of(size, window, shift, device)  # torch.compile does not accept the cached function itself


@lru_cache(maxsize=64)
def _windows_of(
    size: Extent, window: Extent, shift: Extent, device: torch.device
) -> tuple[Tensor, Tensor, tuple[tuple[int, Tensor | None], ...]]:
    missing = [(0, -length % side) for length, side in zip(size, window, strict=True)]
    outside = math.prod(size)
    positions = np.pad(np.arange(outside).reshape(size), missing, constant_values=outside)
    ends = np.zeros(positions.shape, np.int64)
    for axis, step in enumerate(shift):
        if step:
            np.moveaxis(ends, axis, 0)[-step:] += 1 << axis
    positions = np.roll(positions, [-step for step in shift], (0, 1, 2))
    parts, group_of = np.unique(_cut(ends, window), axis=0, return_inverse=True)
    by_group = np.argsort(group_of.ravel(), kind="stable")
    order = _cut(positions, window)[by_group].ravel()
    groups: list[tuple[int, Tensor | None]] = []
    for part, count in zip(parts, np.bincount(group_of.ravel()), strict=True):
        apart = part[:, None] != part[None, :]
        table = torch.as_tensor(apart * np.float32(APART)).to(device) if apart.any() else None
        groups.append((int(count), table))
    places = np.argsort(order, kind="stable")[:outside]
    return torch.as_tensor(order).to(device), torch.as_tensor(places).to(device), tuple(groups)


def _cut(volume: NDArray[np.int64], window: Extent) -> NDArray[np.int64]:
    """Reshape ``[time, height, width]`` to ``[windows, tokens]``."""
    (t, h, w), (windows_t, windows_h, windows_w) = window, (n // s for n, s in zip(volume.shape, window, strict=True))
    blocks = volume.reshape(windows_t, t, windows_h, h, windows_w, w)
    return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(-1, t * h * w)


def _fitted(size: Extent, window: list[int], shift: list[int]) -> tuple[Extent, Extent]:
    """Return the window, limited to the size of the volume, and the shift, 0 along axes that one window covers."""
    t, h, w = (min(length, side) for length, side in zip(size, window, strict=True))
    moved = [0 if length <= side else step for length, side, step in zip(size, window, shift, strict=True)]
    return (t, h, w), (moved[0], moved[1], moved[2])


def _heads_joined(parts: tuple[Tensor, Tensor, Tensor], bias: Tensor, apart: Tensor | None) -> Tensor:
    """Compute attention of parts ``[n, windows, tokens, heads, dim]`` as ``[n, windows, tokens, heads · dim]``."""
    query, key, value = (part.flatten(0, 1).transpose(1, 2) for part in parts)
    if is_exported():
        # OpenVINO fuses this form. It would precompute the sum of bias and mask, 80 MB for each block of 8 windows, so
        # scores of tokens apart are clamped instead. In both forms their weights are zero in float32.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if apart is not None:
            scores = torch.minimum(scores, torch.where(apart == 0, ANY, APART))
        found = (scores + bias).softmax(-1) @ value
    else:
        mask = bias if apart is None else bias + apart
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))
    return torch.unflatten(found.transpose(1, 2).flatten(2), 0, (len(parts[0]), -1))

"""RAFT's recurrent refinement, with whatever does not change from one iteration to the next taken out of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class RaftIterations:
    """From a torchvision network's parts and ``iterations``; its encoders are the caller's."""

    def __init__(self, network: Any, iterations: int) -> None:
        self._iterations = iterations
        self._levels = network.corr_block.num_levels
        self._radius = network.corr_block.radius
        self._hidden_dim = network.update_block.hidden_state_size
        self._encode_motion = network.update_block.motion_encoder
        self._flow_head = network.update_block.flow_head
        self._mask = network.mask_predictor
        block = network.update_block.recurrent_block
        units = [unit for unit in (block.convgru1, block.convgru2) if isinstance(unit, torch.nn.Module)]
        self._units = [RecurrentUnit(unit, self._hidden_dim, self._encode_motion.out_channels) for unit in units]

    def __call__(self, features: Tensor, following: Tensor, context: Tensor) -> Tensor:
        """``[pairs, channels, h, w]``: features of both frames, context of the first; to ``[pairs, 2, 8h, 8w]``."""
        correlations = Correlations(features, following, self._levels, self._radius)
        hidden = context[:, : self._hidden_dim].tanh()
        shares = [unit.share_of(context[:, self._hidden_dim :].relu()) for unit in self._units]
        start = _pixel_grid(features)
        position = start
        for _ in range(self._iterations):
            motion = self._encode_motion(position - start, correlations.around(position))
            for unit, share in zip(self._units, shares, strict=True):
                hidden = unit(hidden, motion, share)
            position = position + self._flow_head(hidden)
        return upsample(position - start, None if self._mask is None else self._mask(hidden))


class RecurrentUnit:
    """A convolutional GRU whose input is context, which stays, and motion, which changes."""

    def __init__(self, unit: Any, hidden_dim: int, motion_dim: int) -> None:
        gates = (unit.convz, unit.convr, unit.convq)
        self._padding = unit.convz.padding
        self._hidden_dim = hidden_dim
        first_motion = unit.convz.in_channels - motion_dim
        fixed = [gate.weight[:, hidden_dim:first_motion] for gate in gates]
        varying = [torch.cat([gate.weight[:, :hidden_dim], gate.weight[:, first_motion:]], dim=1) for gate in gates]
        self._fixed = torch.cat(fixed)
        self._bias = torch.cat([gate.bias for gate in gates])
        self._update_and_reset = torch.cat(varying[:2])
        self._candidate = varying[2]

    def share_of(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """What context adds to update and reset gate together, and to the candidate."""
        share = functional.conv2d(context, self._fixed, self._bias, padding=self._padding)
        return share[:, : 2 * self._hidden_dim], share[:, 2 * self._hidden_dim :]

    def __call__(self, hidden: Tensor, motion: Tensor, share: tuple[Tensor, Tensor]) -> Tensor:
        gates = self._convolve(hidden, motion, self._update_and_reset, share[0]).sigmoid_()
        update, reset = gates.chunk(2, dim=1)
        candidate = self._convolve(reset * hidden, motion, self._candidate, share[1]).tanh_()
        return torch.lerp(hidden, candidate, update)

    def _convolve(self, hidden: Tensor, motion: Tensor, weight: Tensor, share: Tensor) -> Tensor:
        return functional.conv2d(torch.cat([hidden, motion], dim=1), weight, padding=self._padding).add_(share)


class Correlations:
    """Of each feature with all of the next frame's, at several levels, each half as fine as the one before."""

    def __init__(self, features: Tensor, following: Tensor, levels: int, radius: int) -> None:
        _, channels, height, width = features.shape
        scaled = features.flatten(2).transpose(1, 2) / channels**0.5
        volume = (scaled @ following.flatten(2)).view(-1, 1, height, width)
        self._volumes = [volume]
        for _ in range(levels - 1):
            self._volumes.append(functional.avg_pool2d(self._volumes[-1], 2))
        steps = torch.arange(-radius, radius + 1, dtype=features.dtype, device=features.device)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        sides = (torch.tensor(volume.shape[:-3:-1], device=features.device) for volume in self._volumes)
        self._scales = [2 / (side - 1) for side in sides]
        self._offsets = [offsets * scale for scale in self._scales]

    def around(self, position: Tensor) -> Tensor:
        """Bilinear, at ``position [pairs, 2, h, w]`` and its neighbors: ``[pairs, levels · (2 · radius + 1)², h, w]``.

        The offset to the right varies slowest, as in the published weights.
        """
        pairs, _, height, width = position.shape
        centers = position.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found: list[Tensor] = []
        for level, (volume, scale, offsets) in enumerate(zip(self._volumes, self._scales, self._offsets, strict=True)):
            grid = (centers * (scale / 2**level) - 1) + offsets  # in grid_sample's -1 … 1
            found.append(functional.grid_sample(volume, grid, align_corners=True).view(pairs, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def upsample(flow: Tensor, mask: Tensor | None) -> Tensor:
    """Eight times as large: bilinear, or where the network predicts a mask, the mean of 3 × 3 that it weighs."""
    pairs, _, height, width = flow.shape
    if mask is None:
        size = (8 * height, 8 * width)
        return 8 * functional.interpolate(flow, size, mode="bilinear", align_corners=True)
    weights = mask.view(pairs, 1, 9, 8, 8, height, width).softmax(dim=2)
    neighbors = functional.unfold(8 * flow, 3, padding=1).view(pairs, 2, 9, 1, 1, height, width)
    return (weights * neighbors).sum(dim=2).permute(0, 1, 4, 2, 5, 3).reshape(pairs, 2, 8 * height, 8 * width)


def _pixel_grid(features: Tensor) -> Tensor:
    """``[pairs, 2, h, w]``: x and y of every feature."""
    pairs, _, height, width = features.shape
    rows, columns = (torch.arange(side, dtype=features.dtype, device=features.device) for side in (height, width))
    x, y = torch.meshgrid(columns, rows, indexing="xy")
    return torch.stack([x, y]).expand(pairs, 2, height, width)

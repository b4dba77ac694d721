"""RAFT's recurrent refinement. Values that are equal in all iterations are computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class RaftIterations(nn.Module):
    """Computes the flow between two frames from their features and the context of the first frame.

    Args:
        network: A RAFT of torchvision. Its encoders are not used.
        iterations: Number of refinements.
    """

    def __init__(self, network: Any, iterations: int) -> None:
        super().__init__()
        self.num_iterations = iterations
        self._levels = network.corr_block.num_levels
        self._radius = network.corr_block.radius
        self._hidden_dim = network.update_block.hidden_state_size
        self.encode_motion = network.update_block.motion_encoder
        self.flow_head = network.update_block.flow_head
        self.mask = network.mask_predictor
        block = network.update_block.recurrent_block
        units: list[Any] = [unit for unit in (block.convgru1, block.convgru2) if isinstance(unit, nn.Module)]
        motion_dim = self.encode_motion.out_channels
        self.units: Any = nn.ModuleList(RecurrentUnit(unit, self._hidden_dim, motion_dim) for unit in units)
        self._context_dim: int = units[0].convz.in_channels - motion_dim
        """Channels of the context: those of the initial hidden state, and those that are an input of each iteration"""

    def extra_repr(self) -> str:
        return f"{self.num_iterations} iterations, {self._levels} levels, radius {self._radius}"

    def forward(self, stacked: Tensor) -> Tensor:
        """Map features of both frames and context, ``[pairs, channels, h, w]``, to flow ``[pairs, 2, 8h, 8w]``."""
        dim = (stacked.shape[1] - self._context_dim) // 2
        features, following, context = stacked[:, :dim], stacked[:, dim : 2 * dim], stacked[:, 2 * dim :]
        correlations = Correlations(features, following, self._levels, self._radius)
        hidden = context[:, : self._hidden_dim].float().tanh()
        given = context[:, self._hidden_dim :].relu()
        shares = [unit.share_of(given) for unit in self.units]
        start = _pixel_grid(features)
        position = start
        for _ in range(self.num_iterations):
            motion = self.encode_motion(position - start, correlations.around(position))
            for unit, share in zip(self.units, shares, strict=True):
                hidden = unit(hidden, motion, share)
            position = position + self.flow_head(hidden)
        return upsample(position - start, None if self.mask is None else self.mask(hidden))


class RecurrentUnit(nn.Module):
    """A convolutional GRU. Its input is the context, equal in all iterations, and the motion, which changes."""

    def __init__(self, unit: Any, hidden_dim: int, motion_dim: int) -> None:
        super().__init__()
        gates = (unit.convz, unit.convr, unit.convq)
        first_motion = unit.convz.in_channels - motion_dim
        fixed = [gate.weight[:, hidden_dim:first_motion] for gate in gates]
        varying = [torch.cat([gate.weight[:, :hidden_dim], gate.weight[:, first_motion:]], dim=1) for gate in gates]
        self._hidden_dim = hidden_dim
        self.context = _convolution(torch.cat(fixed), unit.convz.padding, torch.cat([gate.bias for gate in gates]))
        self.update_and_reset = _convolution(torch.cat(varying[:2]), unit.convz.padding)
        self.candidate = _convolution(varying[2], unit.convz.padding)

    def share_of(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share of the context in both gates together, and in the candidate."""
        share = self.context(context)
        return share[:, : 2 * self._hidden_dim], share[:, 2 * self._hidden_dim :]

    def forward(self, hidden: Tensor, motion: Tensor, share: tuple[Tensor, Tensor]) -> Tensor:
        gates = self.update_and_reset(torch.cat([hidden, motion], dim=1)).add_(share[0]).sigmoid_()
        update, reset = gates.chunk(2, dim=1)
        candidate = self.candidate(torch.cat([reset * hidden, motion], dim=1)).add_(share[1]).tanh_()
        return torch.lerp(hidden, candidate.float(), update.float())


def _convolution(weight: Tensor, padding: tuple[int, int], bias: Tensor | None = None) -> nn.Conv2d:
    """Return a convolution with these weights, which are not trained."""
    dim_out, dim_in, *kernel = weight.shape
    made = nn.Conv2d(dim_in, dim_out, (kernel[0], kernel[1]), padding=padding, bias=bias is not None)
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


class Correlations:
    """Correlations of each feature with all features of the next frame, at levels of decreasing resolution."""

    def __init__(self, features: Tensor, following: Tensor, levels: int, radius: int) -> None:
        _, channels, height, width = features.shape
        scaled = features.flatten(2).transpose(1, 2) / channels**0.5
        volume = (scaled @ following.flatten(2)).float().view(-1, 1, height, width)
        self._volumes = [volume]
        for _ in range(levels - 1):
            self._volumes.append(functional.avg_pool2d(self._volumes[-1], 2))
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=features.device)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        sides = (torch.tensor(volume.shape[:-3:-1], device=features.device) for volume in self._volumes)
        self._scales = [2 / (side - 1) for side in sides]
        self._offsets = [offsets * scale for scale in self._scales]

    def around(self, position: Tensor) -> Tensor:
        """Look up the correlations around ``position [pairs, 2, h, w]`` by bilinear interpolation.

        Returns:
            ``[pairs, levels · (2 · radius + 1)², h, w]``. The offset to the right varies slowest, as the published
            weights require.
        """
        pairs, _, height, width = position.shape
        centers = position.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found: list[Tensor] = []
        for level, (volume, scale, offsets) in enumerate(zip(self._volumes, self._scales, self._offsets, strict=True)):
            grid = (centers * (scale / 2**level) - 1) + offsets  # in grid_sample's -1 … 1
            found.append(functional.grid_sample(volume, grid, align_corners=True).view(pairs, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def upsample(flow: Tensor, mask: Tensor | None) -> Tensor:
    """Upsample flow by 8: with the network's mask, by weighted means of 3 × 3 values, else bilinearly."""
    pairs, _, height, width = flow.shape
    if mask is None:
        size = (8 * height, 8 * width)
        return 8 * functional.interpolate(flow, size, mode="bilinear", align_corners=True)
    weights = mask.view(pairs, 1, 9, 8, 8, height, width).softmax(dim=2)
    neighbors = functional.unfold(8 * flow, 3, padding=1).view(pairs, 2, 9, 1, 1, height, width)
    return (weights * neighbors).sum(dim=2).permute(0, 1, 4, 2, 5, 3).reshape(pairs, 2, 8 * height, 8 * width)


def _pixel_grid(features: Tensor) -> Tensor:
    """Return x and y of every feature, ``[pairs, 2, h, w]``."""
    pairs, _, height, width = features.shape
    rows, columns = (torch.arange(side, dtype=torch.float32, device=features.device) for side in (height, width))
    x, y = torch.meshgrid(columns, rows, indexing="xy")
    return torch.stack([x, y]).expand(pairs, 2, height, width)

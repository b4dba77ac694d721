"""Convolutions over time that do not see padding.

Sequences are ``float32 [routines, channels, segments]``, in memory with the channels last, as features are stored: on a
CPU an epoch of PAMFN's branch takes a seventh less so. A mask of ``bool [routines, segments]`` says which segments
are there; None stands for what most released codes do, which is to take padding for segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..extractors.onednn_layers import linear


class ConvOverTime(nn.Conv1d):
    """As an image of height 1 the input keeps its layout, which `nn.Conv1d` would change. Stride 1, odd kernels.

    A kernel of 1 is a matrix product: for one thread and few routines PyTorch's convolution takes four times as long.
    """

    def __init__(self, dim_in: int, dim_out: int, kernel: int) -> None:
        super().__init__(dim_in, dim_out, kernel, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size[0] == 1:
            return linear(input.transpose(1, 2), self.weight.squeeze(2), self.bias).transpose(1, 2)
        padding = (0, self.kernel_size[0] // 2)
        wide = nn.functional.conv2d(input.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=padding)
        return wide.squeeze(2)


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm whose training statistics come from real segments alone; the same parameters and buffers."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Anything: what comes is an image of height 1."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training or bool(mask.all()):
            return super().forward(input.unsqueeze(2)).squeeze(2)
        segments = super().forward(input.transpose(1, 2)[mask])
        whole = torch.zeros_like(input.transpose(1, 2))
        whole[mask] = segments
        return whole.transpose(1, 2)


class MaskedSequential(nn.Sequential):
    """`nn.Sequential` that hands the mask to its BatchNorms and keeps padding at zero before wider kernels."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        values = input
        for layer in self:
            if isinstance(layer, MaskedBatchNorm1d):
                values = layer(values, mask)
            elif isinstance(layer, nn.Conv1d) and layer.kernel_size[0] > 1:
                values = layer(zero_padding(values, mask))
            else:
                values = layer(values)
        return values


def zero_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask.unsqueeze(1)


def halve(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each two neighbours that are there; an odd last segment is dropped, as `nn.AvgPool1d` drops it."""
    if mask is None:
        return _mean_of_pairs(values)
    weights = mask.unsqueeze(1).to(values.dtype)
    return _mean_of_pairs(values * weights) / _mean_of_pairs(weights).clamp(min=0.5)


def _mean_of_pairs(values: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(values.unsqueeze(2), (1, 2)).squeeze(2)


def halve_mask(mask: Tensor | None) -> Tensor | None:
    """Where `halve` averaged a whole pair; a routine of a single segment keeps its half pair."""
    if mask is None:
        return None
    count = mask.shape[1] // 2
    pairs = mask[:, : 2 * count].unflatten(1, (count, 2))
    whole = pairs.all(-1)
    return whole | (pairs.any(-1) & ~whole.any(-1, keepdim=True))


def mean_over_time(values: Tensor, mask: Tensor | None) -> Tensor:
    """``[routines, channels, 1]``; zeros where a routine has no segment."""
    if mask is None:
        return values.mean(-1, keepdim=True)
    weights = mask.unsqueeze(1).to(values.dtype)
    return (values * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True).clamp(min=1)


def any_over_time(mask: Tensor | None) -> Tensor | None:
    """Where `mean_over_time` had anything to average: ``[routines, 1]``."""
    return None if mask is None else mask.any(-1, keepdim=True)


def same_mask(mask: Tensor | None) -> Tensor | None:
    return mask


@dataclass(frozen=True)
class Pooling:
    """How values and their mask get to the next time scale."""

    values: Callable[[Tensor, Tensor | None], Tensor]
    mask: Callable[[Tensor | None], Tensor | None]


HALF = Pooling(halve, halve_mask)
WHOLE = Pooling(mean_over_time, any_over_time)
NONE = Pooling(zero_padding, same_mask)

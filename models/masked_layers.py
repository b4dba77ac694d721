"""Convolutions over time that do not see padding.

Sequences are ``float32 [routines, channels, segments]``. A mask of ``bool [routines, segments]`` says which segments
are there; None stands for what most released codes do, which is to take padding for segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm whose training statistics come from real segments alone; the same parameters and buffers."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training or bool(mask.all()):
            return super().forward(input)
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
        return nn.functional.avg_pool1d(values, 2)
    weights = mask.unsqueeze(1).to(values.dtype)
    share = nn.functional.avg_pool1d(weights, 2)
    return nn.functional.avg_pool1d(values * weights, 2) / share.clamp(min=0.5)


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

"""Convolutions over time that ignore padding.

Sequences are ``float32 [samples, channels, segments]``. Channels are last in memory, as in the store, which makes an
epoch of PAMFN's branch a seventh faster on a CPU. A mask ``bool [samples, segments]`` is True for segments and False
for padding. If it is None, padding counts as segments, as in most released code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class ConvOverTime(nn.Conv1d):
    """Convolution of stride 1 with an odd kernel that keeps the memory layout of its input.

    The input is treated as an image of height 1, because `nn.Conv1d` changes the layout. A kernel of 1 is computed as a
    matrix product, because PyTorch's convolution takes four times as long with one thread and few samples.
    """

    def __init__(self, dim_in: int, dim_out: int, kernel: int) -> None:
        super().__init__(dim_in, dim_out, kernel, padding=kernel // 2)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size[0] == 1:
            return nn.functional.linear(input.transpose(1, 2), self.weight.squeeze(2), self.bias).transpose(1, 2)
        padding = (0, self.kernel_size[0] // 2)
        wide = nn.functional.conv2d(input.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=padding)
        return wide.squeeze(2)


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm with training statistics over unpadded segments. Parameters and buffers are those of BatchNorm1d."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape, because the input is an image of height 1."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training or bool(mask.all()):
            return super().forward(input.unsqueeze(2)).squeeze(2)
        segments = super().forward(input.transpose(1, 2)[mask])
        whole = torch.zeros_like(input.transpose(1, 2))
        whole[mask] = segments
        return whole.transpose(1, 2)


class MaskedSequential(nn.Sequential):
    """`nn.Sequential` that passes the mask to BatchNorms and sets padding to zero before kernels wider than 1."""

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
    """Set padding to zero."""
    return values if mask is None else values * mask.unsqueeze(1)


def halve(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average pairs of neighboring segments, without padding. An odd last segment is dropped, as in `nn.AvgPool1d`."""
    if mask is None:
        return _mean_of_pairs(values)
    weights = mask.unsqueeze(1).to(values.dtype)
    return _mean_of_pairs(values * weights) / _mean_of_pairs(weights).clamp(min=0.5)


def _mean_of_pairs(values: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(values.unsqueeze(2), (1, 2)).squeeze(2)


def halve_mask(mask: Tensor | None) -> Tensor | None:
    """Return the mask after `halve`: True for complete pairs, and for the incomplete pair of a single segment."""
    if mask is None:
        return None
    count = mask.shape[1] // 2
    pairs = mask[:, : 2 * count].reshape(len(mask), count, 2)
    whole = pairs.all(-1)
    return whole | (pairs.any(-1) & ~whole.any(-1, keepdim=True))


def mean_over_time(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average over time: ``[samples, channels, 1]``, zeros for samples without segments."""
    if mask is None:
        return values.mean(-1, keepdim=True)
    weights = mask.unsqueeze(1).to(values.dtype)
    return (values * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True).clamp(min=1)


def any_over_time(mask: Tensor | None) -> Tensor | None:
    """Return the mask after `mean_over_time`, ``[samples, 1]``: True for samples with segments."""
    return None if mask is None else mask.any(-1, keepdim=True)


def same_mask(mask: Tensor | None) -> Tensor | None:
    """Return the mask unchanged, for stages without pooling."""
    return mask


@dataclass(frozen=True)
class Pooling:
    """Functions that map values and mask to the next time scale."""

    values: Callable[[Tensor, Tensor | None], Tensor]
    mask: Callable[[Tensor | None], Tensor | None]


HALF = Pooling(halve, halve_mask)
WHOLE = Pooling(mean_over_time, any_over_time)
NONE = Pooling(zero_padding, same_mask)

"""Softmax, mean and maximum over segments without padding. Masks ``bool [..., segments]`` are False for padding.

Masked segments may also be between others, if they overlap an excluded stretch of a recording.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Return the softmax over the unmasked values; zeros instead of NaN if all are masked."""
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask, lowest), dim=dim) * mask


def segments_first(mask: Tensor) -> Tensor:
    """Return the order that puts the segments of each sample before its padding, ``int64 [samples, segments]``."""
    return torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)


def in_order(values: Tensor, order: Tensor) -> Tensor:
    """Return ``values [samples, segments, dim]`` in the order of `segments_first`."""
    return values.gather(1, order.unsqueeze(-1).expand_as(values))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over segments, ``[..., segments, dim] → [..., dim]``; zeros without segments."""
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(-2) / weights.sum(-2).clamp(min=1)


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum over segments, ``[..., segments, dim] → [..., dim]``; zeros without segments."""
    lowest = torch.finfo(values.dtype).min
    peak = values.masked_fill(~mask.unsqueeze(-1), lowest).amax(-2)
    return torch.where(mask.any(-1, keepdim=True), peak, torch.zeros_like(peak))

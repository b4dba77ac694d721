"""Statistics of a video with any number of segments: means of parts, deviation, mean absolute step."""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = 8
STATISTICS = PARTS + 2


def relative_bounds(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return begin and end of each segment as fractions of its video, ``[samples, segments]``.

    Segments that the mask excludes have length 0. The others have equal lengths.
    """
    end = mask.cumsum(1).double()
    count = end[:, -1:].clamp(min=1)
    return (end - mask.double()) / count, end / count


def part_means(features: Tensor, mask: Tensor, parts: int = PARTS) -> Tensor:
    """Return the means of equally long parts, ``[samples, parts, dim]``; zeros without segments.

    A segment on the border of two parts counts in each by the share of its duration. Therefore every part has a mean,
    even in a video with fewer segments than parts, and the mean of a longer part is the mean of its parts' means.

    Args:
        features: ``[samples, segments, dim]``.
        mask: ``bool [samples, segments]``, True for segments.
        parts: Number of parts.
    """
    begin, end = relative_bounds(mask)
    borders = torch.linspace(0, 1, parts + 1, dtype=torch.float64)[:, None]
    overlap = torch.minimum(end[:, None], borders[1:]) - torch.maximum(begin[:, None], borders[:-1])
    return (overlap.clamp(min=0) * parts).to(features.dtype) @ features


def pooled_statistics(features: Tensor, mask: Tensor) -> Tensor:
    """Return means of eight parts, standard deviation and mean absolute step, ``[samples, 10, dim]``.

    The step is the difference between consecutive segments.

    Args:
        features: ``[samples, segments, dim]``.
        mask: ``bool [samples, segments]``, True where there is a segment.
    """
    weights = mask.unsqueeze(-1).to(features.dtype)
    count = weights.sum(1, keepdim=True).clamp(min=1)
    mean = (features * weights).sum(1, keepdim=True) / count
    deviation = (((features - mean) * weights).square().sum(1, keepdim=True) / count).sqrt()
    both = weights[:, 1:] * weights[:, :-1]
    steps = (features.diff(dim=1).abs() * both).sum(1, keepdim=True) / both.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([part_means(features, mask), deviation, steps], dim=1)

"""Missing modalities: training with streams left out at random, and evaluation on every subset of the streams.

MCMoE (AAAI 2026) and LIMSSR (ICML 2026) report the average over all subsets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from .samples import Samples
from .scoring import SegmentBatch


def subsets(streams: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield all nonempty subsets of the streams, small ones first.

    Example:
        >>> list(subsets(["vst", "ast"]))
        [('vst',), ('ast',), ('vst', 'ast')]
    """
    for size in range(1, len(streams) + 1):
        yield from combinations(streams, size)


def with_only(samples: Samples, streams: Collection[str]) -> Samples:
    """Return the same videos without the other streams. Lengths do not change: a model may need one time grid."""
    return replace(
        samples,
        features={
            name: values if name in streams else torch.zeros_like(values) for name, values in samples.features.items()
        },
        present={name: mask if name in streams else torch.zeros_like(mask) for name, mask in samples.present.items()},
    )


def drop_streams(batch: SegmentBatch, rate: float, generator: torch.Generator) -> SegmentBatch:
    """Return the batch with streams left out at random, as if the videos did not have them.

    Args:
        batch: A training batch.
        rate: Probability (0 to 1) that a stream of a video is left out. If all streams of a video would be left out, a
            random one is kept.
        generator: Source of the random numbers.
    """
    has = torch.stack([mask.any(1) for mask in batch.masks.values()]).cpu()
    place = torch.rand(has.shape, generator=generator)
    kept = has & (place >= rate)
    spare = torch.where(has, place, -1.0).argmax(0)  # the present stream with the highest random number is kept
    kept[spare, torch.arange(len(batch))] |= has.any(0)
    features: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for (name, values), keep in zip(
        batch.features.items(), kept.to(next(iter(batch.features.values())).device), strict=True
    ):
        features[name] = values * keep[:, None, None].to(values.dtype)
        masks[name] = batch.masks[name] & keep[:, None]
    return SegmentBatch(features, masks)

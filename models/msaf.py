"""MSAF (Su et al., 2020) for scoring: split attention weighs channel blocks of each stream by all streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential, halve, halve_mask, mean_over_time
from .pamfn_branch import FEWEST_SEGMENTS, WIDTH, ResidualBlock, at_least
from .scoring import ScorePrediction, SegmentBatch


class MsafSettings(Record):
    num_blocks: Literal[2, 4, 8, 16, 32] = 8
    """Number of blocks that the 256 channels are split into"""
    lowest_attention: NonNegativeFloat = 0.0
    """Lower limit λ of the weights"""
    dropout: NonNegativeFloat = 0.5


class Msaf(nn.Module):
    """Two stages of convolutions per stream, with a split-attention module between the streams after each.

    PAMFN's variant with 5.56 M parameters is unpublished, so results may differ from its tables.
    """

    Settings: ClassVar[type[Record]] = MsafSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: MsafSettings) -> None:
        super().__init__()
        dropout = settings.dropout
        self.embedding = nn.ModuleDict(
            {
                stream: MaskedSequential(
                    ConvOverTime(dim, WIDTH, 1), MaskedBatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(dropout)
                )
                for stream, dim in dims.items()
            }
        )
        self.stages = nn.ModuleList([nn.ModuleDict({stream: ResidualBlock() for stream in dims}) for _ in range(2)])
        self.fusions = nn.ModuleList([SplitAttention(len(dims), settings) for _ in range(2)])
        self.head = nn.Sequential(
            nn.Linear(WIDTH * len(dims), WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(WIDTH, 1), nn.Sigmoid()
        )

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        values: list[Tensor] = []
        masks: list[Tensor] = []
        for stream, embedding in self.embedding.items():
            features, mask = at_least(batch.features[stream], batch.masks[stream], FEWEST_SEGMENTS)
            assert mask is not None
            values.append(embedding(features.transpose(1, 2), mask))
            masks.append(mask)
        for stage, fusion in zip(self.stages, self.fusions, strict=True):
            refined = [block(each, mask) for block, each, mask in zip(_each(stage), values, masks, strict=True)]
            values = [halve(each, mask) for each, mask in zip(refined, masks, strict=True)]
            masks = [_known(halve_mask(mask)) for mask in masks]
            values = fusion(values, masks)
        pooled = [mean_over_time(each, mask).squeeze(-1) for each, mask in zip(values, masks, strict=True)]
        return ScorePrediction(self.head(torch.cat(pooled, dim=1)).squeeze(-1))


class SplitAttention(nn.Module):
    """Weights for every channel of every block, computed from the sum of all blocks, pooled over time.

    Streams may differ in length. The softmax is over all blocks of all streams of a sample.
    """

    def __init__(self, num_streams: int, settings: MsafSettings) -> None:
        super().__init__()
        num_blocks = settings.num_blocks
        self.num_blocks = num_blocks
        self.lowest = settings.lowest_attention
        width = WIDTH // num_blocks
        narrow = max(8, width // 4)  # the paper's reduction
        self.joint = nn.Sequential(nn.Linear(width, narrow), nn.BatchNorm1d(narrow), nn.ReLU())
        self.to_weights = nn.ModuleList([nn.Linear(narrow, width) for _ in range(num_streams * num_blocks)])

    def forward(self, values: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Multiply ``[samples, 256, T]`` of each stream by weights of its channels."""
        blocks = [each.reshape(len(each), self.num_blocks, -1, each.shape[2]) for each in values]
        pooled = [mean_over_time(each.sum(1), mask).squeeze(-1) for each, mask in zip(blocks, masks, strict=True)]
        joint = self.joint(torch.stack(pooled).sum(0))
        by_block = (len(joint), len(values), self.num_blocks, -1)
        logits = torch.stack([layer(joint) for layer in self.to_weights], dim=1).reshape(by_block)
        present = torch.stack([mask.any(1) for mask in masks], dim=1)[:, :, None, None]
        logits = logits.masked_fill(~present, torch.finfo(logits.dtype).min)
        weights = torch.softmax(logits.flatten(1, 2), dim=1).reshape(by_block)
        weights = self.lowest + (1 - self.lowest) * weights
        return [(each * weights[:, number].unsqueeze(-1)).flatten(1, 2) for number, each in enumerate(blocks)]


def _each(modules: nn.Module) -> list[nn.Module]:
    return list(modules.children())


def _known(mask: Tensor | None) -> Tensor:
    assert mask is not None
    return mask

"""PAMFN's branch of one modality (Zeng & Zheng, TIP 2024), as a scoring model and as a part of PAMFN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import HALF, WHOLE, ConvOverTime, MaskedBatchNorm1d, MaskedSequential, Pooling, zero_padding
from .scoring import ScorePrediction, SegmentBatch, only_stream

WIDTH = 256
FEWEST_SEGMENTS = 4
"""One segment must remain after two halvings."""
Poolings = tuple[Pooling, Pooling, Pooling]
"""Pooling after each of the three stages"""
SCORE: Poolings = (HALF, HALF, WHOLE)


@dataclass(frozen=True, eq=False)
class Levels:
    """Features of one modality at four time scales. The stated lengths are those with the poolings `SCORE`."""

    features: tuple[Tensor, ...]
    """``[samples, 256, T]``, ``T // 2``, ``T // 4``, 1"""
    masks: tuple[Tensor | None, ...]
    """``bool [samples, T]`` and so on; None if padding counts as segments"""


class ModalityBranch(nn.Module):
    """Embedding, three residual convolution blocks at decreasing time resolution, and a sigmoid head."""

    def __init__(self, dim: int, dropout: float, poolings: Poolings = SCORE) -> None:
        super().__init__()
        self.poolings = poolings
        self.embedding = MaskedSequential(
            ConvOverTime(dim, 512, 1),
            MaskedBatchNorm1d(512),
            nn.ReLU(),
            ConvOverTime(512, WIDTH, 1),
            MaskedBatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Dropout(0.3),
        )
        self.stage1, self.stage2, self.stage3 = (ResidualBlock() for _ in range(3))
        self.fc = nn.Sequential(nn.Dropout(dropout), ConvOverTime(WIDTH, 1, 1), nn.Sigmoid())

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Levels]:
        """Map ``[samples, segments, dim]`` to the score ``[samples]``, 0 … 1, and the features that PAMFN fuses."""
        if HALF in self.poolings:
            features, mask = at_least(features, mask, FEWEST_SEGMENTS)
        values, masks = [zero_padding(self.embedding(features.transpose(1, 2), mask), mask)], [mask]
        for stage, pooling in zip((self.stage1, self.stage2, self.stage3), self.poolings, strict=True):
            values.append(pooling.values(stage(values[-1], masks[-1]), masks[-1]))
            masks.append(pooling.mask(masks[-1]))
        return self.fc(values[-1])[..., 0].flatten(), Levels(tuple(values), tuple(masks))


class ResidualBlock(nn.Module):
    """``x + f(x)``, where f is two convolutions with BatchNorm and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            MaskedSequential(ConvOverTime(WIDTH, WIDTH, 3), MaskedBatchNorm1d(WIDTH), nn.GELU()) for _ in range(2)
        )

    def forward(self, values: Tensor, mask: Tensor | None) -> Tensor:
        return values + self.conv2(self.conv1(values, mask), mask)


class BranchSettings(Record):
    dropout: NonNegativeFloat = 0.5
    """Dropout before the regressor"""
    released: bool = False
    """Whether padding counts as segments, as in the released code"""


class PamfnBranch(nn.Module):
    """One branch as a scoring model: the rows ``RGB / flow / audio branch only`` of PAMFN's tables."""

    Settings: ClassVar[type[Record]] = BranchSettings
    one_stream: ClassVar[bool] = True
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: BranchSettings) -> None:
        super().__init__()
        self.stream = only_stream(dims, "pamfn-branch")
        self.released = settings.released
        self.branch = ModalityBranch(dims[self.stream], settings.dropout)

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        mask = None if self.released else batch.masks[self.stream]
        score, _ = self.branch(batch.features[self.stream], mask)
        return ScorePrediction(score)


def at_least(features: Tensor, mask: Tensor | None, segments: int) -> tuple[Tensor, Tensor | None]:
    """Pad features and mask at the end to this number of segments."""
    missing = segments - features.shape[1]
    if missing <= 0:
        return features, mask
    features = nn.functional.pad(features, (0, 0, 0, missing))
    return features, None if mask is None else nn.functional.pad(mask, (0, missing))

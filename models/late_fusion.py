"""Late fusion: one PAMFN branch per stream, whose last features are fused and regressed (PAMFN, Tables IV and V)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..manifests.streams import Record
from .masking import masked_softmax
from .pamfn_branch import WIDTH, ModalityBranch
from .scoring import ScorePrediction, SegmentBatch

Combination = Literal["average", "concatenation", "weighted", "attention"]


class LateFusionSettings(Record):
    combination: Combination = "average"
    """Fusion of the features of the streams, see `LateFusion`"""
    dropout: NonNegativeFloat = 0.5
    """Dropout in the branches and before each layer of the regressor"""


class LateFusion(nn.Module):
    """Fusion of the outputs of the branches' last convolution blocks; two fully connected layers regress the score.

    The paper (section IV-F1) describes four combinations of the features f_m of M modalities:

        average        mean of the f_m
        concatenation  [f_1, …, f_M], reduced to one feature's width by a fully connected layer
        weighted       sum of w_m f_m, w a softmax over M learnable numbers
        attention      sum of w_m f_m, w a softmax over the M outputs of a fully connected layer on [f_1, …, f_M]

    A missing stream of a video has weight 0, and zeros in a concatenation.

    Args:
        dims: Stream name → feature dim.
        settings: Combination and dropout.
    """

    Settings: ClassVar[type[Record]] = LateFusionSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: LateFusionSettings) -> None:
        super().__init__()
        combination, dropout = settings.combination, settings.dropout
        self.combination: Combination = combination
        self.branches = nn.ModuleDict({stream: ModalityBranch(dim, dropout) for stream, dim in dims.items()})
        for branch in self.branches.values():
            branch.fc.requires_grad_(False)  # a branch's own score is not used
        if combination == "concatenation":
            self.reduce = nn.Linear(WIDTH * len(dims), WIDTH)
        if combination == "weighted":
            self.weights = nn.Parameter(torch.zeros(len(dims)))
        if combination == "attention":
            self.attention = nn.Linear(WIDTH * len(dims), len(dims))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, 1),
            nn.Sigmoid(),
        )

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        features = torch.stack([self._feature(stream, batch) for stream in self.branches], dim=1)
        present = torch.stack([batch.masks[stream].any(1) for stream in self.branches], dim=1)
        return ScorePrediction(self.head(self.fuse(features, present)).squeeze(-1))

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse ``features [videos, streams, 256]``, with ``present bool [videos, streams]``, to ``[videos, 256]``."""
        features = features * present.unsqueeze(-1)
        if self.combination == "average":
            return features.sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        if self.combination == "concatenation":
            return self.reduce(features.flatten(1))
        logits = self.attention(features.flatten(1)) if self.combination == "attention" else self.weights
        weights = masked_softmax(logits.expand(present.shape), present)
        return (weights.unsqueeze(-1) * features).sum(1)

    def _feature(self, stream: str, batch: SegmentBatch) -> Tensor:
        """Return the last feature of one stream's branch, averaged over time, ``[videos, 256]``."""
        _, levels = self.branches[stream](batch.features[stream], batch.masks[stream])
        return levels.features[3].squeeze(-1)

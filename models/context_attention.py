"""ACTION-NET's context-aware attention over any number of streams (Zeng et al., ACM MM 2020).

The published network has two streams, I3D clips and ResNet-50 athlete crops; nothing in it depends on that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .masking import masked_softmax
from .scoring import Judgement, SegmentBatch

Adjacency = Literal["time", "feature"]


class ContextAttentionSettings(Record):
    adjacency: Adjacency = "time"
    hidden_dim: PositiveInt = 256
    dropout: NonNegativeFloat = 0.5
    feature_dropout: NonNegativeFloat = 0.0


class ContextAttention(nn.Module):
    """One context-attention unit per stream; their summaries, side by side, decide the score.

    ``adjacency``: how near two segments are to each other. ``time`` is what the released code computes,
    ``exp(-|i - j|)``; ``feature`` is the paper's equation 1, ``exp(-‖f_i - f_j‖ / K) + I`` with K the features' dim.
    ``dropout`` is before the last layer; ``feature_dropout``, on the features themselves, is ours, for small data.
    """

    Settings: ClassVar[type[Record]] = ContextAttentionSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        adjacency: Adjacency = "time",
        hidden_dim: int = 256,
        dropout: float = 0.5,
        feature_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.streams = nn.ModuleDict({name: StreamContext(dim, hidden_dim, adjacency) for name, dim in dims.items()})
        self.head = nn.Sequential(
            nn.Linear(2 * hidden_dim * len(dims), 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, batch: SegmentBatch) -> Judgement:
        summaries: list[Tensor] = []
        importance: dict[str, Tensor] = {}
        for name, stream in self.streams.items():
            summary, importance[name] = stream(self.feature_dropout(batch.features[name]), batch.masks[name])
            summaries.append(summary)
        score = torch.sigmoid(self.head(torch.cat(summaries, dim=-1))).squeeze(-1)
        return Judgement(score, importance=importance)


class StreamContext(nn.Module):
    """Segments of one stream exchange context along a graph, then attention weighs them."""

    def __init__(self, dim: int, hidden_dim: int, adjacency: Adjacency) -> None:
        super().__init__()
        self.adjacency: Adjacency = adjacency
        narrow = max(1, dim // 2)
        self.embedding = nn.Sequential(nn.Linear(dim, narrow), nn.ReLU(), nn.Linear(narrow, hidden_dim), nn.ReLU())
        self.graph = nn.ModuleList([nn.Linear(hidden_dim, hidden_dim) for _ in range(2)])
        self.attention = nn.Sequential(nn.Linear(2 * hidden_dim, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``[routines, segments, dim]`` → summary ``[routines, 2·hidden]``, weights ``[routines, segments]``."""
        embedded = self.embedding(features)
        nearness = time_nearness(mask) if self.adjacency == "time" else feature_nearness(embedded, mask)
        nearness = normalise_symmetrically(nearness).to(embedded.dtype)
        context = embedded
        for layer in self.graph:
            context = torch.relu(layer(nearness @ context))
        both = torch.cat([embedded, context], dim=-1)
        weights = masked_softmax(self.attention(both).squeeze(-1), mask)
        return (weights.unsqueeze(1) @ both).squeeze(1), weights


def time_nearness(mask: Tensor) -> Tensor:
    """``exp(-|i - j|)`` between segments, 0 from and to padding: ``[routines, segments, segments]``."""
    position = torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)
    nearness = torch.exp(-(position[:, None] - position[None, :]).abs())
    return nearness * _pairs(mask)


def feature_nearness(features: Tensor, mask: Tensor) -> Tensor:
    """``exp(-‖f_i - f_j‖ / dim) + I`` between segments, 0 from and to padding."""
    distance = torch.cdist(features, features) / features.shape[-1]
    itself = torch.eye(features.shape[1], device=features.device)
    return (torch.exp(-distance) + itself) * _pairs(mask)


def normalise_symmetrically(nearness: Tensor) -> Tensor:
    """``D^-½ A D^-½`` with D the row sums of A; rows of padding stay zero."""
    degree = nearness.sum(-1)
    scale = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
    return scale.unsqueeze(-1) * nearness * scale.unsqueeze(-2)


def _pairs(mask: Tensor) -> Tensor:
    return (mask.unsqueeze(-1) & mask.unsqueeze(-2)).float()

"""Joint-VA (Badamdorj et al., ICCV 2021) for scoring: streams attend to each other, and may decline to.

Written from the paper's description; no code of it is public, nor of the 1.97 M variant in PAMFN's tables, so that
numbers need not agree with theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .masking import masked_mean, masked_softmax
from .scoring import Judgement, SegmentBatch


class JointVaSettings(Record):
    hidden_dim: PositiveInt = 256
    dropout: NonNegativeFloat = 0.5


class JointVa(nn.Module):
    """Per stream: what its segments find in itself and in each other stream, averaged over time."""

    Settings: ClassVar[type[Record]] = JointVaSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], *, hidden_dim: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.ModuleDict(
            {
                stream: nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout))
                for stream, dim in dims.items()
            }
        )
        self.attention = nn.ModuleDict(
            {f"{stream}-{other}": SentinelAttention(hidden_dim) for stream in dims for other in dims}
        )
        self.norm = nn.ModuleDict({stream: nn.LayerNorm(hidden_dim) for stream in dims})
        self.head = nn.Sequential(
            nn.Linear(hidden_dim * len(dims), hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, batch: SegmentBatch) -> Judgement:
        embedded = {stream: layer(batch.features[stream]) for stream, layer in self.embedding.items()}
        summaries: list[Tensor] = []
        for stream, values in embedded.items():
            found = values
            for other, asked in embedded.items():
                found = found + self.attention[f"{stream}-{other}"](values, asked, batch.masks[other])
            summaries.append(masked_mean(self.norm[stream](found), batch.masks[stream]))
        return Judgement(self.head(torch.cat(summaries, dim=-1)).squeeze(-1))


class SentinelAttention(nn.Module):
    """Attention with one more key, the noise sentinel, whose value is nothing: weight on it is weight on no segment."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_query, self.to_key, self.to_value = (nn.Linear(dim, dim) for _ in range(3))
        self.sentinel = nn.Parameter(torch.randn(dim) / math.sqrt(dim))

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """``asking [routines, T, dim]``, ``asked [routines, T', dim]`` and its mask → ``[routines, T, dim]``."""
        query = self.to_query(asking) / math.sqrt(asking.shape[-1])
        scores = torch.cat([query @ self.to_key(asked).transpose(1, 2), (query @ self.sentinel).unsqueeze(-1)], dim=-1)
        known = nn.functional.pad(mask, (0, 1), value=True).unsqueeze(1)
        weights = masked_softmax(scores, known.expand_as(scores))
        return weights[..., :-1] @ self.to_value(asked)

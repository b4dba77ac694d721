"""Joint-VA (Badamdorj et al., ICCV 2021) for scoring: attention between streams with a noise sentinel.

Implemented from the paper's description, because its code is not public. The variant with 1.97 M parameters in PAMFN's
tables is not public either, so results may differ from the printed ones.
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
from .scoring import ScorePrediction, SegmentBatch


class JointVaSettings(Record):
    hidden_dim: PositiveInt = 256
    dropout: NonNegativeFloat = 0.5


class JointVa(nn.Module):
    """Each stream attends to itself and to every other stream; the results are averaged over time."""

    Settings: ClassVar[type[Record]] = JointVaSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = True

    def __init__(self, dims: Mapping[str, int], settings: JointVaSettings) -> None:
        super().__init__()
        hidden_dim, dropout = settings.hidden_dim, settings.dropout
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

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        embedded = {stream: layer(batch.features[stream]) for stream, layer in self.embedding.items()}
        summaries: list[Tensor] = []
        for stream, values in embedded.items():
            found = values
            for other, keys in embedded.items():
                found = found + self.attention[f"{stream}-{other}"](values, keys, batch.masks[other])
            summaries.append(masked_mean(self.norm[stream](found), batch.masks[stream]))
        return ScorePrediction(self.head(torch.cat(summaries, dim=-1)).squeeze(-1))


class SentinelAttention(nn.Module):
    """Attention with an additional key, the noise sentinel, whose value is zero and whose weight reduces all others."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_query, self.to_key, self.to_value = (nn.Linear(dim, dim) for _ in range(3))
        self.sentinel = nn.Parameter(torch.randn(dim) / math.sqrt(dim))

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Map queries ``[samples, T, dim]`` and keys ``[samples, T', dim]`` with a mask to ``[samples, T, dim]``."""
        query = self.to_query(queries) / math.sqrt(queries.shape[-1])
        scores = torch.cat([query @ self.to_key(keys).transpose(1, 2), (query @ self.sentinel).unsqueeze(-1)], dim=-1)
        allowed = nn.functional.pad(mask, (0, 1), value=True).unsqueeze(1)
        weights = masked_softmax(scores, allowed.expand_as(scores))
        return weights[..., :-1] @ self.to_value(keys)

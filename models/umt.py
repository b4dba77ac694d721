"""UMT (Liu et al., CVPR 2022) for scoring: streams exchange information through a few bottleneck tokens.

PAMFN's files also use the name UMT for features of Unmasked Teacher, which is an unrelated model. Implemented from the
public description, without the losses for moment retrieval. PAMFN's variant with 3.78 M parameters is unpublished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .scoring import ScorePrediction, SegmentBatch


class UmtSettings(Record):
    hidden_dim: PositiveInt = 256
    num_heads: PositiveInt = 8
    num_tokens: PositiveInt = 4
    num_queries: PositiveInt = 10
    num_decoders: PositiveInt = 1
    dropout: NonNegativeFloat = 0.5


class Umt(nn.Module):
    """Encoders per stream, a bottleneck encoder and a query decoder over the segments of all streams."""

    Settings: ClassVar[type[Record]] = UmtSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: UmtSettings) -> None:
        super().__init__()
        hidden_dim, num_heads, dropout = settings.hidden_dim, settings.num_heads, settings.dropout
        self.embedding = nn.ModuleDict(
            {stream: nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, hidden_dim)) for stream, dim in dims.items()}
        )
        shape: dict[str, Any] = {
            "d_model": hidden_dim,
            "nhead": num_heads,
            "dim_feedforward": 4 * hidden_dim,
            "batch_first": True,
        }
        self.encoders = nn.ModuleDict({stream: nn.TransformerEncoderLayer(**shape) for stream in dims})
        self.tokens = nn.Parameter(torch.randn(settings.num_tokens, hidden_dim) / math.sqrt(hidden_dim))
        self.gather = nn.ModuleDict({stream: Exchange(hidden_dim, num_heads) for stream in dims})
        self.spread = nn.ModuleDict({stream: Exchange(hidden_dim, num_heads) for stream in dims})
        self.norm = nn.LayerNorm(hidden_dim)
        self.queries = nn.Parameter(torch.zeros(settings.num_queries, hidden_dim))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), settings.num_decoders)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden_dim, 1), nn.Sigmoid())

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        encoded: dict[str, Tensor] = {}
        paddings: dict[str, Tensor] = {}
        for stream, embedding in self.embedding.items():
            values = embedding(batch.features[stream])
            paddings[stream] = attendable(batch.masks[stream])
            place = sinusoids(values.shape[1], values.shape[2]).to(values)
            encoded[stream] = self.encoders[stream](values + place, src_key_padding_mask=paddings[stream])
        tokens = self._gather_tokens(encoded, paddings, batch)
        spread = [self.spread[stream](values, tokens, None) for stream, values in encoded.items()]
        memory = torch.cat([self.norm(values) for values in spread], dim=1)
        missing = torch.cat([~batch.masks[stream] for stream in encoded], dim=1)
        found = self.decoder(
            self.queries.expand(len(batch), -1, -1), memory, memory_key_padding_mask=attendable(~missing)
        )
        return ScorePrediction(self.head(found.mean(1)).squeeze(-1))

    def _gather_tokens(
        self, encoded: Mapping[str, Tensor], paddings: Mapping[str, Tensor], batch: SegmentBatch
    ) -> Tensor:
        """Return the tokens after attention to the streams of each sample: ``[samples, tokens, hidden]``."""
        start = self.tokens.expand(len(batch), -1, -1)
        gathered = torch.zeros_like(start)
        for stream, values in encoded.items():
            update = self.gather[stream](start, values, paddings[stream])
            gathered = gathered + update * batch.masks[stream].any(1)[:, None, None]
        return start + gathered


class Exchange(nn.Module):
    """Cross-attention with a residual, normalized."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, keys: Tensor, padding: Tensor | None) -> Tensor:
        found, _ = self.attention(queries, keys, keys, key_padding_mask=padding, need_weights=False)
        return self.norm(queries + found)


def attendable(mask: Tensor) -> Tensor:
    """Return PyTorch's padding mask (True is ignored). One segment of an empty sample is not masked, to avoid NaN."""
    padding = ~mask
    first = torch.zeros_like(padding)
    first[:, 0] = padding.all(1)
    return padding & ~first


def sinusoids(length: int, dim: int) -> Tensor:
    """Return the position encoding ``[length, dim]``: sines at even indices, cosines at odd ones."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]

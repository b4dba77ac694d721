"""UMT (Liu et al., CVPR 2022) for scoring: streams meet through a few bottleneck tokens only.

Not to be confused with the features that PAMFN's files call UMT (Unmasked Teacher). Written from the public
description, without the losses that belong to moment retrieval; PAMFN's 3.78 M variant is unpublished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .scoring import Judgement, SegmentBatch


class UmtSettings(Record):
    hidden_dim: PositiveInt = 256
    num_heads: PositiveInt = 8
    num_tokens: PositiveInt = 4
    num_queries: PositiveInt = 10
    num_decoders: PositiveInt = 1
    dropout: NonNegativeFloat = 0.5


class Umt(nn.Module):
    """Uni-modal encoders, a bottleneck encoder, their sum on the first stream's segments, a query decoder."""

    Settings: ClassVar[type[Record]] = UmtSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        hidden_dim: int = 256,
        num_heads: int = 8,
        num_tokens: int = 4,
        num_queries: int = 10,
        num_decoders: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.embedding = nn.ModuleDict(
            {stream: nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, hidden_dim)) for stream, dim in dims.items()}
        )
        shape = {"d_model": hidden_dim, "nhead": num_heads, "dim_feedforward": 4 * hidden_dim, "batch_first": True}
        self.encoders = nn.ModuleDict({stream: nn.TransformerEncoderLayer(**shape) for stream in dims})
        self.tokens = nn.Parameter(torch.randn(num_tokens, hidden_dim) / math.sqrt(hidden_dim))
        self.gather = nn.ModuleDict({stream: Exchange(hidden_dim, num_heads) for stream in dims})
        self.spread = nn.ModuleDict({stream: Exchange(hidden_dim, num_heads) for stream in dims})
        self.norm = nn.LayerNorm(hidden_dim)
        self.queries = nn.Parameter(torch.zeros(num_queries, hidden_dim))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), num_decoders)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden_dim, 1), nn.Sigmoid())

    def forward(self, batch: SegmentBatch) -> Judgement:
        encoded: dict[str, Tensor] = {}
        paddings: dict[str, Tensor] = {}
        for stream, embedding in self.embedding.items():
            values = embedding(batch.features[stream])
            paddings[stream] = attendable(batch.masks[stream])
            place = sinusoids(values.shape[1], values.shape[2]).to(values)
            encoded[stream] = self.encoders[stream](values + place, src_key_padding_mask=paddings[stream])
        tokens = self._meet(encoded, paddings, batch)
        spread = [self.spread[stream](values, tokens, None) for stream, values in encoded.items()]
        memory = torch.cat([self.norm(values) for values in spread], dim=1)
        missing = torch.cat([~batch.masks[stream] for stream in encoded], dim=1)
        found = self.decoder(
            self.queries.expand(len(batch), -1, -1), memory, memory_key_padding_mask=attendable(~missing)
        )
        return Judgement(self.head(found.mean(1)).squeeze(-1))

    def _meet(self, encoded: Mapping[str, Tensor], paddings: Mapping[str, Tensor], batch: SegmentBatch) -> Tensor:
        """What the tokens gather from the streams that each routine has: ``[routines, tokens, hidden]``."""
        start = self.tokens.expand(len(batch), -1, -1)
        gathered = torch.zeros_like(start)
        for stream, values in encoded.items():
            news = self.gather[stream](start, values, paddings[stream])
            gathered = gathered + news * batch.masks[stream].any(1)[:, None, None]
        return start + gathered


class Exchange(nn.Module):
    """Cross-attention with a residual, normalised."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, asking: Tensor, asked: Tensor, padding: Tensor | None) -> Tensor:
        found, _ = self.attention(asking, asked, asked, key_padding_mask=padding, need_weights=False)
        return self.norm(asking + found)


def attendable(mask: Tensor) -> Tensor:
    """PyTorch's padding mask (True is left out); a routine without segments keeps one, since all left out is NaN."""
    padding = ~mask
    first = torch.zeros_like(padding)
    first[:, 0] = padding.all(1)
    return padding & ~first


def sinusoids(length: int, dim: int) -> Tensor:
    """``[length, dim]``: sines in even places, cosines in odd ones."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]

"""GDLT (Xu et al., CVPR 2022): prototypes of four grades attend to the segments; their amounts determine the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential
from .scoring import ScorePrediction, SegmentBatch, only_stream


class GdltSettings(Record):
    num_grades: PositiveInt = 4
    hidden_dim: PositiveInt = 256
    num_encoders: PositiveInt = 1
    num_decoders: PositiveInt = 2
    num_heads: PositiveInt = 1
    dropout: NonNegativeFloat = 0.3
    triplet_weight: NonNegativeFloat = 1.0
    """Weight α of the hard triplet loss between the responses of the grades"""
    margin: NonNegativeFloat = 1.0
    """Margin of the triplet loss, in cosine distance"""
    released: bool = False
    """Padding counts as segments, as in the released code."""


class Gdlt(nn.Module):
    """Grade-decoupling Likert transformer, without positional encoding as published."""

    Settings: ClassVar[type[Record]] = GdltSettings
    one_stream: ClassVar[bool] = True
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = True
    grades: Tensor

    def __init__(self, dims: Mapping[str, int], settings: GdltSettings) -> None:
        super().__init__()
        hidden_dim, num_grades = settings.hidden_dim, settings.num_grades
        self.stream = only_stream(dims, "gdlt")
        self.triplet_weight = settings.triplet_weight
        self.margin = settings.margin
        self.released = settings.released
        self.in_proj = MaskedSequential(
            ConvOverTime(dims[self.stream], 2 * hidden_dim, 1),
            MaskedBatchNorm1d(2 * hidden_dim),
            nn.ReLU(),
            ConvOverTime(2 * hidden_dim, hidden_dim, 1),
            MaskedBatchNorm1d(hidden_dim),
        )
        self.transformer = Transformer(settings)
        self.prototype = nn.Embedding(num_grades, hidden_dim)
        self.regressor = nn.Linear(hidden_dim, num_grades)
        self.register_buffer("grades", torch.linspace(0, 1, num_grades), persistent=False)

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        responses = self.grade_responses(batch)
        # output i of response i is the amount of grade i in the sample
        amounts = torch.sigmoid(self.regressor(responses).diagonal(dim1=1, dim2=2))
        score = (amounts / amounts.sum(1, keepdim=True)) @ self.grades
        return ScorePrediction(score, penalty=self.triplet_weight * hard_triplet(responses, self.margin))

    def grade_responses(self, batch: SegmentBatch) -> Tensor:
        """Return the response of each grade prototype: ``[samples, grades, hidden]``."""
        mask = None if self.released else batch.masks[self.stream]
        segments = self.in_proj(batch.features[self.stream].transpose(1, 2), mask).transpose(1, 2)
        queries = self.prototype.weight.expand(len(batch), -1, -1)
        return self.transformer(segments, queries, None if mask is None else ~mask)


class Transformer(nn.Module):
    """Post-norm encoder and decoder, each with a final LayerNorm."""

    def __init__(self, settings: GdltSettings) -> None:
        super().__init__()
        dim = settings.hidden_dim
        shape: dict[str, Any] = {
            "d_model": dim,
            "nhead": settings.num_heads,
            "dim_feedforward": 3 * dim,
            "dropout": settings.dropout,
            "batch_first": True,
        }
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**shape),
            settings.num_encoders,
            norm=nn.LayerNorm(dim),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**shape), settings.num_decoders, norm=nn.LayerNorm(dim)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, segments: Tensor, queries: Tensor, padding: Tensor | None) -> Tensor:
        """Decode the queries; ``padding [samples, segments]`` is True for padding."""
        memory = self.encoder(segments, src_key_padding_mask=padding)
        return self.decoder(queries, memory, memory_key_padding_mask=padding)


def hard_triplet(responses: Tensor, margin: float) -> Tensor:
    """Return the hard triplet loss: the mean of ``max(0, farthest - nearest + margin)`` over all responses.

    Distances are cosine distances within the batch: to the farthest response of the same grade and to the nearest of
    another grade. ``responses [samples, grades, hidden]``.
    """
    unit = nn.functional.normalize(responses.flatten(0, 1), dim=-1)
    distance = 1 - unit @ unit.T
    grade = torch.arange(responses.shape[1], device=responses.device).repeat(responses.shape[0])
    same = grade[:, None] == grade[None, :]
    farthest = distance.masked_fill(~same, -torch.inf).amax(1)
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return (farthest - nearest + margin).clamp(min=0).mean()

"""GDLT (Xu et al., CVPR 2022): prototypes of four grades query the routine; the score is what their answers weigh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential
from .scoring import Judgement, SegmentBatch, only_stream


class GdltSettings(Record):
    num_grades: PositiveInt = 4
    hidden_dim: PositiveInt = 256
    num_encoders: PositiveInt = 1
    num_decoders: PositiveInt = 2
    num_heads: PositiveInt = 1
    dropout: NonNegativeFloat = 0.3
    triplet_weight: NonNegativeFloat = 1.0
    margin: NonNegativeFloat = 1.0
    released: bool = False


class Gdlt(nn.Module):
    """Grade-decoupling Likert transformer; no positional encoding, as published.

    ``triplet_weight``: the paper's α on a hard triplet loss that keeps the grades' answers apart.
    ``released``: zero padding counts as segments, as in the released code.
    """

    Settings: ClassVar[type[Record]] = GdltSettings
    one_stream: ClassVar[bool] = True
    one_grid: ClassVar[bool] = False
    grades: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        num_grades: int = 4,
        hidden_dim: int = 256,
        num_encoders: int = 1,
        num_decoders: int = 2,
        num_heads: int = 1,
        dropout: float = 0.3,
        triplet_weight: float = 1.0,
        margin: float = 1.0,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.stream = only_stream(dims, "gdlt")
        self.triplet_weight = triplet_weight
        self.margin = margin
        self.released = released
        self.in_proj = MaskedSequential(
            ConvOverTime(dims[self.stream], 2 * hidden_dim, 1),
            MaskedBatchNorm1d(2 * hidden_dim),
            nn.ReLU(),
            ConvOverTime(2 * hidden_dim, hidden_dim, 1),
            MaskedBatchNorm1d(hidden_dim),
        )
        self.transformer = Transformer(hidden_dim, num_heads, num_encoders, num_decoders, dropout)
        self.prototype = nn.Embedding(num_grades, hidden_dim)
        self.regressor = nn.Linear(hidden_dim, num_grades)
        self.register_buffer("grades", torch.linspace(0, 1, num_grades), persistent=False)

    def forward(self, batch: SegmentBatch) -> Judgement:
        answers = self.answers(batch)
        # grade i's own output decides how much of grade i there is in the routine
        amounts = torch.sigmoid(self.regressor(answers).diagonal(dim1=1, dim2=2))
        score = (amounts / amounts.sum(1, keepdim=True)) @ self.grades
        return Judgement(score, penalty=self.triplet_weight * hard_triplet(answers, self.margin))

    def answers(self, batch: SegmentBatch) -> Tensor:
        """What each grade's prototype finds in a routine: ``[routines, grades, hidden]``."""
        mask = None if self.released else batch.masks[self.stream]
        segments = self.in_proj(batch.features[self.stream].transpose(1, 2), mask).transpose(1, 2)
        queries = self.prototype.weight.expand(len(batch), -1, -1)
        return self.transformer(segments, queries, None if mask is None else ~mask)


class Transformer(nn.Module):
    """Post-norm encoder and decoder, each with a LayerNorm at its end."""

    def __init__(self, dim: int, num_heads: int, num_encoders: int, num_decoders: int, dropout: float) -> None:
        super().__init__()
        shape = {"d_model": dim, "nhead": num_heads, "dim_feedforward": 3 * dim, "dropout": dropout}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**shape, batch_first=True),
            num_encoders,
            norm=nn.LayerNorm(dim),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**shape, batch_first=True), num_decoders, norm=nn.LayerNorm(dim)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, segments: Tensor, queries: Tensor, padding: Tensor | None) -> Tensor:
        """``padding [routines, segments]``: True where there is no segment."""
        memory = self.encoder(segments, src_key_padding_mask=padding)
        return self.decoder(queries, memory, memory_key_padding_mask=padding)


def hard_triplet(answers: Tensor, margin: float) -> Tensor:
    """Each answer against the farthest of its own grade and the nearest of another, in the whole batch.

    ``answers [routines, grades, hidden]``; cosine distance; the mean of ``max(0, farthest - nearest + margin)``.
    """
    unit = nn.functional.normalize(answers.flatten(0, 1), dim=-1)
    distance = 1 - unit @ unit.T
    grade = torch.arange(answers.shape[1], device=answers.device).repeat(answers.shape[0])
    same = grade[:, None] == grade[None, :]
    farthest = distance.masked_fill(~same, -torch.inf).amax(1)
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return (farthest - nearest + margin).clamp(min=0).mean()

"""The plain recurrent baselines: one LSTM per stream, forwards or both ways; its last states decide the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ..manifests.streams import Record
from .scoring import Judgement, SegmentBatch


class RecurrentSettings(Record):
    hidden_dim: PositiveInt = 256
    num_layers: PositiveInt = 1
    dropout: NonNegativeFloat = 0.5


class Lstm(nn.Module):
    """After Parmar & Morris (CVPRW 2017), who put C3D features through one LSTM and a linear layer."""

    Settings: ClassVar[type[Record]] = RecurrentSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    both_ways: ClassVar[bool] = False

    def __init__(
        self, dims: Mapping[str, int], *, hidden_dim: int = 256, num_layers: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(
            {
                stream: nn.LSTM(dim, hidden_dim, num_layers, batch_first=True, bidirectional=self.both_ways)
                for stream, dim in dims.items()
            }
        )
        width = hidden_dim * (2 if self.both_ways else 1) * len(dims)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, batch: SegmentBatch) -> Judgement:
        states = [
            self._last_state(lstm, batch.features[stream], batch.masks[stream]) for stream, lstm in self.streams.items()
        ]
        return Judgement(self.head(torch.cat(states, dim=1)).squeeze(-1))

    def _last_state(self, lstm: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
        """``[routines, hidden]``, twice as wide both ways; zeros for a routine without the stream."""
        lengths = mask.sum(1)
        # a packed sequence needs a step; one that is not there is taken back afterwards
        packed = pack_padded_sequence(features, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = lstm(packed)
        last = torch.cat(tuple(hidden[-2:]), dim=1) if self.both_ways else hidden[-1]
        return last * (lengths > 0).unsqueeze(1)


class BiLstm(Lstm):
    both_ways: ClassVar[bool] = True

"""Recurrent baselines: one LSTM or bidirectional LSTM per stream with a linear layer on the last states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ..manifests.streams import Record
from .masking import in_order, segments_first
from .scoring import ScorePrediction, SegmentBatch


class RecurrentSettings(Record):
    hidden_dim: PositiveInt = 256
    num_layers: PositiveInt = 1
    dropout: NonNegativeFloat = 0.5


class Lstm(nn.Module):
    """Model of Parmar & Morris (CVPRW 2017): C3D features, one LSTM and a linear layer."""

    Settings: ClassVar[type[Record]] = RecurrentSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False
    is_bidirectional: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: RecurrentSettings) -> None:
        super().__init__()
        hidden_dim = settings.hidden_dim
        self.streams = nn.ModuleDict(
            {
                stream: nn.LSTM(
                    dim, hidden_dim, settings.num_layers, batch_first=True, bidirectional=self.is_bidirectional
                )
                for stream, dim in dims.items()
            }
        )
        width = hidden_dim * (2 if self.is_bidirectional else 1) * len(dims)
        self.head = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        states = [
            self._last_state(lstm, batch.features[stream], batch.masks[stream]) for stream, lstm in self.streams.items()
        ]
        return ScorePrediction(self.head(torch.cat(states, dim=1)).squeeze(-1))

    def _last_state(self, lstm: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
        """Return ``[samples, hidden]``, or ``2·hidden`` if bidirectional; zeros for a sample without the stream."""
        lengths = mask.sum(1)
        values = in_order(features, segments_first(mask))
        # a packed sequence needs at least one step; states of samples without steps are set to zero below
        packed = pack_padded_sequence(values, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = lstm(packed)
        last = torch.cat(tuple(hidden[-2:]), dim=1) if self.is_bidirectional else hidden[-1]
        return last * (lengths > 0).unsqueeze(1)


class BiLstm(Lstm):
    """`Lstm` in both directions."""

    is_bidirectional: ClassVar[bool] = True

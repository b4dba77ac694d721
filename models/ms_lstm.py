"""MS-LSTM (Xu et al., TCSVT 2019): an LSTM on attended moments and skip-LSTMs at three time scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential, zero_padding
from .masking import in_order, masked_softmax, segments_first
from .pamfn_branch import at_least
from .scoring import ScorePrediction, SegmentBatch, only_stream
from .skip_lstm import SkipLstm

NARROW = 128
MOMENTS = 50
SCALES = ((2, 1), (4, 2), (8, 4))
"""Kernel and stride of each scale, in segments"""


class MsLstmSettings(Record):
    hidden_dim: PositiveInt = 256
    dropout: NonNegativeFloat = 0.0
    """Dropout before the regressor; not in the published model"""
    penalty_weight: NonNegativeFloat = 1.0
    """Weight of ``‖AAᵀ - I‖² / samples``, which separates the attended moments. The published weight is 1, with a
    squared error in points."""
    bounded: bool = False
    """Whether a sigmoid is applied to the score. The published model has no sigmoid and predicts raw scores (protocol
    with ``score_range`` (0, 1)); its first epochs learn only the mean score."""


class MsLstm(nn.Module):
    """Multi-scale LSTM.

    In the released code, LSTMs start from random states, also in evaluation, and padding counts as segments. Here they
    start from zeros and end with the last segment.
    """

    Settings: ClassVar[type[Record]] = MsLstmSettings
    one_stream: ClassVar[bool] = True
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False
    masks_padding: ClassVar[bool] = True

    def __init__(self, dims: Mapping[str, int], settings: MsLstmSettings) -> None:
        super().__init__()
        hidden_dim = settings.hidden_dim
        self.stream = only_stream(dims, "ms-lstm")
        self.penalty_weight = settings.penalty_weight
        self.bounded = settings.bounded
        self.conv = MaskedSequential(ConvOverTime(dims[self.stream], NARROW, 1), nn.ReLU(), MaskedBatchNorm1d(NARROW))
        self.moments = MomentAttention()
        self.lstm = nn.LSTM(NARROW, hidden_dim, batch_first=True)
        self.scales = nn.ModuleList([Scale(hidden_dim, kernel, stride) for kernel, stride in SCALES])
        self.narrowing = nn.ModuleList([nn.Linear(hidden_dim, 64) for _ in range(1 + len(SCALES))])
        self.head = nn.Sequential(
            nn.Dropout(settings.dropout), nn.Linear(64 * (1 + len(SCALES)), 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        features, mask = at_least(batch.features[self.stream], batch.masks[self.stream], max(k for k, _ in SCALES))
        assert mask is not None
        order = segments_first(mask)
        features, mask = in_order(features, order), mask.gather(1, order)
        segments = zero_padding(self.conv(features.transpose(1, 2), mask), mask)
        moments, overlap, weights = self.moments(segments.transpose(1, 2), mask)
        states = [self.lstm(moments)[0][:, -1], *(scale(segments, mask) for scale in self.scales)]
        narrow = [torch.relu(layer(state)) for layer, state in zip(self.narrowing, states, strict=True)]
        score = self.head(torch.cat(narrow, dim=1)).squeeze(-1)
        importance = weights.mean(1).gather(1, order.argsort(dim=1))[:, : batch.features[self.stream].shape[1]]
        return ScorePrediction(
            torch.sigmoid(score) if self.bounded else score,
            penalty=self.penalty_weight * overlap,
            importance={self.stream: importance},
        )


class MomentAttention(nn.Module):
    """Fifty attention-weighted means over the segments, the input of the S-LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Sequential(nn.Linear(NARROW, 64, bias=False), nn.Tanh(), nn.Linear(64, MOMENTS, bias=False))
        self.norm = nn.BatchNorm1d(NARROW)

    def forward(self, segments: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``[samples, T, 128]`` to moments ``[samples, 50, 128]``, their overlap, weights ``[samples, 50, T]``."""
        weights = masked_softmax(self.logits(segments).transpose(1, 2), mask.unsqueeze(1))
        moments = self.norm((weights @ segments).transpose(1, 2)).transpose(1, 2)
        surplus = weights @ weights.transpose(1, 2) - torch.eye(MOMENTS, device=weights.device)
        return moments, surplus.square().sum() / len(segments), weights


class Scale(nn.Module):
    """One path of the M-LSTM: a strided convolution, then a skip-LSTM."""

    def __init__(self, hidden_dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(NARROW, hidden_dim, kernel, stride)
        self.norm = MaskedBatchNorm1d(hidden_dim)
        self.lstm = SkipLstm(hidden_dim, hidden_dim)

    def forward(self, segments: Tensor, mask: Tensor) -> Tensor:
        """Map ``[samples, 128, T]`` to ``[samples, hidden]``. Windows that include padding are ignored."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        lengths = mask.sum(1)
        windows = torch.where(lengths > 0, ((lengths - kernel).clamp(min=0) // stride) + 1, 0)
        count = (segments.shape[2] - kernel) // stride + 1
        if count % 2:  # else oneDNN's bfloat16 gradient multiplies zero by uninitialized memory, which may be NaN
            segments = nn.functional.pad(segments, (0, kernel + count * stride - segments.shape[2]))
        values = torch.relu(self.conv(segments))
        inside = torch.arange(values.shape[2], device=mask.device) < windows[:, None]
        values = zero_padding(self.norm(values, inside), inside)
        return self.lstm(values.transpose(1, 2), inside)

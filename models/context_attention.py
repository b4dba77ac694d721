"""ACTION-NET's context-aware attention over any number of streams (Zeng et al., ACM MM 2020).

The published network has two streams, I3D clips and ResNet-50 athlete crops. This one has any number of streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..manifests.streams import Record
from .masking import in_order, masked_softmax, segments_first
from .scoring import ScorePrediction, SegmentBatch

Adjacency = Literal["time", "feature"]
AttentionModule = Literal["caa", "sau", "lstm-sau", "bi-lstm-sau", "rta", "average"]
"""The context-aware attention module, or one of its replacements in Table 3 of the paper"""
RTA_FILTERS = 3
"""Section 5.4: "the number of filters was set to three"."""


class ContextAttentionSettings(Record):
    attention: AttentionModule = "caa"
    """Summary of a stream. ``caa``: the context-aware attention module, graph layers and attention. The others are the
    baselines of Table 3, on the same embedding: ``sau``: the attention unit without context; ``lstm-sau``,
    ``bi-lstm-sau``: the attention unit on the outputs of an LSTM of width ``hidden_dim``, or of two of half the width;
    ``rta``: the mean weights of three attention units (Doughty et al., CVPR 2019); ``average``: the mean over time."""
    adjacency: Adjacency = "time"
    """Edge weights of the graph. ``time``: ``exp(-|i - j|)``, as in the released code. ``feature``: as in the paper,
    A = ``exp(-‖f_i - f_j‖ / K)`` (equation 1), and A + I is normalized (equation 2)."""
    distance_scale: PositiveFloat = 1.0
    """K of equation 1. "In our experiment, K is set to 1." Not used with ``time``."""
    hidden_dim: PositiveInt = 256
    """Width of the embedding and of both graph layers"""
    dropout: NonNegativeFloat = 0.5
    """Dropout before the last layer"""
    feature_dropout: NonNegativeFloat = 0.0
    """Dropout on the input features, for small data sets; not in the paper"""


class ContextAttention(nn.Module):
    """One context-attention unit per stream and a regressor on their concatenated outputs.

    Args:
        dims: Stream name → feature dim.
        settings: Graph, width and dropouts.
    """

    Settings: ClassVar[type[Record]] = ContextAttentionSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: ContextAttentionSettings) -> None:
        super().__init__()
        by_feature = settings.attention == "caa" and settings.adjacency == "feature"
        self.order_invariant = by_feature or settings.attention in ("sau", "rta", "average")
        self.feature_dropout = nn.Dropout(settings.feature_dropout)
        graph = settings.attention == "caa"
        unit = StreamContext if graph else StreamAttention
        self.streams = nn.ModuleDict({name: unit(dim, settings) for name, dim in dims.items()})
        width = (2 if graph else 1) * settings.hidden_dim
        self.head = nn.Sequential(
            nn.Linear(width * len(dims), 128),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(128, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        summaries: list[Tensor] = []
        importance: dict[str, Tensor] = {}
        for name, stream in self.streams.items():
            summary, importance[name] = stream(self.feature_dropout(batch.features[name]), batch.masks[name])
            summaries.append(summary)
        score = torch.sigmoid(self.head(torch.cat(summaries, dim=-1))).squeeze(-1)
        return ScorePrediction(score, importance=importance)


class StreamContext(nn.Module):
    """Graph convolution over the segments of one stream, followed by attention pooling."""

    def __init__(self, dim: int, settings: ContextAttentionSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden_dim = settings.hidden_dim
        self.embedding = embedding(dim, hidden_dim)
        self.graph = nn.ModuleList([nn.Linear(hidden_dim, hidden_dim) for _ in range(2)])
        self.attention = attention_unit(2 * hidden_dim)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[samples, segments, dim]`` to a summary ``[samples, 2·hidden]`` and weights ``[samples, segments]``."""
        embedded = self.embedding(features)
        if self.settings.adjacency == "time":
            adjacency_matrix = time_adjacency(mask)
        else:
            adjacency_matrix = with_self_loops(feature_adjacency(embedded, mask, self.settings.distance_scale), mask)
        adjacency_matrix = normalize_symmetrically(adjacency_matrix).to(embedded.dtype)
        context = embedded
        for layer in self.graph:
            context = torch.relu(layer(adjacency_matrix @ context))
        both = torch.cat([embedded, context], dim=-1)
        weights = masked_softmax(self.attention(both).squeeze(-1), mask)
        return (weights.unsqueeze(1) @ both).squeeze(1), weights


class StreamAttention(nn.Module):
    """A baseline of Table 3 that replaces the context-aware attention module of one stream."""

    def __init__(self, dim: int, settings: ContextAttentionSettings) -> None:
        super().__init__()
        hidden_dim, attention = settings.hidden_dim, settings.attention
        self.embedding = embedding(dim, hidden_dim)
        self.lstm = None
        if attention in ("lstm-sau", "bi-lstm-sau"):
            both = attention == "bi-lstm-sau"
            if both and hidden_dim % 2:
                raise ValueError(f"hidden_dim: {hidden_dim} is odd, but two LSTMs share it; set an even number")
            width = hidden_dim // 2 if both else hidden_dim
            self.lstm = nn.LSTM(hidden_dim, width, batch_first=True, bidirectional=both)
        num_units = {"average": 0, "rta": RTA_FILTERS}.get(attention, 1)
        self.units = nn.ModuleList([attention_unit(hidden_dim) for _ in range(num_units)])

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[samples, segments, dim]`` to a summary ``[samples, hidden]`` and weights ``[samples, segments]``."""
        values = self.embedding(features)
        if self.lstm is not None:
            values = over_segments(self.lstm, values, mask)
        if len(self.units):
            weights = torch.stack([masked_softmax(unit(values).squeeze(-1), mask) for unit in self.units]).mean(0)
        else:
            weights = masked_softmax(torch.zeros_like(values[..., 0]), mask)
        return (weights.unsqueeze(1) @ values).squeeze(1), weights


def embedding(dim: int, hidden_dim: int) -> nn.Sequential:
    """Return the two layers that "first embedded the input features into a low-dimensional space"."""
    narrow = max(1, dim // 2)
    return nn.Sequential(nn.Linear(dim, narrow), nn.ReLU(), nn.Linear(narrow, hidden_dim), nn.ReLU())


def attention_unit(dim: int) -> nn.Sequential:
    """Return the attention unit, "two fully connected layers and corresponding activation function"."""
    return nn.Sequential(nn.Linear(dim, 128), nn.ReLU(), nn.Linear(128, 1))


def over_segments(lstm: nn.LSTM, values: Tensor, mask: Tensor) -> Tensor:
    """Return the outputs of an LSTM over the segments of each sample; zeros in the padding."""
    order, lengths = segments_first(mask), mask.sum(1).clamp(min=1)  # a packed sequence needs at least one step
    packed = pack_padded_sequence(in_order(values, order), lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
    return in_order(outputs, order.argsort(dim=1))


def time_adjacency(mask: Tensor) -> Tensor:
    """Return ``exp(-|i - j|)`` between segments, 0 for padding: ``[samples, segments, segments]``."""
    position = torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)
    adjacency_matrix = torch.exp(-(position[:, None] - position[None, :]).abs())
    return adjacency_matrix * _pairs(mask)


def feature_adjacency(features: Tensor, mask: Tensor, distance_scale: float) -> Tensor:
    """Return ``exp(-‖f_i - f_j‖ / distance_scale)`` between segments (equation 1), 0 for padding."""
    # this mode gives exact zeros on the diagonal
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distance / distance_scale) * _pairs(mask)


def with_self_loops(adjacency_matrix: Tensor, mask: Tensor) -> Tensor:
    """Return ``A + I`` (equation 2) without self-loops of padding."""
    return adjacency_matrix + torch.diag_embed(mask.to(adjacency_matrix.dtype))


def normalize_symmetrically(adjacency_matrix: Tensor) -> Tensor:
    """Return ``D^-½ A D^-½`` with D the row sums of A; rows of padding stay zero."""
    degree = adjacency_matrix.sum(-1)
    scale = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
    return scale.unsqueeze(-1) * adjacency_matrix * scale.unsqueeze(-2)


def _pairs(mask: Tensor) -> Tensor:
    return (mask.unsqueeze(-1) & mask.unsqueeze(-2)).float()

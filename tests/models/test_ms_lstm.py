"""MS-LSTM's attention and penalty as published (Xu et al., TCSVT 2019)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from arabesque.models.ms_lstm import MomentAttention, MsLstm, MsLstmSettings, Scale
from arabesque.models.scoring import SegmentBatch


def test_the_penalty_is_the_distance_of_the_moments_weights_from_orthonormal_rows() -> None:
    """‖A Aᵀ - I‖² of the 50 rows of attention weights A, averaged over the samples."""
    torch.manual_seed(0)
    attention = MomentAttention()
    segments = torch.randn(3, 7, 128)
    mask = torch.arange(7) < torch.tensor([7, 5, 2])[:, None]
    _, penalty, weights = attention(segments, mask)
    expected = 0.0
    for rows in weights.detach().double():
        overlaps = rows @ rows.T
        for i in range(50):
            for j in range(50):
                expected += (overlaps[i, j].item() - float(i == j)) ** 2
    assert penalty.item() == pytest.approx(expected / 3, rel=1e-5)


def test_moments_are_attention_weighted_means() -> None:
    torch.manual_seed(0)
    attention: Any = MomentAttention().eval()
    segments = torch.randn(2, 6, 128)
    mask = torch.ones(2, 6, dtype=torch.bool)
    moments, _, weights = attention(segments, mask)
    hidden, to_rows = attention.logits[0], attention.logits[2]
    logits = torch.tanh(segments @ hidden.weight.T) @ to_rows.weight.T
    torch.testing.assert_close(weights, torch.softmax(logits, dim=1).transpose(1, 2))
    expected = torch.einsum("bkt,btd->bkd", weights, segments)
    torch.testing.assert_close(moments, expected / (1 + attention.norm.eps) ** 0.5, atol=1e-5, rtol=1e-4)


def test_the_penalty_has_the_weight_of_the_settings() -> None:
    torch.manual_seed(0)
    network = MsLstm({"a": 6}, MsLstmSettings(hidden_dim=8, penalty_weight=0.25)).eval()
    batch = SegmentBatch({"a": torch.randn(2, 9, 6)}, {"a": torch.ones(2, 9, dtype=torch.bool)})
    quarter = network(batch).penalty
    network.penalty_weight = 1.0
    torch.testing.assert_close(4 * quarter, network(batch).penalty)
    assert quarter > 0


@pytest.mark.parametrize("num_segments", [128, 130])
def test_convolutions_have_an_even_number_of_windows(num_segments: int) -> None:
    """With an odd one, a gradient of oneDNN in bfloat16 is NaN now and then (oneDNN 3.13.3, AMX). States are equal."""
    torch.manual_seed(0)
    scale = Scale(hidden_dim=6, kernel=8, stride=4).eval()
    counts: list[int] = []
    scale.conv.register_forward_hook(lambda module, given, windows: counts.append(windows.shape[2]))
    segments, mask = torch.randn(2, 128, num_segments), torch.ones(2, num_segments, dtype=torch.bool)
    states = scale(segments, mask)
    windows = (num_segments - 8) // 4 + 1
    values = torch.relu(nn.functional.conv1d(segments, scale.conv.weight, scale.conv.bias, stride=4))
    inside = torch.ones(2, windows, dtype=torch.bool)
    torch.testing.assert_close(states, scale.lstm(scale.norm(values, inside).transpose(1, 2), inside))
    assert windows % 2
    assert counts == [windows + 1]

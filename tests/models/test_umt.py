"""UMT's exchange through bottleneck tokens (Liu et al., CVPR 2022), written out head by head."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arabesque.models.scoring import SegmentBatch
from arabesque.models.umt import Exchange, Umt, UmtSettings, sinusoids


def attention(layer: nn.MultiheadAttention, queries: Tensor, keys: Tensor) -> Tensor:
    """Multi-head attention of one sample: softmax(q kᵀ / √(dim of a head)) v in each head."""
    assert layer.in_proj_weight is not None
    weight_q, weight_k, weight_v = layer.in_proj_weight.chunk(3)
    bias_q, bias_k, bias_v = layer.in_proj_bias.chunk(3)
    q, k, v = queries @ weight_q.T + bias_q, keys @ weight_k.T + bias_k, keys @ weight_v.T + bias_v
    width = q.shape[1] // layer.num_heads
    parts: list[Tensor] = []
    for head in range(layer.num_heads):
        at = slice(head * width, (head + 1) * width)
        parts.append(torch.softmax(q[:, at] @ k[:, at].T / math.sqrt(width), dim=1) @ v[:, at])
    return torch.cat(parts, dim=1) @ layer.out_proj.weight.T + layer.out_proj.bias


def normed(values: Tensor, layer: nn.LayerNorm) -> Tensor:
    centered = values - values.mean(-1, keepdim=True)
    return centered / (values.var(-1, correction=0, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def exchanged(layer: Exchange, queries: Tensor, keys: Tensor) -> Tensor:
    return normed(queries + attention(layer.attention, queries, keys), layer.norm)


def test_positions_are_sines_at_even_and_cosines_at_odd_indices() -> None:
    found = sinusoids(5, 6)
    for place in range(5):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            assert found[place, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_streams_exchange_information_through_the_tokens_alone() -> None:
    """Tokens gather from each stream and are summed; each stream attends to the tokens; queries decode both."""
    torch.manual_seed(0)
    network: Any = Umt({"a": 5, "b": 3}, UmtSettings(hidden_dim=8, num_heads=2, num_tokens=3, num_queries=2)).eval()
    for parameter in network.parameters():  # queries begin at zero, and normalizations without a scale
        nn.init.normal_(parameter, std=0.5)
    features = {"a": torch.randn(1, 4, 5), "b": torch.randn(1, 6, 3)}
    encoded: dict[str, Tensor] = {}
    for stream, values in features.items():
        linear, encoder = network.embedding[stream][1], network.encoders[stream]
        start = values[0] @ linear.weight.T + linear.bias + sinusoids(values.shape[1], 8)
        middle = normed(start + attention(encoder.self_attn, start, start), encoder.norm1)
        widened = torch.relu(middle @ encoder.linear1.weight.T + encoder.linear1.bias)
        encoded[stream] = normed(middle + widened @ encoder.linear2.weight.T + encoder.linear2.bias, encoder.norm2)
    tokens = network.tokens + sum(exchanged(network.gather[s], network.tokens, v) for s, v in encoded.items())
    memory = torch.cat([normed(exchanged(network.spread[s], v, tokens), network.norm) for s, v in encoded.items()])
    layer = network.decoder.layers[0]
    found = normed(network.queries + attention(layer.self_attn, network.queries, network.queries), layer.norm1)
    found = normed(found + attention(layer.multihead_attn, found, memory), layer.norm2)
    widened = torch.relu(found @ layer.linear1.weight.T + layer.linear1.bias)
    found = normed(found + widened @ layer.linear2.weight.T + layer.linear2.bias, layer.norm3)
    last = network.head[1]
    expected = torch.sigmoid(last.weight @ found.mean(0) + last.bias)
    masks = {stream: torch.ones(values.shape[:2], dtype=torch.bool) for stream, values in features.items()}
    torch.testing.assert_close(network(SegmentBatch(features, masks)).score, expected, atol=1e-5, rtol=1e-4)

"""Joint-VA's formulas (Badamdorj et al., ICCV 2021), written out without the network's own operations."""

from __future__ import annotations

import math
from typing import Any

import torch

from arabesque.models.joint_va import JointVa, JointVaSettings, SentinelAttention
from arabesque.models.scoring import SegmentBatch


def attended(layer: SentinelAttention, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """One query at a time: softmax of (q·k / √d) over all keys and the sentinel, whose value is zero."""
    dim = queries.shape[-1]
    rows: list[torch.Tensor] = []
    for query in queries:
        asked = layer.to_query.weight @ query + layer.to_query.bias
        scores = [asked @ (layer.to_key.weight @ key + layer.to_key.bias) / math.sqrt(dim) for key in keys]
        scores.append(asked @ layer.sentinel / math.sqrt(dim))
        weights = torch.softmax(torch.stack(scores), 0)
        values = [layer.to_value.weight @ key + layer.to_value.bias for key in keys]
        rows.append(sum((w * v for w, v in zip(weights, values, strict=False)), torch.zeros(dim)))
    return torch.stack(rows)


def test_attention_is_scaled_by_the_root_of_the_dim_and_has_a_sentinel() -> None:
    torch.manual_seed(0)
    layer = SentinelAttention(8)
    queries, keys = 3 * torch.randn(4, 8), 3 * torch.randn(6, 8)
    mask = torch.tensor([[True] * 5 + [False]])
    found = layer(queries[None], keys[None], mask)[0]
    torch.testing.assert_close(found, attended(layer, queries, keys[:5]), atol=1e-5, rtol=1e-4)


def test_each_stream_adds_its_attention_to_all_streams_and_is_averaged_over_time() -> None:
    torch.manual_seed(0)
    network: Any = JointVa({"a": 5, "b": 3}, JointVaSettings(hidden_dim=8)).eval()
    features = {"a": torch.randn(1, 4, 5), "b": torch.randn(1, 6, 3)}
    embedded = {
        stream: torch.relu(values[0] @ network.embedding[stream][0].weight.T + network.embedding[stream][0].bias)
        for stream, values in features.items()
    }
    summaries: list[torch.Tensor] = []
    for stream, values in embedded.items():
        total = values
        for other, keys in embedded.items():
            total = total + attended(network.attention[f"{stream}-{other}"], values, keys)
        centered = total - total.mean(-1, keepdim=True)
        normed = centered / (total.var(-1, correction=0, keepdim=True) + network.norm[stream].eps).sqrt()
        summaries.append(normed.mean(0))
    first, second = network.head[0], network.head[3]
    hidden = torch.relu(first.weight @ torch.cat(summaries) + first.bias)
    expected = torch.sigmoid(second.weight @ hidden + second.bias)
    masks = {stream: torch.ones(values.shape[:2], dtype=torch.bool) for stream, values in features.items()}
    torch.testing.assert_close(network(SegmentBatch(features, masks)).score, expected, atol=1e-5, rtol=1e-4)

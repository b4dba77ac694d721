from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from arabesque.models.context_attention import (
    Adjacency,
    AttentionModule,
    ContextAttention,
    ContextAttentionSettings,
    feature_adjacency,
    normalize_symmetrically,
    time_adjacency,
    with_self_loops,
)
from arabesque.models.scoring import SegmentBatch

RandomBatch = Callable[..., SegmentBatch]


@pytest.mark.parametrize("adjacency", ["time", "feature"])
def test_padding_changes_nothing(random_batch: RandomBatch, adjacency: Adjacency) -> None:
    torch.manual_seed(0)
    network: Any = ContextAttention(
        {"a": 8, "b": 5}, ContextAttentionSettings(adjacency=adjacency, hidden_dim=16)
    ).eval()
    batch = random_batch({"a": 8, "b": 5}, {"a": [9, 4], "b": [6, 6]})
    alone = SegmentBatch(
        {"a": batch.features["a"][1:, :4], "b": batch.features["b"][1:]},
        {"a": batch.masks["a"][1:, :4], "b": batch.masks["b"][1:]},
    )
    torch.testing.assert_close(network(batch).score[1:], network(alone).score)


def test_adjacency_as_the_released_code_computes_it() -> None:
    """The first diagonal entries for 26 segments in the released checkpoint."""
    adjacency_matrix = normalize_symmetrically(time_adjacency(torch.ones(1, 26, dtype=torch.bool)))[0]
    assert adjacency_matrix.diagonal()[0].item() == pytest.approx(0.6321, abs=1e-4)
    assert adjacency_matrix[0, 1:3].tolist() == pytest.approx([0.2095, 0.0745], abs=1e-4)


def test_importance_sums_to_one_over_segments(random_batch: RandomBatch) -> None:
    network: Any = ContextAttention({"a": 8}, ContextAttentionSettings(hidden_dim=16)).eval()
    prediction = network(random_batch({"a": 8}, {"a": [9, 4]}))
    weights = prediction.importance["a"]
    np.testing.assert_allclose(weights.sum(1).detach(), 1, atol=1e-6)
    assert not weights[1, 4:].any()


def test_a_sample_without_a_stream_has_a_score_and_gradients(random_batch: RandomBatch) -> None:
    for adjacency in ("time", "feature"):
        network: Any = ContextAttention({"a": 8, "b": 5}, ContextAttentionSettings(adjacency=adjacency, hidden_dim=16))
        score = network(random_batch({"a": 8, "b": 5}, {"a": [3, 4], "b": [0, 6]})).score
        score.sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_neighbors_exchange_context(random_batch: RandomBatch) -> None:
    """The graph by time depends on the order, the graph by features does not."""
    batch = random_batch({"a": 8}, {"a": [9]})
    turned = SegmentBatch({"a": batch.features["a"][:, torch.randperm(9)]}, batch.masks)
    by_time = ContextAttention({"a": 8}, ContextAttentionSettings(adjacency="time", hidden_dim=16)).eval()
    by_feature = ContextAttention({"a": 8}, ContextAttentionSettings(adjacency="feature", hidden_dim=16)).eval()
    assert not torch.allclose(by_time(batch).score, by_time(turned).score, atol=1e-6)
    torch.testing.assert_close(by_feature(batch).score, by_feature(turned).score)


def test_equation_1_scales_the_distance_by_k_alone() -> None:
    """K = 1 in the paper: unrelated embeddings of width 256 have distances of about 20 and are not adjacent."""
    features = torch.randn(1, 6, 256, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5 + [False]])
    found = feature_adjacency(features, mask, 1.0)[0]
    for i in range(5):
        for j in range(5):
            expected = torch.exp(-(features[0, i] - features[0, j]).norm()).item()
            assert found[i, j].item() == pytest.approx(expected, rel=1e-4)
    assert not found[5].any()
    assert not found[:, 5].any()
    torch.testing.assert_close(found[:5, :5], torch.eye(5), atol=1e-6, rtol=0)
    half = feature_adjacency(features, mask, 2.0)[0]
    torch.testing.assert_close(half[:5, :5].log(), found[:5, :5].log() / 2)


def test_equation_2_adds_the_identity_before_normalization() -> None:
    features = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 4, dtype=torch.bool)
    adjacency = torch.exp(-torch.cdist(features, features))[0].double()
    loops = adjacency + torch.eye(4)
    degree = torch.diag(loops.sum(1) ** -0.5)
    found = normalize_symmetrically(with_self_loops(feature_adjacency(features, mask, 1.0), mask))[0]
    torch.testing.assert_close(found.double(), degree @ loops @ degree, atol=1e-6, rtol=1e-5)


def test_the_module_by_equations_1_to_6() -> None:
    """Distances, self-loops, two graph layers, concatenation, attention and regression, segment by segment."""
    torch.manual_seed(0)
    network: Any = ContextAttention(
        {"a": 8, "b": 5}, ContextAttentionSettings(adjacency="feature", hidden_dim=4)
    ).eval()
    features = {"a": torch.randn(1, 6, 8), "b": torch.randn(1, 4, 5)}
    summaries: list[torch.Tensor] = []
    for name, stream in network.streams.items():
        first, second = stream.embedding[0], stream.embedding[2]
        instance = torch.relu(first(features[name][0]))
        instance = torch.relu(second(instance))
        count = len(instance)
        adjacency = torch.stack(
            [torch.stack([torch.exp(-(instance[i] - instance[j]).norm()) for j in range(count)]) for i in range(count)]
        )
        loops = adjacency + torch.eye(count)
        degrees = loops.sum(1)
        normalized = loops / (degrees[:, None] * degrees[None, :]).sqrt()
        context = instance
        for layer in stream.graph:
            context = torch.relu(normalized @ context @ layer.weight.T + layer.bias)
        fused = torch.cat([instance, context], dim=1)
        weights = torch.softmax(stream.attention(fused)[:, 0], dim=0)
        summaries.append((weights[:, None] * fused).sum(0))
    expected = torch.sigmoid(network.head(torch.cat(summaries)))
    masks = {name: torch.ones(values.shape[:2], dtype=torch.bool) for name, values in features.items()}
    torch.testing.assert_close(network(SegmentBatch(features, masks)).score, expected)


@pytest.mark.parametrize("attention", ["average", "sau", "lstm-sau", "bi-lstm-sau", "rta"])
def test_the_baselines_of_table_3_by_their_descriptions(attention: AttentionModule) -> None:
    """Section 5.4: mean, attention unit, attention unit on LSTM outputs, and the mean of three units' weights."""
    torch.manual_seed(0)
    network: Any = ContextAttention({"a": 8}, ContextAttentionSettings(attention=attention, hidden_dim=4)).eval()
    features = torch.randn(1, 6, 8)
    stream = network.streams["a"]
    values = stream.embedding(features)[0]
    assert sum(p.numel() for p in stream.embedding.parameters()) == 8 * 4 + 4 + 4 * 4 + 4
    if "lstm" in attention:
        lstm = stream.lstm
        assert (lstm.hidden_size, lstm.bidirectional) == ((2, True) if attention == "bi-lstm-sau" else (4, False))
        values = lstm(values[None])[0][0]
    units = [unit(values)[:, 0] for unit in stream.units]
    assert len(units) == {"average": 0, "rta": 3}.get(attention, 1)
    each = [torch.softmax(logits, 0) for logits in units] or [torch.full((6,), 1 / 6)]
    weights = torch.stack(each).mean(0)
    summary = (weights[:, None] * values).sum(0)
    prediction = network(SegmentBatch({"a": features}, {"a": torch.ones(1, 6, dtype=torch.bool)}))
    torch.testing.assert_close(prediction.importance["a"][0], weights)
    torch.testing.assert_close(prediction.score, torch.sigmoid(network.head(summary)))

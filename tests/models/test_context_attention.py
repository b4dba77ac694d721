from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from arabesque.models.context_attention import Adjacency, ContextAttention, normalise_symmetrically, time_nearness
from arabesque.models.scoring import SegmentBatch

RandomBatch = Callable[..., SegmentBatch]


@pytest.mark.parametrize("adjacency", ["time", "feature"])
def test_padding_changes_nothing(random_batch: RandomBatch, adjacency: Adjacency) -> None:
    torch.manual_seed(0)
    network = ContextAttention({"a": 8, "b": 5}, adjacency=adjacency, hidden_dim=16).eval()
    batch = random_batch({"a": 8, "b": 5}, {"a": [9, 4], "b": [6, 6]})
    alone = SegmentBatch(
        {"a": batch.features["a"][1:, :4], "b": batch.features["b"][1:]},
        {"a": batch.masks["a"][1:, :4], "b": batch.masks["b"][1:]},
    )
    torch.testing.assert_close(network(batch).score[1:], network(alone).score)


def test_adjacency_as_the_released_code_computes_it() -> None:
    """The first entries of the diagonal for 26 segments, as read off the released checkpoint."""
    nearness = normalise_symmetrically(time_nearness(torch.ones(1, 26, dtype=torch.bool)))[0]
    assert nearness.diagonal()[0].item() == pytest.approx(0.6321, abs=1e-4)
    assert nearness[0, 1:3].tolist() == pytest.approx([0.2095, 0.0745], abs=1e-4)


def test_importance_sums_to_one_over_segments(random_batch: RandomBatch) -> None:
    network = ContextAttention({"a": 8}, hidden_dim=16).eval()
    judgement = network(random_batch({"a": 8}, {"a": [9, 4]}))
    weights = judgement.importance["a"]
    np.testing.assert_allclose(weights.sum(1).detach(), 1, atol=1e-6)
    assert not weights[1, 4:].any()


def test_a_routine_without_a_stream_has_a_score_and_gradients(random_batch: RandomBatch) -> None:
    for adjacency in ("time", "feature"):
        network = ContextAttention({"a": 8, "b": 5}, adjacency=adjacency, hidden_dim=16)
        score = network(random_batch({"a": 8, "b": 5}, {"a": [3, 4], "b": [0, 6]})).score
        score.sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_neighbours_exchange_context(random_batch: RandomBatch) -> None:
    """Order matters to the graph by time, and not to the one by features."""
    batch = random_batch({"a": 8}, {"a": [9]})
    turned = SegmentBatch({"a": batch.features["a"][:, torch.randperm(9)]}, batch.masks)
    by_time = ContextAttention({"a": 8}, adjacency="time", hidden_dim=16).eval()
    by_feature = ContextAttention({"a": 8}, adjacency="feature", hidden_dim=16).eval()
    assert not torch.allclose(by_time(batch).score, by_time(turned).score, atol=1e-6)
    torch.testing.assert_close(by_feature(batch).score, by_feature(turned).score)

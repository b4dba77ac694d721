"""Late fusion as described in section IV-F1 of PAMFN."""

from __future__ import annotations

import pytest
import torch

from arabesque.models.late_fusion import Combination, LateFusion, LateFusionSettings
from arabesque.models.scoring import SegmentBatch

DIMS = {"a": 6, "b": 5, "c": 4}
COMBINATIONS: tuple[Combination, ...] = ("average", "concatenation", "weighted", "attention")
FEATURES = torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(0))
ALL = torch.ones(2, 3, dtype=torch.bool)


def build(combination: Combination) -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(DIMS, LateFusionSettings(combination=combination)).eval()


def test_average_is_the_mean_of_the_features() -> None:
    torch.testing.assert_close(build("average").fuse(FEATURES, ALL), FEATURES.mean(1))


def test_average_is_over_the_streams_that_a_video_has() -> None:
    present = torch.tensor([[True, False, True], [True, True, True]])
    found = build("average").fuse(FEATURES, present)
    torch.testing.assert_close(found[0], (FEATURES[0, 0] + FEATURES[0, 2]) / 2)
    torch.testing.assert_close(found[1], FEATURES[1].mean(0))


def test_concatenation_reduces_the_features_side_by_side() -> None:
    network = build("concatenation")
    joined = torch.cat([FEATURES[:, 0], FEATURES[:, 1], FEATURES[:, 2]], dim=1)
    expected = joined @ network.reduce.weight.T + network.reduce.bias
    torch.testing.assert_close(network.fuse(FEATURES, ALL), expected)


def test_weighted_uses_one_softmax_of_learnable_weights_for_all_videos() -> None:
    network = build("weighted")
    with torch.no_grad():
        network.weights.copy_(torch.tensor([1.0, 0.0, -2.0]))
    weights = torch.softmax(torch.tensor([1.0, 0.0, -2.0]), 0)
    torch.testing.assert_close(network.fuse(FEATURES, ALL), torch.einsum("m,vmd->vd", weights, FEATURES))


def test_attention_computes_its_weights_from_all_features_of_the_video() -> None:
    network = build("attention")
    weights = torch.softmax(FEATURES.flatten(1) @ network.attention.weight.T + network.attention.bias, dim=1)
    torch.testing.assert_close(network.fuse(FEATURES, ALL), torch.einsum("vm,vmd->vd", weights, FEATURES))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_regressor_has_two_layers_on_the_fused_feature(combination: Combination) -> None:
    network = build(combination)
    first, second = (layer for layer in network.head if isinstance(layer, torch.nn.Linear))
    assert (first.in_features, second.out_features) == (256, 1)
    batch = SegmentBatch(
        {stream: torch.randn(2, 8, dim) for stream, dim in DIMS.items()},
        {stream: torch.ones(2, 8, dtype=torch.bool) for stream in DIMS},
    )
    features = torch.stack(
        [network.branches[name](batch.features[name], batch.masks[name])[1].features[3].squeeze(-1) for name in DIMS], 1
    )
    hidden = torch.relu(first(network.fuse(features, ALL)))
    torch.testing.assert_close(network(batch).score, torch.sigmoid(second(hidden)).squeeze(-1))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_missing_stream_has_no_weight(combination: Combination) -> None:
    network = build(combination)
    present = torch.tensor([[True, False, True], [True, True, True]])
    changed = FEATURES.clone()
    changed[0, 1] = 100.0
    torch.testing.assert_close(network.fuse(changed, present), network.fuse(FEATURES, present))


@pytest.mark.parametrize("combination", ["weighted", "attention"])
def test_the_weights_of_the_streams_that_a_video_has_sum_to_one(combination: Combination) -> None:
    network = build(combination)
    present = torch.tensor([[True, False, True], [True, True, True]])
    same = torch.ones(2, 3, 256)
    torch.testing.assert_close(network.fuse(same, present), torch.ones(2, 256))

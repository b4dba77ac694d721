"""MSAF's split attention (Su et al., 2020), written out block by block."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arabesque.models.msaf import Msaf, MsafSettings, SplitAttention


def test_split_attention_by_its_formula() -> None:
    """Sum the blocks, pool over time, sum the streams, reduce, and softmax over all blocks of all streams."""
    torch.manual_seed(0)
    blocks, lowest = 4, 0.1
    fusion: Any = SplitAttention(2, MsafSettings(num_blocks=blocks, lowest_attention=lowest)).eval()
    values = [torch.randn(3, 256, 5), torch.randn(3, 256, 7)]
    masks = [torch.ones(3, 5, dtype=torch.bool), torch.ones(3, 7, dtype=torch.bool)]
    masks[1][2, 4:] = False
    found = fusion(values, masks)
    for video in range(3):
        split = [each[video].reshape(blocks, 64, -1) for each in values]
        descriptor = sum(each.sum(0)[:, mask[video]].mean(-1) for each, mask in zip(split, masks, strict=True))
        reduce, norm = fusion.joint[0], fusion.joint[1]
        joint = torch.relu((reduce.weight @ descriptor + reduce.bias) / (1 + norm.eps) ** 0.5)
        logits = torch.stack([layer.weight @ joint + layer.bias for layer in fusion.to_weights])
        weights = torch.softmax(logits, dim=0)
        torch.testing.assert_close(weights.sum(0), torch.ones(64))
        for stream in range(2):
            for block in range(blocks):
                weight = lowest + (1 - lowest) * weights[stream * blocks + block]
                expected = split[stream][block] * weight[:, None]
                torch.testing.assert_close(found[stream][video, 64 * block : 64 * block + 64], expected)


def test_the_bottleneck_has_the_published_reduction() -> None:
    """A quarter of a block's channels, at least eight."""
    assert [SplitAttention(2, MsafSettings(num_blocks=blocks)).joint[0].out_features for blocks in (4, 8, 16)] == [
        16,
        8,
        8,
    ]


@pytest.mark.parametrize("streams", [2, 3])
def test_the_network_fuses_after_each_of_two_stages(streams: int) -> None:
    dims = dict(list({"a": 6, "b": 5, "c": 4}.items())[:streams])
    network = Msaf(dims, MsafSettings())
    assert len(network.stages) == len(network.fusions) == 2
    assert network.head[0].in_features == 256 * streams
    assert all(len(fusion.to_weights) == 8 * streams for fusion in network.fusions)

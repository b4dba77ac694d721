from __future__ import annotations

import torch

from arabesque.models.scoring import SegmentBatch
from arabesque.models.stream_subsets import drop_streams, subsets


def test_seven_subsets_of_three_streams() -> None:
    found = list(subsets(("vst", "flow", "ast")))
    assert len(found) == len(set(found)) == 7
    assert found[0] == ("vst",)
    assert found[-1] == ("vst", "flow", "ast")


def test_streams_are_dropped_at_the_given_rate_but_never_all() -> None:
    mask = torch.ones(3000, 2, dtype=torch.bool)
    masks = {"a": mask, "b": mask.clone(), "c": mask.clone()}
    masks["c"][:1000] = False  # videos that lack the stream
    masks["a"][0] = masks["b"][0] = False  # a video without any stream
    batch = SegmentBatch({name: each[..., None].float() for name, each in masks.items()}, masks)
    dropped = drop_streams(batch, 0.5, torch.Generator().manual_seed(0))
    kept = torch.stack([each.any(1) for each in dropped.masks.values()])
    assert kept[:, 1:].any(0).all()
    assert not kept[:, 0].any()
    assert not kept[2, :1000].any()
    # each of three with 1/2, or the only survivor of 1/8 of the videos, which is each stream equally often
    assert abs(float(kept[:, 1000:].float().mean()) - (0.5 + 1 / 24)) < 0.02
    for name, values in dropped.features.items():
        assert torch.equal(values[..., 0] > 0, dropped.masks[name])
    assert torch.equal(drop_streams(batch, 0.0, torch.Generator()).features["a"], batch.features["a"])

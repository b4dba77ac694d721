"""Optical flow as a stored stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.table import build, resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.streams import Sampling, StreamSpec


def sliding(num_frames: int, right_px: int, down_px: int) -> Tensor:
    """``uint8 [time, 1, 128, 160]``: a smooth texture that moves by this many pixels a frame."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 1, 30, 40), np.float32))
    texture = (torch.nn.functional.interpolate(coarse, (300, 400), mode="bicubic")[0, 0].clamp(0, 1) * 255).byte()
    starts = [(60 - down_px * index, 80 - right_px * index) for index in range(num_frames)]
    return torch.stack([texture[top : top + 128, left : left + 160] for top, left in starts])[:, None]


def rows(frames: Tensor, **settings: object) -> Tensor:
    sampling = Sampling(fps="native", frames_per_segment=1, frames_per_step=1, remainder="drop-tail")
    spec = resolve(StreamSpec(extractor="optical_flow", sampling=sampling, settings=dict(settings)))
    stream = build(spec, {}, torch.device("cpu"))
    [row] = stream.forward([stream.prepare(SegmentInput(0, 0.0, 1.0, frames=frames, has_next_frame=True))])
    assert row is not None
    assert len(row) == stream.dim
    return row


@pytest.mark.parametrize("method", ["dis", "tvl1"])
def test_a_row_is_the_field_of_displacements_in_pixels(method: str) -> None:
    row = rows(sliding(2, 3, -2), grid=[4, 5], flow={"method": method})
    right, down = row.reshape(2, 4, 5)[:, 1:3, 1:4]
    assert (right - 3).abs().max() < 0.5
    assert (down + 2).abs().max() < 0.5
    assert torch.equal(row, row.half().float())


def test_a_segment_is_the_mean_over_its_frames_and_a_last_frame_alone_is_still() -> None:
    assert torch.equal(rows(sliding(1, 0, 0), grid=[2, 2]), torch.zeros(8))
    frames = sliding(3, 2, 0)
    pairs = [rows(frames[index : index + 2], grid=[2, 2]) for index in range(2)]
    torch.testing.assert_close(rows(frames, grid=[2, 2]), (pairs[0] + pairs[1]) / 2, rtol=0, atol=2e-3)


def test_frames_must_suit_the_method() -> None:
    with pytest.raises(ConfigError, match="raft is computed on color frames; set gray = false"):
        rows(sliding(2, 1, 0), flow={"method": "raft"}, geometry={"steps": [], "gray": True})

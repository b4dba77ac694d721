"""Run by test_tvl1.py with TRITON_INTERPRET=1: the CUDA kernels, in Python, against the plain operations."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from recorded_graphs import RecordedKernel, put_graphs

from arabesque.extractors.optical_flow import tvl1_triton
from arabesque.extractors.optical_flow.tvl1 import tvl1
from arabesque.extractors.optical_flow.tvl1_settings import TVL1

if __name__ == "__main__":
    torch.set_num_threads(1)
    case = json.loads(sys.argv[1])
    # several small strips on a small frame, and a median's rounds that are not a multiple of the iterations of a launch
    tvl1_triton.STRIP_COLUMNS, tvl1_triton.STRIP_ROWS, tvl1_triton.ITERATIONS = 16, 8, 3
    y, x = torch.meshgrid(torch.arange(float(case["height"])), torch.arange(float(case["width"])), indexing="ij")
    frames = torch.stack(
        [128 + 60 * torch.sin((x + shift) / 3) + 50 * torch.cos((y - shift) / 4) for shift in (0, 1, 0)]
    )
    settings = TVL1(**case["settings"])
    plain = tvl1(frames.byte(), settings.model_copy(update={"kernel": "torch"}))
    # two clips, of which the second is divided between two batches
    tvl1_triton.BYTES_AT_ONCE = 3 * tvl1_triton.BYTES_OF_PIXEL * case["height"] * case["width"]
    graphs = put_graphs(pytest.MonkeyPatch())
    for name in ("begin_round", "filter_median", "iterate", "judge", "linearize"):
        setattr(tvl1_triton, name, RecordedKernel(getattr(tvl1_triton, name)))
    clips = [frames.byte(), frames.byte().flip(0)]
    first, second = tvl1_triton.flows_of_clips(clips, settings, replays=case["replays"])
    reverse = tvl1(frames.byte().flip(0), settings.model_copy(update={"kernel": "torch"}))
    difference = max((first - plain).abs().max().item(), (second - reverse).abs().max().item())
    print(json.dumps({"difference": difference, "motion": plain.abs().mean().item(), "graphs": len(graphs)}))

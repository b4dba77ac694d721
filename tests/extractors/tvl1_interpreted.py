"""Run by test_tvl1.py with TRITON_INTERPRET=1: the CUDA kernels, in Python, against the plain operations."""

from __future__ import annotations

import json
import sys

import torch

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
    flow = tvl1_triton.flow_of_pairs(frames.byte(), settings)
    print(json.dumps({"difference": (flow - plain).abs().max().item(), "motion": plain.abs().mean().item()}))

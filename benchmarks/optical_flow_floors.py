"""Flow on a GPU as a share of the limits set by memory bandwidth and arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from arabesque.extractors.optical_flow.raft import Raft
from arabesque.extractors.optical_flow.tvl1_pyramid import level_sizes
from arabesque.extractors.optical_flow.tvl1_settings import TVL1

READS = {"u": 2, "p": 4, "gradient of the warped image": 2, "its square": 1, "constant part of the residual": 1}
WRITES = {"u": 2, "p": 4}
BYTES_PER_PIXEL_ITERATION = 4 * (sum(READS.values()) + sum(WRITES.values()))
"""64: TV-L1's float32 numbers, each read and written once per iteration; several iterations per pass need fewer."""
BYTES_BLOCKED = 18
"""Bytes per pixel and iteration with four or five iterations blocked in each tile of 64 × 64 px."""
FLOPS_PER_PIXEL_ITERATION = 1.85e9 / 30e6
"""62: residual and threshold 14, both components' update and divergence 16, gradients, norms and dual step 32."""


def measured_ceilings() -> dict[str, float]:
    """Measure the rates of this GPU: a large copy (read and write), and a large float32 matrix product."""
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty(2**29, device="cuda")
    target = torch.empty_like(source)
    square = torch.randn(8192, 8192, device="cuda")
    copy_s = _best_s(lambda: target.copy_(source))
    product_s = _best_s(lambda: square @ square)
    return {
        "bytes_per_s": 2 * 4 * source.numel() / copy_s,
        "flops_per_s": 2 * square.shape[0] ** 3 / product_s,
    }


def tvl1_floors(flow: Callable[[Tensor], Tensor], settings: TVL1, frames: Tensor) -> dict[str, float]:
    """Return the shares for TV-L1. ``flow`` must have ``epsilon = 0``, so that the number of iterations is known."""
    height, width = frames.shape[-2:]
    pixels = sum(rows * columns for rows, columns in level_sizes((height, width), settings.scales))
    iterations = settings.warps * settings.outer_iterations * settings.inner_iterations
    pixel_iterations_per_s = (len(frames) - 1) * pixels * iterations / _best_s(lambda: flow(frames))
    ceilings = measured_ceilings()
    return ceilings | {
        "pixel_iterations_per_s": pixel_iterations_per_s,
        "share_of_one_pass_an_iteration": pixel_iterations_per_s * BYTES_PER_PIXEL_ITERATION / ceilings["bytes_per_s"],
        "share_of_memory_blocked": pixel_iterations_per_s * BYTES_BLOCKED / ceilings["bytes_per_s"],
        "share_of_arithmetic": pixel_iterations_per_s * FLOPS_PER_PIXEL_ITERATION / ceilings["flops_per_s"],
    }


def raft_floors(flow: Callable[[Tensor], Tensor], settings: Raft, frames: Tensor) -> dict[str, Any]:
    """Return the shares for RAFT, from convolutions and matrix products only; a multiply-add is two operations."""
    with FlopCounterMode(display=False) as counter:
        flow(frames)
    flops_per_s = counter.get_total_flops() / _best_s(lambda: flow(frames))
    ceilings = measured_ceilings()
    return ceilings | {
        "model": settings.model,
        "gflop_per_pair": counter.get_total_flops() / (len(frames) - 1) / 1e9,
        "share_of_arithmetic": flops_per_s / ceilings["flops_per_s"],
    }


def _best_s(run: Callable[[], Any], repeats: int = 5) -> float:
    run()
    torch.cuda.synchronize()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best

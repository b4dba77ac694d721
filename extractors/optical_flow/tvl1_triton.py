"""TV-L1 on CUDA: the buffers, and the order of launches. Written without a GPU: the kernels compile for sm_90 and agree
with the plain operations in Triton's interpreter; no card has run them.

Nothing waits for the device after every iteration. Pairs that are done cost a launch that returns at once; the host
looks once per round of inner iterations, a round late, whether any pair goes on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .tvl1_pyramid import coarse_to_fine, with_gradients
from .tvl1_settings import ARITHMETIC, TVL1, Arithmetic
from .tvl1_triton_kernels import filter_median, iterate, judge, linearize

PAIRS_AT_ONCE = 256
"""About 6.5 MB each at 256 × 341."""
STRIP_COLUMNS, STRIP_ROWS, ITERATIONS = 64, 64, 5
PIXELS = 256
"""Of a program that works pixel by pixel."""
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}


def flow_of_pairs(gray: Tensor, settings: TVL1) -> Tensor:
    """``uint8 [time, h, w]`` to ``float32 [time - 1, 2, h, w]``."""
    pairs = range(0, len(gray) - 1, PAIRS_AT_ONCE)
    with torch.cuda.device_of(gray):  # Triton launches on the current one
        return torch.cat([_flow_of_batch(gray[first : first + PAIRS_AT_ONCE + 1], settings) for first in pairs])


def _flow_of_batch(gray: Tensor, settings: TVL1) -> Tensor:
    arithmetic = ARITHMETIC[settings.variant]

    def solve(images: Tensor, flow: Tensor) -> Tensor:
        return _Level(images, flow, settings, arithmetic).solve()

    return coarse_to_fine(gray, settings.scales, arithmetic.pixel_centers, solve)


class _Level:
    """The buffers of one level, and the order of launches."""

    def __init__(self, images: Tensor, flow: Tensor, settings: TVL1, arithmetic: Arithmetic) -> None:
        pairs, _, height, width = flow.shape
        self.shape, self.settings, self.arithmetic = (pairs, height, width), settings, arithmetic
        self.images, self.following = images.contiguous(), with_gradients(images[1:]).contiguous()
        self.state = flow.new_zeros((2, pairs, 6, height, width))
        """Twice: the flow along x and y, and of each the dual variable along x and y."""
        self.state[0, :, :2] = flow
        self.data = flow.new_empty((pairs, 3, height, width))
        """The data term's constant and its gradient."""
        self.limit = settings.epsilon**2 * height * width
        self.strips_across = math.ceil(width / (STRIP_COLUMNS - 2 * ITERATIONS))
        self.strips = self.strips_across * math.ceil(height / STRIP_ROWS)
        self.errors = flow.new_empty((pairs, ITERATIONS, self.strips))
        self.bound = flow.new_zeros(pairs)
        per_pair = torch.zeros((5, pairs), dtype=torch.int32, device=flow.device)
        self.side, self.steps, self.left, self.iteration, self.done = per_pair
        """Which of the two states is current; how many iterations the next launch runs; how many the round has left;
        how many the warp has had; whether it is done."""

    def solve(self) -> Tensor:
        """``[pair, 2, h, w]``"""
        warping: dict[str, Any] = {
            "PIXELS": PIXELS,
            "CUBIC": self.arithmetic.cubic,
            "REPLICATE": self.arithmetic.border == "replicate",
            "PER_PX": self.arithmetic.positions_per_px,
        }
        for _ in range(self.settings.warps):
            tensors = (self.images, self.following, self.data, self.state, self.side)
            linearize[self._pixels()](*tensors, *self.shape, **warping, **OPTIONS)
            self._run_warp()
        current = self.side.long()
        return self.state[current, torch.arange(len(current), device=current.device), :2]

    def _run_warp(self) -> None:
        for counter in (self.iteration, self.done, self.bound):
            counter.zero_()
        done = _LateAnswer(self.done.device)
        for _ in range(self.settings.outer_iterations):
            if self.settings.median_px > 1:
                self._filter()
            self._run_round()
            if done.was((self.done == 1).all()):
                break

    def _filter(self) -> None:
        window: dict[str, Any] = {"PIXELS": PIXELS, "SIDE_PX": self.settings.median_px}
        filter_median[self._pixels()](self.state, self.side, self.done, *self.shape, **window, **OPTIONS)
        self.side ^= 1 - self.done

    def _run_round(self) -> None:
        """The iterations from one median to the next, of the pairs that are not done."""
        pairs = self.shape[0]
        self.left.copy_((1 - self.done) * self.settings.inner_iterations)
        self.steps.copy_(self.left.clamp(max=ITERATIONS))
        per_pair = (self.side, self.steps, self.left, self.iteration, self.done, self.bound)
        strips = {"ITERATIONS": ITERATIONS, "ROWS": STRIP_ROWS, "COLUMNS": STRIP_COLUMNS, "num_warps": 1}
        test = {"ITERATIONS": ITERATIONS, "LAZY": self.arithmetic.lazy_test, "num_warps": 1}
        for _ in range(math.ceil(self.settings.inner_iterations / ITERATIONS) + 1):  # one to do some again
            tensors = (self.data, self.state, self.errors, self.side, self.steps)
            iterate[(self.strips, pairs)](*tensors, *self.shape, self.strips_across, **strips, **OPTIONS)
            judge[(pairs,)](self.errors, *per_pair, self.limit, self.strips, **test, **OPTIONS)

    def _pixels(self) -> tuple[int, int]:
        pairs, height, width = self.shape
        return math.ceil(height * width / PIXELS), pairs


class _LateAnswer:
    """Asks the device without waiting: the answer is that to the question before."""

    def __init__(self, device: torch.device) -> None:
        self.pending: tuple[Tensor, torch.cuda.Event] | None = None
        self.at_once = device.type != "cuda"

    def was(self, condition: Tensor) -> bool:
        if self.at_once:
            return bool(condition)
        before, answer, event = self.pending, torch.empty((), dtype=torch.bool, pin_memory=True), torch.cuda.Event()
        answer.copy_(condition, non_blocking=True)
        event.record()
        self.pending = answer, event
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])

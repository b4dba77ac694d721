"""TV-L1 on CUDA: the buffers, and the order of launches. Written without a GPU: the kernels compile for sm_90 and agree
with the plain operations in Triton's interpreter; no card has run them.

Nothing waits for the device after every iteration. Pairs that are done cost a launch that returns at once; the host
looks once per round of inner iterations, a round late, whether any pair goes on. The pairs of all clips of a batch are
computed together, so that launches take a small share of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .tvl1_pyramid import coarse_to_fine, with_gradients
from .tvl1_settings import ARITHMETIC, TVL1, Arithmetic
from .tvl1_triton_kernels import begin_round, filter_median, iterate, judge, linearize  # pyright: ignore[reportUnknownVariableType]

BYTES_AT_ONCE = 2**32
"""Memory of the pairs that are computed together: about 580 pairs of 256 × 341 pixels."""
BYTES_OF_PIXEL = 84
"""Twice six fields of state, the data term, both images and the gradients, as float32."""
STRIP_COLUMNS, STRIP_ROWS, ITERATIONS = 64, 64, 5
PIXELS = 256
"""Of a program that works pixel by pixel."""
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}


def flows_of_clips(clips: Sequence[Tensor], settings: TVL1) -> list[Tensor]:
    """``uint8 [time, h, w]`` to ``float32 [time - 1, 2, h, w]`` each: pairs of all clips of one size together.

    The number of launches does not depend on the number of pairs, and 32 pairs alone fill less than a GPU.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for place, clip in enumerate(clips):
        by_size.setdefault(clip.shape[1:], []).append(place)
    flows: dict[int, Tensor] = {}
    for size, places in by_size.items():
        most = max(BYTES_AT_ONCE // (BYTES_OF_PIXEL * size.numel()), 1)
        with torch.cuda.device_of(clips[0]):  # Triton launches on the current one
            batches = batches_of([clips[place] for place in places], most)
            flow = torch.cat([_flow_of_batch(batch, settings) for batch in batches])
        flows.update(zip(places, torch.split(flow, [len(clips[place]) - 1 for place in places]), strict=True))
    return [flows[place] for place in range(len(clips))]


def batches_of(clips: Sequence[Tensor], most: int) -> list[list[Tensor]]:
    """Divide clips into batches of at most ``most`` pairs, in order; a clip may be divided.

    Example:
        >>> [[len(part) for part in batch] for batch in batches_of([torch.zeros(4, 1, 1), torch.zeros(3, 1, 1)], 4)]
        [[4, 2], [2]]
    """
    batches: list[list[Tensor]] = [[]]
    room = most
    for clip in clips:
        first = 0
        while first < len(clip) - 1:
            if not room:
                batches.append([])
                room = most
            pairs = min(len(clip) - 1 - first, room)
            batches[-1].append(clip[first : first + pairs + 1])
            first += pairs
            room -= pairs
    return batches


def _flow_of_batch(clips: Sequence[Tensor], settings: TVL1) -> Tensor:
    arithmetic = ARITHMETIC[settings.variant]

    def solve(before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
        return _Level(before, after, flow, settings, arithmetic).solve()

    return coarse_to_fine(clips, settings.scales, arithmetic.pixel_centers, solve)


class _Level:
    """The buffers of one level, and the order of launches."""

    def __init__(self, before: Tensor, after: Tensor, flow: Tensor, settings: TVL1, arithmetic: Arithmetic) -> None:
        pairs, _, height, width = flow.shape
        self.shape, self.settings, self.arithmetic = (pairs, height, width), settings, arithmetic
        self.images, self.following = before.contiguous(), with_gradients(after).contiguous()
        self.state = flow.new_zeros((2, pairs, 6, height, width))
        """Twice: the flow along x and y, and of each the dual variable along x and y."""
        self.state[0, :, :2] = flow
        self.data = flow.new_empty((pairs, 3, height, width))
        """The data term's constant and its gradient."""
        self.limit = settings.epsilon**2 * height * width
        self.strips_across = math.ceil(width / (STRIP_COLUMNS - 2 * ITERATIONS))
        self.strips = self.strips_across * math.ceil(height / STRIP_ROWS)
        self.errors = flow.new_empty((pairs, ITERATIONS, self.strips))
        per_pair = torch.zeros((6, pairs), dtype=torch.int32, device=flow.device)
        self.side, self.steps, self.left, self.iteration, self.done, bound = per_pair
        """Which of the two states is current; how many iterations the next launch runs; how many the round has left;
        how many the warp has had; whether it is done."""
        self.bound = bound.view(torch.float32)
        self.of_warp = per_pair[3:]
        """The last three, which are zero when a warp begins."""
        self.done_late = LateAnswer(flow.device)

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
        self.of_warp.zero_()
        self.done_late.forget()
        for _ in range(self.settings.outer_iterations):
            self._run_round()
            if self.done_late.was(self.done.amin()):
                break

    def _run_round(self) -> None:
        """The median and the iterations up to the next one, of the pairs that are not done."""
        pairs = self.shape[0]
        is_filtered = self.settings.median_px > 1
        if is_filtered:
            window: dict[str, Any] = {"PIXELS": PIXELS, "SIDE_PX": self.settings.median_px}
            filter_median[self._pixels()](self.state, self.side, self.done, *self.shape, **window, **OPTIONS)
        begun: dict[str, Any] = {"IS_FILTERED": is_filtered, "INNER": self.settings.inner_iterations}
        begun |= {"ITERATIONS": ITERATIONS, "PAIRS": PIXELS}
        counters = (self.side, self.steps, self.left, self.done)
        begin_round[(math.ceil(pairs / PIXELS),)](*counters, pairs, **begun, **OPTIONS)
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


class LateAnswer:
    """Asks the device without waiting: the answer is that to the question before."""

    def __init__(self, device: torch.device) -> None:
        self._at_once = device.type != "cuda"
        self._asked = 0
        if not self._at_once:
            self._answers = torch.empty(2, dtype=torch.int32, pin_memory=True)
            self._events = (torch.cuda.Event(), torch.cuda.Event())

    def forget(self) -> None:
        """Begin with a first question again."""
        self._asked = 0

    def was(self, condition: Tensor) -> bool:
        """Return whether the condition of the call before was not zero; False in the first call."""
        if self._at_once:
            return bool(condition)
        place, before = self._asked % 2, (self._asked + 1) % 2
        self._answers[place].copy_(condition, non_blocking=True)
        self._events[place].record()
        self._asked += 1
        if self._asked == 1:
            return False
        self._events[before].synchronize()
        return bool(self._answers[before])

"""TV-L1 on CUDA: buffers and order of launches. Written without a GPU: the kernels compile for sm_90 and agree with the
plain operations in Triton's interpreter, but have not run on a GPU.

The host does not wait for the device after every iteration. It tests once per round of inner iterations, one round
late, whether all pairs are done; kernels return at once for pairs that are done. The pairs of all clips of a batch are
computed together, so that launches take a small share of the time.

A round always launches the same kernels. With `FixedMemory` it is captured as a CUDA graph.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cuda_graphs import Replay
from .tvl1_pyramid import coarse_to_fine, with_gradients
from .tvl1_settings import ARITHMETIC, TVL1, Arithmetic
from .tvl1_triton_kernels import begin_round, filter_median, iterate, judge, linearize  # pyright: ignore[reportUnknownVariableType]

BYTES_AT_ONCE = 2**32
"""Memory of the pairs that are computed together: about 580 pairs of 256 × 341 pixels."""
BYTES_OF_PIXEL = 84
"""Twice six fields of state, the data term, both images and the gradients, as float32"""
STRIP_COLUMNS, STRIP_ROWS, ITERATIONS = 64, 64, 5
PIXELS = 256
"""Pixels per program of kernels that process single pixels."""
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}
MAX_GRAPHS = 128
"""Maximum number of graphs that a thread keeps, one for each level and number of pairs."""
ALIGNED_BYTES = 512


class FixedMemory(threading.local):
    """Memory at fixed addresses for one level at a time, and the graphs that use it; per thread.

    It grows to the size of the largest level so far, at most about `BYTES_AT_ONCE`, and is not freed.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)
        self._used = 0
        self.rounds: dict[Hashable, Replay[None]] = {}

    def begin(self, size_bytes: int, device: torch.device) -> None:
        """Begin a batch whose largest level needs ``size_bytes``."""
        if len(self._block) < size_bytes or self._block.device != device or len(self.rounds) > MAX_GRAPHS:
            if self.rounds:
                torch.cuda.current_stream(self._block.device).synchronize()  # the graphs may be running
            self.rounds.clear()
            self._block = torch.empty(0, dtype=torch.uint8)
            with torch.inference_mode(False):  # the memory is also used outside of inference mode
                self._block = torch.empty(size_bytes, dtype=torch.uint8, device=device)

    def begin_level(self) -> None:
        """Use the memory again from its beginning."""
        self._used = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialized tensor, which has the same address in each level of this size."""
        first, size_bytes = self._used, math.prod(shape) * dtype.itemsize
        self._used += math.ceil(size_bytes / ALIGNED_BYTES) * ALIGNED_BYTES
        return self._block[first : first + size_bytes].view(dtype).view(*shape)


_MEMORY = FixedMemory()


def flows_of_clips(clips: Sequence[Tensor], settings: TVL1, *, replays: bool = False) -> list[Tensor]:
    """Compute flows ``float32 [time - 1, 2, h, w]`` of clips ``uint8 [time, h, w]``.

    The pairs of all clips of one size are computed together: the number of launches does not depend on the number of
    pairs, and 32 pairs do not fill a GPU. For ``replays`` see `tvl1_of_clips`.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for place, clip in enumerate(clips):
        by_size.setdefault(clip.shape[1:], []).append(place)
    flows: dict[int, Tensor] = {}
    for size, places in by_size.items():
        most = max(BYTES_AT_ONCE // (BYTES_OF_PIXEL * size.numel()), 1)
        with torch.cuda.device_of(clips[0]):  # Triton launches on the current device
            batches = batches_of([clips[place] for place in places], most)
            flow = torch.cat([_flow_of_batch(batch, settings, _MEMORY if replays else None) for batch in batches])
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


def _flow_of_batch(clips: Sequence[Tensor], settings: TVL1, memory: FixedMemory | None) -> Tensor:
    arithmetic = ARITHMETIC[settings.variant]
    if memory is not None:
        num_pairs = sum(len(clip) - 1 for clip in clips)
        memory.begin(_level_bytes(num_pairs, *clips[0].shape[1:]), clips[0].device)

    def solve(before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
        return _Level(before, after, flow, settings, arithmetic, memory).solve()

    return coarse_to_fine(clips, settings.scales, arithmetic.pixel_centers, solve)


def _strips(height: int, width: int) -> tuple[int, int]:
    """Return the number of strips next to each other, and the total number of strips."""
    across = math.ceil(width / (STRIP_COLUMNS - 2 * ITERATIONS))
    return across, across * math.ceil(height / STRIP_ROWS)


def _level_bytes(pairs: int, height: int, width: int) -> int:
    """Return the memory of a `_Level`."""
    values = pairs * ((2 * 6 + 3 + 1 + 3) * height * width + ITERATIONS * _strips(height, width)[1] + 6)
    return 4 * values + 6 * ALIGNED_BYTES


class _Level:
    """The buffers of one level, and the order of launches."""

    def __init__(
        self,
        before: Tensor,
        after: Tensor,
        flow: Tensor,
        settings: TVL1,
        arithmetic: Arithmetic,
        memory: FixedMemory | None,
    ) -> None:
        pairs, _, height, width = flow.shape
        self.shape, self.settings, self.arithmetic = (pairs, height, width), settings, arithmetic
        self._memory, self._device = memory, flow.device
        if memory is not None:
            memory.begin_level()
        self.images, self.following = self._placed(before), self._placed(with_gradients(after))
        self.state = self._empty((2, pairs, 6, height, width)).zero_()
        """Two states, each with the flow along x and y, and for each of these the dual variable along x and y"""
        self.state[0, :, :2] = flow
        self.data = self._empty((pairs, 3, height, width))
        """Constant and gradient of the data term"""
        self.limit = settings.epsilon**2 * height * width
        self.strips_across, self.strips = _strips(height, width)
        self.errors = self._empty((pairs, ITERATIONS, self.strips))
        per_pair = self._empty((6, pairs), torch.int32).zero_()
        self.side, self.steps, self.left, self.iteration, self.done, bound = per_pair
        """Per pair: number of the current state; iterations of the next launch; remaining iterations of the round;
        iterations of the warp so far; whether the warp is done; error of the last test"""
        self.bound = bound.view(torch.float32)
        self.of_warp = per_pair[3:]
        """The last three, which are zero at the beginning of a warp"""
        self.done_late = LateAnswer(flow.device)

    def _empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        if self._memory is not None:
            return self._memory.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, device=self._device)

    def _placed(self, values: Tensor) -> Tensor:
        return values.contiguous() if self._memory is None else self._empty(values.shape, values.dtype).copy_(values)

    def solve(self) -> Tensor:
        """Return the flow ``[pair, 2, h, w]``."""
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
            self._launch_round()
            if self.done_late.was(self.done.amin()):
                break

    def _launch_round(self) -> None:
        """Run a round. With fixed memory, the first round of a shape and settings is captured for the others."""
        if self._memory is None:
            self._run_round()
            return
        key = (self.shape, self.settings)
        replay = self._memory.rounds.get(key)
        if replay is not None:
            replay()
            return
        self._run_round()
        self._memory.rounds[key] = Replay(self._run_round, self._device, f"TV-L1 of {list(self.shape)}")

    def _run_round(self) -> None:
        """Launch the median and the iterations up to the next median, for the pairs that are not done."""
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
        for _ in range(
            math.ceil(self.settings.inner_iterations / ITERATIONS) + 1
        ):  # one launch to repeat iterations up to the stop
            tensors = (self.data, self.state, self.errors, self.side, self.steps)
            iterate[(self.strips, pairs)](*tensors, *self.shape, self.strips_across, **strips, **OPTIONS)
            judge[(pairs,)](self.errors, *per_pair, self.limit, self.strips, **test, **OPTIONS)

    def _pixels(self) -> tuple[int, int]:
        pairs, height, width = self.shape
        return math.ceil(height * width / PIXELS), pairs


class LateAnswer:
    """Reads a condition from the device without waiting, by returning the value of the call before."""

    def __init__(self, device: torch.device) -> None:
        self._at_once = device.type != "cuda"
        self._asked = 0
        if not self._at_once:
            self._answers = torch.empty(2, dtype=torch.int32, pin_memory=True)
            self._events = (torch.cuda.Event(), torch.cuda.Event())

    def forget(self) -> None:
        """Discard the value of the call before."""
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

"""TV-L1 on a CPU, with one thread per pair of frames; each frame is prepared once."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compiled_code import alone_on_first_use
from .tvl1_numba_kernels import Image, resize, solve_level, surround
from .tvl1_pyramid import growing_taps, level_sizes, shrinking_taps
from .tvl1_settings import ARITHMETIC, SCALE_STEP, TVL1


@alone_on_first_use("tvl1")
def flow_of_pairs(gray: Tensor, settings: TVL1) -> Tensor:
    """Compute flow ``float32 [time - 1, 2, h, w]`` of ``uint8 [time, h, w]``, on as many threads as torch has."""
    frames = gray.contiguous().numpy()
    flows = np.empty((len(frames) - 1, 2, *frames.shape[1:]), dtype=np.float32)

    def solve(before: Future[list[Level]], after: Future[list[Level]], index: int) -> None:
        flows[index] = _flow_of_pair(before.result(), after.result(), settings)

    with ThreadPoolExecutor(min(torch.get_num_threads(), len(flows))) as threads:
        # the pool runs tasks in order of submission, so a pair never waits for a frame that no thread has started
        frame = threads.submit(_prepare, frames[0], settings)
        pairs: list[Future[None]] = []
        for index in range(len(flows)):
            following = threads.submit(_prepare, frames[index + 1], settings)
            pairs.append(threads.submit(solve, frame, following, index))
            frame = following
        for pair in pairs:
            pair.result()
    return torch.as_tensor(flows)


@dataclass(frozen=True)
class Level:
    """One frame at one level of the pyramid."""

    image: Image
    """``[h, w]``"""
    surrounded: Image
    """``[3, (h + 2 · margin) · (w + 2 · margin)]``: the image and its gradients along x and y, with a margin"""


def _prepare(frame: NDArray[np.uint8], settings: TVL1) -> list[Level]:
    """Return the levels of a frame, the finest first."""
    arithmetic = ARITHMETIC[settings.variant]
    image = frame.astype(np.float32)
    levels: list[Level] = []
    for size in level_sizes(frame.shape, settings.scales):
        if size != image.shape:
            rows, columns = (
                shrinking_taps(side, out_side, arithmetic.pixel_centers)
                for side, out_side in zip(image.shape, size, strict=True)
            )
            image = resize(image, *rows, *columns)
        levels.append(Level(image, surround(image, arithmetic.border == "replicate")))
    return levels


def _flow_of_pair(before: list[Level], after: list[Level], settings: TVL1) -> Image:
    """Return the flow of a pair, ``[2, h, w]``."""
    arithmetic = ARITHMETIC[settings.variant]
    flow = np.zeros((2, *before[-1].image.shape), dtype=np.float32)
    for first, second in zip(reversed(before), reversed(after), strict=True):
        flow = _grow(flow, first.image.shape, arithmetic.pixel_centers)
        flow = solve_level(
            first.image,
            second.surrounded,
            flow,
            settings.warps,
            settings.outer_iterations,
            settings.inner_iterations,
            settings.median_px,
            settings.epsilon**2 * first.image.size,
            np.float32(arithmetic.cubic),
            np.float32(arithmetic.positions_per_px),
            arithmetic.lazy_test,
        )
    return flow


def _grow(flow: Image, size: tuple[int, ...], pixel_centers: bool) -> Image:
    """Resample flow to the next finer level, in its pixels; flow that already has the size is returned unchanged."""
    if flow.shape[1:] == size:
        return flow
    rows, columns = (
        growing_taps(side, out_side, pixel_centers) for side, out_side in zip(flow.shape[1:], size, strict=True)
    )
    return np.stack([resize(component, *rows, *columns) / np.float32(SCALE_STEP) for component in flow])

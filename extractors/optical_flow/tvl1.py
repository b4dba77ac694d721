"""TV-L1 optical flow (Zach, Pock and Bischof, DAGM 2007) as OpenCV computes it, for all consecutive pairs of a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from ...manifests.streams import Record

Variant = Literal["opencv5", "opencv4", "cuda"]
Mode = Literal["exact", "fast"]
Kernel = Literal["fused", "torch"]
MIN_SIDE_PX = 16
"""The pyramid ends before a level with a shorter side."""
SCALE_STEP = 0.8
TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
"""Step of the dual variable, weight of the data term, tightness: OpenCV's, on gray values of 0 … 255."""


class TVL1(Record):
    """Settings; the defaults are those of OpenCV's ``DualTVL1OpticalFlow``, which ``opencv5`` agrees with.

    ``variant``: whose arithmetic. ``opencv5``; ``opencv4``, which warps at positions rounded to 1/32 px; ``cuda``,
    what denseflow calls: no median, another cubic, and now and then a later stop.

    ``mode``: ``fast`` has other defaults, two warps and one outer iteration: half the time for a mean difference from
    ``exact`` of .01 px (a dancer before a still camera), .04 px (a camera that follows a skater), .14 px (fast sport).
    """

    method: Literal["tvl1"] = "tvl1"
    variant: Variant = "opencv5"
    mode: Mode = "exact"
    median_px: Literal[1, 3, 5] = 5
    """Side of the median filter on the flow; 1 is none, and all that ``cuda`` has."""
    scales: PositiveInt = 5
    warps: PositiveInt = 5
    """Linearisations on each scale."""
    inner_iterations: PositiveInt = 30
    """Iterations from one median to the next."""
    outer_iterations: PositiveInt = 10
    epsilon: NonNegativeFloat = 0.01
    """Stops a warp once an iteration moves the flow by no more, root mean square in pixels."""
    kernel: Kernel = "fused"
    """``fused``: Numba on a CPU, Triton on CUDA. ``torch``: plain operations on any device; far slower."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_mode_and_variant(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fast = {"warps": 2, "outer_iterations": 1} if given.get("mode") == "fast" else {}
        cuda = {"median_px": 1} if given.get("variant") == "cuda" else {}
        return {**fast, **cuda, **given}

    @model_validator(mode="after")
    def _cuda_has_no_median(self) -> Self:
        if self.variant == "cuda" and self.median_px != 1:
            raise ValueError(f'variant "cuda" has no median filter; leave median_px = {self.median_px} out')
        return self


@dataclass(frozen=True)
class Arithmetic:
    """What sets the variants apart."""

    cubic: float = -0.75
    """Parameter A of the bicubic kernel (Keys, 1981)."""
    border: Literal["zero", "replicate"] = "zero"
    """What the kernel sees outside the image."""
    positions_per_px: int = 0
    """Warped positions are rounded to so many per pixel; 0: they are not."""
    pixel_centres: bool = True
    """Whether resizing maps pixel centres on each other, or corners: ``cv::cuda::resize`` (opencv issue 24165)."""
    lazy_test: bool = False
    """Whether the stop is tested on odd iterations only, and then not again until as many have gone by as the last
    error was times too large."""


ARITHMETIC: Mapping[Variant, Arithmetic] = {
    "opencv5": Arithmetic(),
    "opencv4": Arithmetic(positions_per_px=32),
    "cuda": Arithmetic(cubic=-0.5, border="replicate", pixel_centres=False, lazy_test=True),
}


def tvl1(gray: Tensor, settings: TVL1) -> Tensor:
    """Gray frames ``uint8 [time, height, width]`` to ``float32 [time - 1, 2, height, width]``, on the same device: what
    moved how many pixels to the right and down from each frame to the next. A pair's flow depends on nothing else.

    Raises ``ValueError`` for another type or shape, fewer than two frames, empty frames, or a device that ``fused``
    has no kernel for, ``ImportError`` on CUDA without Triton.
    """
    if gray.dtype != torch.uint8 or gray.ndim != 3 or len(gray) < 2 or not gray[0].numel():
        raise ValueError(f"optical flow needs uint8 [2 or more, h, w], not {gray.dtype} {list(gray.shape)}")
    return flow_function(settings.kernel, gray.device.type)(gray, settings)


def flow_function(kernel: Kernel, device_type: str) -> Callable[[Tensor, TVL1], Tensor]:
    """The computation behind ``tvl1``; what it needs is imported here."""
    if kernel == "torch":
        from .tvl1_torch import flow_of_pairs
    elif device_type == "cpu":
        from .tvl1_numba import flow_of_pairs
    elif device_type == "cuda":
        try:
            from .tvl1_triton import flow_of_pairs
        except ImportError as error:
            raise ImportError('TV-L1 on CUDA needs the package triton; install it, or set kernel = "torch"') from error
    else:
        raise ValueError(f'TV-L1 has no fused kernel for {device_type}; set kernel = "torch", or use a CPU')
    return flow_of_pairs

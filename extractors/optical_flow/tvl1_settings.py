"""Settings and constants of TV-L1 for `tvl1` and its implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from ...manifests.streams import Record

Variant = Literal["opencv5", "opencv4", "cuda"]
Mode = Literal["exact", "fast"]
Kernel = Literal["fused", "torch"]
MIN_SIDE_PX = 16
"""The pyramid has no level with a shorter side."""
SCALE_STEP = 0.8
TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
"""Step of the dual variable, weight of the data term, and tightness, as in OpenCV, for gray values 0 … 255."""


class TVL1(Record):
    """Settings of TV-L1. The defaults are those of OpenCV 5's ``DualTVL1OpticalFlow``."""

    method: Literal["tvl1"] = "tvl1"
    """Method of optical flow: dis, farneback, tvl1 or raft."""
    variant: Variant = "opencv5"
    """Arithmetic. ``opencv5``: OpenCV 5. ``opencv4``: OpenCV 4, which warps at positions rounded to 1/32 px. ``cuda``:
    OpenCV's CUDA version, which denseflow uses: no median, another cubic kernel, and sometimes a later stop."""
    mode: Mode = "exact"
    """Defaults. ``exact``: OpenCV's. ``fast``: two warps and one outer iteration, which take half the time; the mean
    difference is .01 px (a dancer before a still camera), .04 px (a camera that follows a skater) or .14 px (fast
    sport)."""
    median_px: Literal[1, 3, 5] = 5
    """Side of the median filter of the flow; 1: no filter, as always in variant ``cuda``."""
    scales: PositiveInt = 5
    """Levels of the image pyramid."""
    warps: PositiveInt = 5
    """Linearizations at each level."""
    inner_iterations: PositiveInt = 30
    """Iterations between two median filters."""
    outer_iterations: PositiveInt = 10
    """Rounds of median and inner iterations in each warp."""
    epsilon: NonNegativeFloat = 0.01
    """A warp ends when the root mean square change of the flow in an iteration is at most this, in pixels."""
    kernel: Kernel = "fused"
    """``fused``: Numba on a CPU, Triton on CUDA. ``torch``: plain operations on any device, far slower."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_mode_and_variant(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        given = cast("Mapping[str, Any]", given)
        fast = {"warps": 2, "outer_iterations": 1} if given.get("mode") == "fast" else {}
        cuda = {"median_px": 1} if given.get("variant") == "cuda" else {}
        return {**fast, **cuda, **given}

    @model_validator(mode="after")
    def _cuda_has_no_median(self) -> Self:
        if self.variant == "cuda" and self.median_px != 1:
            raise ValueError(f'variant "cuda" has no median filter; remove median_px = {self.median_px}')
        return self


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic in which the variants differ."""

    cubic: float = -0.75
    """Parameter A of the bicubic kernel (Keys, 1981)."""
    border: Literal["zero", "replicate"] = "zero"
    """Values outside the image"""
    positions_per_px: int = 0
    """Warped positions are rounded to multiples of 1 / this number, in pixels; 0: no rounding."""
    pixel_centers: bool = True
    """Whether resizing maps pixel centers to each other; else corners, as ``cv::cuda::resize`` (opencv issue 24165)"""
    lazy_test: bool = False
    """Test the stop criterion on odd iterations only. After a test, skip as many iterations as the ratio of error and
    threshold."""


ARITHMETIC: Mapping[Variant, Arithmetic] = {
    "opencv5": Arithmetic(),
    "opencv4": Arithmetic(positions_per_px=32),
    "cuda": Arithmetic(cubic=-0.5, border="replicate", pixel_centers=False, lazy_test=True),
}

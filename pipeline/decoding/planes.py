"""Pictures as most videos store them, 8-bit 4:2:0: a plane of luma, and two of chroma with a quarter of its samples.

That is 1.5 bytes a pixel instead of RGB's 3; `arabesque.pipeline.colour` turns them into RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..records import Probe

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

Matrix = Literal["bt601", "bt709", "fcc", "smpte240m", "bt2020"]

_MATRICES: dict[int, Matrix] = {
    0: "bt601",
    1: "bt709",
    2: "bt601",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
}
"""FFmpeg's ``AVColorSpace`` as swscale reads it: what says nothing (2), or RGB of planes that are none (0), BT.601."""
_FULL_RANGE = 2  # of FFmpeg's AVColorRange


@dataclass(frozen=True)
class Colour:
    """How luma and chroma are to be read."""

    matrix: Matrix
    full_range: bool
    """Luma from 0 to 255 (JPEG) instead of from 16 to 235."""


@dataclass(frozen=True, eq=False)
class Planes:
    """An upright picture, valid until the next one is decoded."""

    luma: NDArray[np.uint8]
    """``[height, width]``, both even"""
    blue: NDArray[np.uint8]
    """``[height / 2, width / 2]``, each sample for 2 × 2 pixels; ``red`` as well"""
    red: NDArray[np.uint8]
    colour: Colour

    def write_to(self, target: NDArray[np.uint8]) -> None:
        """One plane after the other into ``[height · 3 / 2, width]``."""
        flat = target.reshape(-1)
        start = 0
        for plane in (self.luma, self.blue, self.red):
            flat[start : start + plane.size].reshape(plane.shape)[...] = plane
            start += plane.size


def picture_shape(probe: Probe, *, planar: bool) -> tuple[int, ...]:
    """Of one picture in a window's memory."""
    if planar:
        return probe.height_px * 3 // 2, probe.width_px
    return probe.height_px, probe.width_px, 3


def planes_of(frame: VideoFrame, rotation_deg: int) -> Planes | None:
    """The planes of a decoded frame, without a copy.

    None where it has others, another colour matrix than `Colour` knows, or an odd side: swscale interpolates chroma
    where the height is odd.
    """
    if frame.format.name not in ("yuv420p", "yuvj420p") or frame.width % 2 or frame.height % 2:
        return None
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None or any(plane.line_size < plane.width for plane in frame.planes):
        return None
    luma, blue, red = (np.rot90(_samples(plane), rotation_deg // 90) for plane in frame.planes)
    full_range = frame.format.name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
    return Planes(luma, blue, red, Colour(matrix, full_range))


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    buffer: Any = plane
    lines = np.frombuffer(buffer, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)
    return lines[:, : plane.width]

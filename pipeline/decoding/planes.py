"""Pictures as planes in 8-bit 4:2:0, the format of most videos: luma, and two chroma planes of a quarter of its size.

They take 1.5 bytes per pixel instead of 3 in RGB. `arabesque.pipeline.stages.color` converts them to RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

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
"""FFmpeg's ``AVColorSpace`` → color matrix that swscale uses. Unspecified (2) and RGB (0) are BT.601."""
_FULL_RANGE = 2  # value of FFmpeg's AVColorRange


@dataclass(frozen=True)
class ColorSpace:
    """Interpretation of luma and chroma."""

    matrix: Matrix
    full_range: bool
    """Luma is from 0 to 255 (JPEG) and not from 16 to 235."""
    interlaced: bool = False
    """The odd rows of chroma belong to the odd rows of luma, and the even rows to the even rows."""


@dataclass(frozen=True, eq=False)
class Planes:
    """An upright picture, valid until the next one is decoded."""

    luma: NDArray[np.uint8]
    """``[height, width]``, both even"""
    blue: NDArray[np.uint8]
    """``[height / 2, width / 2]``, one sample for 2 × 2 pixels, like ``red``."""
    red: NDArray[np.uint8]
    color: ColorSpace

    def write_to(self, target: NDArray[np.uint8]) -> None:
        """Write the planes one after the other to ``target [height · 3 / 2, width]``."""
        flat = target.reshape(-1)
        start = 0
        for plane in (self.luma, self.blue, self.red):
            flat[start : start + plane.size].reshape(plane.shape)[...] = plane
            start += plane.size


def planes_of(frame: VideoFrame, rotation_deg: int, mirrored: bool = False) -> Planes | None:
    """Return the planes of a decoded frame without copying them, or None.

    The result is None if the frame has other planes, a color matrix that `ColorSpace` does not have, or an odd width or
    height (for an odd height swscale interpolates chroma); and if it is interlaced and is rotated or has fields of odd
    height.
    """
    if frame.interlaced_frame and (rotation_deg or mirrored or frame.height % 4):
        return None
    if frame.format.name not in ("yuv420p", "yuvj420p", "nv12") or frame.width % 2 or frame.height % 2:
        return None
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None or any(plane.line_size < plane.width for plane in frame.planes):
        return None
    luma, blue, red = (upright(plane, rotation_deg, mirrored) for plane in _stored_planes(frame))
    full_range = frame.format.name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
    return Planes(luma, blue, red, ColorSpace(matrix, full_range, bool(frame.interlaced_frame)))


def upright(stored: NDArray[np.uint8], rotation_deg: int, mirrored: bool) -> NDArray[np.uint8]:
    """Return a view of a stored picture or plane ``[height, width, …]``, rotated and flipped by its display matrix."""
    turned = np.rot90(stored, rotation_deg // 90)
    return turned[:, ::-1] if mirrored else turned


def _stored_planes(frame: VideoFrame) -> Iterator[NDArray[np.uint8]]:
    """Yield luma, blue and red. NV12, the format of graphics cards, has blue and red alternating in one plane."""
    if frame.format.name != "nv12":
        yield from (_samples(plane) for plane in frame.planes)
        return
    yield _samples(frame.planes[0])
    pairs = _lines(frame.planes[1])[: frame.height // 2, : frame.width]
    yield from (pairs[:, 0::2], pairs[:, 1::2])


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    return _lines(plane)[:, : plane.width]


def _lines(plane: VideoPlane) -> NDArray[np.uint8]:
    """Return ``[height, bytes of a line]``."""
    buffer: Any = plane
    return np.frombuffer(buffer, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)

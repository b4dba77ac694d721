"""Pictures as most videos store them, 8-bit 4:2:0: a plane of luma, and two of chroma with a quarter of its samples.

That is 1.5 bytes a pixel instead of RGB's 3; `arabesque.pipeline.stages.color` turns them into RGB.
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
"""FFmpeg's ``AVColorSpace`` as swscale reads it: unspecified (2) and RGB (0) are BT.601."""
_FULL_RANGE = 2  # of FFmpeg's AVColorRange


@dataclass(frozen=True)
class ColorSpace:
    """Interpretation of luma and chroma."""

    matrix: Matrix
    full_range: bool
    """Luma from 0 to 255 (JPEG) instead of from 16 to 235."""
    interlaced: bool = False
    """The odd rows of chroma belong to the odd rows of luma, the even ones to the even ones."""


@dataclass(frozen=True, eq=False)
class Planes:
    """An upright picture, valid until the next one is decoded."""

    luma: NDArray[np.uint8]
    """``[height, width]``, both even"""
    blue: NDArray[np.uint8]
    """``[height / 2, width / 2]``, each sample for 2 × 2 pixels; ``red`` as well"""
    red: NDArray[np.uint8]
    color: ColorSpace

    def write_to(self, target: NDArray[np.uint8]) -> None:
        """One plane after the other into ``[height · 3 / 2, width]``."""
        flat = target.reshape(-1)
        start = 0
        for plane in (self.luma, self.blue, self.red):
            flat[start : start + plane.size].reshape(plane.shape)[...] = plane
            start += plane.size


def planes_of(frame: VideoFrame, rotation_deg: int, mirrored: bool = False) -> Planes | None:
    """The planes of a decoded frame, without a copy.

    None where it has others, another color matrix than `ColorSpace` knows, or an odd side: swscale interpolates chroma
    where the height is odd. None, too, for an interlaced picture that is turned or whose fields have an odd height.
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
    """A view of a stored picture or plane ``[height, width, …]`` as its display matrix turns and flips it."""
    turned = np.rot90(stored, rotation_deg // 90)
    return turned[:, ::-1] if mirrored else turned


def _stored_planes(frame: VideoFrame) -> Iterator[NDArray[np.uint8]]:
    """Luma, blue and red; NV12, the format of graphics cards, stores blue and red in turn in one plane."""
    if frame.format.name != "nv12":
        yield from (_samples(plane) for plane in frame.planes)
        return
    yield _samples(frame.planes[0])
    pairs = _lines(frame.planes[1])[: frame.height // 2, : frame.width]
    yield from (pairs[:, 0::2], pairs[:, 1::2])


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    return _lines(plane)[:, : plane.width]


def _lines(plane: VideoPlane) -> NDArray[np.uint8]:
    """``[height, bytes of a line]``"""
    buffer: Any = plane
    return np.frombuffer(buffer, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)

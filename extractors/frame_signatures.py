"""Stream ``signatures``: appearance and motion of every frame of a video at 48 × 27 pixels.

`arabesque.models.broadcast` finds shot boundaries, replays, close-ups and still pictures from these rows without
opening the video again. No weights. A row contains the values of `FRAME_VALUES` for each frame of one segment in order,
and one small color picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..manifests.streams import Geometry, Precision, Record, Size
from .checkpoints import Weights
from .geometry import apply_geometry
from .protocol import FrameNeed, SegmentInput

HEIGHT_PX, WIDTH_PX = 27, 48
CELLS = (9, 16)
"""Rows and columns of a frame's thumbnail; a cell has 3 × 3 pixels."""
FRAMES_PER_ROW = 32

FRAME_VALUES = (
    *(f"cell_{row}_{column}" for row in range(CELLS[0]) for column in range(CELLS[1])),
    # mean change of hue, saturation and value to the next frame, 0 … 255, as in PySceneDetect
    "hue_change",
    "saturation_change",
    "value_change",
    "saturation",
    # share of the cells with detail: high for crowds, low for ice and floors
    "texture",
    # motion relative to the scene within 0.16 s: mean change in gray levels, edges of the region as shares of the frame
    "motion",
    "moving_top",
    "moving_bottom",
    "moving_left",
    "moving_right",
    "camera_x",
    "camera_y",
    # size of the largest region of skin color, as shares of the frame's height, width and area
    "skin_height",
    "skin_width",
    "skin_area",
    "offset_s",
)
"""The values of one frame. Cells are gray levels 0 … 255; ``offset_s`` is the time since the segment's start."""

MOTION_LAG_S = 0.16
NOISE_LEVELS = 4.0
"""Largest change in gray levels that compression causes between two frames of 48 × 27 pixels."""
DETAIL_LEVELS = 12.0
"""A cell has detail if the standard deviation of its 3 × 3 pixels is larger."""
_PHASE_ROWS = 24
"""Rows for phase correlation. OpenCV pads other numbers of rows to the next product of 2, 3 and 5; if that is odd, its
result is wrong by half a pixel."""
_PICTURE = HEIGHT_PX * WIDTH_PX * 3


class FrameSignatures:
    """Measures every frame; see `FRAME_VALUES`. Segments must be 32 recorded frames long and follow each other."""

    class Settings(Record):
        pass

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ()
    audio = None
    batch_size = 64
    dim = FRAMES_PER_ROW * len(FRAME_VALUES) + _PICTURE
    input_size: ClassVar[tuple[int, int]] = (HEIGHT_PX, WIDTH_PX)

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.frames = FrameNeed(Geometry(steps=(Size(size_px=(HEIGHT_PX, WIDTH_PX)),)), next_frame=True)

    def prepare(self, segment: SegmentInput) -> torch.Tensor:
        """Return the row."""
        if segment.frames is None:
            raise ValueError("signatures: the segment has no frames; build it as `FrameSignatures.frames` requires")
        shown = apply_geometry(segment.frames, self.frames.geometry)  # unchanged if the pipeline applied it
        frames = np.ascontiguousarray(shown.cpu().numpy().transpose(0, 2, 3, 1))
        times_s = np.asarray(segment.frame_times_s) - segment.start_s
        return torch.as_tensor(signature_row(frames, times_s, has_next=segment.has_next_frame))

    def forward(self, prepared: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        return list(prepared)


def signature_row(frames: NDArray[np.uint8], times_s: NDArray[np.float64], *, has_next: bool) -> NDArray[np.float32]:
    """Measure the frames of one segment.

    Args:
        frames: RGB, ``uint8 [time, 27, 48, 3]``.
        times_s: ``[time]``, from the start of the segment; repeated frames have equal times.
        has_next: Whether the last frame is the frame after the segment.

    Returns:
        ``float32 [FrameSignatures.dim]``. In a shorter segment, the values of the last frame are repeated.
    """
    import cv2

    num_frames = len(frames) - has_next
    tall = frames.reshape(-1, WIDTH_PX, 3)  # as one picture, for a single call of OpenCV
    hsv = np.asarray(cv2.cvtColor(tall, cv2.COLOR_RGB2HSV), np.int16).reshape(frames.shape)
    gray = np.asarray(cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY), np.uint8).reshape(frames.shape[:3])
    pixels = gray.reshape(len(frames), CELLS[0], 3, CELLS[1], 3).astype(np.float32)

    values = np.zeros((len(frames), len(FRAME_VALUES)), np.float32)
    num_cells = CELLS[0] * CELLS[1]
    values[:, :num_cells] = pixels.mean(axis=(2, 4)).reshape(len(frames), -1)
    values[:-1, num_cells : num_cells + 3] = np.abs(np.diff(hsv, axis=0)).mean(axis=(1, 2))
    values[:, num_cells + 3] = hsv[..., 1].mean(axis=(1, 2))
    values[:, num_cells + 4] = (pixels.std(axis=(2, 4)) > DETAIL_LEVELS).mean(axis=(1, 2))
    values[:, num_cells + 5 : num_cells + 12] = _motion(gray, times_s)
    values[:, num_cells + 12 : num_cells + 15] = _skin(tall, len(frames))
    values[:, num_cells + 15] = times_s
    kept = values[np.minimum(np.arange(FRAMES_PER_ROW), num_frames - 1)]
    return np.concatenate([kept.ravel(), frames[num_frames // 2].ravel().astype(np.float32)])


def _motion(gray: NDArray[np.uint8], times_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ``motion`` to ``camera_y``, ``[time, 7]``. Frames between two compared frames have the same values."""
    found = np.zeros((len(gray), 7), np.float32)
    period_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    lag = min(max(round(MOTION_LAG_S / period_s), 1), 16) if period_s > 0 else 1
    for first in range(0, len(gray) - 1, lag):
        last = min(first + lag, len(gray) - 1)
        if times_s[last] > times_s[first]:
            found[first : last + 1] = _motion_between(gray[first], gray[last])
    return found


def _motion_between(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, ...]:
    import cv2

    across, down, followed = _follow_camera(before.astype(np.float32), after.astype(np.float32))
    # subpixel shifts can cause changes within the range of a pixel's neighbors, so these do not count
    neighborhood = np.ones((3, 3), np.uint8)
    above = after - np.asarray(cv2.dilate(followed, neighborhood), np.float32)
    below = np.asarray(cv2.erode(followed, neighborhood), np.float32) - after
    change = np.maximum(np.maximum(above, below), 0)
    height, width = abs(round(down)) + 1, abs(round(across)) + 1  # the border that the camera's motion uncovered
    change[:height], change[-height:], change[:, :width], change[:, -width:] = 0, 0, 0, 0
    evidence = np.maximum(change - NOISE_LEVELS, 0) ** 2
    edges = (*_extent(evidence.sum(axis=1)), *_extent(evidence.sum(axis=0)))
    return (float(change.mean()), *edges, across / WIDTH_PX, down / HEIGHT_PX)


def _extent(evidence: NDArray[np.float32]) -> tuple[float, float]:
    """Return both ends of the evidence along one side, as shares of the side.

    They are extrapolated from the 10th and 90th percentile.
    """
    total = float(evidence.sum())
    if total == 0:
        return 0.0, 0.0
    places = np.arange(len(evidence) + 1) / len(evidence)
    low, high = np.interp((0.1, 0.9), np.append(0, np.cumsum(evidence)) / total, places)
    margin = (high - low) / 8
    return float(max(low - margin, 0)), float(min(high + margin, 1))


def _follow_camera(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float, NDArray[np.float32]]:
    """Return the shift of the scene in pixels, across and down, and the first picture after that shift.

    Phase correlation finds whole pixels. Gauss-Newton steps refine the shift; outliers (the athlete, overlays) have
    less weight.
    """
    import cv2

    even = slice(1, 1 + _PHASE_ROWS)
    (across, down), response = cv2.phaseCorrelate(
        before[even].copy(), after[even].copy(), _window()
    )  # it modifies its arguments
    if response < 0.15 or max(abs(across), abs(down)) > 10:  # probably a cut
        across = down = 0.0
    size, followed = (WIDTH_PX, HEIGHT_PX), before
    for _ in range(4):
        moved = np.array([[1, 0, across], [0, 1, down]], np.float32)
        followed = np.asarray(
            cv2.warpAffine(before, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
        )
        error = (after - followed)[3:-3, 3:-3]
        slope_x = (followed[3:-3, 4:-2] - followed[3:-3, 2:-4]) / 2
        slope_y = (followed[4:-2, 3:-3] - followed[2:-4, 3:-3]) / 2
        weight = 1 / (1 + (error / 12) ** 2)
        a, b, c = (float((weight * each).sum()) for each in (slope_x**2, slope_x * slope_y, slope_y**2))
        right = float((weight * slope_x * error).sum()), float((weight * slope_y * error).sum())
        determinant = a * c - b * b
        if determinant < 1e-3 * max(a, c, 1.0) ** 2:
            break
        across -= (c * right[0] - b * right[1]) / determinant
        down -= (a * right[1] - b * right[0]) / determinant
        across, down = float(np.clip(across, -10, 10)), float(np.clip(down, -10, 10))
    if np.abs(after - followed).mean() >= np.abs(after - before).mean():  # the shift does not reduce the difference
        return 0.0, 0.0, before
    return across, down, followed


def _window() -> NDArray[np.float32]:
    return np.outer(np.hanning(_PHASE_ROWS), np.hanning(WIDTH_PX)).astype(np.float32)


def _skin(tall: NDArray[np.uint8], num_frames: int) -> NDArray[np.float32]:
    """Return height, width and area of the largest region of skin color in every fourth frame, ``[time, 3]``.

    Regions at the left or right edge are ignored: they are usually floors, walls and boards, not faces. Skin of all
    tones is in one range of chroma (Chai and Ngan, 1999: Cr 133 to 173, Cb 77 to 127).
    """
    import cv2

    chroma = np.asarray(cv2.cvtColor(tall, cv2.COLOR_RGB2YCrCb), np.uint8).reshape(num_frames, HEIGHT_PX, WIDTH_PX, 3)
    found = np.zeros((num_frames, 3), np.float32)
    for frame in range(0, num_frames, 4):
        y, cr, cb = chroma[frame, ..., 0], chroma[frame, ..., 1], chroma[frame, ..., 2]
        skin = (cr >= 135) & (cr <= 173) & (cb >= 77) & (cb <= 125) & (y > 40)
        count, _, regions, _ = cv2.connectedComponentsWithStats(skin.astype(np.uint8), connectivity=4)
        left, width = regions[1:count, cv2.CC_STAT_LEFT], regions[1:count, cv2.CC_STAT_WIDTH]
        inside = regions[1:count][(left > 0) & (left + width < WIDTH_PX)]
        if len(inside):
            largest = inside[int(inside[:, cv2.CC_STAT_AREA].argmax())]
            found[frame : frame + 4] = (
                largest[cv2.CC_STAT_HEIGHT] / HEIGHT_PX,
                largest[cv2.CC_STAT_WIDTH] / WIDTH_PX,
                largest[cv2.CC_STAT_AREA] / (HEIGHT_PX * WIDTH_PX),
            )
    return found

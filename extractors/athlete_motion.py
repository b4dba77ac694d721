"""The athlete's own motion: optical flow without the camera's motion, and the box of the region that moves by itself.

Lengths are in frame heights and speeds in frame heights per second, with x to the right and y down, so that they do not
depend on frame size and frame rate. All maps have one value per cell of `CELL_PX` × `CELL_PX` pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ..manifests.streams import Geometry, Precision, Record, ShortSide
from .camera_motion import apply_similarity, fit_similarity, to_matrix
from .protocol import FrameNeed, SegmentInput
from .weight_sources import Weights

Array = NDArray[np.floating]

CELL_PX = 3

_STILL_PX = 0.3
"""Length of the flow between two frames, in pixels, that is evidence of .5. Noise and compression cause half of it."""
_STILL_LEVELS = 2.5
"""Change between two frames, in gray levels, that is evidence of .5"""
_TEXTURE_LEVELS = 4.0
"""Gradient, in gray levels per pixel, at which a cell has the weight .5"""
_LEAST_CELLS_PX = 4.0
"""Least sum of the motions of a region's cells, in pixels, e.g. 16 cells of a quarter pixel each"""
_LULL = 0.05
"""Least sum of a region's motions as a share of the largest sum in the segment, so that noise does not count as the
athlete while the athlete stands still"""
_BOX_SHARE = 0.3
"""Least motion of a cell in a moving region, as a share of the largest motion in the frame"""


@dataclass(frozen=True, eq=False)
class AthleteMotion:
    """Motion between the frames of one segment. A *pair* is two neighboring frames."""

    cells: tuple[Array, Array]
    """``x, y [rows, columns]``: the centers of the cells. All positions are relative to the middle of the frame."""
    times_s: NDArray[np.float64]
    """``[pairs]``: the middle between the times of the two frames"""
    flow: Array
    """``[pairs, rows, columns, 2]``: velocity in the frame"""
    own: Array
    """``[pairs, rows, columns, 2]``: velocity relative to the scene, i.e. without the camera's motion"""
    evidence: Array
    """``[pairs, rows, columns]``: evidence of motion relative to the scene, 0 … 1"""
    camera: Array
    """``[pairs, 4]``: shift x, shift y, growth and turn (radians, clockwise) of the background per second"""
    boxes: Array
    """``[pairs, 4]``: center x, center y, width and height, smoothed over time; the whole frame if none is `found`"""
    found: NDArray[np.bool_]
    """``[pairs]``: whether a region moved by itself. The boxes of other pairs are interpolated."""

    @property
    def energy(self) -> NDArray[np.float64]:
        """``[pairs]``: speed relative to the scene, weighted by the evidence, averaged over the frame"""
        speed = np.hypot(self.own[..., 0], self.own[..., 1])
        return (speed * self.evidence).mean(axis=(1, 2), dtype=np.float64)

    @property
    def body_velocity(self) -> Array:
        """``[pairs, 2]``: mean velocity relative to the scene, weighted by the evidence"""
        total = self.evidence.sum(axis=(1, 2))[:, None] + np.float32(1e-6)
        return (self.own * self.evidence[..., None]).sum(axis=(1, 2)) / total

    @property
    def articulation(self) -> NDArray[np.float64]:
        """``[pairs]``: like `energy`, but relative to `body_velocity`: swinging limbs count, gliding does not."""
        inner = self.own - self.body_velocity[:, None, None]
        return (np.hypot(inner[..., 0], inner[..., 1]) * self.evidence).mean(axis=(1, 2), dtype=np.float64)


def athlete_in(segment: SegmentInput) -> AthleteMotion:
    """Return the motion in a segment with gray frames. It is computed once for all streams of the segment."""
    assert segment.frames is not None
    gray, times_s = segment.frames[:, 0], segment.frame_times_s
    return segment.shared.once("athlete", lambda: follow_athlete(gray.cpu().numpy(), times_s))


def follow_athlete(gray: NDArray[np.uint8], times_s: tuple[float, ...]) -> AthleteMotion:
    """Return the motion in ``gray [time, height, width]``.

    Pairs of frames with the same time (repeated frames, e.g. padding) are left out.

    Args:
        gray: Gray frames.
        times_s: Presentation time of each frame.
    """
    shown_s = np.asarray(times_s, np.float64)
    pairs = np.flatnonzero(np.diff(shown_s) > 1e-6)
    steps_s = shown_s[pairs + 1] - shown_s[pairs]
    height_px, width_px = gray.shape[1:]
    x, y = _cell_centers(height_px, width_px)

    flow_px, texture = _flow(gray, pairs)
    x_px, y_px = x * height_px, y * height_px
    # a quarter of the cells is enough to estimate four numbers
    camera_px = fit_similarity(flow_px[:, ::2, ::2], texture[:, ::2, ::2], x_px[::2, ::2], y_px[::2, ::2])
    own_px = flow_px - apply_similarity(camera_px, x_px, y_px)
    # evidence from both flow and gray levels is needed: flow alone is wrong in areas without texture
    moved_px, change = np.hypot(own_px[..., 0], own_px[..., 1]), _change(gray, pairs, camera_px)
    evidence = moved_px**2 / (moved_px**2 + _STILL_PX**2) * (change**2 / (change**2 + _STILL_LEVELS**2))
    boxes, found = moving_boxes(evidence * moved_px, width_px / height_px)
    per_second = (1.0 / (height_px * steps_s)).astype(np.float32)
    return AthleteMotion(
        cells=(x, y),
        times_s=shown_s[pairs] + steps_s / 2,
        flow=flow_px * per_second[:, None, None, None],
        own=own_px * per_second[:, None, None, None],
        evidence=evidence,
        camera=camera_px * per_second[:, None] * np.array([1, 1, height_px, height_px], np.float32),
        boxes=boxes,
        found=found,
    )


def camera_between(gray: NDArray[np.uint8]) -> Array:
    """Return the motion of the scene between neighboring frames, for frames that are some time apart.

    The motion is replaced by zeros where it does not explain the second frame better than a still camera, e.g. at a cut
    or in a very fast pan.

    Args:
        gray: ``[time, height, width]``, about 144 pixels high.

    Returns:
        ``float32 [time - 1, 4]``: shift x and shift y in frame heights, growth, and turn in radians.
    """
    import cv2

    height_px, width_px = gray.shape[1:]
    pairs = np.arange(len(gray) - 1)
    flow_px, texture = _flow(gray, pairs)
    x, y = _cell_centers(height_px, width_px)
    camera_px = fit_similarity(flow_px, texture, x * height_px, y * height_px)
    for index in pairs:
        following: NDArray[np.uint8] = gray[index + 1]
        matrix = to_matrix(camera_px[index], height_px, width_px)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        undone = cv2.warpAffine(following, matrix, (width_px, height_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        moved = np.median(cv2.absdiff(undone, gray[index]))
        still = np.median(cv2.absdiff(following, gray[index]))
        if moved > 0.9 * still:
            camera_px[index] = 0
    return camera_px / np.array([height_px, height_px, 1, 1], np.float32)


def _cell_centers(height_px: int, width_px: int) -> tuple[Array, Array]:
    rows, columns = _grid(height_px, width_px)
    y = (np.arange(rows, dtype=np.float32) + 0.5) / rows - 0.5
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns - 0.5) * width_px / height_px
    return np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))


def _grid(height_px: int, width_px: int) -> tuple[int, int]:
    return max(1, round(height_px / CELL_PX)), max(1, round(width_px / CELL_PX))


_of_thread = threading.local()


def _dis() -> Any:
    """Return the flow algorithm of this thread: OpenCV's object has buffers that threads must not share.

    The preset ``fast`` stops at a quarter of the resolution and is off by up to 10 % on slow pans. The preset
    ``medium`` takes three times as long, for a precision that is lost in the average over a cell.
    """
    import cv2

    if not hasattr(_of_thread, "dis"):
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        dis.setFinestScale(1)
        dis.setGradientDescentIterations(12)
        dis.setVariationalRefinementIterations(0)
        _of_thread.dis = dis
    return _of_thread.dis


def _flow(gray: NDArray[np.uint8], pairs: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the flow in pixels, ``[pairs, rows, columns, 2]``, and the texture of the first frames, 0 … 1."""
    import cv2

    rows, columns = _grid(*gray.shape[1:])
    flow = np.zeros((len(pairs), rows, columns, 2), np.float32)
    texture = np.zeros((len(pairs), rows, columns), np.float32)
    for index, first in enumerate(pairs):
        dense = _dis().calc(gray[first], gray[first + 1], None)
        flow[index] = cv2.resize(dense, (columns, rows), interpolation=cv2.INTER_AREA)
        gradient_x = cv2.Sobel(gray[first], cv2.CV_16S, 1, 0)
        gradient_y = cv2.Sobel(gray[first], cv2.CV_16S, 0, 1)
        gradient = cv2.addWeighted(cv2.convertScaleAbs(gradient_x), 0.125, cv2.convertScaleAbs(gradient_y), 0.125, 0)
        levels = cv2.resize(gradient, (columns, rows), interpolation=cv2.INTER_AREA)
        texture[index] = levels / (levels + np.float32(_TEXTURE_LEVELS))
    return flow, texture


def _change(gray: NDArray[np.uint8], pairs: NDArray[np.int64], camera_px: Array) -> Array:
    """Return by how many gray levels each cell changes, ``[pairs, rows, columns]``.

    This is the smaller of two changes: between the frames as they are, and between the frames after the camera's
    motion is undone. Background that only the camera moves has no change of the second kind, and overlays such as a
    score board have none of the first kind.
    """
    import cv2

    height_px, width_px = gray.shape[1:]
    rows, columns = _grid(height_px, width_px)
    change = np.zeros((len(pairs), rows, columns), np.float32)
    for index, first in enumerate(pairs):
        matrix = to_matrix(camera_px[index], height_px, width_px)
        undone = cv2.warpAffine(
            gray[first + 1],
            matrix,
            (width_px, height_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        against_scene = cv2.absdiff(undone, gray[first])
        on_screen = cv2.absdiff(gray[first + 1], gray[first])
        size = (columns, rows)
        lesser = np.minimum(
            cv2.resize(against_scene, size, interpolation=cv2.INTER_AREA),
            cv2.resize(on_screen, size, interpolation=cv2.INTER_AREA),
        )
        # averaged with its neighbors, because moving objects change at edges and folds, not in every cell
        change[index] = cv2.blur(lesser.astype(np.float32), (3, 3))
    return change


def moving_boxes(motion_px: Array, aspect: float) -> tuple[Array, NDArray[np.bool_]]:
    """Find the box of the region that moves most in each pair.

    Args:
        motion_px: ``[pairs, rows, columns]``: motion of each cell relative to the scene.
        aspect: Width of the frame in frame heights.

    Returns:
        Boxes ``[pairs, 4]`` with center x, center y, width and height in frame heights, relative to the middle of the
        frame; and for each pair whether a region was found. Boxes of other pairs are interpolated. If no pair has a
        region, all boxes are the whole frame.
    """
    motion_px = _blurred_over_time(motion_px)
    boxes = np.tile(np.array([0, 0, aspect, 1], np.float32), (len(motion_px), 1))
    found = np.zeros(len(motion_px), bool)
    regions = [_strongest_region(motion) for motion in motion_px]
    least = max(_LEAST_CELLS_PX, _LULL * max((strength for _, strength in regions), default=0.0))
    for index, (box, strength) in enumerate(regions):
        if strength >= least:
            boxes[index], found[index] = box, True
    if not found.any():
        return boxes, found
    clock = np.arange(len(boxes))
    columns: list[NDArray[np.float64]] = [np.interp(clock, clock[found], column[found]) for column in boxes.T]
    filled = np.stack(columns, axis=1).astype(np.float32)
    # a median of five removes short jumps to another person
    padded = np.concatenate([filled[:1]] * 2 + [filled] + [filled[-1:]] * 2)
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0), axis=-1)
    return _blurred_over_time(smooth), found


def _strongest_region(motion: Array) -> tuple[Array, float]:
    """Return the box of the connected region with the largest sum of motions, and that sum."""
    import cv2

    rows, columns = motion.shape
    smooth = cv2.blur(motion, (3, 3))
    moving = (smooth > _BOX_SHARE * float(smooth.max())).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(moving, np.ones((3, 3), np.uint8)))
    sums = np.bincount(labels.ravel(), weights=smooth.ravel(), minlength=len(stats))
    sums[0] = 0.0
    strongest = int(sums.argmax())
    left, top, width, height = stats[strongest, :4]
    center = (left + width / 2 - columns / 2, top + height / 2 - rows / 2)
    # without the cell that the dilation added on each side
    box = np.array([*center, max(width - 2, 1), max(height - 2, 1)], np.float32) / rows
    return box, float(sums[strongest])


def _blurred_over_time(values: Array) -> Array:
    """Return the binomial mean over neighboring pairs."""
    if len(values) < 2:
        return values
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


class MotionStatistics:
    """Base of extractors that compute a row from the athlete's motion, without a network."""

    class Settings(Record):
        short_side_px: Annotated[int, Field(ge=48)] = 144
        """Frames are resized so that their shorter side has this length, in pixels."""

    blocks: ClassVar[Mapping[str, Sequence[str]]]
    """Blocks of a row → names of their numbers, in order."""
    weight_roles: ClassVar[tuple[str, ...]] = ()
    batch_size = 64

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        steps = (ShortSide(short_side_px=settings.short_side_px),)
        self.frames = FrameNeed(Geometry(steps=steps, gray=True), next_frame=True)
        self.dim = len(self.feature_names())

    @classmethod
    def feature_names(cls) -> tuple[str, ...]:
        """Return ``block.name`` for every number of a row."""
        return tuple(f"{block}.{name}" for block, names in cls.blocks.items() for name in names)

    def forward(self, prepared: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Return the rows that `prepare` computed."""
        return list(prepared)

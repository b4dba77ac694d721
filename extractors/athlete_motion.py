"""The athlete's own motion: optical flow less the camera's, and the box of the region that moves by itself.

Lengths are in frame heights, speeds in frame heights per second, x to the right and y down, whatever the frame's size
and rate. Everything is held on a grid of cells of `CELL_PX` pixels.
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
"""Pixels between two frames at which flow speaks for and against motion alike; noise and compression reach half."""
_STILL_LEVELS = 2.5
"""The same in gray levels between two frames."""
_TEXTURE_LEVELS = 4.0
"""Gray levels per pixel of gradient at which a cell's flow is half trusted."""
_LEAST_CELLS_PX = 4.0
"""A region moves where its cells' motions sum up to this, e.g. 16 cells of a quarter pixel each."""
_LULL = 0.05
"""... and to this share of the segment's strongest motion: in a lull the athlete stays in place, and noise must not
count as the athlete."""
_BOX_SHARE = 0.3
"""A cell belongs to a moving region where its motion exceeds this share of the frame's strongest."""


@dataclass(frozen=True, eq=False)
class AthleteMotion:
    """What moved between the frames of one segment. A *pair* is two neighboring frames, the second one later."""

    cells: tuple[Array, Array]
    """``x, y [rows, columns]``: the cells' centers, measured from the middle of the frame as all places are."""
    times_s: NDArray[np.float64]
    """``[pairs]``: halfway between the two frames."""
    flow: Array
    """``[pairs, rows, columns, 2]``: speed as seen on the screen."""
    own: Array
    """``[pairs, rows, columns, 2]``: speed against the scene, the camera's motion taken away."""
    evidence: Array
    """``[pairs, rows, columns]``, 0 … 1: how sure it is that something moves there by itself."""
    camera: Array
    """``[pairs, 4]``: the background's shift x, shift y, growth and turn (radians, clockwise), per second."""
    boxes: Array
    """``[pairs, 4]``: center x, center y, width, height, smoothed over time; the whole frame where `found` is empty."""
    found: NDArray[np.bool_]
    """``[pairs]``: whether something moved by itself; where not, the box is its neighbors'."""

    @property
    def energy(self) -> NDArray[np.float64]:
        """``[pairs]``: speed against the scene, as far as there is evidence of it, averaged over the frame."""
        speed = np.hypot(self.own[..., 0], self.own[..., 1])
        return (speed * self.evidence).mean(axis=(1, 2), dtype=np.float64)

    @property
    def body_velocity(self) -> Array:
        """``[pairs, 2]``: mean speed against the scene of all that moves by itself."""
        total = self.evidence.sum(axis=(1, 2))[:, None] + np.float32(1e-6)
        return (self.own * self.evidence[..., None]).sum(axis=(1, 2)) / total

    @property
    def articulation(self) -> NDArray[np.float64]:
        """``[pairs]``: as `energy`, but against the body itself: swinging limbs count, a gliding body does not."""
        inner = self.own - self.body_velocity[:, None, None]
        return (np.hypot(inner[..., 0], inner[..., 1]) * self.evidence).mean(axis=(1, 2), dtype=np.float64)


def athlete_in(segment: SegmentInput) -> AthleteMotion:
    """Of a segment with gray frames; followed once for all streams that see them."""
    assert segment.frames is not None
    gray, times_s = segment.frames[:, 0], segment.frame_times_s
    return segment.shared.once("athlete", lambda: follow_athlete(gray.cpu().numpy(), times_s))


def follow_athlete(gray: NDArray[np.uint8], times_s: tuple[float, ...]) -> AthleteMotion:
    """The motion in ``gray [time, height, width]``, whose frames were shown at ``times_s``.

    A pair whose time does not advance (a repeated frame, as padding makes) is left out: it shows nothing.
    """
    shown_s = np.asarray(times_s, np.float64)
    pairs = np.flatnonzero(np.diff(shown_s) > 1e-6)
    steps_s = shown_s[pairs + 1] - shown_s[pairs]
    height_px, width_px = gray.shape[1:]
    x, y = _cell_centers(height_px, width_px)

    flow_px, texture = _flow(gray, pairs)
    x_px, y_px = x * height_px, y * height_px
    # a quarter of the cells tells four numbers as well as all of them
    camera_px = fit_similarity(flow_px[:, ::2, ::2], texture[:, ::2, ::2], x_px[::2, ::2], y_px[::2, ::2])
    own_px = flow_px - apply_similarity(camera_px, x_px, y_px)
    # motion needs evidence from both flow and gray levels: flow alone drifts on areas without texture
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

    A motion that does not explain the second frame better than a still camera does (a cut, a pan that is too fast to
    follow) is replaced by zeros.

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
    """This thread's flow algorithm: OpenCV's keeps its buffers from call to call and must not be shared.

    Neither of its presets fits: ``fast`` stops at a quarter of the size and is up to 10 % out on slow pans, ``medium``
    takes three times as long for a gain that the cells average away.
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
    """Flow in pixels ``[pairs, rows, columns, 2]``, and texture, 0 … 1, of the first frames."""
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
    """``[pairs, rows, columns]`` gray levels by which a cell changed, on the screen and against the scene alike.

    The lesser of the two: what only the camera moves is the same again once its motion is undone, and what stands
    still on the screen while the camera moves (a score board) is not an athlete.
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
        # with its neighbors: what moves changes at its edges and in its folds, not in every cell
        change[index] = cv2.blur(lesser.astype(np.float32), (3, 3))
    return change


def moving_boxes(motion_px: Array, aspect: float) -> tuple[Array, NDArray[np.bool_]]:
    """``[pairs, 4]`` center x, center y, width, height of the region that moves most, and where there was one.

    ``motion_px [pairs, rows, columns]``: how far each cell moved by itself. Places are measured from the middle of the
    frame in frame heights, ``aspect`` is its width. A pair without a region takes its neighbors'; without any region
    at all every box is the whole frame.
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
    # the median of five: a box that jumps to someone else for a moment jumps back
    padded = np.concatenate([filled[:1]] * 2 + [filled] + [filled[-1:]] * 2)
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0), axis=-1)
    return _blurred_over_time(smooth), found


def _strongest_region(motion: Array) -> tuple[Array, float]:
    """Center x, center y, width, height of the connected region whose motion sums up to most, and that sum."""
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
    # the dilation reached one cell further on each side
    box = np.array([*center, max(width - 2, 1), max(height - 2, 1)], np.float32) / rows
    return box, float(sums[strongest])


def _blurred_over_time(values: Array) -> Array:
    """Binomial mean with the neighboring pairs."""
    if len(values) < 2:
        return values
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


class MotionStatistics:
    """Base of extractors that compute the numbers of a row from the athlete's motion, without a network."""

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
        """``block.name`` for every number of a row."""
        return tuple(f"{block}.{name}" for block, names in cls.blocks.items() for name in names)

    def forward(self, prepared: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Return the rows: `prepare` has computed them, and nothing is left for a device to do."""
        return list(prepared)

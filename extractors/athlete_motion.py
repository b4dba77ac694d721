"""The athlete's own motion: optical flow less the camera's, and the box of the region that moves by itself.

Lengths are in frame heights, speeds in frame heights per second, x to the right and y down, whatever the frame's size
and rate. Everything is held on a grid of cells of `CELL_PX` pixels.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .camera_motion import apply_similarity, fit_similarity, to_matrix
from .moving_region import moving_boxes
from .protocol import SegmentInput

Array = NDArray[np.floating]

CELL_PX = 3

_STILL_PX = 0.3
"""Pixels between two frames at which flow speaks for and against motion alike; noise and compression reach half."""
_STILL_LEVELS = 2.5
"""The same in gray levels between two frames."""
_TEXTURE_LEVELS = 4.0
"""Gray levels per pixel of gradient at which a cell's flow is half trusted."""


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
    evidence = _evidence(own_px, _change(gray, pairs, camera_px))
    boxes, found = moving_boxes(evidence * _length(own_px), width_px / height_px)
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


def _evidence(own_px: Array, change: Array) -> Array:
    """Motion needs evidence from both flow and gray levels: flow alone drifts on areas without texture."""
    flow_speaks = _length(own_px) ** 2 / (_length(own_px) ** 2 + _STILL_PX**2)
    levels_speak = change**2 / (change**2 + _STILL_LEVELS**2)
    return flow_speaks * levels_speak


def _length(vectors: Array) -> Array:
    return np.hypot(vectors[..., 0], vectors[..., 1])

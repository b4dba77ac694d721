"""Named features of a person's movement from key points: joint angles, their speeds, lean, and the center of mass.

Lengths are in body lengths and angles in radians, so that rows depend neither on the size of the person in the frame
nor on the frame rate. Left and right are combined as their mean and their absolute difference, so that a mirrored video
has the same row. Frames without a person are left out, not counted as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .camera_motion import apply_similarity
from .curve_statistics import spread
from .pose_networks import COCO_POINTS

Values = NDArray[np.float32]

FRAME_SIZE = 1 + 3 * len(COCO_POINTS) + 4
"""Numbers of a person in a frame: 1 with key points, 0 without; x, y (frame heights from the middle of the frame, down)
and confidence of each key point; camera motion."""
MOST_STEPS = 1.5
"""Speeds are measured between frames that are at most this many median steps apart."""

JOINTS: dict[str, tuple[str, str, str]] = {
    "elbow": ("shoulder", "elbow", "wrist"),
    "shoulder": ("hip", "shoulder", "elbow"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
}
"""Joint → three points; the angle is measured at the middle one: 0 is folded, π is stretched."""
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

_HEAD_MASS, _TRUNK_MASS = 0.081, 0.497
LIMB_MASSES: tuple[tuple[str, str, float, float], ...] = (
    ("shoulder", "elbow", 0.028, 0.436),
    ("elbow", "wrist", 0.022, 0.682),
    ("hip", "knee", 0.1, 0.433),
    ("knee", "ankle", 0.061, 0.606),
)
"""Limb from …, to …, its share of the body's mass, and the position of its center along it (Winter, Biomechanics and
Motor Control of Human Movement, table 4.1; hand and foot belong to forearm and shank). Each limb exists twice. The
center of head and neck (0.081) is at the ears, that of the trunk (0.497) halfway between shoulders and hips."""

_SPREAD = ("mean", "std", "low", "high")
_POSTURES = (
    *(f"{joint}.{side}" for joint in JOINTS for side in ("mean", "difference")),
    "split",
    "lean",
    "wrists_above_shoulders",
    "center_above_ankles",
)
_SPEEDS = (*(f"{joint}.speed" for joint in JOINTS), "split.speed", "trunk.turn", "center.across", "center.down")
NAMES: tuple[str, ...] = (
    *(f"{name}.{statistic}" for name in (*_POSTURES, *_SPEEDS, "center.speed") for statistic in _SPREAD),
    "upside_down",
    "found",
    *(f"confidence.{limb}" for limb in LIMBS),
)
"""Names of the numbers of a row.

``split`` is the angle between the legs, ``lean`` the angle of the trunk to the vertical (π: upside down),
``trunk.turn`` its speed. ``center`` is the center of mass; its path is relative to the scene, without camera motion.
``upside_down`` and ``found`` are shares of the frames, ``low`` and ``high`` the 10th and 90th percentile."""


def frame_features(points_px: Values, confidence: Values, height_px: int, width_px: int, camera: Values) -> Values:
    """Return the numbers of a person in a frame.

    Args:
        points_px: ``[17, 2]``: x, y in pixels of the frame; NaN for a person without key points.
        confidence: ``[17]``
        height_px: Height of the frame.
        width_px: Width of the frame.
        camera: ``[4]``: motion of the scene to the next frame, see `camera_between`.

    Returns:
        ``float32 [FRAME_SIZE]``
    """
    if not np.isfinite(points_px).all():
        return np.zeros(FRAME_SIZE, np.float32)
    places = (points_px - np.array([width_px / 2, height_px / 2], np.float32)) / np.float32(height_px)
    numbers = np.concatenate([places, confidence[:, None]], axis=1)
    return np.concatenate([[1.0], numbers.ravel(), camera]).astype(np.float32)


def has_key_points(value: Values | None) -> bool:
    """Return whether `frame_features` describes a person with key points."""
    return value is not None and bool(value[0] == 1)


def segment_features(times_s: Sequence[float], values: Sequence[Values | None]) -> Values | None:
    """Return the row of a segment.

    Args:
        times_s: Times of its frames.
        values: Result of `frame_features` for each frame; None for a frame without a person.

    Returns:
        ``float32 [len(NAMES)]``; None if no two neighboring frames show a person.
    """
    found = np.array([has_key_points(value) for value in values])
    shown_s = np.asarray(times_s, np.float64)[found]
    if len(shown_s) < 2:
        return None
    frames = np.stack([value for value, is_found in zip(values, found, strict=True) if value is not None and is_found])
    numbers = frames[:, 1:-4].reshape(len(frames), len(COCO_POINTS), 3)
    pairs = _neighbors(shown_s, float(np.median(np.diff(times_s))))
    if not len(pairs):
        return None
    body = _Body(numbers[..., :2].astype(np.float64))
    curves = body.postures() | _speeds(body, frames[:, -4:], shown_s, pairs)
    statistics = [number for name in (*_POSTURES, *_SPEEDS, "center.speed") for number in spread(curves[name])]
    confidence = [float(numbers[:, list(_both(limb)), 2].mean()) for limb in LIMBS]
    upside_down = float((body.lean > np.pi / 2).mean())
    return np.array([*statistics, upside_down, float(found.mean()), *confidence], np.float32)


def _neighbors(times_s: NDArray[np.float64], step_s: float) -> NDArray[np.int64]:
    """Return the first frame of each pair of consecutive frames, without repeated frames and gaps."""
    steps_s = np.diff(times_s)
    return np.flatnonzero((steps_s > 1e-6) & (steps_s <= MOST_STEPS * max(step_s, 1e-6)))


class _Body:
    """``[frames, 17, 2]`` key points of a person, in frame heights."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self._points = points
        self._up = self._middle("shoulder") - self._middle("hip")
        self.length = max(float(np.median(self._lengths())), 1e-3)
        self.direction = np.arctan2(self._up[:, 0], -self._up[:, 1])
        self.lean = np.abs(self.direction)
        self.angles = {joint: np.stack([self._angle(side, joint) for side in (0, 1)]) for joint in JOINTS}
        legs = [self._limb(side, "ankle") - self._limb(side, "hip") for side in (0, 1)]
        self.split = _angle(legs[0], legs[1])
        self.center = self._center_of_mass()

    def postures(self) -> dict[str, NDArray[np.float64]]:
        """Return the curves that are measured in each frame."""
        curves: dict[str, NDArray[np.float64]] = {}
        for joint, (left, right) in self.angles.items():
            curves |= {f"{joint}.mean": (left + right) / 2, f"{joint}.difference": np.abs(left - right)}
        wrists = self._middle("shoulder")[:, 1] - self._middle("wrist")[:, 1]
        ankles = self._middle("ankle")[:, 1] - self.center[:, 1]
        return curves | {
            "split": self.split,
            "lean": self.lean,
            "wrists_above_shoulders": wrists / self.length,
            "center_above_ankles": ankles / self.length,
        }

    def _limb(self, side: int, name: str) -> NDArray[np.float64]:
        return self._points[:, _both(name)[side]]

    def _middle(self, name: str) -> NDArray[np.float64]:
        return self._points[:, list(_both(name))].mean(axis=1)

    def _lengths(self) -> NDArray[np.float64]:
        """Return the length of trunk, thigh and shank in each frame."""
        total = np.linalg.norm(self._up, axis=1)
        for side in (0, 1):
            for start, end in (("hip", "knee"), ("knee", "ankle")):
                total = total + np.linalg.norm(self._limb(side, start) - self._limb(side, end), axis=1) / 2
        return total

    def _angle(self, side: int, joint: str) -> NDArray[np.float64]:
        start, middle, end = (self._limb(side, name) for name in JOINTS[joint])
        return _angle(start - middle, end - middle)

    def _center_of_mass(self) -> NDArray[np.float64]:
        total = _HEAD_MASS * self._middle("ear") + _TRUNK_MASS * (self._middle("shoulder") + self._middle("hip")) / 2
        for start, end, mass, along in LIMB_MASSES:
            for side in (0, 1):
                total = total + mass * (self._limb(side, start) * (1 - along) + self._limb(side, end) * along)
        return total


def _speeds(
    body: _Body, camera: Values, times_s: NDArray[np.float64], pairs: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the curves that are measured between neighboring frames, per second."""
    step_s = times_s[pairs + 1] - times_s[pairs]

    def rate(curve: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(curve[..., pairs + 1] - curve[..., pairs]) / step_s

    turned = body.direction[pairs + 1] - body.direction[pairs]
    turned = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
    first = body.center[pairs]
    of_camera = apply_similarity(camera[pairs], first[:, :1, None], first[:, 1:, None])[:, 0, 0]
    velocity = (body.center[pairs + 1] - first - of_camera) / step_s[:, None] / body.length
    return {
        **{f"{joint}.speed": rate(angles).mean(axis=0) for joint, angles in body.angles.items()},
        "split.speed": rate(body.split),
        "trunk.turn": turned / step_s,
        "center.across": np.abs(velocity[:, 0]),
        "center.down": velocity[:, 1],
        "center.speed": np.hypot(velocity[:, 0], velocity[:, 1]),
    }


def _both(name: str) -> tuple[int, int]:
    """Return the indices of the left and the right point."""
    return COCO_POINTS.index(f"left_{name}"), COCO_POINTS.index(f"right_{name}")


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles ``[frames]`` between vectors ``[frames, 2]``, 0 to π."""
    cross = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return np.abs(np.arctan2(cross, (one * other).sum(axis=1)))

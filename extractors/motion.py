"""Stream ``motion``: what an athlete's movement looks like in numbers, without any trained weights.

The blocks of a row, in order, are in `Motion.blocks`. A segment in which nothing moves has a row, too: it is still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .athlete_motion import AthleteMotion, MotionStatistics, athlete_in
from .camera_motion import apply_similarity
from .curve_statistics import BANDS_HZ, band_shares, jerkiness, spread
from .protocol import SegmentInput

Values = NDArray[np.floating]

DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right")
SPEEDS = ("slow", "medium", "fast")
BINS = ("still", *(f"{speed}_{direction}" for speed in SPEEDS for direction in DIRECTIONS))
"""Names of the bins of a flow histogram, in order."""

BODY_SPEEDS = (0.15, 0.4, 1.0)
"""Body heights per second that part still, slow, medium and fast: thirds of what skaters do, by and large."""
SCENE_SPEEDS = (0.05, 0.2, 0.6)
"""The same for the picture as a whole, in frame heights per second."""
STILL_ENERGY = 5e-4
"""Energy that compression noise alone reaches, in frame heights per second."""

_BODY_CELLS = ("body", "top_left", "top_right", "bottom_left", "bottom_right")
_SPREAD = ("mean", "std", "low", "high")
_BANDS = tuple(f"{low:g}_{high:g}_hz" for low, high in BANDS_HZ)
_STEADINESS = (*_BANDS, "jerkiness")


def _names(*parts: Sequence[str]) -> tuple[str, ...]:
    """All combinations, the last part changing fastest."""
    combined = ("",)
    for part in parts:
        combined = tuple(f"{left}.{right}" if left else right for left in combined for right in part)
    return combined


BLOCKS: dict[str, tuple[str, ...]] = {
    # own motion of the athlete's box as a whole and of its quarters: roots of shares of the area, so that
    # distances between rows weigh the few fast points as well as the many slow ones
    "body_flow": _names(_BODY_CELLS, BINS),
    # the picture as it is, the camera's motion included
    "scene_flow": BINS,
    # frame heights; y is down, so that `low` of center_y is the highest point
    "box": (*_names(("center_x", "center_y", "width", "height", "foot_y"), _SPREAD), "lowest_height", "found"),
    # of the box against the scene, in body heights per second
    "travel": (*_names(("across", "down", "speed"), _SPREAD), "fastest_down"),
    # mean over the frame of the speed against the scene, in frame heights per second
    "energy": ("log_mean", *_SPREAD, "max", "variation", *_STEADINESS, "still_share"),
    # of the athlete's mean velocity against the scene, in body heights per second
    "sway": _names(("across", "down"), ("std", *_STEADINESS)),
    # frame heights per second; growth and turn per second
    "camera": (*_names(("shift_x", "shift_y", "growth", "turn", "speed"), ("mean", "std")), "speed_max", "jerkiness"),
}


class Motion(MotionStatistics):
    """Classical motion features; see `BLOCKS`."""

    blocks = BLOCKS
    version: ClassVar[int] = 1
    audio = None

    def prepare(self, segment: SegmentInput) -> torch.Tensor:
        """Return the row."""
        if segment.frames is None:
            raise ValueError("motion: the segment carries no frames; build it as `Motion.frames` asks")
        return torch.as_tensor(motion_features(athlete_in(segment)))


def motion_features(motion: AthleteMotion) -> NDArray[np.float32]:
    """``float32 [dim]`` in the order of `BLOCKS`."""
    heights = motion.boxes[motion.found, 3]
    body_height = max(float(np.median(heights)), 0.05) if len(heights) else 1.0  # the unit of body speeds
    flow = motion.flow.reshape(-1, 2)
    scene_flow = flow_histograms(flow, np.ones(len(flow), np.float32), np.zeros(len(flow), np.int64), 1, SCENE_SPEEDS)
    box = [0.0] * len(BLOCKS["box"])
    if motion.found.any():
        columns = (*motion.boxes.T, motion.boxes[:, 1] + motion.boxes[:, 3] / 2)
        lowest = float(motion.boxes[:, 3].min()) / body_height
        box = [*(value for column in columns for value in spread(column)), lowest, float(motion.found.mean())]
    sway: list[float] = []
    for curve in (motion.body_velocity / body_height).T:
        sway += [spread(curve)[1], *band_shares(curve, motion.times_s), jerkiness(curve)]
    shift_x, shift_y, growth, turn = motion.camera.T
    speed = np.hypot(shift_x, shift_y)
    camera = [value for curve in (shift_x, shift_y, growth, turn, speed) for value in spread(curve)[:2]]
    blocks = {
        "body_flow": _body_flow(motion, body_height),
        "scene_flow": np.sqrt(scene_flow),
        "box": box,
        "travel": _travel(motion, body_height),
        "energy": _energy(motion),
        "sway": sway,
        "camera": [*camera, float(speed.max(initial=0.0)), jerkiness(shift_x)],
    }
    return np.concatenate([np.ravel(blocks[name]) for name in BLOCKS]).astype(np.float32)


def _body_flow(motion: AthleteMotion, body_height: float) -> Values:
    x, y = motion.cells
    center_x, center_y, width, height = (motion.boxes[:, k, None, None] for k in range(4))
    inside = (np.abs(x - center_x) <= width / 2) & (np.abs(y - center_y) <= height / 2)
    quarter = (x > center_x) + 2 * (y > center_y)
    quarters = flow_histograms(
        motion.own[inside] / np.float32(body_height), motion.evidence[inside], quarter[inside], 4, BODY_SPEEDS
    )
    points = np.bincount(quarter[inside], minlength=4)
    body = points @ quarters / max(points.sum(), 1) if points.any() else quarters[0]
    return np.sqrt(np.vstack([body, quarters]))


def flow_histograms(
    velocity: Values, weight: Values, region: NDArray[np.int64], num_regions: int, edges: tuple[float, float, float]
) -> Values:
    """``[num_regions, len(BINS)]``: shares of each region's points, which sum to 1; no points are all still.

    ``velocity [points, 2]``, x right and y down; ``region [points]``. A point below ``edges[0]`` is still, one above
    ``edges[2]`` fast; it counts as far as its ``weight [points]``, 0 … 1, and is still for the rest.
    """
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    # halves go to the even neighbor, so that a mirrored velocity falls into the mirrored bin
    direction = np.rint(np.arctan2(velocity[:, 1], velocity[:, 0]) * np.float32(4 / np.pi)).astype(np.int64)
    swiftness = np.digitize(speed, edges)
    bins = np.where(swiftness == 0, 0, 1 + (swiftness - 1) * len(DIRECTIONS) + direction % len(DIRECTIONS))
    slots = num_regions * len(BINS)
    moving = np.bincount(region * len(BINS) + bins, weights=weight, minlength=slots).reshape(num_regions, len(BINS))
    points = np.bincount(region, minlength=num_regions)[:, None]
    moving[:, :1] += points - moving.sum(axis=1, keepdims=True) + (points == 0)
    return (moving / np.maximum(points, 1)).astype(np.float32)


def _travel(motion: AthleteMotion, body_height: float) -> list[float]:
    """The box's way over the scene: its way over the screen less the camera's motion where it is."""
    if len(motion.boxes) < 2 or not motion.found.any():
        return [0.0] * len(BLOCKS["travel"])
    center = motion.boxes[:, :2]
    on_screen = np.diff(center, axis=0) / np.diff(motion.times_s)[:, None]
    camera = apply_similarity(motion.camera, center[:, :1, None], center[:, 1:, None])[:, 0, 0]
    velocity = (on_screen - (camera[1:] + camera[:-1]) / 2) / body_height
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    curves = (np.abs(velocity[:, 0]), velocity[:, 1], speed)
    return [*(value for curve in curves for value in spread(curve)), float(velocity[:, 1].max())]


def _energy(motion: AthleteMotion) -> list[float]:
    energy = motion.energy
    if len(energy) == 0:
        return [0.0] * (len(BLOCKS["energy"]) - 1) + [1.0]
    mean, std, low, high = spread(energy)
    still = energy <= max(mean / 4, STILL_ENERGY)
    return [
        float(np.log1p(mean / STILL_ENERGY)),
        mean,
        std,
        low,
        high,
        float(energy.max()),
        std / mean if mean > STILL_ENERGY else 0.0,
        *band_shares(energy, motion.times_s),
        jerkiness(energy),
        float(still.mean()),
    ]

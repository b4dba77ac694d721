"""Stream ``motion``: statistics of an athlete's movement, without trained weights.

`Motion.blocks` has the blocks of a row in order. A segment without motion has a row, too.
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
"""Limits between still, slow, medium and fast, in body heights per second; about thirds of the speeds of skaters"""
SCENE_SPEEDS = (0.05, 0.2, 0.6)
"""The same limits for the whole frame, in frame heights per second"""
STILL_ENERGY = 5e-4
"""Energy that compression noise causes, in frame heights per second"""

_BODY_CELLS = ("body", "top_left", "top_right", "bottom_left", "bottom_right")
_SPREAD = ("mean", "std", "low", "high")
_BANDS = tuple(f"{low:g}_{high:g}_hz" for low, high in BANDS_HZ)
_STEADINESS = (*_BANDS, "jerkiness")


def _names(*parts: Sequence[str]) -> tuple[str, ...]:
    """Return all combinations; the last part changes fastest."""
    combined = ("",)
    for part in parts:
        combined = tuple(f"{left}.{right}" if left else right for left in combined for right in part)
    return combined


BLOCKS: dict[str, tuple[str, ...]] = {
    # motion relative to the scene in the athlete's box and its quarters: square roots of shares of the area, so that
    # few fast cells and many slow cells have similar weight in distances between rows
    "body_flow": _names(_BODY_CELLS, BINS),
    # the whole frame, with the camera's motion
    "scene_flow": BINS,
    # frame heights; y is down, so that `low` of center_y is the highest point
    "box": (*_names(("center_x", "center_y", "width", "height", "foot_y"), _SPREAD), "lowest_height", "found"),
    # velocity of the box relative to the scene, in body heights per second
    "travel": (*_names(("across", "down", "speed"), _SPREAD), "fastest_down"),
    # mean speed relative to the scene over the frame, in frame heights per second
    "energy": ("log_mean", *_SPREAD, "max", "variation", *_STEADINESS, "still_share"),
    # mean velocity of the athlete relative to the scene, in body heights per second
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
            raise ValueError("motion: the segment has no frames; build it as `Motion.frames` requires")
        return torch.as_tensor(motion_features(athlete_in(segment)))


def motion_features(motion: AthleteMotion) -> NDArray[np.float32]:
    """Return the row ``float32 [dim]`` in the order of `BLOCKS`."""
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
    """Return the histogram of velocities in each region, ``[num_regions, len(BINS)]``; each sums to 1.

    Args:
        velocity: ``[points, 2]``, x to the right and y down.
        weight: ``[points]``, 0 … 1. The rest of a point counts as still.
        region: ``[points]``: the region of each point. A region without points is still.
        num_regions: Number of regions.
        edges: Limits between still, slow, medium and fast.
    """
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    # halves are rounded to even numbers, so that a mirrored velocity is in the mirrored bin
    direction = np.rint(np.arctan2(velocity[:, 1], velocity[:, 0]) * np.float32(4 / np.pi)).astype(np.int64)
    swiftness = np.digitize(speed, edges)
    bins = np.where(swiftness == 0, 0, 1 + (swiftness - 1) * len(DIRECTIONS) + direction % len(DIRECTIONS))
    slots = num_regions * len(BINS)
    moving = np.bincount(region * len(BINS) + bins, weights=weight, minlength=slots).reshape(num_regions, len(BINS))
    points = np.bincount(region, minlength=num_regions)[:, None]
    moving[:, :1] += points - moving.sum(axis=1, keepdims=True) + (points == 0)
    return (moving / np.maximum(points, 1)).astype(np.float32)


def _travel(motion: AthleteMotion, body_height: float) -> list[float]:
    """Return statistics of the velocity of the box in the frame, minus the camera's motion at its center."""
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

"""Histograms of flow: how much of a region moves in which direction, and how fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right")
SPEEDS = ("slow", "medium", "fast")
BINS = ("still", *(f"{speed}_{direction}" for speed in SPEEDS for direction in DIRECTIONS))
"""Names of the bins, in order."""


def flow_histograms(
    velocity: Array, weight: Array, region: NDArray[np.int64], num_regions: int, edges: tuple[float, float, float]
) -> Array:
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

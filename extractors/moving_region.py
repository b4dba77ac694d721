"""The region that moves by itself, frame by frame: the athlete's box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_LEAST_CELLS_PX = 4.0
"""A region moves where its cells' motions sum up to this, e.g. 16 cells of a quarter pixel each."""
_LULL = 0.05
"""... and to this share of the segment's strongest motion: in a lull the athlete stays in place, and noise must not
count as the athlete."""
_BOX_SHARE = 0.3
"""A cell belongs to a moving region where its motion exceeds this share of the frame's strongest."""


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
    filled = np.stack(columns, axis=1)
    return _blurred_over_time(_median_over_time(filled.astype(np.float32))), found


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


def _median_over_time(values: Array, reach: int = 2) -> Array:
    """Median with ``reach`` neighbors on either side: a box that jumps to someone else for a moment jumps back."""
    padded = np.concatenate([values[:1]] * reach + [values] + [values[-1:]] * reach)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)


def _blurred_over_time(values: Array) -> Array:
    """Binomial mean with the neighboring pairs."""
    if len(values) < 2:
        return values
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4

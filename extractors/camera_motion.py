"""The camera's motion between two frames: a robust fit of a similarity transform to the flow of the background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_ROUNDS = 8
_LEAST_SPREAD_PX = 0.15
"""Lower limit of the spread of residuals: the accuracy of the flow"""


def fit_similarity(flow: Array, texture: Array, x: Array, y: Array) -> Array:
    """Fit a similarity transform to the flow by iteratively reweighted least squares.

    A cell has more weight if it has texture, is near the border of the frame, where athletes seldom are, and has a
    small residual.

    Args:
        flow: ``[pairs, rows, columns, 2]``.
        texture: ``[pairs, rows, columns]``, 0 … 1.
        x: ``[rows, columns]``: positions of the cells relative to the middle of the frame, in the unit of the flow.
        y: The same for the vertical axis.

    Returns:
        ``float32 [pairs, 4]``: shift x, shift y, growth and turn (radians, clockwise).
    """
    flat = (len(flow), x.size)
    u, v = flow[..., 0].reshape(flat), flow[..., 1].reshape(flat)
    # 1 at the border of the frame, ½ in its middle
    reach = np.maximum(np.abs(x) / max(float(x.max()), 1e-6), np.abs(y) / max(float(y.max()), 1e-6))
    towards_border = np.clip(0.5 + 0.5 * reach, 0.5, 1.0).astype(np.float32)
    prior = texture.reshape(flat) * towards_border.ravel() + np.float32(1e-6)
    place_x, place_y = x.reshape(1, -1), y.reshape(1, -1)
    camera = np.zeros((len(flow), 4), np.float32)
    camera[:, 0], camera[:, 1] = _weighted_median(u, prior), _weighted_median(v, prior)
    for _ in range(_ROUNDS):
        shift_x, shift_y, growth, turn = (camera[:, [k]] for k in range(4))
        off_x = u - shift_x - growth * place_x + turn * place_y
        off_y = v - shift_y - turn * place_x - growth * place_y
        off = off_x * off_x + off_y * off_y
        spread = np.maximum(_weighted_median(off, prior), _LEAST_SPREAD_PX**2)[:, None]
        agreeing = prior / np.square(1 + off / (4 * spread))
        camera = _least_squares(u, v, place_x, place_y, agreeing)
    return camera


def apply_similarity(camera: Array, x: Array, y: Array) -> Array:
    """Return the flow that the camera's motion causes at each cell, ``[pairs, rows, columns, 2]``."""
    shift_x, shift_y, growth, turn = (camera[:, k, None, None] for k in range(4))
    return np.stack([shift_x + growth * x - turn * y, shift_y + turn * x + growth * y], axis=-1)


def to_matrix(camera: Array, height_px: int, width_px: int) -> NDArray[np.float64]:
    """Return the matrix ``[2, 3]`` from pixels of the first frame to pixels of the second, for flow in pixels."""
    shift_x, shift_y, growth, turn = (float(value) for value in camera)
    middle = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
    linear = np.array([[1 + growth, -turn], [turn, 1 + growth]])
    return np.column_stack([linear, middle - linear @ middle + np.array([shift_x, shift_y])])


def _weighted_median(values: Array, weights: Array) -> Array:
    """Return the weighted median ``[pairs]`` of values ``[pairs, cells]``."""
    order = np.argsort(values, axis=1)
    upto = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1, dtype=np.float64)
    middle = np.argmax(upto >= upto[:, -1:] / 2, axis=1)
    return np.take_along_axis(values, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[:, 0]


def _least_squares(u: Array, v: Array, x: Array, y: Array, weights: Array) -> Array:
    """Return the weighted least-squares fit ``[pairs, 4]`` in closed form, relative to the weighted mean position."""
    total = weights.sum(axis=1)
    mean_x, mean_y, mean_u, mean_v = ((weights * value).sum(axis=1) / total for value in (x, y, u, v))
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    spread = (weights * (dx * dx + dy * dy)).sum(axis=1)
    # regularization: a ten-thousandth of the spread of all cells, for frames with very few textured cells
    spread = spread + 1e-4 * total * float((x * x + y * y).mean()) + np.float32(1e-9)
    growth = (weights * (dx * u + dy * v)).sum(axis=1) / spread
    turn = (weights * (dx * v - dy * u)).sum(axis=1) / spread
    shift_x = mean_u - growth * mean_x + turn * mean_y
    shift_y = mean_v - turn * mean_x - growth * mean_y
    return np.stack([shift_x, shift_y, growth, turn], axis=1).astype(np.float32)

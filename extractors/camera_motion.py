"""The camera's motion between two frames: the similarity that most of the textured background agrees on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_ROUNDS = 8
_LEAST_SPREAD_PX = 0.15
"""Agreement finer than the flow's own accuracy is not asked for."""


def fit_similarity(flow: Array, texture: Array, x: Array, y: Array) -> Array:
    """``[pairs, 4]`` float32: shift x, shift y, growth and turn that explain ``flow [pairs, rows, columns, 2]``.

    Iteratively reweighted least squares: a cell counts as far as it has ``texture [pairs, rows, columns]``, lies
    towards the border, where athletes seldom are, and agrees with the others. ``x, y [rows, columns]`` are the cells'
    places from the middle of the frame, in the unit of the flow.
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
    """``[pairs, rows, columns, 2]``: the flow that the camera alone would cause."""
    shift_x, shift_y, growth, turn = (camera[:, k, None, None] for k in range(4))
    return np.stack([shift_x + growth * x - turn * y, shift_y + turn * x + growth * y], axis=-1)


def to_matrix(camera: Array, height_px: int, width_px: int) -> NDArray[np.float64]:
    """``[2, 3]`` from pixels of the first frame to pixels of the second, for flow in pixels."""
    shift_x, shift_y, growth, turn = (float(value) for value in camera)
    middle = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
    linear = np.array([[1 + growth, -turn], [turn, 1 + growth]])
    return np.column_stack([linear, middle - linear @ middle + np.array([shift_x, shift_y])])


def _weighted_median(values: Array, weights: Array) -> Array:
    """``[pairs]`` from ``[pairs, cells]``."""
    order = np.argsort(values, axis=1)
    upto = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1, dtype=np.float64)
    middle = np.argmax(upto >= upto[:, -1:] / 2, axis=1)
    return np.take_along_axis(values, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[:, 0]


def _least_squares(u: Array, v: Array, x: Array, y: Array, weights: Array) -> Array:
    """The weighted similarity in closed form, around the weighted mean place."""
    total = weights.sum(axis=1)
    mean_x, mean_y, mean_u, mean_v = ((weights * value).sum(axis=1) / total for value in (x, y, u, v))
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    spread = (weights * (dx * dx + dy * dy)).sum(axis=1)
    # one ten-thousandth of a frame's own spread keeps a single textured cell from inventing a zoom
    spread = spread + 1e-4 * total * float((x * x + y * y).mean()) + np.float32(1e-9)
    growth = (weights * (dx * u + dy * v)).sum(axis=1) / spread
    turn = (weights * (dx * v - dy * u)).sum(axis=1) / spread
    shift_x = mean_u - growth * mean_x + turn * mean_y
    shift_y = mean_v - turn * mean_x - growth * mean_y
    return np.stack([shift_x, shift_y, growth, turn], axis=1).astype(np.float32)

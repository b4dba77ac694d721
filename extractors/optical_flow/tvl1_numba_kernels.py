"""The arithmetic of TV-L1 in Numba, compiled for this machine on first use and then read from Numba's cache.

Functions process whole rows. The fields of a pair are in one array ``[field, 1 + h, 16 + w + …]``. It has a row of
zeros at the top, 16 columns of zeros on the left, and on the right zeros up to a multiple of 16 columns and 16 more, so
that neighbors of every pixel can be read. The values outside the image stay zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numpy.typing import NDArray

from .tvl1_settings import LAMBDA, TAU, THETA

Image = NDArray[np.float32]
Row = NDArray[np.float32]
Indices = NDArray[np.integer]
Scalar = np.float32

REACH_PX = 4
"""A cubic kernel at this distance outside an image does not reach any pixel of it, so positions are clamped to it."""
MARGIN_PX = REACH_PX + 1
LANES = 16
DATA_STEP, DUAL_STEP, RELAXATION = np.float32(LAMBDA * THETA), np.float32(TAU / THETA), np.float32(THETA)
TINY = np.finfo(np.float32).eps
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)


class DisjointArrays(CompilerBase):
    """Declares to LLVM that the arrays of a call do not overlap; else it does not vectorize loops over many arrays."""

    def define_pipelines(self) -> list[Any]:
        state: Any = self.state
        state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(state)]  # pyright: ignore[reportUnknownMemberType]


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function. Fused multiply-add and any order of sums are allowed; other arithmetic is exact."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "nsz", "reassoc"},
        "pipeline_class": DisjointArrays,
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder for the cache: every process compiles
        return numba.njit(**options)(function)


@compiled
def resize(image: Image, top: Indices, row_weight: Row, left: Indices, column_weight: Row) -> Image:
    """Resize ``[h, w]`` to ``[out_h, out_w]`` bilinearly, with the taps of ``linear_taps``."""
    height, width = image.shape
    result = np.empty((len(top), len(left)), np.float32)
    for y in range(len(top)):
        above, below = image[top[y]], image[min(top[y] + 1, height - 1)]
        for x in range(len(left)):
            i, j = left[x], min(left[x] + 1, width - 1)
            upper = above[i] + column_weight[x] * (above[j] - above[i])
            lower = below[i] + column_weight[x] * (below[j] - below[i])
            result[y, x] = upper + row_weight[y] * (lower - upper)
    return result


@compiled
def surround(image: Image, replicate: bool) -> Image:
    """Return the image and its central differences with a margin of zeros or repeated edges, each flattened."""
    height, width = image.shape
    result = np.zeros((3, height + 2 * MARGIN_PX, width + 2 * MARGIN_PX), np.float32)
    reach = MARGIN_PX if replicate else 0
    for row in range(-reach, height + reach):
        y = min(max(row, 0), height - 1)
        for column in range(-reach, width + reach):
            x = min(max(column, 0), width - 1)
            along_x = image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)]
            along_y = image[min(y + 1, height - 1), x] - image[max(y - 1, 0), x]
            result[0, MARGIN_PX + row, MARGIN_PX + column] = image[y, x]
            result[1, MARGIN_PX + row, MARGIN_PX + column] = along_x / TWO
            result[2, MARGIN_PX + row, MARGIN_PX + column] = along_y / TWO
    return result.reshape(3, -1)


@compiled
def solve_level(
    image: Image,
    surrounded: Image,
    flow: Image,
    warps: int,
    outer_iterations: int,
    inner_iterations: int,
    median_px: int,
    limit: float,
    cubic: Scalar,
    per_px: Scalar,
    lazy_test: bool,
) -> Image:
    """Compute the flow ``[2, h, w]`` at one level from an initial flow.

    A warp ends if an iteration's sum of squared changes is at most ``limit``.
    """
    height, width = image.shape
    filled = -(-width // LANES) * LANES
    fields = np.zeros((11, height + 1, LANES + filled + LANES), np.float32)  # row 0 has the zeros above the image
    fields[3:5, 1:, LANES : LANES + width] = flow
    inside = np.zeros(fields.shape[2], np.float32)
    inside[LANES : LANES + width - 1] = ONE
    for _ in range(warps):
        linearize(image, surrounded, fields, cubic, per_px)
        iteration, bound, done = 0, 0.0, False
        while not done and iteration < outer_iterations * inner_iterations:
            if median_px > 1 and iteration % inner_iterations == 0:
                filter_median(fields[3], fields[9], width, median_px)
                filter_median(fields[4], fields[10], width, median_px)
            error = iterate(fields, inside, filled)
            if not lazy_test or (bound < limit and iteration % 2 == 1):
                done = error <= limit
                bound = error
            else:
                bound -= limit
            iteration += 1
    return fields[3:5, 1:, LANES : LANES + width].copy()


@compiled
def linearize(image: Image, surrounded: Image, fields: Image, cubic: Scalar, per_px: Scalar) -> None:
    """Compute the data term at the flow in fields 3 and 4: its constant (field 0) and gradient (fields 1 and 2)."""
    height, width = image.shape
    pitch = width + 2 * MARGIN_PX
    left, top = np.empty(width, np.int32), np.empty(width, np.int32)
    across, down = np.empty((5, width), np.float32), np.empty((5, width), np.float32)
    windows = np.empty(width // LANES + 1, np.int32)
    constant, along_x, along_y, u, v = fields[0], fields[1], fields[2], fields[3], fields[4]
    for y in range(height):
        locate(u[y + 1], v[y + 1], y, height, width, cubic, per_px, left, top, across, down)
        join(left, top, across, down, pitch, windows)
        blend(surrounded[0], left, top, across, down, windows, pitch, constant[y + 1])
        blend(surrounded[1], left, top, across, down, windows, pitch, along_x[y + 1])
        blend(surrounded[2], left, top, across, down, windows, pitch, along_y[y + 1])
        subtract(image[y], u[y + 1], v[y + 1], along_x[y + 1], along_y[y + 1], constant[y + 1])


@compiled
def locate(
    u: Row,
    v: Row,
    y: int,
    height: int,
    width: int,
    cubic: Scalar,
    per_px: Scalar,
    left: Indices,
    top: Indices,
    across: Image,
    down: Image,
) -> None:
    """Compute for each pixel of a row the first of its 4 × 4 taps and the weights of the taps' columns and rows."""
    edge = np.float32(1 - REACH_PX)
    for x in range(width):
        column, row = np.float32(x) + u[LANES + x], np.float32(y) + v[LANES + x]
        if per_px > ZERO:
            column, row = np.rint(column * per_px) / per_px, np.rint(row * per_px) / per_px
        column = min(max(column, edge), np.float32(width + 1))
        row = min(max(row, edge), np.float32(height + 1))
        before, above = np.floor(column), np.floor(row)
        left[x], top[x] = np.int32(before) - 1 + MARGIN_PX, np.int32(above) - 1 + MARGIN_PX
        across[0, x], across[1, x], across[2, x], across[3, x] = cubic_weights(column - before, cubic)
        down[0, x], down[1, x], down[2, x], down[3, x] = cubic_weights(row - above, cubic)
        across[4, x], down[4, x] = ZERO, ZERO


@compiled
def join(left: Indices, top: Indices, across: Image, down: Image, pitch: int, windows: Indices) -> None:
    """Let 16 neighbors share a window of 5 × 5 taps if their flows differ by at most a pixel.

    The taps are then read as vectors of 16 values. ``windows`` gets the first tap of the first pixel, or -1 if the
    neighbors cannot share a window.
    """
    for block in range(len(windows)):
        start = block * LANES
        windows[block] = -1
        if start + LANES <= len(left):
            first, last, highest, lowest = left[start], left[start], top[start], top[start]
            for i in range(1, LANES):
                first, last = min(first, left[start + i] - i), max(last, left[start + i] - i)
                highest, lowest = min(highest, top[start + i]), max(lowest, top[start + i])
            if last - first <= 1 and lowest - highest <= 1:
                windows[block] = highest * pitch + first
                for i in range(LANES):
                    x = start + i
                    shift(across, x, left[x] - i > first)
                    shift(down, x, top[x] > highest)


@compiled
def shift(weights: Image, x: int, late: bool) -> None:
    """Move the weights of a pixel by one tap if ``late``."""
    for tap in range(4, 0, -1):
        weights[tap, x] = weights[tap - 1, x] if late else weights[tap, x]
    weights[0, x] = ZERO if late else weights[0, x]


@compiled
def cubic_weights(fraction: Scalar, a: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Return the weights of four pixels for a position that is ``fraction`` after the second pixel."""
    behind, ahead = fraction + ONE, ONE - fraction
    first = ((a * behind - np.float32(5) * a) * behind + np.float32(8) * a) * behind - np.float32(4) * a
    second = ((a + TWO) * fraction - (a + np.float32(3))) * fraction * fraction + ONE
    third = ((a + TWO) * ahead - (a + np.float32(3))) * ahead * ahead + ONE
    return first, second, third, ONE - first - second - third


@compiled
def blend(
    surrounded: Row,
    left: Indices,
    top: Indices,
    across: Image,
    down: Image,
    windows: Indices,
    pitch: int,
    result: Row,
) -> None:
    """Compute the weighted sum of each pixel's taps."""
    for block in range(len(windows)):
        start = block * LANES
        if windows[block] >= 0:
            window = surrounded[windows[block] :]
            r0, r1, r2, r3, r4 = window, window[pitch:], window[2 * pitch :], window[3 * pitch :], window[4 * pitch :]
            for i in range(LANES):
                x = start + i
                total = down[0, x] * blend5(r0, across, i, x) + down[1, x] * blend5(r1, across, i, x)
                total += down[2, x] * blend5(r2, across, i, x) + down[3, x] * blend5(r3, across, i, x)
                result[LANES + x] = total + down[4, x] * blend5(r4, across, i, x)
        else:
            for i in range(min(LANES, len(left) - start)):
                x = start + i
                total = ZERO
                for row in range(4):
                    tap = (top[x] + row) * pitch + left[x]
                    line = across[0, x] * surrounded[tap] + across[1, x] * surrounded[tap + 1]
                    line += across[2, x] * surrounded[tap + 2] + across[3, x] * surrounded[tap + 3]
                    total += down[row, x] * line
                result[LANES + x] = total


@compiled
def blend5(row: Row, across: Image, i: int, x: int) -> Scalar:
    first = across[0, x] * row[i] + across[1, x] * row[i + 1] + across[2, x] * row[i + 2]
    return first + across[3, x] * row[i + 3] + across[4, x] * row[i + 4]


@compiled
def subtract(image: Row, u: Row, v: Row, along_x: Row, along_y: Row, constant: Row) -> None:
    """Subtract the first image and the linear term from the warped image, which gives the constant of the data term."""
    for x in range(len(image)):
        i = LANES + x
        constant[i] -= along_x[i] * u[i] + along_y[i] * v[i] + image[x]


@compiled
def iterate(fields: Image, inside: Row, filled: int) -> float:
    """Compute one iteration in place: the primal step of each row, then the dual step of the row above it.

    Returns:
        Sum of the squared changes of the flow, in px².
    """
    constant, along_x, along_y, u, v = fields[0], fields[1], fields[2], fields[3], fields[4]
    ux, uy, vx, vy = fields[5], fields[6], fields[7], fields[8]
    last = len(u) - 1
    error = 0.0
    for y in range(1, last + 1):
        error += primal_step(
            constant[y], along_x[y], along_y[y], ux[y], uy[y], uy[y - 1], vx[y], vy[y], vy[y - 1], u[y], v[y], filled
        )
        if y > 1:
            dual_step(u[y - 1], u[y], ux[y - 1], uy[y - 1], inside, filled)
            dual_step(v[y - 1], v[y], vx[y - 1], vy[y - 1], inside, filled)
    dual_step(u[last], u[last], ux[last], uy[last], inside, filled)
    dual_step(v[last], v[last], vx[last], vy[last], inside, filled)
    return error


@compiled
def primal_step(
    constant: Row,
    along_x: Row,
    along_y: Row,
    ux: Row,
    uy: Row,
    uy_above: Row,
    vx: Row,
    vy: Row,
    vy_above: Row,
    u: Row,
    v: Row,
    filled: int,
) -> Scalar:
    """Change the flow by thresholding of the data term and by the divergence of the dual variable."""
    error = ZERO
    for i in range(filled):
        x = LANES + i
        square = along_x[x] * along_x[x] + along_y[x] * along_y[x]
        residual = constant[x] + along_x[x] * u[x] + along_y[x] * v[x]
        # the three cases of the thresholding; a gradient whose square is below TINY changes the flow by 2e-5 px at most
        factor = min(max(-residual / max(square, TINY), -DATA_STEP), DATA_STEP)
        du = factor * along_x[x] + RELAXATION * (ux[x] - ux[x - 1] + uy[x] - uy_above[x])
        dv = factor * along_y[x] + RELAXATION * (vx[x] - vx[x - 1] + vy[x] - vy_above[x])
        u[x] += du
        v[x] += dv
        error += du * du + dv * dv
    return error


@compiled
def dual_step(flow: Row, below: Row, dual_x: Row, dual_y: Row, inside: Row, filled: int) -> None:
    """Change the dual variable along the forward differences of the flow, then normalize it by their length.

    Differences are zero in the last column, because of ``inside``, and in the last row, where ``below`` is the row
    itself.
    """
    for i in range(filled):
        x = LANES + i
        along_x = (flow[x + 1] - flow[x]) * inside[x]
        along_y = below[x] - flow[x]
        shrink = ONE / (ONE + DUAL_STEP * np.sqrt(along_x * along_x + along_y * along_y))
        dual_x[x] = (dual_x[x] + DUAL_STEP * along_x) * shrink
        dual_y[x] = (dual_y[x] + DUAL_STEP * along_y) * shrink


@compiled
def filter_median(field: Image, spare: Image, width: int, side_px: int) -> None:
    """Apply a median of 3 × 3 or 5 × 5 neighbors in place, with repeated edges.

    Each column is sorted once for all windows that contain it.
    """
    last = len(field) - 1
    ranks = np.empty((5, LANES + width + LANES), np.float32)
    for y in range(1, last + 1):
        up, down = field[max(y - 1, 1)], field[min(y + 1, last)]
        if side_px == 5:
            sort_columns5(field[max(y - 2, 1)], up, field[y], down, field[min(y + 2, last)], ranks, width)
        else:
            sort_columns3(up, field[y], down, ranks, width)
        for rank in range(side_px):
            ranks[rank, LANES - 2 : LANES] = ranks[rank, LANES]
            ranks[rank, LANES + width : LANES + width + 2] = ranks[rank, LANES + width - 1]
        if side_px == 5:
            pick5(ranks[0], ranks[1], ranks[2], ranks[3], ranks[4], spare[y], width)
        else:
            pick3(ranks[0], ranks[1], ranks[2], spare[y], width)
    field[:] = spare


@compiled
def sort_columns5(r0: Row, r1: Row, r2: Row, r3: Row, r4: Row, ranks: Image, width: int) -> None:
    for i in range(width):
        x = LANES + i
        ranks[0, x], ranks[1, x], ranks[2, x], ranks[3, x], ranks[4, x] = sort5(r0[x], r1[x], r2[x], r3[x], r4[x])


@compiled
def sort_columns3(r0: Row, r1: Row, r2: Row, ranks: Image, width: int) -> None:
    for i in range(width):
        x = LANES + i
        ranks[0, x], ranks[1, x], ranks[2, x] = sort3(r0[x], r1[x], r2[x])


@compiled
def pick5(r0: Row, r1: Row, r2: Row, r3: Row, r4: Row, result: Row, width: int) -> None:
    """Compute the medians of 5 × 5 windows whose columns are sorted.

    After sorting the rows as well, the median is the median of three numbers: the largest of the antidiagonal before
    the main one, the median of the main antidiagonal, and the smallest of the one after it.
    """
    for i in range(width):
        x = LANES + i
        _, _, _, a3, a4 = sort5(r0[x - 2], r0[x - 1], r0[x], r0[x + 1], r0[x + 2])
        _, _, b2, b3, b4 = sort5(r1[x - 2], r1[x - 1], r1[x], r1[x + 1], r1[x + 2])
        _, c1, c2, c3, _ = sort5(r2[x - 2], r2[x - 1], r2[x], r2[x + 1], r2[x + 2])
        d0, d1, d2, _, _ = sort5(r3[x - 2], r3[x - 1], r3[x], r3[x + 1], r3[x + 2])
        e0, e1, _, _, _ = sort5(r4[x - 2], r4[x - 1], r4[x], r4[x + 1], r4[x + 2])
        _, _, middle, _, _ = sort5(a4, b3, c2, d1, e0)
        _, result[x], _ = sort3(max(max(a3, b2), max(c1, d0)), middle, min(min(b4, c3), min(d2, e1)))


@compiled
def pick3(r0: Row, r1: Row, r2: Row, result: Row, width: int) -> None:
    """Compute the medians of 3 × 3 windows as `pick5` does for 5 × 5."""
    for i in range(width):
        x = LANES + i
        _, _, a2 = sort3(r0[x - 1], r0[x], r0[x + 1])
        _, b1, _ = sort3(r1[x - 1], r1[x], r1[x + 1])
        c0, _, _ = sort3(r2[x - 1], r2[x], r2[x + 1])
        _, result[x], _ = sort3(a2, b1, c0)


@compiled
def sort3(a: Scalar, b: Scalar, c: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    a, b = min(a, b), max(a, b)
    b, c = min(b, c), max(b, c)
    return min(a, b), max(a, b), c


@compiled
def sort5(a: Scalar, b: Scalar, c: Scalar, d: Scalar, e: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar, Scalar]:
    """Sort five numbers by nine comparisons, the minimum."""
    a, b = min(a, b), max(a, b)
    d, e = min(d, e), max(d, e)
    c, e = min(c, e), max(c, e)
    c, d = min(c, d), max(c, d)
    a, d = min(a, d), max(a, d)
    b, e = min(b, e), max(b, e)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    return a, min(b, c), max(b, c), d, e

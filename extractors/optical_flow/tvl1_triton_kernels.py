# pyright: standard, reportGeneralTypeIssues=false, reportOperatorIssue=false
# these functions are in Triton's language, which has the syntax of Python and no types
"""The arithmetic of TV-L1 in Triton.

A warp of threads processes a strip of columns from top to bottom, with several iterations at once: a row that the first
iteration has finished is the next row of the second iteration. So a launch reads and writes memory once for all its
iterations; values of neighboring columns are exchanged by shuffles, rows stay in registers. Strips overlap by as many
pixels as there are iterations.

The stop criterion is nevertheless tested for every iteration: ``judge`` sums the errors of the strips for each
iteration, always in the same order. If a pair should have stopped within a launch, the launch is repeated from the same
state up to that iteration.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .tvl1_settings import LAMBDA, TAU, THETA

DATA_STEP, DUAL_STEP, RELAXATION = tl.constexpr(LAMBDA * THETA), tl.constexpr(TAU / THETA), tl.constexpr(THETA)
TINY = tl.constexpr(torch.finfo(torch.float32).eps)
HALF_EVEN = tl.constexpr(1.5 * 2**23)
"""Adding and subtracting this number rounds a number below 2²² to the nearest integer."""
VALUES_AT_ONCE = tl.constexpr(1024)


launched = triton.jit(do_not_specialize=["pairs", "height", "width", "strips_across", "strips"])
"""Compiles a kernel once for all sizes. By default, Triton compiles 1 and multiples of 16 separately."""


@launched
def linearize(
    images,
    following,
    data,
    state,
    side,
    pairs,
    height,
    width,
    CUBIC: tl.constexpr,
    REPLICATE: tl.constexpr,
    PER_PX: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Compute constant and gradient of the brightness difference at the current flow."""
    pair = tl.program_id(1).to(tl.int64)
    area = height * width
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = at < area
    flow = state + (tl.load(side + pair) * pairs + pair) * 6 * area + at
    u, v = tl.load(flow, mask=inside, other=0.0), tl.load(flow + area, mask=inside, other=0.0)
    x, y = (at % width) + u, (at // width) + v
    x, y = tl.minimum(tl.maximum(x, -3.0), width + 1.0), tl.minimum(tl.maximum(y, -3.0), height + 1.0)
    if PER_PX > 0:
        x, y = (x * PER_PX + HALF_EVEN - HALF_EVEN) / PER_PX, (y * PER_PX + HALF_EVEN - HALF_EVEN) / PER_PX
    left, top = tl.floor(x), tl.floor(y)
    across, down = cubic_weights(x - left, CUBIC), cubic_weights(y - top, CUBIC)
    source = following + pair * 3 * area
    value, along_x, along_y = u * 0, u * 0, u * 0
    for row in tl.static_range(4):
        for column in tl.static_range(4):
            tap_x, tap_y = left.to(tl.int32) + (column - 1), top.to(tl.int32) + (row - 1)
            seen = inside
            if REPLICATE:
                tap_x = tl.minimum(tl.maximum(tap_x, 0), width - 1)
                tap_y = tl.minimum(tl.maximum(tap_y, 0), height - 1)
            else:
                seen = inside & (tap_x >= 0) & (tap_x < width) & (tap_y >= 0) & (tap_y < height)
            tap = source + tap_y * width + tap_x
            weight = across[column] * down[row]
            value += weight * tl.load(tap, mask=seen, other=0.0)
            along_x += weight * tl.load(tap + area, mask=seen, other=0.0)
            along_y += weight * tl.load(tap + 2 * area, mask=seen, other=0.0)
    constant = value - along_x * u - along_y * v - tl.load(images + pair * area + at, mask=inside, other=0.0)
    result = data + pair * 3 * area + at
    tl.store(result, constant, mask=inside)
    tl.store(result + area, along_x, mask=inside)
    tl.store(result + 2 * area, along_y, mask=inside)


@triton.jit
def cubic_weights(fraction, A: tl.constexpr):
    """Return the weights of four pixels for a position that is ``fraction`` after the second pixel."""
    behind, ahead = fraction + 1, 1 - fraction
    first = ((A * behind - 5 * A) * behind + 8 * A) * behind - 4 * A
    second = ((A + 2) * fraction - (A + 3)) * fraction * fraction + 1
    third = ((A + 2) * ahead - (A + 3)) * ahead * ahead + 1
    return first, second, third, 1 - first - second - third


@launched
def iterate(
    data,
    state,
    errors,
    side,
    steps,
    pairs,
    height,
    width,
    strips_across,
    ITERATIONS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute the next ``steps`` iterations of a strip, from the current state to the other state."""
    strip, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    count = tl.load(steps + pair)
    if count > 0:
        area = height * width
        current = tl.load(side + pair)
        source = state + (current * pairs + pair) * 6 * area
        target = state + ((1 - current) * pairs + pair) * 6 * area
        data += pair * 3 * area
        column = tl.arange(0, COLUMNS)
        first_x = (strip % strips_across) * (COLUMNS - 2 * ITERATIONS) - ITERATIONS
        x = first_x + column
        top = (strip // strips_across) * ROWS
        bottom = tl.minimum(top + ROWS, height)
        columns = (tl.maximum(column - 1, 0), tl.minimum(column + 1, COLUMNS - 1), (x >= 0) & (x < width - 1))
        end = tl.minimum(COLUMNS - ITERATIONS, width - first_x)
        zero = tl.zeros((COLUMNS,), tl.float32)
        nothing = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        above, sums = (nothing,) * ITERATIONS, (zero,) * ITERATIONS
        for step in range(bottom - top + 2 * ITERATIONS):
            y = top - ITERATIONS + step
            row = load_row(data, source, y, x, height, width, area)
            next_above, next_sums = (), ()
            for k in tl.static_range(ITERATIONS):
                row, carried, change = iterate_row(row, above[k], y - k, columns, k < count, height)
                counted = own_columns(column, y - k, top, bottom, end, ITERATIONS)
                next_above += (carried,)
                next_sums += (sums[k] + tl.where(counted, change, 0.0),)
            above, sums = next_above, next_sums
            done = y - ITERATIONS
            own = own_columns(column, done, top, bottom, end, ITERATIONS)
            store_row(target, row, done * width + x, own, area)
        for k in tl.static_range(ITERATIONS):
            tl.store(errors + (pair * ITERATIONS + k) * tl.num_programs(0) + strip, tl.sum(sums[k]))


@launched
def begin_round(
    side,
    steps,
    left,
    done,
    pairs,
    IS_FILTERED: tl.constexpr,
    INNER: tl.constexpr,
    ITERATIONS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Set the iterations of a round for the pairs that are not done. After a median, switch their current state."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    inside = pair < pairs
    running = 1 - tl.load(done + pair, mask=inside, other=1)
    if IS_FILTERED:
        tl.store(side + pair, tl.load(side + pair, mask=inside, other=0) ^ running, mask=inside)
    tl.store(left + pair, running * INNER, mask=inside)
    tl.store(steps + pair, running * tl.minimum(INNER, ITERATIONS), mask=inside)


@triton.jit
def own_columns(column, y, top, bottom, end, ITERATIONS: tl.constexpr):
    """Return which columns of row ``y`` belong to a strip; the others overlap with its neighbors."""
    return (column >= ITERATIONS) & (column < tl.where((y >= top) & (y < bottom), end, 0))


@triton.jit
def load_row(data, source, y, x, height, width, area):
    """Load constant and gradient of the data term, the flow and the dual variables; zeros outside the image."""
    mask = (x >= 0) & (x < tl.where((y >= 0) & (y < height), width, 0))
    at = y * width + x
    return (
        tl.load(data + at, mask=mask, other=0.0),
        tl.load(data + area + at, mask=mask, other=0.0),
        tl.load(data + 2 * area + at, mask=mask, other=0.0),
        tl.load(source + at, mask=mask, other=0.0),
        tl.load(source + area + at, mask=mask, other=0.0),
        tl.load(source + 2 * area + at, mask=mask, other=0.0),
        tl.load(source + 3 * area + at, mask=mask, other=0.0),
        tl.load(source + 4 * area + at, mask=mask, other=0.0),
        tl.load(source + 5 * area + at, mask=mask, other=0.0),
    )


@triton.jit
def store_row(target, row, at, mask, area):
    for field in tl.static_range(6):
        tl.store(target + field * area + at, row[field + 3], mask=mask)


@triton.jit
def iterate_row(row, above, y, columns, active, height):
    """Compute the primal step of row ``y``, then the dual step of the row above, whose primal step is done.

    Returns:
        The row above, after both steps; row ``y`` after the primal step; and the squared change of its flow, in px². If
        the iteration is not ``active``, rows are returned unchanged.
    """
    constant, along_x, along_y, u, v, ux, uy, vx, vy = row
    left, right, has_right = columns
    square = along_x * along_x + along_y * along_y
    residual = constant + along_x * u + along_y * v
    factor = tl.minimum(tl.maximum(-residual / tl.maximum(square, TINY), -DATA_STEP), DATA_STEP)
    du = factor * along_x + RELAXATION * (ux - tl.gather(ux, left, 0) + uy - above[6])
    dv = factor * along_y + RELAXATION * (vx - tl.gather(vx, left, 0) + vy - above[8])
    du, dv = tl.where(active, du, 0.0), tl.where(active, dv, 0.0)
    u, v = u + du, v + dv
    has_below = (y > 0) & (y < height)
    ux_above, uy_above = ascend(above[3], u, above[5], above[6], right, has_right, has_below, active)
    vx_above, vy_above = ascend(above[4], v, above[7], above[8], right, has_right, has_below, active)
    finished = (above[0], above[1], above[2], above[3], above[4], ux_above, uy_above, vx_above, vy_above)
    return finished, (constant, along_x, along_y, u, v, ux, uy, vx, vy), du * du + dv * dv


@triton.jit
def ascend(flow, below, dual_x, dual_y, right, has_right, has_below, active):
    """Change the dual variable along the forward differences of the flow and normalize it."""
    along_x = tl.where(has_right, tl.gather(flow, right, 0) - flow, 0.0)
    along_y = tl.where(has_below, below - flow, 0.0)
    shrink = 1 / (1 + DUAL_STEP * tl.sqrt(along_x * along_x + along_y * along_y))
    new_x, new_y = (dual_x + DUAL_STEP * along_x) * shrink, (dual_y + DUAL_STEP * along_y) * shrink
    return tl.where(active, new_x, dual_x), tl.where(active, new_y, dual_y)


@launched
def judge(
    errors, side, steps, left, iteration, done, bound, limit, strips, ITERATIONS: tl.constexpr, LAZY: tl.constexpr
):
    """Accept the result of ``iterate``, or let it repeat the iterations up to the one that met the limit."""
    pair = tl.program_id(0)
    count = tl.load(steps + pair)
    if count > 0:
        first, last = tl.load(iteration + pair), tl.load(bound + pair)
        stop = count * 0
        for k in range(count):
            error = total(errors + (pair * ITERATIONS + k) * strips, strips)
            tested = error == error
            if LAZY:
                tested = (last < limit) & ((first + k) % 2 == 1)
            stop = tl.where(tested & (error <= limit) & (stop == 0), k + 1, stop)
            last = tl.where(tested, error, last - limit)
        if (stop > 0) & (stop < count):
            tl.store(steps + pair, stop)
        else:
            remaining = tl.load(left + pair) - count
            tl.store(side + pair, 1 - tl.load(side + pair))
            tl.store(steps + pair, tl.where(stop > 0, 0, tl.minimum(remaining, ITERATIONS)))
            tl.store(left + pair, remaining)
            tl.store(iteration + pair, first + count)
            tl.store(done + pair, tl.where(stop > 0, 1, 0))
            tl.store(bound + pair, last)


@triton.jit
def total(values, count):
    """Return the sum of values, always in the same order."""
    result = 0.0
    for first in range(0, count, VALUES_AT_ONCE):
        index = first + tl.arange(0, VALUES_AT_ONCE)
        result += tl.sum(tl.load(values + index, mask=index < count, other=0.0))
    return result


@launched
def filter_median(state, side, done, pairs, height, width, SIDE_PX: tl.constexpr, PIXELS: tl.constexpr):
    """Write medians of the flow over 3 × 3 or 5 × 5 neighbors, and the dual variables, to the other state.

    Edges are repeated. Pairs that are done do not change.
    """
    pair = tl.program_id(1).to(tl.int64)
    if tl.load(done + pair) == 0:
        area = height * width
        current = tl.load(side + pair)
        source = state + (current * pairs + pair) * 6 * area
        target = state + ((1 - current) * pairs + pair) * 6 * area
        at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        inside = at < area
        x, y = at % width, at // width
        for component in tl.static_range(2):
            if SIDE_PX == 5:
                middle = median5(source + component * area, y, x, height, width, inside)
            else:
                middle = median3(source + component * area, y, x, height, width, inside)
            tl.store(target + component * area + at, middle, mask=inside)
        for field in tl.static_range(2, 6):
            kept = tl.load(source + field * area + at, mask=inside, other=0.0)
            tl.store(target + field * area + at, kept, mask=inside)


@triton.jit
def neighbor(field, y, x, height, width, inside):
    row, column = tl.minimum(tl.maximum(y, 0), height - 1), tl.minimum(tl.maximum(x, 0), width - 1)
    return tl.load(field + row * width + column, mask=inside, other=0.0)


@triton.jit
def sorted_column5(field, y, x, height, width, inside):
    return sort5(
        neighbor(field, y - 2, x, height, width, inside),
        neighbor(field, y - 1, x, height, width, inside),
        neighbor(field, y, x, height, width, inside),
        neighbor(field, y + 1, x, height, width, inside),
        neighbor(field, y + 2, x, height, width, inside),
    )


@triton.jit
def median5(field, y, x, height, width, inside):
    """Return the median of 5 × 5 neighbors; see ``pick5`` in tvl1_numba_kernels.py."""
    p = sorted_column5(field, y, x - 2, height, width, inside)
    q = sorted_column5(field, y, x - 1, height, width, inside)
    r = sorted_column5(field, y, x, height, width, inside)
    s = sorted_column5(field, y, x + 1, height, width, inside)
    t = sorted_column5(field, y, x + 2, height, width, inside)
    a = sort5(p[0], q[0], r[0], s[0], t[0])
    b = sort5(p[1], q[1], r[1], s[1], t[1])
    c = sort5(p[2], q[2], r[2], s[2], t[2])
    d = sort5(p[3], q[3], r[3], s[3], t[3])
    e = sort5(p[4], q[4], r[4], s[4], t[4])
    before = tl.maximum(tl.maximum(a[3], b[2]), tl.maximum(c[1], d[0]))
    behind = tl.minimum(tl.minimum(b[4], c[3]), tl.minimum(d[2], e[1]))
    return sort3(before, sort5(a[4], b[3], c[2], d[1], e[0])[2], behind)[1]


@triton.jit
def sorted_column3(field, y, x, height, width, inside):
    return sort3(
        neighbor(field, y - 1, x, height, width, inside),
        neighbor(field, y, x, height, width, inside),
        neighbor(field, y + 1, x, height, width, inside),
    )


@triton.jit
def median3(field, y, x, height, width, inside):
    p = sorted_column3(field, y, x - 1, height, width, inside)
    q = sorted_column3(field, y, x, height, width, inside)
    r = sorted_column3(field, y, x + 1, height, width, inside)
    return sort3(sort3(p[0], q[0], r[0])[2], sort3(p[1], q[1], r[1])[1], sort3(p[2], q[2], r[2])[0])[1]


@triton.jit
def sort3(a, b, c):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    return tl.minimum(a, b), tl.maximum(a, b), c


@triton.jit
def sort5(a, b, c, d, e):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    d, e = tl.minimum(d, e), tl.maximum(d, e)
    c, e = tl.minimum(c, e), tl.maximum(c, e)
    c, d = tl.minimum(c, d), tl.maximum(c, d)
    a, d = tl.minimum(a, d), tl.maximum(a, d)
    b, e = tl.minimum(b, e), tl.maximum(b, e)
    a, c = tl.minimum(a, c), tl.maximum(a, c)
    b, d = tl.minimum(b, d), tl.maximum(b, d)
    return a, tl.minimum(b, c), tl.maximum(b, c), d, e

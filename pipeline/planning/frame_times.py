"""Lossless compression of frame times, as integer ticks where that is exact."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_MAX_TICKS_PER_S = 200_000
_MAX_STEPS = 64
_MAX_BYTES = 128 << 20


def packed_times(times_s: NDArray[np.float64]) -> bytes:
    """Compress frame times; those of a regular video take a few dozen bytes."""
    per_s = _ticks_per_s(times_s)
    numbers = np.diff(np.rint(times_s * per_s).astype("<i8"), prepend=0) if per_s else times_s.astype("<f8")
    return per_s.to_bytes(4, "little") + zlib.compress(numbers.tobytes())


def unpacked_times(data: bytes) -> NDArray[np.float64]:
    """Restore the input of `packed_times` exactly; raise `zlib.error` or `ValueError` for other data."""
    unpacking = zlib.decompressobj()
    per_s, numbers = int.from_bytes(data[:4], "little"), unpacking.decompress(data[4:], _MAX_BYTES)
    if not unpacking.eof:
        raise ValueError("the frame times are truncated or too long")
    if not per_s:
        return np.frombuffer(numbers, "<f8").astype(np.float64)
    return np.cumsum(np.frombuffer(numbers, "<i8")).astype(np.float64) / per_s


def _ticks_per_s(times_s: NDArray[np.float64]) -> int:
    """Return the number of ticks per second that represents all times exactly; 0 if there is none."""
    steps = np.diff(times_s)
    first = np.unique(np.round(steps, 9), return_index=True)[1]
    if len(first) > _MAX_STEPS or not np.isfinite(times_s).all():
        return 0
    terms = [Fraction(float(step)).limit_denominator(_MAX_TICKS_PER_S).denominator for step in steps[first]]
    per_s = math.lcm(1, *terms)
    if per_s > _MAX_TICKS_PER_S or not np.array_equal(np.rint(times_s * per_s) / per_s, times_s):
        return 0
    return per_s

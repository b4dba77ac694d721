"""Times of frames in few bytes, exactly: as whole numbers of ticks wherever they are some."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_MAX_TICKS_PER_S = 200_000
_MAX_STEPS = 64


def packed_times(times_s: NDArray[np.float64]) -> bytes:
    """A regular video's take a few dozen bytes."""
    per_s = _ticks_per_s(times_s)
    numbers = np.diff(np.rint(times_s * per_s).astype("<i8"), prepend=0) if per_s else times_s.astype("<f8")
    return per_s.to_bytes(4, "little") + zlib.compress(numbers.tobytes())


def unpacked_times(data: bytes) -> NDArray[np.float64]:
    """What `packed_times` was given, to the last bit."""
    per_s, numbers = int.from_bytes(data[:4], "little"), zlib.decompress(data[4:])
    if not per_s:
        return np.frombuffer(numbers, "<f8").astype(np.float64)
    return np.cumsum(np.frombuffer(numbers, "<i8")).astype(np.float64) / per_s


def _ticks_per_s(times_s: NDArray[np.float64]) -> int:
    """0 where the times are no quotients of whole numbers by any; a quotient's value does not depend on its terms."""
    steps = np.diff(times_s)
    first = np.unique(np.round(steps, 9), return_index=True)[1]
    if len(first) > _MAX_STEPS or not np.isfinite(times_s).all():
        return 0
    terms = [Fraction(float(step)).limit_denominator(_MAX_TICKS_PER_S).denominator for step in steps[first]]
    per_s = math.lcm(1, *terms)
    if per_s > _MAX_TICKS_PER_S or not np.array_equal(np.rint(times_s * per_s) / per_s, times_s):
        return 0
    return per_s

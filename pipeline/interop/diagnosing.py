"""Diagnosis of differences between feature arrays: one test for each known cause.

A test reverts the effect of its cause and measures the remaining difference. The first cause that
explains the difference is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .row_alignments import exact_alignment, other_alignment
from .row_distances import Array, Explanation, Pair, agree, cosines, relative_error
from .value_differences import mostly_normalization, of_values

_AGREES = 1e-3  # maximal relative error of equal rows under another alignment
# Measured with I3D on real clips, as relative error and mean cosine: bfloat16 .019 and .9999; frames shifted by 1/16 of
# a segment .13 and .9989; 8-bit flow for a network that only averages the flow .041 and .9992.
_NEAR, _NEAR_COSINE = 0.05, 0.999


def diagnose(a: NDArray[Any], b: NDArray[Any], tolerance: float = 0.0) -> Explanation:
    """Return the first cause that explains the difference of A and B."""
    return diagnose_together([(a, b)], tolerance)


def diagnose_together(arrays: Sequence[tuple[NDArray[Any], NDArray[Any]]], tolerance: float = 0.0) -> Explanation:
    """Return the first cause that explains the difference of A and B in all videos.

    A shift or scale that is not significant in one short video may be significant in many.
    """
    agrees = max(tolerance, _AGREES)
    if found := _not_comparable(arrays):
        return found
    pairs = [as_rows(a, b) for a, b in arrays]
    if all(a.ndim != b.ndim for a, b in arrays) and all(agree(*pair, agrees) for pair in pairs):
        return _halves(*arrays[0])
    found = exact_alignment(pairs, agrees)
    together = _listed(pairs)
    if found is None and together is not None:
        found = of_values(*together)
    if found is None and all(agree(*pair, agrees) for pair in pairs):
        near = f"within {agrees:g} of the largest number"
        found = Explanation("arithmetic", f"{near}: another device, library or precision")
    found = found or other_alignment(pairs)
    if found is None and together is not None:
        found = mostly_normalization(pairs)
    return found or _mostly_arithmetic(pairs) or _unexplained(pairs)


def as_rows(a: NDArray[Any], b: NDArray[Any]) -> Pair:
    """Return both as ``float64 [rows, dim]``. Parts of segments are averaged if the shapes then agree, else listed.

    Parts are the axes between segments and dim; a map [time, height, width] is averaged to [time] if the other side
    has this one axis.
    """

    def rows(one: NDArray[Any], other: NDArray[Any]) -> Array:
        if one.ndim < 3:
            return np.atleast_2d(one).astype(np.float64)
        kept = max(other.ndim - 2, 0)  # inner axes of the other side
        is_listed = other.ndim < 3 and len(other) == math.prod(one.shape[:-1])
        inner = () if is_listed else tuple(range(1 + kept, one.ndim - 1))
        averaged = one.mean(axis=inner, dtype=np.float64) if inner else one.astype(np.float64)
        return averaged.reshape(-1, one.shape[-1])

    return rows(a, b), rows(b, a)


def _not_comparable(arrays: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Explanation | None:
    for a, b in arrays:
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            side = "B" if np.isfinite(a).all() else "A"
            return Explanation("not-finite", f"{side} has numbers that are not finite")
        if a.shape[-1:] != b.shape[-1:]:
            dims = f"{a.shape[-1]} values per row, not {b.shape[-1]}"
            return Explanation("other-dim", f"{dims}: another network or layer")
    return None


def _halves(a: NDArray[Any], b: NDArray[Any]) -> Explanation:
    parts = math.prod((a if a.ndim > b.ndim else b).shape[1:-1])
    side, other = ("A", "B") if a.ndim > b.ndim else ("B", "A")
    how = "their mean is" if len(a) == len(b) else "in order they are"
    if min(a.ndim, b.ndim) > 2:
        how = "their mean over height and width is"
    return Explanation("halves", f"{side} has {parts} vectors for each segment; {how} {other}'s")


def _listed(pairs: Sequence[Pair]) -> Pair | None:
    """Return all rows of all videos, or None if the numbers of rows or the dimensions differ."""
    if any(len(a) != len(b) for a, b in pairs) or len({a.shape[1] for a, _ in pairs}) > 1:
        return None
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _mostly_arithmetic(pairs: Sequence[Pair]) -> Explanation | None:
    if any(len(a) != len(b) for a, b in pairs) or not all(agree(*pair, _NEAR) for pair in pairs):
        return None
    if _mean_cosine(pairs) < _NEAR_COSINE:
        return None
    return Explanation(
        "arithmetic",
        f"within {max(relative_error(a, b) for a, b in pairs):.1e} of the largest number, without a pattern: a network "
        "in half precision, 8-bit flow, JPEGs in between, or another decoder or library",
    )


def _unexplained(pairs: Sequence[Pair]) -> Explanation:
    if any(len(a) != len(b) for a, b in pairs):
        num_a, num_b = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
        return Explanation(
            "unexplained", f"{num_a} segments against {num_b}, and no shift or resampling makes them agree"
        )
    return Explanation("unexplained", f"mean cosine {_mean_cosine(pairs):.4f}; no known cause explains the difference")


def _mean_cosine(pairs: Sequence[Pair]) -> float:
    return float(np.concatenate([cosines(a, b) for a, b in pairs]).mean())

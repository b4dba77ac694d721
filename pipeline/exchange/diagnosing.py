"""Why feature arrays differ: the causes that published extractors have given us, one test each.

Every test asks whether its cause explains the difference, by undoing it and looking at what is left; the first that
does is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .row_alignments import exact_alignment, other_alignment
from .row_distances import Array, Finding, Pair, agree, cosines, relative_error
from .value_differences import mostly_normalisation, of_values

_AGREES = 1e-3  # relative error at which rows under another alignment count as the same
# Measured with I3D on real clips: bfloat16 leaves .019 and a mean cosine of .9999, frames a sixteenth of a segment on
# .13 and .9989; 8-bit flow for a network that only averages it .041 and .9992.
_NEAR, _NEAR_COSINE = 0.05, 0.999


def diagnose(a: NDArray[Any], b: NDArray[Any], tolerance: float = 0.0) -> Finding:
    """The first cause that explains why A and B differ."""
    return diagnose_together([(a, b)], tolerance)


def diagnose_together(arrays: Sequence[tuple[NDArray[Any], NDArray[Any]]], tolerance: float = 0.0) -> Finding:
    """The first cause that explains why A and B differ in all of these videos alike.

    Evidence adds up: a shift or a scale that a short video cannot tell from chance shows in many.
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
        found = Finding("arithmetic", f"{near}: another device, library or precision")
    found = found or other_alignment(pairs)
    if found is None and together is not None:
        found = mostly_normalisation(pairs)
    return found or _mostly_arithmetic(pairs) or _unexplained(pairs)


def as_rows(a: NDArray[Any], b: NDArray[Any]) -> Pair:
    """Both as ``float64 [rows, dim]``: parts of segments are averaged where that fits the other, else listed."""

    def rows(one: NDArray[Any], other: NDArray[Any]) -> Array:
        if one.ndim < 3:
            return np.atleast_2d(one).astype(np.float64)
        averaged = other.ndim < 3 and len(other) != one.shape[0] * one.shape[1]
        return (one.mean(axis=1, dtype=np.float64) if averaged else one.reshape(-1, one.shape[-1])).astype(np.float64)

    return rows(a, b), rows(b, a)


def _not_comparable(arrays: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Finding | None:
    for a, b in arrays:
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            side = "B" if np.isfinite(a).all() else "A"
            return Finding("not-finite", f"{side} holds numbers that are not finite")
        if a.shape[-1:] != b.shape[-1:]:
            dims = f"{a.shape[-1]} numbers a row against {b.shape[-1]}"
            return Finding("other-dim", f"{dims}: another network or layer")
    return None


def _halves(a: NDArray[Any], b: NDArray[Any]) -> Finding:
    parts = (a if a.ndim == 3 else b).shape[1]
    side, other = ("A", "B") if a.ndim == 3 else ("B", "A")
    how = "their mean is" if len(a) == len(b) else "one after the other they are"
    return Finding("halves", f"{side} has {parts} vectors for each segment; {how} {other}'s")


def _listed(pairs: Sequence[Pair]) -> Pair | None:
    """All rows of all videos; None where the two sides have not as many, or the videos other dimensions."""
    if any(len(a) != len(b) for a, b in pairs) or len({a.shape[1] for a, _ in pairs}) > 1:
        return None
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _mostly_arithmetic(pairs: Sequence[Pair]) -> Finding | None:
    if any(len(a) != len(b) for a, b in pairs) or not all(agree(*pair, _NEAR) for pair in pairs):
        return None
    if _mean_cosine(pairs) < _NEAR_COSINE:
        return None
    return Finding(
        "arithmetic",
        f"within {max(relative_error(a, b) for a, b in pairs):.1e} of the largest number, without a pattern: a network "
        "in half precision, 8-bit flow, JPEGs in between, or another decoder or library",
    )


def _unexplained(pairs: Sequence[Pair]) -> Finding:
    if any(len(a) != len(b) for a, b in pairs):
        num_a, num_b = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
        return Finding(
            "unexplained", f"{num_a} segments against {num_b}, and no shift or resampling brings them together"
        )
    return Finding("unexplained", f"mean cosine {_mean_cosine(pairs):.4f}; no known cause explains the difference")


def _mean_cosine(pairs: Sequence[Pair]) -> float:
    return float(np.concatenate([cosines(a, b) for a, b in pairs]).mean())

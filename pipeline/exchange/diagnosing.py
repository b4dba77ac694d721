"""Why two feature arrays of one video differ: the causes that published extractors have given us, one test each.

Every test asks whether its cause explains the difference, by undoing it and looking at what is left; the first that
does is named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .row_alignments import exact_alignment, other_alignment
from .row_distances import Array, Finding, agree, cosines
from .value_differences import mostly_normalisation, of_values

_AGREES = 1e-3  # relative error at which rows under another alignment count as the same


def diagnose(a: NDArray[Any], b: NDArray[Any], tolerance: float = 0.0) -> Finding:
    """The first cause that explains why A and B differ."""
    agrees = max(tolerance, _AGREES)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        side = "B" if np.isfinite(a).all() else "A"
        return Finding("not-finite", f"{side} holds numbers that are not finite")
    rows_a, rows_b = as_rows(a, b)
    if rows_a.shape[1] != rows_b.shape[1]:
        dims = f"{rows_a.shape[1]} numbers a row against {rows_b.shape[1]}"
        return Finding("other-dim", f"{dims}: another network or layer")
    if a.ndim != b.ndim and agree(rows_a, rows_b, agrees):
        parts = (a if a.ndim == 3 else b).shape[1]
        side, other = ("A", "B") if a.ndim == 3 else ("B", "A")
        how = "their mean is" if len(a) == len(b) else "one after the other they are"
        return Finding("halves", f"{side} has {parts} vectors for each segment; {how} {other}'s")
    found = exact_alignment(rows_a, rows_b, agrees)
    if found is None and len(rows_a) == len(rows_b):
        found = of_values(rows_a, rows_b)
    if found is None and agree(rows_a, rows_b, agrees):
        near = f"within {agrees:g} of the largest number"
        found = Finding("arithmetic", f"{near}: another device, library or precision")
    found = found or other_alignment(rows_a, rows_b)
    if found is None and len(rows_a) == len(rows_b):
        found = mostly_normalisation(rows_a, rows_b)
    return found or _unexplained(rows_a, rows_b)


def as_rows(a: NDArray[Any], b: NDArray[Any]) -> tuple[Array, Array]:
    """Both as ``float64 [rows, dim]``: parts of segments are averaged where that fits the other, else listed."""

    def rows(one: NDArray[Any], other: NDArray[Any]) -> Array:
        if one.ndim < 3:
            return np.atleast_2d(one).astype(np.float64)
        averaged = other.ndim < 3 and len(other) != one.shape[0] * one.shape[1]
        return (one.mean(axis=1, dtype=np.float64) if averaged else one.reshape(-1, one.shape[-1])).astype(np.float64)

    return rows(a, b), rows(b, a)


def _unexplained(a: Array, b: Array) -> Finding:
    if len(a) != len(b):
        return Finding(
            "unexplained", f"{len(a)} segments against {len(b)}, and no shift or resampling brings them together"
        )
    return Finding("unexplained", f"mean cosine {cosines(a, b).mean():.4f}; no known cause explains the difference")

"""Distances between the rows of two feature arrays, and the record of a diagnosis.

A and B are ``float64 [segments, dim]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
"""Rows of A and of B for one video."""
Cause = Literal[
    "halves",
    "lag",
    "remainder",
    "truncated",
    "frame-rate",
    "normalization",
    "constant-offset",
    "quantization",
    "float16",
    "resize-rounding",
    "other-times",
    "arithmetic",
    "not-finite",
    "other-dim",
    "unexplained",
]


@dataclass(frozen=True)
class Explanation:
    """The cause of a difference, and a sentence with its direction and size."""

    cause: Cause
    sentence: str


def relative_error(a: Array, b: Array) -> float:
    """Return the largest absolute difference divided by the largest absolute value of both."""
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float(np.abs(a - b).max(initial=0)) / scale if scale else 0.0


def cosines(a: Array, b: Array) -> Array:
    """Return the cosine similarity of each row: 1 if both rows are zero, 0 if one is."""
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    lengths = norms_a * norms_b
    raw = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return np.where((norms_a == 0) & (norms_b == 0), 1.0, np.clip(raw, -1, 1))


def nearest_offsets(a: Array, b: Array, most: int = 8) -> tuple[int, ...]:
    """Return for each row of A the offset to the most similar row of B; 0 if the row at the same index is as similar.

    Args:
        a: Rows of A.
        b: Rows of B, of the same width.
        most: Largest offset.
    """
    best, found = np.full(len(a), -np.inf), np.zeros(len(a), np.int64)
    for offset in sorted(range(-most, most + 1), key=abs):
        first, last = max(0, -offset), min(len(a), len(b) - offset)
        if first < last:
            alike = cosines(a[first:last], b[first + offset : last + offset])
            better = np.flatnonzero(alike > best[first:last] + 1e-6) + first
            best[better], found[better] = alike[better - first], offset
    return tuple(found.tolist())


def agree(a: Array, b: Array, tolerance: float) -> bool:
    """Return whether both have the same non-empty shape and a relative error of at most ``tolerance``."""
    return a.shape == b.shape and len(a) > 0 and relative_error(a, b) <= tolerance

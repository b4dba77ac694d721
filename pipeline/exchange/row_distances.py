"""How far rows of two feature arrays are from each other, and what is said of the reason.

A and B are ``float64 [segments, dim]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = tuple[Array, Array]
"""One video's rows, A's and B's."""
Cause = Literal[
    "halves",
    "lag",
    "remainder",
    "truncated",
    "frame-rate",
    "normalisation",
    "constant-offset",
    "quantisation",
    "float16",
    "arithmetic",
    "not-finite",
    "other-dim",
    "unexplained",
]


@dataclass(frozen=True)
class Finding:
    """Why two arrays differ, and a sentence that says which way and how much."""

    name: Cause
    sentence: str


def relative_error(a: Array, b: Array) -> float:
    """Largest difference over the largest number of either."""
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float(np.abs(a - b).max(initial=0)) / scale if scale else 0.0


def cosines(a: Array, b: Array) -> Array:
    """Row by row; 1 for two rows of zeros, 0 for one."""
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    lengths = norms_a * norms_b
    raw = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return np.where((norms_a == 0) & (norms_b == 0), 1.0, np.clip(raw, -1, 1))


def agree(a: Array, b: Array, tolerance: float) -> bool:
    return a.shape == b.shape and len(a) > 0 and relative_error(a, b) <= tolerance

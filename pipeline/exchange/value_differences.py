"""The same segments of two arrays with other numbers in them: rounded, quantised, scaled or shifted.

A and B are ``float64 [segments, dim]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .row_distances import Array, Finding, Pair

_EXPLAINED = 0.9  # of the squared difference, corrected for the parameters that a fit had
_SCALE_TELLS = 0.5  # of what a shift leaves, before a scale is named as well
# Measured with I3D on five real clips fed by ImageNet's statistics instead of ½: .49 to .93 by clip, .83 and .36 in all
# (the other way round .66 to .94, .89 and .34); squeezed frames .39 to .75, .55 and .52; other moments .45 and −.14.
_MOSTLY, _FOLLOWS = 0.7, 0.25
_MIN_ROWS = 8
_MAX_LEVELS = 1024
_ROUNDING = 0.1  # of a step, the mean distance that rounding causes at least: it is a quarter for even rounding


def of_values(a: Array, b: Array) -> Finding | None:
    """The same segments, other numbers."""
    return _half_precision(a, b) or _quantisation(a, b) or _row_scale(a, b) or _shift_or_scale(a, b)


def _half_precision(a: Array, b: Array) -> Finding | None:
    exact_a, exact_b = _is_half(a), _is_half(b)
    if exact_a == exact_b:
        return None
    allowed = np.maximum(np.abs(a), np.abs(b)) * (2.0**-11 * 1.01) + 2.0**-25
    if not np.all(np.abs(a - b) <= allowed):
        return None
    return Finding("float16", f"{'A' if exact_a else 'B'} is the other, rounded to float16")


def _is_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16), values))


def _quantisation(a: Array, b: Array) -> Finding | None:
    for side, values in (("A", a), ("B", b)):
        step, num_levels = _grid(values)
        distances = np.abs(a - b) / (step or np.inf)
        if np.mean(distances <= 1.01) >= 0.99 and distances.mean() >= _ROUNDING:
            levels = f"{num_levels} levels of a grid with step {step:.3g}"
            return Finding("quantisation", f"{side}'s values lie on {levels}, the other's beside them: 8-bit flow?")
    return None


def _grid(values: Array) -> tuple[float, int]:
    """``(step, levels)`` of the even grid on which all values lie; (0, 0) where there is none."""
    levels = np.unique(values)
    if len(levels) < 3 or len(levels) > min(_MAX_LEVELS, values.size // 4):
        return 0.0, 0
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-6 * (levels[-1] - levels[0])]
    step = float(gaps.min())
    is_even = np.all(np.abs(gaps / step - np.round(gaps / step)) < 0.01)
    return (step, len(gaps) + 1) if is_even else (0.0, 0)


def _row_scale(a: Array, b: Array) -> Finding | None:
    """Each row by a factor of its own, as scaling to unit length does."""
    lengths_a, lengths_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    factors = np.divide(lengths_b, lengths_a, out=np.ones(len(a)), where=lengths_a > 0)
    if _explained(b - factors[:, None] * a, b - a, freedom=1.0) < _EXPLAINED:
        return None
    for side, lengths in (("A", lengths_a), ("B", lengths_b)):
        if np.allclose(lengths, 1, atol=1e-3):
            return Finding("normalisation", f"each row of {side} is the other's, scaled to length 1 (L2)")
    return Finding("normalisation", f"B's rows are A's, made {factors.min():.4g} to {factors.max():.4g} times as long")


def _shift_or_scale(a: Array, b: Array) -> Finding | None:
    """A constant for each dimension, or a scale as well, as other statistics in a normalisation leave them."""
    if len(a) < 4:
        return None
    difference = b - a
    offset = difference.mean(axis=0)
    is_shifted = _explained(difference - offset, difference, _freedom(a, 1)) >= _EXPLAINED
    if len(a) >= _MIN_ROWS:
        rest, scale = _affine_rest(a, b)
        explained = _explained(rest, difference, _freedom(a, 2))
        beyond_shift = _explained(rest, difference - offset, _freedom(a, 2))
        if explained >= _EXPLAINED and (not is_shifted or beyond_shift >= _SCALE_TELLS):
            return _normalised(explained, scale)
    if not is_shifted:
        return None
    size = float(np.sqrt(np.mean(offset**2)) / (np.sqrt(np.mean(a**2)) or 1))
    return Finding(
        "constant-offset",
        f"B − A is one vector for all segments, {size:.2g} of their size: flow whose zero is 128 of 255, a random "
        "bias, or a mean left in",
    )


def mostly_normalisation(pairs: Sequence[Pair]) -> Finding | None:
    """What input normalised by other statistics leaves after a whole network: a scale and a shift explain most of it.

    They depend on the scene, so that each video has its own. The fit must also follow B's own movement, or a shift
    alone would explain half of what any two videos differ by.
    """
    pairs = [(a, b) for a, b in pairs if len(a) >= _MIN_ROWS]
    if not pairs:
        return None
    fits = [_affine_rest(a, b) for a, b in pairs]
    left = sum(_freedom(a, 2) * float((rest**2).sum()) for (a, _), (rest, _) in zip(pairs, fits, strict=True))
    explained = 1 - left / (_squares(b - a for a, b in pairs) or 1.0)
    follows = 1 - left / (_squares(b - b.mean(axis=0) for _, b in pairs) or 1.0)
    if explained < _MOSTLY or follows < _FOLLOWS:
        return None
    found = _normalised(explained, np.concatenate([scale for _, scale in fits]))
    if len(pairs) > 1:
        return found
    return replace(found, sentence=f"{found.sentence}; of a single video, another resize or crop can leave as much")


def _squares(parts: Iterable[Array]) -> float:
    return sum(float((part**2).sum()) for part in parts)


def _normalised(explained: float, scale: Array) -> Finding:
    fit = f"a scale (median {np.median(scale):.4g}) and a shift for each dimension"
    return Finding("normalisation", f"{fit} explain {explained:.0%} of the difference")


def _affine_rest(a: Array, b: Array) -> tuple[Array, Array]:
    """What a least-squares scale and shift of A for each dimension leave of B, and the scales."""
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = (centred_a**2).sum(axis=0)
    scale = np.divide((centred_a * centred_b).sum(axis=0), spread, out=np.zeros(a.shape[1]), where=spread > 0)
    return centred_b - scale * centred_a, scale


def _freedom(a: Array, num_parameters: int) -> float:
    """How much larger the rest would be if the fit had not been free to follow noise."""
    return len(a) / (len(a) - num_parameters)


def _explained(rest: Array, difference: Array, freedom: float) -> float:
    """Share of the squared difference."""
    return 1 - freedom * float((rest**2).sum()) / (float((difference**2).sum()) or 1.0)

"""Detection of different values in the same segments of two arrays: rounding, quantization, scale or offset.

A and B are ``float64 [segments, dim]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .row_distances import Array, Explanation, Pair, agree, cosines, relative_error

_EXPLAINED = 0.9  # share of the squared difference, corrected for the number of fitted parameters
_SCALE_TELLS = 0.5  # share of the difference without its mean; a scale that explains less is not reported
# Measured with I3D on five real clips with ImageNet's normalization instead of ½: explained share .49 to .93 by clip,
# .83 for all clips, and .36 of the variation within B for all clips. With A and B swapped: .66 to .94, .89 and .34;
# squeezed frames: .39 to .75, .55 and .52; other times: .45 and −.14 for all clips.
_MOSTLY, _FOLLOWS = 0.7, 0.25
# Measured with I3D on real clips resized by torch and by PIL: relative error .0014, cosine .99999.
_RESIZED, _RESIZED_COSINE = 0.01, 0.9995
_MIN_ROWS = 8
_MAX_LEVELS = 1024
_ROUNDING = 0.1  # least mean distance in steps that counts as rounding; uniformly distributed values have 0.25


def of_values(a: Array, b: Array) -> Explanation | None:
    """Return the cause of different values in the same segments, or None."""
    return _half_precision(a, b) or _quantization(a, b) or _row_scale(a, b) or _shift_or_scale(a, b)


def _half_precision(a: Array, b: Array) -> Explanation | None:
    exact_a, exact_b = _is_half(a), _is_half(b)
    if exact_a == exact_b:
        return None
    allowed = np.maximum(np.abs(a), np.abs(b)) * (2.0**-11 * 1.01) + 2.0**-25
    if not np.all(np.abs(a - b) <= allowed):
        return None
    return Explanation("float16", f"{'A' if exact_a else 'B'} has the values of the other, rounded to float16")


def _is_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16), values))


def _quantization(a: Array, b: Array) -> Explanation | None:
    for side, values in (("A", a), ("B", b)):
        step, num_levels = _grid(values)
        distances = np.abs(a - b) / (step or np.inf)
        if np.mean(distances <= 1.01) >= 0.99 and distances.mean() >= _ROUNDING:
            levels = f"{num_levels} levels of a grid with step {step:.3g}"
            return Explanation("quantization", f"{side}'s values lie on {levels}, the other's do not: 8-bit flow?")
    return None


def _grid(values: Array) -> tuple[float, int]:
    """Return step and number of levels of the uniform grid of all values; (0, 0) if there is none."""
    levels = np.unique(values)
    if len(levels) < 3 or len(levels) > min(_MAX_LEVELS, values.size // 4):
        return 0.0, 0
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-6 * (levels[-1] - levels[0])]
    step = float(gaps.min())
    is_even = np.all(np.abs(gaps / step - np.round(gaps / step)) < 0.01)
    return (step, len(gaps) + 1) if is_even else (0.0, 0)


def _row_scale(a: Array, b: Array) -> Explanation | None:
    """Detect a different factor for each row, as in scaling to unit length."""
    lengths_a, lengths_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    factors = np.divide(lengths_b, lengths_a, out=np.ones(len(a)), where=lengths_a > 0)
    if _explained(b - factors[:, None] * a, b - a, freedom=1.0) < _EXPLAINED:
        return None
    for side, lengths in (("A", lengths_a), ("B", lengths_b)):
        if np.allclose(lengths, 1, atol=1e-3):
            return Explanation("normalization", f"each row of {side} is that of the other, scaled to length 1 (L2)")
    return Explanation("normalization", f"B's rows are A's, multiplied by {factors.min():.4g} to {factors.max():.4g}")


def _shift_or_scale(a: Array, b: Array) -> Explanation | None:
    """Detect an offset for each dimension, or an offset and a scale, as other normalization statistics cause."""
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
            return _normalized(explained, scale)
    if not is_shifted:
        return None
    size = float((offset**2).mean()) ** 0.5 / (float((a**2).mean()) ** 0.5 or 1)
    return Explanation(
        "constant-offset",
        f"B − A is one vector for all segments, {size:.2g} of their size: flow whose zero is 128 of 255, a random "
        "bias, or a mean that was not subtracted",
    )


def resize_rounding(pairs: Sequence[Pair], resizes: tuple[str, str]) -> Explanation | None:
    """Detect the difference of resized 8-bit pixels, if A and B are known to resize with different arithmetic.

    Args:
        pairs: Rows of each video.
        resizes: `FeatureArray.resize` of A and of B.
    """
    if (
        resizes[0] == resizes[1]
        or "" in resizes
        or any(a.shape != b.shape or not agree(a, b, _RESIZED) for a, b in pairs)
    ):
        return None
    if float(np.concatenate([cosines(a, b) for a, b in pairs]).min()) < _RESIZED_COSINE:
        return None
    error = max(relative_error(a, b) for a, b in pairs)
    named = {
        "torch": "torch's kernel",
        "pil": "PIL's fixed-point arithmetic",
        "float": "torch in floating point",
        "float-rounded": "torch in floating point, rounded",
    }
    return Explanation(
        "resize-rounding",
        f"uint8 resize, ± 1 level: A resizes with {named[resizes[0]]}, B with {named[resizes[1]]}; relative error "
        f'{error:.1e}. Set resize_arithmetic = "{resizes[1]}" in the geometry, extract and compare again',
    )


def mostly_normalization(pairs: Sequence[Pair]) -> Explanation | None:
    """Detect input that was normalized with other statistics: a scale and an offset explain most of the difference.

    Scale and offset depend on the scene, so that each video has its own. The fit must also explain the variation within
    B, because an offset alone explains half of the difference of any two videos.
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
    found = _normalized(explained, np.concatenate([scale for _, scale in fits]))
    if len(pairs) > 1:
        return found
    return replace(found, sentence=f"{found.sentence}; with one video, another resize or crop can explain this")


def _squares(parts: Iterable[Array]) -> float:
    return sum(float((part**2).sum()) for part in parts)


def _normalized(explained: float, scale: Array) -> Explanation:
    fit = f"a scale (median {np.median(scale):.4g}) and a shift for each dimension"
    return Explanation("normalization", f"{fit} explain {explained:.0%} of the difference")


def _affine_rest(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the residual of B after a least-squares scale and offset of A for each dimension, and the scales."""
    centered_a, centered_b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = (centered_a**2).sum(axis=0)
    scale = np.zeros(len(spread))
    np.divide((centered_a * centered_b).sum(axis=0), spread, out=scale, where=spread > 0)
    return centered_b - scale * centered_a, scale


def _freedom(a: Array, num_parameters: int) -> float:
    """Return the factor that corrects the residual for the parameters of the fit."""
    return len(a) / (len(a) - num_parameters)


def _explained(rest: Array, difference: Array, freedom: float) -> float:
    """Return the explained share of the squared difference."""
    return 1 - freedom * float((rest**2).sum()) / (float((difference**2).sum()) or 1.0)

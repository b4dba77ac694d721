"""Statistics of a curve over time: mean, spread, jerkiness, and shares of frequency bands."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.floating]

BANDS_HZ = ((0.25, 1.0), (1.0, 2.0), (2.0, 3.5), (3.5, 6.0))
"""Frequencies of sway, slow beats, fast beats and tremor, up to the Nyquist frequency of 12 values per second."""


def spread(curve: Curve) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, 10th and 90th percentile; zeros for an empty curve."""
    if len(curve) == 0:
        return 0.0, 0.0, 0.0, 0.0
    low, high = np.percentile(curve, (10, 90))
    return float(curve.mean()), float(curve.std()), float(low), float(high)


def jerkiness(curve: Curve) -> float:
    """Return the normalized mean second difference: 0 for a line, 1 for a curve that changes sign at every step."""
    if len(curve) < 3:
        return 0.0
    size = float(np.abs(curve).mean())
    return float(np.abs(np.diff(curve, 2)).mean()) / (4 * size) if size > 1e-6 else 0.0


def band_shares(curve: Curve, times_s: Curve) -> tuple[float, ...]:
    """Return the share of the curve's variance in each of `BANDS_HZ`; zeros for a flat or very short curve."""
    even = evenly(curve, times_s, 12.0)
    if len(even) < 8:
        return (0.0,) * len(BANDS_HZ)
    power = np.abs(np.fft.rfft((even - even.mean()) * np.hanning(len(even)))) ** 2
    hertz = np.fft.rfftfreq(len(even), 1 / 12.0)
    total = float(power.sum())
    if total < 1e-12:
        return (0.0,) * len(BANDS_HZ)
    return tuple(float(power[(hertz >= low) & (hertz < high)].sum()) / total for low, high in BANDS_HZ)


def evenly(curve: Curve, times_s: Curve, rate_hz: float) -> Curve:
    """Return the curve at ``rate_hz`` from its first time to its last, by linear interpolation."""
    if len(curve) < 2:
        return curve
    count = int((times_s[-1] - times_s[0]) * rate_hz) + 1
    return cast("Curve", np.interp(times_s[0] + np.arange(count) / rate_hz, times_s, curve))

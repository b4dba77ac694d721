"""Statistics of curves with known results."""

from __future__ import annotations

import numpy as np
import pytest

from arabesque.extractors.curve_statistics import BANDS_HZ, band_shares, evenly, jerkiness, spread

TIMES_S = np.arange(36) / 12


def test_jerkiness_is_0_for_a_line_and_1_for_a_zigzag() -> None:
    assert jerkiness(3 + 2 * TIMES_S) == pytest.approx(0, abs=1e-9)
    assert jerkiness((-1.0) ** np.arange(36)) == pytest.approx(1)
    assert jerkiness(np.zeros(36)) == jerkiness(np.ones(2)) == 0


@pytest.mark.parametrize(("hertz", "band"), [(0.6, 0), (1.5, 1), (2.7, 2), (4.5, 3)])
def test_an_oscillation_is_in_the_band_of_its_frequency(hertz: float, band: int) -> None:
    shares = band_shares(5 + np.sin(2 * np.pi * hertz * TIMES_S), TIMES_S)
    assert shares[band] > 0.75
    assert sum(shares) <= 1 + 1e-9


@pytest.mark.parametrize("count", [0, 1, 3, 36])
def test_a_flat_or_short_curve_has_no_bands(count: int) -> None:
    assert band_shares(np.ones(count), TIMES_S[:count]) == (0.0,) * len(BANDS_HZ)


def test_uneven_times_are_resampled_evenly() -> None:
    uneven_s = np.sort(np.random.default_rng(0).uniform(0, 3, 60))
    assert evenly(4 * uneven_s, uneven_s, 12.0) == pytest.approx(
        4 * (uneven_s[0] + TIMES_S[: len(evenly(uneven_s, uneven_s, 12.0))])
    )
    shares = band_shares(np.sin(2 * np.pi * 1.5 * uneven_s), uneven_s)
    assert shares[1] > 0.8


def test_spread_contains_the_median_and_the_extremes() -> None:
    assert spread(np.arange(101.0)) == pytest.approx((50, np.arange(101).std(), 10, 90))
    assert spread(np.zeros(0)) == (0, 0, 0, 0)

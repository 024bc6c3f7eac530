"""Uncertainties of merged intensities."""

import numpy as np
import pytest

from sfxflow.merging.errors import chi_squared, corrected_sigma


def sums_of(n, measurements, rng, inflation=1.0):
    """Sums of constant intensities measured with an uncertainty of 1, the true one being `inflation` (by reflection)."""
    sums = np.zeros((n, 4))
    intensity = rng.uniform(1, 100, n)
    for _ in range(measurements):
        y = intensity + inflation * rng.normal(size=n)
        sums += np.stack([y, np.ones(n), y**2, np.ones(n)], axis=1)
    return sums


def test_chi_squared_is_the_sum_of_squared_residuals():
    rng = np.random.default_rng(1)
    y, g, variance = rng.normal(5, 1, 7), rng.uniform(0.2, 1, 7), rng.uniform(0.5, 2, 7)
    mean = np.sum(g * y / variance) / np.sum(g**2 / variance)
    sums = np.array([[np.sum(g * y / variance), np.sum(g**2 / variance), np.sum(y**2 / variance), 7]])
    squares, freedom = chi_squared(sums)
    assert squares[0] == pytest.approx(np.sum((y - g * mean) ** 2 / variance))
    assert freedom[0] == 6


def test_chi_squared_becomes_one_in_every_resolution_range():
    rng = np.random.default_rng(2)
    q = rng.uniform(0.05, 0.5, 4000)
    inflation = 1 + 2 * q
    sums = sums_of(4000, 5, rng, inflation)
    factor = corrected_sigma(sums, q)
    squares, freedom = chi_squared(sums)
    for low in (0.05, 0.2, 0.35):
        own = (q >= low) & (q < low + 0.15)
        assert 0.9 < np.sum(squares[own] / factor[own] ** 2) / np.sum(freedom[own]) < 1.1


@pytest.mark.parametrize("measurements", [0, 1])
def test_without_repeated_measurements_nothing_is_changed(measurements):
    sums = sums_of(10, measurements, np.random.default_rng(3))
    np.testing.assert_array_equal(corrected_sigma(sums, np.linspace(0.1, 0.4, 10)), 1.0)

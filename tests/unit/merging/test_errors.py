"""Uncertainties of merged intensities."""

import numpy as np
import pytest

from sfxflow.merging import errors
from sfxflow.merging.kernels import CAUCHY


def cauchy_weighted(residuals):
    """Sums of the weights and of weight * residual^2."""
    weight = 1 / (1 + (residuals / CAUCHY) ** 2)
    return np.sum(weight), np.sum(weight * residuals**2)


@pytest.mark.parametrize("variance", [0.05, 0.5, 1.0, 3.0])
def test_mean_square_with_cauchys_weights(variance):
    residuals = np.sqrt(variance) * np.random.default_rng(1).normal(size=400_000)
    weights, weighted = cauchy_weighted(residuals)
    assert errors.mean_square(variance) == pytest.approx(weighted / weights, rel=0.01)


def test_scatter_is_the_variance_of_normal_residuals_in_each_range():
    """The weights fall with the residual: their mean square alone would be 15 % too small."""
    rng = np.random.default_rng(2)
    variances = np.linspace(0.4, 2.5, errors.N_RANGES)
    squares = np.array([cauchy_weighted(np.sqrt(v) * rng.normal(size=40_000)) for v in variances])
    np.testing.assert_allclose(errors.scatter(squares), variances, rtol=0.03)


def test_scatter_of_a_range_without_data_is_that_of_all():
    rng = np.random.default_rng(3)
    squares = np.zeros((errors.N_RANGES, 2))
    squares[4] = cauchy_weighted(1.3 * rng.normal(size=100_000))
    np.testing.assert_allclose(errors.scatter(squares), 1.69, rtol=0.03)


def test_without_repeated_measurements_uncertainties_stay_as_expected():
    np.testing.assert_array_equal(errors.scatter(np.zeros((errors.N_RANGES, 2))), 1.0)
    assert len(errors.ranges(np.arange(5.0), np.zeros(5, bool))) == errors.N_RANGES - 1


def test_ranges_hold_as_many_measured_reflections_each():
    rng = np.random.default_rng(4)
    intensities, measured = rng.exponential(size=5000), rng.random(5000) < 0.5
    number = np.bincount(
        np.searchsorted(errors.ranges(intensities, measured), intensities[measured]), minlength=errors.N_RANGES
    )
    assert number.max() - number.min() <= 2


def test_uncertainty_of_a_robust_mean():
    """Of 20 normal observations each, weighted by Cauchy's function of their true residuals, 4000 times."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=(4000, 20))
    weight = 1 / (1 + (y / CAUCHY) ** 2)
    sums = np.stack(
        [(weight * y).sum(1), weight.sum(1), (weight * y**2).sum(1), np.full(4000, 20.0), np.zeros(4000)], axis=1
    )
    sigma = errors.merged_sigma(sums, np.ones(4000))
    mean = (weight * y).sum(1) / weight.sum(1)
    # weights from the residuals about the truth draw the mean towards it: iterated, it would be the M-estimate
    for _ in range(20):
        weight = 1 / (1 + ((y - mean[:, None]) / CAUCHY) ** 2)
        mean = (weight * y).sum(1) / weight.sum(1)
    assert np.mean((mean / sigma) ** 2) == pytest.approx(1.0, abs=0.08)


def test_what_the_crystals_parameters_add():
    """Their share is of (sum of w g y), so that it is divided by the square of the information."""
    sums = np.array([[10.0, 4.0, 30.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    sigma = errors.merged_sigma(sums, np.array([2.0, 1.0]))
    assert sigma[0] ** 2 == pytest.approx(errors.ROBUST_MEAN * 2.0 / 4.0 + 2.0 / 16.0)
    assert np.isnan(sigma[1])

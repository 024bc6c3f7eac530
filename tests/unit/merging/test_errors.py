"""Uncertainties of merged intensities."""

import numpy as np
import pytest

from sfxflow.merging import errors
from sfxflow.merging.kernels import CAUCHY


def robust_weight(residuals):
    return 1 / (1 + (residuals / CAUCHY) ** 2)


def squares_of(residuals):
    """What `assessment.assess_block` adds up, of residuals in units of what is expected of them."""
    s = robust_weight(residuals)
    return np.array([len(s), s.sum(), np.sum(s**2 * residuals**2), np.sum(s * (2 * s - 1))])


@pytest.mark.parametrize("errors_of", ["normal", "twice as large", "long tails"])
def test_scatter_makes_the_uncertainty_of_a_robust_mean_right(errors_of):
    """2000 means of 30 observations each, weighted by Cauchy's function of their residuals until nothing changes."""
    rng = np.random.default_rng(5)
    y = {
        "normal": rng.normal(size=(2000, 30)),
        "twice as large": 2 * rng.normal(size=(2000, 30)),
        "long tails": rng.standard_t(3, size=(2000, 30)),
    }[errors_of]
    mean = np.zeros(2000)
    for _ in range(40):
        weight = robust_weight(y - mean[:, None])
        mean = (weight * y).sum(axis=1) / weight.sum(axis=1)
    sums = np.stack([(weight * y).sum(axis=1), weight.sum(axis=1), *np.zeros((3, 2000))], axis=1)
    squares = np.zeros((errors.N_RANGES, 4))
    squares[3] = squares_of(rng.permutation(y.ravel()))
    sigma = errors.merged_sigma(sums, np.full(2000, errors.scatter(squares)[3]))
    assert np.mean((mean / sigma) ** 2) == pytest.approx(1.0, abs=0.1)


def test_each_range_has_its_own_scatter_and_an_empty_one_that_of_all():
    rng = np.random.default_rng(2)
    squares = np.zeros((errors.N_RANGES, 4))
    squares[0], squares[1] = squares_of(0.5 * rng.normal(size=50_000)), squares_of(1.5 * rng.normal(size=50_000))
    found = errors.scatter(squares)
    both = errors.scatter(np.array([squares.sum(axis=0)]))[0]
    assert found[0] < 0.4 < both < 2 < found[1]
    np.testing.assert_allclose(found[2:], both, rtol=1e-12)


def test_normal_residuals_have_the_scatter_that_stands_in_where_nothing_is_measured_twice():
    squares = np.tile(squares_of(np.random.default_rng(3).normal(size=400_000)), (errors.N_RANGES, 1))
    np.testing.assert_allclose(errors.scatter(squares), errors.NORMAL, rtol=0.01)
    np.testing.assert_array_equal(errors.scatter(np.zeros((errors.N_RANGES, 4))), errors.NORMAL)
    assert len(errors.ranges(np.arange(5.0), np.zeros(5, bool))) == errors.N_RANGES - 1


def test_ranges_hold_as_many_measured_reflections_each():
    rng = np.random.default_rng(4)
    intensities, measured = rng.exponential(size=5000), rng.random(5000) < 0.5
    number = np.bincount(
        np.searchsorted(errors.ranges(intensities, measured), intensities[measured]), minlength=errors.N_RANGES
    )
    assert number.max() - number.min() <= 2


def test_what_the_crystals_parameters_add():
    """Their share is of (sum of w g y), so that it is divided by the square of the information."""
    sums = np.array([[10.0, 4.0, 30.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    sigma = errors.merged_sigma(sums, np.array([2.0, 1.0]))
    assert sigma[0] ** 2 == pytest.approx(2.0 / 4.0 + 2.0 / 16.0)
    assert np.isnan(sigma[1])

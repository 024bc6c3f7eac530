"""The partiality curve from its sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from sfxflow.merging import partiality

NUMBER = st.floats(-10, 10)


@given(st.lists(st.tuples(NUMBER, st.floats(0.01, 100)), min_size=1, max_size=30))
def test_decreasing_is_the_isotonic_least_squares_fit(rows):
    values, weights = np.array(rows).T
    expected = isotonic_regression(values, weights=weights, increasing=False).x
    np.testing.assert_allclose(partiality.decreasing(values, weights), expected, atol=1e-9)


def sums_of(function, information=1e4, n_ranges=partiality.N_RANGES, x_max=3.5, height=1.0):
    """Sums as a pass would make them of a curve `function(x, range)`."""
    n = partiality.n_bins(x_max)
    x = (np.arange(n) + 0.5) * x_max / n
    sums = np.zeros((n_ranges, n, 4))
    for r in range(n_ranges):
        sums[r, :, 1] = information
        sums[r, :, 0] = information * height * function(x, r)
    return sums


def area(curve):
    """Of each row over x."""
    return curve.values.sum(axis=1) / partiality.NODES_PER_UNIT - curve.values[:, 0] / 2 / partiality.NODES_PER_UNIT


@pytest.mark.parametrize("height", [0.03, 1.0, 50.0])
def test_a_sphere_is_found_and_has_the_area_of_a_gaussian(height):
    first = partiality.first_curve("empirical", 0.25, 3.5)

    def sphere(x, _):
        return np.clip(1 - (x / 2.2) ** 2, 0, None)

    curve = partiality.estimate(sums_of(sphere, 1e6 / height**2, height=height), first)
    x = np.arange(curve.values.shape[1]) / partiality.NODES_PER_UNIT
    # bins of 1/4 and their smoothing round the corner at the sphere's edge
    np.testing.assert_allclose(curve.values[5] / curve.values[5, 0], sphere(x, 0), atol=0.07)
    np.testing.assert_allclose(area(curve), np.sqrt(np.pi / 2), rtol=0.02)
    assert np.all(np.diff(curve.values, axis=1) <= 1e-12)


def test_each_resolution_has_its_form_and_all_the_same_area():
    first = partiality.first_curve("empirical", 0.25, 3.5)

    def widening(x, r):
        return np.exp(-0.5 * (x / (0.8 + 0.2 * r)) ** 2) / (0.8 + 0.2 * r)

    curve = partiality.estimate(sums_of(widening, 1e7), first)
    np.testing.assert_allclose(area(curve), np.sqrt(np.pi / 2), rtol=0.02)
    assert curve.values[0, 0] > 1.15 * curve.values[-1, 0]


def test_stretching_is_a_change_of_the_unit_of_x():
    first = partiality.first_curve("empirical", 0.25, 3.5)
    curve = partiality.estimate(sums_of(lambda x, _: np.exp(-(x**2) / 2), 1e7), first, stretch=1.2)
    x = np.arange(curve.values.shape[1]) / partiality.NODES_PER_UNIT
    np.testing.assert_allclose(curve.values[10] / curve.values[10, 0], np.exp(-((x / 1.2) ** 2) / 2), atol=0.02)


def test_without_information_the_curve_is_the_gaussian():
    first = partiality.first_curve("empirical", 0.25, 3.5)
    curve = partiality.estimate(sums_of(lambda x, _: np.where(x < 1, 1.0, 0.0), 1e-3), first)
    np.testing.assert_allclose(curve.values, first.values, atol=0.05)
    nothing = partiality.estimate(np.zeros_like(sums_of(lambda x, _: x)), first)
    np.testing.assert_allclose(nothing.values, first.values, atol=0.05)


def test_spread_is_the_variance_of_the_error():
    """Residuals of a relative error of 0.3 f, and of 0.05 f: found where the data are many."""
    first = partiality.first_curve("empirical", 0.25, 3.5)
    for relative in (0.3, 0.05):
        sums = sums_of(lambda x, _: np.exp(-(x**2) / 2), 1e7)
        true = (relative * np.exp(-(((np.arange(sums.shape[1]) + 0.5) / 4) ** 2) / 2)) ** 2
        sums[:, :, 3] = 1e12
        sums[:, :, 2] = 1e12 * true
        curve = partiality.estimate(sums, first)
        found = np.sqrt(curve.spread[:, :24]) / curve.values[:, :24]
        np.testing.assert_allclose(found, relative, rtol=0.1)


def test_unity_is_one_to_the_end():
    curve = partiality.first_curve("unity", 0.25, 3.5)
    assert np.all(curve.values == 1.0)
    assert np.all(curve.slopes == 0.0)
    sums = sums_of(lambda x, _: np.ones_like(x))
    sums[:, :, 3], sums[:, :, 2] = 1e6, 1e6 * 0.5**2
    np.testing.assert_allclose(np.sqrt(partiality.estimate_spread(sums, curve).spread), 0.5, rtol=0.01)


@pytest.mark.parametrize("by_spectrum", [0.0, 0.3, 0.9])
def test_section_of_a_sphere_averaged_over_the_spectrum(by_spectrum):
    """Against random points of a sphere, smeared: unit variance, and the area of a Gaussian."""
    x = np.arange(57) / 16
    shape = [1.0 - by_spectrum, 0.0, by_spectrum / 0.04**2]
    curve = partiality.first_curve("xsphere", 0.08 * partiality.N_ROWS / (partiality.N_ROWS - 1), 3.5, shape)
    row = int(0.04 * curve.rows_per_q2)
    q2 = (row + 0.5) / curve.rows_per_q2
    part = shape[2] * q2**2 / (shape[0] + shape[2] * q2**2)
    rng = np.random.default_rng(8)
    points = rng.normal(size=(400_000, 3))
    points *= (rng.random(400_000) ** (1 / 3) / np.linalg.norm(points, axis=1))[:, None]
    normal = np.sqrt(5 * (1 - part)) * points[:, 0] + np.sqrt(part) * rng.normal(size=400_000)
    count, edges = np.histogram(np.abs(normal), bins=28, range=(0, 3.5))
    centres = (edges[1:] + edges[:-1]) / 2
    expected = count / len(points) / (edges[1] - edges[0]) * np.sqrt(np.pi / 2)
    np.testing.assert_allclose(np.interp(centres, x, curve.values[row, : len(x)]), expected, atol=0.015)
    inner = slice(1, 30)
    np.testing.assert_allclose(
        np.gradient(curve.values[row], 1 / 16)[inner], curve.slopes[row][inner], atol=0.05 if part < 0.01 else 0.01
    )


def test_model_that_so_many_crystals_allow():
    assert partiality.usable_model("empirical", 5) == ("empirical", "")
    model, reason = partiality.usable_model("empirical", 4)
    assert model == "gaussian"
    assert "4 crystals are fewer than the 5" in reason
    for wanted in ("gaussian", "xsphere", "unity"):
        assert partiality.usable_model(wanted, 1) == (wanted, "")

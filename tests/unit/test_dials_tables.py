"""Between DIALS' view and the tables: formulas against slow, obvious ones, and the widths against what was drawn."""

import numpy as np
import pytest

from sfxflow.dials_tables import common_widths, gaussian_partiality, mosaic_model_of_widths, widths_of_mosaic_model


def test_mosaic_model_and_back():
    radius, mosaicity = widths_of_mosaic_model(np.array([2000.0]), np.array([0.001]))
    domain, half = mosaic_model_of_widths(radius, mosaicity)
    assert (domain[0], half[0]) == pytest.approx((2000.0, 0.001))


def test_widths_are_the_standard_deviation_of_what_the_model_records():
    """Excitation errors evenly distributed within the model's limits."""
    rng = np.random.default_rng(1)
    error = rng.uniform(-1, 1, 100_000) * (0.5 / 3000.0)
    assert widths_of_mosaic_model(3000.0, 0.0)[0] == pytest.approx(error.std(), rel=0.01)


def test_partiality_is_a_gaussian():
    one = np.ones(3)
    found = gaussian_partiality(np.array([0.0, 3e-4, 6e-4]), 0.3 * one, one, (3e-4 * one, 0.0 * one, 0.0 * one))
    np.testing.assert_allclose(found, np.exp([0.0, -0.5, -2.0]))
    wide = gaussian_partiality(
        np.array([5e-4]), np.array([0.5]), np.array([1.2]), (np.zeros(1), np.array([1e-3]), np.zeros(1))
    )
    np.testing.assert_allclose(wide, np.exp(-0.5))
    # Without any width there is nothing to tell it from.
    np.testing.assert_array_equal(gaussian_partiality(one, one, one, (0 * one, 0 * one, 0 * one)), one)


def test_common_widths_are_those_that_were_drawn():
    rng = np.random.default_rng(2)
    spots = []
    for factor in (0.7, 1.0, 1.3) * 20:
        q = rng.uniform(0.05, 0.5, 200)
        sigma = factor * np.hypot(2e-4, 8e-4 * q)
        spots.append((q, rng.normal(0, sigma)))
    (radius, mosaicity, bandwidth), factors = common_widths(spots, 1.3)
    q = np.array([0.1, 0.3, 0.5])
    found = np.sqrt(radius**2 + (mosaicity * q) ** 2 + (bandwidth * 1.3 * q**2 / 2) ** 2)
    expected = np.hypot(2e-4, 8e-4 * q) * np.sqrt(np.mean(np.square([0.7, 1.0, 1.3])))
    np.testing.assert_allclose(found, expected, rtol=0.1)
    relative = factors.reshape(20, 3).mean(axis=0)
    np.testing.assert_allclose(relative / relative[1], [0.7, 1.0, 1.3], rtol=0.06)


def test_crystals_without_a_spot():
    widths, factors = common_widths([(np.zeros(0), np.zeros(0))] * 2, 1.3)
    assert widths[0] > 0
    np.testing.assert_array_equal(factors, [1.0, 1.0])

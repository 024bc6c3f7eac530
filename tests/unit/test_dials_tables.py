"""Between DIALS' view and the tables: formulas against slow, obvious ones."""

import numpy as np
import pytest

from sfxflow.dials_tables import gaussian_partiality, mosaic_model_of_widths, widths_of_mosaic_model


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

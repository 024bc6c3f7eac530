"""Widths of lattices that another program found, against what was drawn."""

import numpy as np

from sfxflow.indexing.given_lattices import common_widths


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

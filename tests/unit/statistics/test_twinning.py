"""Twin figures against mixtures of known fraction."""

import numpy as np
import pytest

from sfxflow.cell import inverse_resolution
from sfxflow.statistics.twinning import twin_figures, twin_pairs
from sfxflow.symmetry import reflection_key, rotations, space_group, to_asu

CELL = (62.8, 62.8, 111.0, 90.0, 90.0, 120.0)
OPERATOR = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
GROUP = space_group("P63")
OPERATIONS = rotations(GROUP)


def mixture(fraction, seed=1, noise=0.0):
    """Unique reflections of a crystal of which `fraction` is turned by the operator; intensities fall off with resolution."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(-14, 15)] * 2, np.arange(-20, 21), indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.any(grid != 0, axis=1)]
    hkl = np.unique(to_asu(grid, GROUP), axis=0)
    key = reflection_key(hkl)
    order = np.argsort(key)
    intensity = rng.exponential(size=len(hkl))
    place = np.minimum(np.searchsorted(key[order], reflection_key(to_asu(hkl @ OPERATOR, GROUP))), len(key) - 1)
    turned = intensity[order[place]]
    level = 1000 * np.exp(-8 * inverse_resolution(hkl, CELL) ** 2)
    mixed = level * ((1 - fraction) * intensity + fraction * turned)
    sigma = 1.0 + noise * level
    return hkl, mixed + sigma * rng.normal(size=len(hkl)), sigma


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_twin_fraction_and_correlation(fraction, noise):
    found = twin_figures(*mixture(fraction, noise=noise), OPERATIONS, OPERATOR, CELL)
    expected = 2 * fraction * (1 - fraction) / (fraction**2 + (1 - fraction) ** 2)
    assert found["n_pairs"] > 1800
    assert found["twin_fraction"] == pytest.approx(fraction, abs=0.035)
    assert found["correlation"] == pytest.approx(expected, abs=0.05)


def test_pairs_by_hand():
    hkl = np.array([[1, 2, 3], [5, 0, 1], [2, 1, -3], [4, 4, 2], [7, 1, 4]])
    one, other = twin_pairs(hkl, OPERATIONS, OPERATOR)
    # 1 2 3 -> 2 1 -3; 5 0 1 -> 0 5 -1, of which P6/m makes 5 0 1 itself: no pair; 4 4 2 is on the axis
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(0, 2)]


def test_nothing_to_compare():
    hkl = np.array([[1, 2, 3], [7, 1, 4]])
    found = twin_figures(hkl, np.ones(2), np.ones(2), OPERATIONS, OPERATOR, CELL)
    assert found["n_pairs"] == 0
    assert np.isnan(found["correlation"])
    assert np.isnan(twin_figures(hkl[:0], np.ones(0), np.ones(0), OPERATIONS, OPERATOR, CELL)["twin_fraction"])


def test_values_that_are_not_finite_are_left_out():
    hkl, intensity, sigma = mixture(0.0)
    clean = twin_figures(hkl[50:], intensity[50:], sigma[50:], OPERATIONS, OPERATOR, CELL)
    intensity[:25], sigma[25:50] = np.nan, np.nan
    assert twin_figures(hkl, intensity, sigma, OPERATIONS, OPERATOR, CELL) == clean

"""Wilson plot: the B factor that was put in comes out."""

import gemmi
import numpy as np
import pytest

from sfxflow.statistics.wilson import wilson_b, wilson_plot


def form_factor(element, x):
    return np.array([gemmi.Element(element).it92.calculate_sf(value) for value in x])


def expected(x, power):
    return sum(n * form_factor(e, x) ** power for e, n in {"C": 5.0, "N": 1.35, "O": 1.5, "H": 8.0}.items())


@pytest.mark.parametrize("b", [0.0, 20.0, 60.0])
def test_b_factor_with_squared_form_factors(b):
    s = np.linspace(0.05, 0.6, 20000)
    x = (s / 2) ** 2
    epsilon = np.where(np.arange(len(s)) % 5, 1, 4)
    intensity = 7.0 * epsilon * expected(x, 2) * np.exp(-2 * b * x)
    assert wilson_b(*wilson_plot(intensity, s, epsilon, squared=True)[:2]) == pytest.approx(b, abs=0.05)


def test_linear_form_factors_are_those_of_check_hkl():
    """The table's values, with the one exponent and the hydrogen that check_hkl has; written out here once more."""
    s = np.linspace(0.05, 0.6, 20000)
    x = (s / 2) ** 2
    oxygen = 3.0485 * np.exp(-13.2771 * x) + 2.2868 * np.exp(-5.7011 * x) + 1.5463 * np.exp(-0.3239 * x)
    oxygen += 0.867 * np.exp(-322.9098 * x) + 0.2508
    hydrogen = 0.489918 * np.exp(-20.6593 * x) + 0.262003 * np.exp(-7.74039 * x) + 0.196767 * np.exp(-49.5519 * x)
    hydrogen += 0.049879 * np.exp(-2.20159 * x) + 0.001305
    total = 5 * form_factor("C", x) + 1.35 * form_factor("N", x) + 1.5 * oxygen + 8 * hydrogen
    _, y, _ = wilson_plot(total * np.exp(-2 * 30.0 * x), s, np.ones(len(s)), n_bins=2000)
    centres, _, n = wilson_plot(total, s, np.ones(len(s)), n_bins=2000)
    np.testing.assert_allclose(y[n > 0], -60.0 * centres[n > 0], atol=0.005)


def test_bins_are_equally_wide_and_hold_every_reflection():
    s = np.random.default_rng(1).uniform(0.1, 0.5, 1000)
    x, _, n = wilson_plot(np.ones(1000), s, np.ones(1000), n_bins=10)
    assert n.sum() == 1000
    np.testing.assert_allclose(np.diff(x), ((s.max() + 1e-4) ** 2 - (s.min() - 1e-4) ** 2) / 40, rtol=1e-9)


def test_no_b_factor_where_the_data_do_not_reach_far_enough():
    s = np.linspace(0.05, 0.31, 500)
    assert np.isnan(wilson_b(*wilson_plot(np.ones(500), s, np.ones(500))[:2]))
    assert np.isnan(wilson_b(*wilson_plot(np.empty(0), np.empty(0), np.empty(0))[:2]))
    negative = wilson_plot(-np.ones(500), s + 0.2, np.ones(500))
    assert np.isnan(negative[1][negative[2] > 0]).all()
    assert np.isnan(wilson_b(*negative[:2]))

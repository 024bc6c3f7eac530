"""What crystals have in common, from drawn excitation errors and offsets."""

import numpy as np
import pytest
from scipy.optimize import nnls

from sfxflow.indexing.pool import (
    EXCESS_SIGMA,
    LEAST_LATTICES,
    LEAST_SHIFT_SIGMA,
    nonnegative_fit,
    pool_lattices,
    pooled_profile,
)
from sfxflow.indexing.refine import FIRST_EXCESS_SIGMA, FIRST_SHIFT_SIGMA, sigma_of_q

WAVELENGTH, PIXEL = 1.3, 1e-4


def drawn(rng, n, radius, mosaicity, bandwidth):
    q = 0.05 + 0.45 * rng.random(n) ** 0.5
    return q, sigma_of_q(q, radius, mosaicity, bandwidth, WAVELENGTH) * rng.standard_normal(n)


@pytest.mark.parametrize(
    ("radius", "mosaicity", "bandwidth"),
    [(5e-4, 0.0, 0.0), (3e-4, 2e-3, 0.0), (3e-4, 0.0, 5e-3), (1e-4, 3e-3, 0.0), (2e-4, 1.5e-3, 6e-3)],
)
def test_profile_of_drawn_excitation_errors(radius, mosaicity, bandwidth):
    q, error = drawn(np.random.default_rng(1), 40000, radius, mosaicity, bandwidth)
    found = pooled_profile(q, error, np.ones(len(q)), WAVELENGTH)
    at = np.linspace(0.1, 0.5, 9)
    expected = sigma_of_q(at, radius, mosaicity, bandwidth, WAVELENGTH)
    # The width at each q is what counts; 9 sigma^2 as the highest square takes 1.5 % off it.
    np.testing.assert_allclose(sigma_of_q(at, *found, WAVELENGTH), expected, rtol=0.05)
    assert found[0] == pytest.approx(radius, rel=0.25, abs=3e-5)
    if not bandwidth:
        assert found[1] == pytest.approx(mosaicity, rel=0.2, abs=4e-4)
    if not mosaicity:
        assert found[2] == pytest.approx(bandwidth, rel=0.2, abs=1.5e-3)


def test_weights_say_which_pairs_are_true():
    rng = np.random.default_rng(2)
    q, error = drawn(rng, 5000, 4e-4, 1e-3, 0.0)
    false_q = 0.5 * rng.random(5000)
    false = rng.uniform(-0.01, 0.01, 5000)
    weight = np.repeat([1.0, 0.0], 5000)
    mixed = pooled_profile(np.append(q, false_q), np.append(error, false), weight, WAVELENGTH)
    np.testing.assert_allclose(mixed, pooled_profile(q, error, weight[:5000], WAVELENGTH), rtol=0.05, atol=1e-5)


def test_a_few_wild_pairs_do_not_widen_the_profile():
    q, error = drawn(np.random.default_rng(3), 5000, 4e-4, 1e-3, 0.0)
    clean = sigma_of_q(0.3, *pooled_profile(q, error, np.ones(5000), WAVELENGTH), WAVELENGTH)
    error[:50] = 0.01
    wild = sigma_of_q(0.3, *pooled_profile(q, error, np.ones(5000), WAVELENGTH), WAVELENGTH)
    assert wild == pytest.approx(clean, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_peaks_are_no_error(n):
    q, error = drawn(np.random.default_rng(4), n, 4e-4, 1e-3, 0.0)
    found = pooled_profile(q, error, np.ones(n), WAVELENGTH)
    assert np.all(np.isfinite(found)) and min(found) >= 0.0


def lattices(rng, n, shift, excess, spread):
    made = []
    for _ in range(n):
        q, error = drawn(rng, 60, 4e-4, 1e-3, 0.0)
        offsets = np.array([*shift, excess]) + spread * rng.standard_normal(3) * [PIXEL, PIXEL, 0.01]
        made.append((q, error, np.ones(60), offsets))
    return made


def test_offsets_are_pooled_robustly():
    rng = np.random.default_rng(5)
    several = lattices(rng, 60, (4e-5, -2e-5), 0.01, 0.2)
    several[3] = (*several[3][:3], np.array([1.0, 1.0, 0.5]))
    profile = pool_lattices(several, WAVELENGTH, PIXEL)
    np.testing.assert_allclose(profile.offsets[:2], [4e-5, -2e-5], atol=1e-5)
    assert profile.offsets[2] == pytest.approx(0.01, abs=1.2e-3)
    np.testing.assert_allclose(np.array(profile.offset_sigmas[:2]), 0.2 * PIXEL, rtol=0.4)
    assert profile.offset_sigmas[2] == EXCESS_SIGMA
    assert sigma_of_q(0.3, profile.radius, profile.mosaicity, profile.bandwidth, WAVELENGTH) == pytest.approx(
        sigma_of_q(0.3, 4e-4, 1e-3, 0.0, WAVELENGTH), rel=0.06
    )


def test_a_still_detector_keeps_a_prior_that_is_not_too_tight():
    profile = pool_lattices(lattices(np.random.default_rng(6), 20, (0, 0), 0, 0.0), WAVELENGTH, PIXEL)
    np.testing.assert_allclose(profile.offset_sigmas[:2], LEAST_SHIFT_SIGMA * PIXEL)


def test_few_lattices_keep_the_first_offsets():
    few = lattices(np.random.default_rng(7), LEAST_LATTICES - 1, (5e-5, 0), 0.01, 0.1)
    profile = pool_lattices(few, WAVELENGTH, PIXEL)
    assert profile.offsets == (0.0, 0.0, 0.0)
    np.testing.assert_allclose(
        profile.offset_sigmas, [FIRST_SHIFT_SIGMA * PIXEL, FIRST_SHIFT_SIGMA * PIXEL, FIRST_EXCESS_SIGMA]
    )


def test_fit_without_negative_elements():
    """As scipy's, whatever elements are zero; columns are as alike as those of a profile."""
    rng = np.random.default_rng(8)
    zeros = set()
    for _ in range(200):
        q = 0.05 + 0.45 * rng.random(30)
        design = np.stack([np.ones_like(q), q**2 / 0.1, q**4 / 0.02], axis=1)
        values = design @ rng.normal(0.3, 1.0, 3) + 0.1 * rng.standard_normal(30)
        expected, _ = nnls(design, values)
        np.testing.assert_allclose(nonnegative_fit(design, values), expected, rtol=1e-9, atol=1e-12)
        zeros.add(tuple(expected == 0))
    assert len(zeros) == 8
    one_column = np.stack([np.ones(30), np.zeros(30)], axis=1)
    np.testing.assert_allclose(nonnegative_fit(one_column, np.full(30, 2.0)), [2.0, 0.0])

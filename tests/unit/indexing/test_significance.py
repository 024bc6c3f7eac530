"""The significance cut from copies without a lattice."""

import numpy as np
import pytest

from sfxflow.indexing.frame import prepare_target, strength_weights
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.indexing.significance import (
    COPIES_A_FRAME,
    FALSE_RATE,
    HIGHEST_CUT,
    LEAST_COPIES,
    LOWEST_CUT,
    N_COPIES,
    calibrated_cut,
    chance_fit,
    copies_of,
    turned_about_beam,
)


def test_copies_are_spread_over_the_run():
    assert copies_of([]) == []
    assert copies_of([7]) == [(7, copy) for copy in range(COPIES_A_FRAME)]
    many = copies_of(list(range(1000)))
    assert len(many) == N_COPIES and {copy for _, copy in many} == {0}
    assert many[0][0] == 0 and many[-1][0] == 999 and np.all(np.diff([frame for frame, _ in many]) > 15)
    some = copies_of(list(range(10)))
    assert len(some) == N_COPIES and len(set(some)) == N_COPIES
    assert np.bincount([frame for frame, _ in some]).min() >= N_COPIES // 10


def test_turned_peaks_stay_on_the_ewald_sphere_and_at_their_resolution(simulated):
    experiment = simulated.experiment("lysozyme")
    peaks, _, wavelength, _ = simulated.peak_list(experiment, 0, 60, 0)
    turned = turned_about_beam(peaks.q, [3, 1])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(peaks.q, axis=1))
    np.testing.assert_allclose(np.linalg.norm(turned + [0, 0, 1 / wavelength], axis=1), 1 / wavelength, rtol=1e-9)
    moved = np.arctan2(turned[:, 1], turned[:, 0]) - np.arctan2(peaks.q[:, 1], peaks.q[:, 0])
    assert np.std(moved % (2 * np.pi)) > 1.0
    np.testing.assert_array_equal(turned, turned_about_beam(peaks.q, [3, 1]))
    assert np.abs(turned - turned_about_beam(peaks.q, [3, 2])).max() > 0.01


@pytest.mark.parametrize(("location", "scale"), [(9.7, 1.0), (10.5, 0.6)])
def test_the_cut_is_the_quantile_of_gumbels_distribution(location, scale):
    """From 48 copies to half a decade (scale 1) in 19 of 20 cases, and without bias."""
    rng = np.random.default_rng(5)
    true = -(location - scale * np.log(-np.log1p(-FALSE_RATE)))
    cuts = np.array([calibrated_cut(-rng.gumbel(location, scale, N_COPIES)) for _ in range(400)])
    assert abs(cuts.mean() - true) < 0.15 * scale
    assert np.quantile(np.abs(cuts - true), 0.95) < 1.5 * scale


def test_few_copies_give_no_cut_and_odd_ones_a_bounded_one():
    assert calibrated_cut([-10.0] * (LEAST_COPIES - 1)) is None
    assert calibrated_cut([-1.0] * LEAST_COPIES) == HIGHEST_CUT
    assert calibrated_cut([-60.0, *[-10.0] * LEAST_COPIES]) == LOWEST_CUT


def test_lattices_pass_the_cut_of_their_own_run_and_copies_do_not(simulated):
    """Ten true peaks: 95 % of lattices pass, and of 60 other copies at most two."""
    experiment = simulated.experiment("lysozyme")
    lattice = prepare_target(simulated.cell(experiment)).lattice
    lists = [simulated.peak_list(experiment, i, 10, 0)[0] for i in range(40)]
    weights = [strength_weights(peaks.intensity) for peaks in lists]
    cut = calibrated_cut([chance_fit(lists[i].q, weights[i], lattice, [i, c]) for i, c in copies_of(range(40))])
    assert -17.0 < cut < -12.0
    passed = sum(
        index_lattice(peaks.q, weight, lattice, cut)[1] < cut for peaks, weight in zip(lists, weights, strict=True)
    )
    assert passed >= 38
    others = [chance_fit(lists[i % 40].q, weights[i % 40], lattice, [i, 99]) for i in range(60)]
    assert np.count_nonzero(np.array(others) < cut) <= 2

"""Reflections that were measured, but never well recorded: the estimate, and what it is uncertain by."""

import numpy as np
import pytest
from made_runs import run_after, spoil
from observation_simulator import CELL, SPACE_GROUP, simulate, true_on_scale
from test_kernels import predicted

from sfxflow.merging import never_recorded
from sfxflow.merging.merge import Parts, merge_observations
from sfxflow.merging.partiality import first_curve
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

GROUP = space_group(SPACE_GROUP)


@pytest.fixture(scope="module")
def run():
    """A run after four cycles, with some crystals not counting and some observations rejected."""
    simulated = simulate(40, seed=29, d_min=2.6, profile="sphere")
    run = run_after(simulated, 4)
    spoil(run)
    run.merge()
    run.assess()
    run.infer()
    return run


def distances(run):
    """|x| of all observations, with the kernels' 1024 steps of azimuth: else some would be in the next bin."""
    block = run.blocks[0]
    q = run.q[block.columns["reflection"] & np.uint32((1 << 31) - 1)]
    crystal = np.repeat(np.arange(len(run.state)), np.diff(block.offsets))
    state, shape = run.state[crystal].T, run.shape[crystal].T
    azimuth = 2 * np.pi * (block.columns["azimuth"].astype(int) + 32 >> 6) / 1024
    across = q * np.sqrt(1 - (0.5 * shape[3] * q) ** 2)
    error = block.columns["excitation"] + across * (state[4] * np.cos(azimuth) - state[3] * np.sin(azimuth))
    error -= 0.5 * shape[3] * q**2 * state[5]
    return np.abs(error) / (np.exp(state[2]) * np.sqrt(shape[0] + shape[1] * q**2 + shape[2] * q**4))


def test_estimate_is_that_of_the_whole_covariance_matrix():
    """I = m + V g^T (V g g^T + diag v)^-1 (y - g m): best linear estimate, without the sums of the kernel."""
    rng = np.random.default_rng(1)
    for n in (1, 2, 5):
        g, v, y = rng.uniform(0.01, 0.3, n), rng.uniform(0.1, 4, n), rng.normal(5, 10, n)
        m, square = 7.0, 98.0
        covariance = (square - m**2) * np.outer(g, g) + np.diag(v)
        gain = (square - m**2) * np.linalg.solve(covariance, g)
        sums = np.array([[np.sum(g * (y - g * m) / v), np.sum(g * g / v)]])
        found, sigma = never_recorded.best_estimate(sums, np.ones(1), np.array([m]), np.array([square]))
        np.testing.assert_allclose(found, m + gain @ (y - g * m))
        np.testing.assert_allclose(sigma**2, (square - m**2) * (1 - gain @ g))


def test_without_a_measurement_wilsons_mean_and_deviation_stand():
    """The standard deviation is the mean, of centric reflections sqrt 2 times the mean."""
    usual = np.array([7.0, 7.0])
    square = never_recorded.mean_square_intensity(usual, np.array([False, True]))
    found, sigma = never_recorded.best_estimate(np.zeros((2, 2)), np.ones(2), usual, square)
    np.testing.assert_allclose(found, usual)
    np.testing.assert_allclose(sigma, [7.0, 7.0 * np.sqrt(2)])


def test_what_is_recorded_comes_from_the_measurements_and_where_there_is_none_from_the_curve():
    curve = first_curve("gaussian", 0.25, 3.5)
    true_mean, true_variance, n = 0.004, 0.002**2, 29

    def tails(means):
        sums = np.zeros((n, 4))
        # 1e5 measurements, all of the same full reflection, of which nothing but the part recorded scatters
        sums[20] = 1e5 * np.array([true_mean, 1, true_variance + (true_mean - means[20]) ** 2, 1]) / true_variance
        sums[20, 2:] /= true_variance
        return sums

    parts = never_recorded.recorded_parts(tails, curve, n)
    np.testing.assert_allclose(parts[20], [true_mean, true_variance], rtol=0.01)
    np.testing.assert_allclose(parts[8, 0], np.exp(-(((8.5 / 8) ** 2) / 2)), rtol=1e-3)


def test_measurements_are_added_as_in_plain_arrays(run):
    """Both kernels, and with them the estimate, to 1e-3: the kernels' tables of azimuth and exp."""
    crystal, number, _, y, background, gain, base, height, spread, top = predicted(run, run.state)
    x = distances(run)
    counts = (run.active[crystal] == 1) & (run.blocks[0].columns["weight"] > 0)
    counts &= (x * 16).astype(int) < run.curve.values.shape[1] - 1
    merged = (height > 0.02 * top) & (spread < run.numbers[5] * height**2)
    n, information = np.rint(run.total[:, 3]), run.total[:, 1]
    mean = np.maximum(run.posterior(), 0)
    variance = np.where(n >= 2, 1 / (information + 1 / run.prior**2), -1.0)
    known = counts & ~merged & (variance[number] > 0)
    assert known.sum() > 200
    means = np.linspace(0.9, 0.0, 40)

    full = base * mean[number]
    square = full**2 + base**2 * variance[number]
    expected = background + gain * height * full + spread * square + (height * base) ** 2 * variance[number]
    b = np.minimum((x * 8).astype(int), 39)
    g = means[b]
    noise = background + gain * g * full + (g * base) ** 2 * variance[number]
    squared = np.minimum((y - g * full) ** 2, 64 * expected)
    terms = [y * full / expected, full**2 / expected, (squared - noise) * square / expected**2, square**2 / expected**2]
    plain = np.stack([np.bincount(b[known], term[known], 40) for term in terms], axis=1)
    block, sums = run.blocks[0], np.zeros((40, 4))
    never_recorded.tails_block(
        block.offsets, *block.columns.values(), run.state, run.shape, run.active, run.q, mean, variance,
        run.curve.values, run.curve.spread, run.numbers, means, sums,
    )  # fmt: skip
    largest = np.abs(plain).max(axis=0)
    np.testing.assert_allclose(sums / largest, plain / largest, rtol=2e-3, atol=1e-3)

    usual = run.prior
    mean_square = 2 * usual**2
    parts = np.stack([means, 0.1 * means**2 + 1e-4], axis=1)
    asked = n == 0
    place = np.where(asked, np.cumsum(asked) - 1, -1)
    own = counts & asked[number]
    assert own.sum() > 50
    g, s = parts[b].T
    v = background + gain * base * g * usual[number] + base**2 * s * mean_square[number]
    plain = [base * g * (y - base * g * usual[number]) / v, (base * g) ** 2 / v]
    plain = np.stack([np.bincount(place[number][own], term[own], asked.sum()) for term in plain], axis=1)
    sums = np.zeros((asked.sum(), 2))
    never_recorded.evidence_block(
        block.offsets, *block.columns.values(), run.state, run.shape, run.active, run.q, place, usual, mean_square, parts,
        run.numbers, run.curve.values.shape[1], sums,
    )  # fmt: skip
    largest = np.abs(plain).max(axis=0)
    np.testing.assert_allclose(sums / largest, plain / largest, rtol=2e-3, atol=1e-3)


def test_only_reflections_that_were_never_recorded_are_inferred(run):
    np.testing.assert_array_equal(np.isfinite(run.inferred[:, 0]), np.rint(run.total[:, 3]) == 0)
    assert np.all(run.inferred[np.isfinite(run.inferred[:, 1]), 1] > 0)


def test_usual_intensity_is_the_mean_whatever_is_known_best():
    """Weak reflections are known best; one outlier of 1000 times the mean is no part of it."""
    rng = np.random.default_rng(3)
    n = 40000
    q, true = np.sqrt(rng.uniform(0.0, 0.2, n)), rng.exponential(50.0, n)
    true[7] = 5e4
    usual = never_recorded.usual_intensity(q, true, np.arange(n) % 2 == 1, np.full(n, 47.0), np.ones(n))
    np.testing.assert_allclose(usual.mean(), 50.0, rtol=0.02)


def test_uncertainties_are_those_of_the_errors_and_the_estimate_is_better_than_none():
    """Chi squared, three forms of lattice points; R1 is below that of I = 0 and of the mean intensity."""
    deviations, absolute, of_mean, total = [], 0.0, 0.0, 0.0
    for profile in ("gaussian", "sphere", "block"):
        for seed in (71, 72):
            simulated = simulate(100, seed=seed, profile=profile)
            result = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging()).reflections
            hkl = np.stack([result[name] for name in "hkl"], axis=1)
            recorded = result["n"] > 0
            true = true_on_scale(hkl, np.where(recorded, result["I"], 0.0), result["sigI"], simulated)[~recorded]
            found, sigma = result["I"][~recorded], result["sigI"][~recorded]
            deviations.append((found - true) / sigma)
            absolute += np.abs(found - true).sum()
            of_mean += np.abs(true.mean() - true).sum()
            total += true.sum()
    squares = np.concatenate(deviations) ** 2
    assert len(squares) > 800
    assert 0.8 < squares.mean() < 1.3
    assert absolute < 0.95 * of_mean
    assert absolute < 0.85 * total


def test_groups_hold_what_was_recorded_only():
    simulated = simulate(60, seed=20, profile="sphere")
    parts = Parts(("even", "odd"), np.arange(60) % 2)
    merged = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging(), parts=parts)
    assert merged.reflections["n"].min() == 0
    assert merged.summary["unrecorded_kept"]
    assert all(table["n"].min() == 1 for table in merged.groups.values())

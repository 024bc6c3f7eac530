"""The compiled passes against slow, obvious versions."""

import numpy as np
import pytest
from made_runs import run_after, spoil
from observation_simulator import CELL, SPACE_GROUP, simulate
from scipy.optimize import minimize

from sfxflow.merging import fitting, kernels, partiality
from sfxflow.merging.observations import FULL_WEIGHT, MINUS, POLARISATION_UNIT, Collector
from sfxflow.symmetry import space_group

MIN_PARTIALITY = 0.02


@pytest.fixture(scope="module")
def run():
    """A run after three cycles, so that no parameter is at its start, with some crystals not counting."""
    simulated = simulate(40, seed=9, d_min=3.0)
    run = run_after(simulated, 3, min_partiality=MIN_PARTIALITY, anomalous=True)
    run.blocks[0].columns["weight"][::5] = 100
    spoil(run)
    run.merge()
    return run


def looked_up(table, curve, x, q):
    """Linear between nodes of x, rows of q^2; 0 from the last node on."""
    row = np.minimum((q**2 * curve.rows_per_q2).astype(int), len(table) - 1)
    last = table.shape[1] - 1
    place = np.minimum(np.abs(x) * partiality.NODES_PER_UNIT, last)
    low = np.minimum(np.floor(place).astype(int), last - 1)
    values = table[row, low] * (low + 1 - place) + table[row, low + 1] * (place - low)
    return np.where(place < last, values, 0.0)


def predicted(run, state, rows=slice(None)):
    """Of all observations, or some: partiality from the curve, its variance, and the factor on both and on the intensity."""
    block = run.blocks[0]
    columns = {name: values[rows] for name, values in block.columns.items()}
    number = columns["reflection"] & np.uint32(MINUS - 1)
    q = run.q[number]
    crystal = np.repeat(np.arange(len(state)), np.diff(block.offsets))[rows]
    parameters, shape = state[crystal].T, run.shape[crystal].T
    azimuth = 2 * np.pi * columns["azimuth"].astype(float) / 65536
    sine = 0.5 * shape[3] * q
    across = q * np.sqrt(1 - sine**2)
    moved = columns["excitation"] + across * (parameters[4] * np.cos(azimuth) - parameters[3] * np.sin(azimuth))
    moved = moved - 0.5 * shape[3] * q**2 * parameters[5]
    width = np.sqrt(shape[0] + shape[1] * q**2 + shape[2] * q**4) * np.exp(parameters[2])
    base = np.exp(parameters[0] - 2 * parameters[1] * (q / 2) ** 2) * run.reference_width / width
    height = looked_up(run.curve.values, run.curve, moved / width, q)
    spread = looked_up(run.curve.spread, run.curve, moved / width, q)
    gain = shape[4] * POLARISATION_UNIT / columns["polarisation"]
    intensity = columns["intensity"].astype(float)
    sigma2 = columns["sigma"].astype(float) ** 2
    background = np.maximum(sigma2 - gain * np.maximum(intensity, 0), 0.1 * sigma2)
    top = looked_up(run.curve.values, run.curve, np.zeros(len(q)), q)
    return crystal, number, q, intensity, background, gain, base, height, spread, top


def merged_plainly(run):
    crystal, number, _, y, background, gain, base, height, spread, top = predicted(run, run.state)
    level = np.maximum(run.current[number], 0.0)
    variance = background + gain * base * height * level + spread * (base * level) ** 2
    weight = run.blocks[0].columns["weight"] / FULL_WEIGHT / variance
    used = (height > MIN_PARTIALITY * top) & (run.active[crystal] == 1) & (weight > 0)
    used &= spread < run.numbers[5] * height**2
    g = base * height
    sums = np.zeros((len(run.q), 4, 4))
    minus = run.blocks[0].columns["reflection"] >= MINUS
    for j in np.flatnonzero(used):
        own = sums[number[j], run.half[crystal[j]] + 2 * minus[j]]
        own += [weight[j] * g[j] * y[j], weight[j] * g[j] ** 2, weight[j] * y[j] ** 2, 1]
    return sums, np.where(used, weight * g * y, 0.0), np.where(used, weight * g**2, 0.0)


def test_merging_pass(run):
    sums, _, _ = merged_plainly(run)
    assert sums[:, :, 3].sum() > 1000
    # the azimuth is stored to 2 pi / 1024, and q cos(theta) is a series
    np.testing.assert_allclose(run.sums[:, :, 3], sums[:, :, 3], atol=1)
    same = (run.sums[:, :, 3] == sums[:, :, 3]).all(axis=1)
    assert same.mean() > 0.99
    np.testing.assert_allclose(run.sums[same][..., :4], sums[same], rtol=0.02, atol=1e-3 * np.abs(sums).mean())


def test_fit_finds_the_minimum_of_the_cost(run):
    """One crystal: the same minimum as a general minimiser finds for the cost written down plainly."""
    _, own_a, own_b = merged_plainly(run)
    crystal, number, _, y, background, gain, base, height, spread, _ = predicted(run, run.state)
    prior = run.prior[number]
    total = run.sums.sum(axis=1)[number]
    information = np.maximum(total[:, 1] - own_b, 0) + prior**-2.0
    mean = np.maximum((total[:, 0] - own_a + 1 / prior) / information, 0)
    square = mean**2 + 1 / information
    variance = background + gain * base * height * mean + spread * base**2 * square + (base * height) ** 2 / information
    precision = run.priors**-2.0
    scale = run.priors.copy()
    scale[0] = 0.1
    for c in (0, 7):
        own = crystal == c

        def cost(parameters, c=c, own=own):
            state = run.state.copy()
            state[c] = parameters * scale
            new = predicted(run, state, own)
            residual = y[own] - new[6] * new[7] * mean[own]
            cauchy = np.log1p(residual**2 / variance[own] / kernels.CAUCHY**2).sum()
            return 0.5 * kernels.CAUCHY**2 * cauchy + 0.5 * np.sum(precision * state[c] ** 2)

        start = run.state[c] / scale
        best = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 1500, "xatol": 1e-3, "fatol": 1e-3})
        fitted = _fitted(run, c)
        assert cost(fitted / scale) < cost(start)
        assert cost(fitted / scale) < best.fun + 0.2
    assert np.array_equal(_fitted(run, 3), run.state[3]), "a crystal that is left out is not touched"
    assert not np.array_equal(_fitted(run, 4), run.state[4]), "one that does not count is fitted nevertheless"


def _fit(run, state, columns, steps=20, robust=0):
    quality = np.zeros((len(state), 4 + kernels.N_PARAMETERS))
    sums = np.zeros((partiality.N_RANGES, partiality.n_bins(run.curve.x_max), 4))
    fitting.fit_block(
        run.blocks[0].offsets, *columns.values(), state, run.shape, run.active, run.slot // 2, run.q, run.current,
        np.repeat(run.total[:, None, :2], 2, axis=1)[None], run.prior, run.curve.values, run.curve.slopes, run.curve.spread, run.numbers,
        run.priors**-2.0, np.ones(kernels.N_PARAMETERS, np.uint8), steps, robust, quality, sums,
        partiality.range_edges(run.curve.q2_max),
    )  # fmt: skip
    return quality, sums


def _fitted(run, c):
    state = run.state.copy()
    _fit(run, state, {name: values.copy() for name, values in run.blocks[0].columns.items()})
    return state[c]


def test_robust_weights_follow_the_residuals(run):
    state = run.state.copy()
    columns = {name: values.copy() for name, values in run.blocks[0].columns.items()}
    hit = np.flatnonzero(predicted(run, run.state)[7] > 0.3)[::50]
    columns["intensity"][hit] += 1e5
    _fit(run, state, columns, steps=1, robust=1)
    good = np.setdiff1d(np.arange(len(columns["weight"])), hit)
    counted = ~np.isin(predicted(run, run.state)[0], [3])
    assert np.all(columns["weight"][hit[counted[hit]]] == 0)
    assert np.median(columns["weight"][good]) > 0.8 * FULL_WEIGHT


def test_sums_for_the_curve_give_the_curve_back(run):
    """Observations made of the model itself: the ratio of the sums is the curve that they were made with."""
    state = run.state.copy()
    columns = {name: values.copy() for name, values in run.blocks[0].columns.items()}
    _, number, q, _, _, _, base, height, _, _ = predicted(run, state)
    true = run.prior[number]
    columns["intensity"] = (base * height * true).astype(np.float32)
    saved = run.total.copy()
    # so well known that neither prior nor own observation matters
    run.total[:, 1] = 1e6 / run.prior**2
    run.total[:, 0] = run.total[:, 1] * run.prior
    try:
        frozen = run.priors.copy()
        run.priors = np.full(kernels.N_PARAMETERS, 1e-9)
        run.priors[0] = 1e3
        _, sums = _fit(run, state, columns, steps=0)
    finally:
        run.total, run.priors = saved, frozen
    ratio = sums[:, :, 0].sum(axis=0) / sums[:, :, 1].sum(axis=0)
    centres = (np.arange(len(ratio)) + 0.5) * run.curve.x_max / len(ratio)
    expected = looked_up(run.curve.values, run.curve, centres, np.full(len(centres), np.median(q)))
    np.testing.assert_allclose(ratio / ratio[0], expected / expected[0], atol=0.05)


def test_azimuth_is_that_of_the_lattice_point():
    """From the orientation matrix: against arctan2 of each point's position."""
    simulated = simulate(3, seed=1, d_min=4.0)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    block = collector.add(simulated.crystals, simulated.reflections, 0)
    hkl = np.stack([simulated.reflections[name] for name in "hkl"], axis=1)
    matrix = simulated.crystals["reciprocal"][simulated.reflections["crystal"]]
    lab = np.einsum("nij,nj->ni", matrix, hkl)
    assert len(block.columns["azimuth"]) == len(hkl), "all observations are kept at the simulator's window"
    stored = block.columns["azimuth"].astype(float) * 2 * np.pi / 65536
    difference = np.angle(np.exp(1j * (stored - np.arctan2(lab[:, 1], lab[:, 0]))))
    assert np.abs(difference).max() < 1e-4

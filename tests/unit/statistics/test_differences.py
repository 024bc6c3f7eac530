"""Isomorphous differences: against plain loops, known distributions and simulated states."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from sfxflow.merging.merge import Parts, merge_observations
from sfxflow.settings import Merging
from sfxflow.statistics.differences import (
    DEFINITIONS,
    OVERALL_DEFINITIONS,
    amplitudes,
    difference_figures,
    differences,
    map_weights,
    remarks,
)
from sfxflow.symmetry import space_group

sys.path.insert(0, str(Path(__file__).parents[1] / "merging"))

from observation_simulator import CELL, SPACE_GROUP, simulate


def table(hkl, rng, sigma=2.0):
    n = len(hkl)
    columns = {name: hkl[:, i] for i, name in enumerate("hkl")}
    for suffix, factor in (("", 1.0), ("_half1", 2**0.5), ("_half2", 2**0.5)):
        columns[f"I{suffix}"] = 50 + factor * sigma * rng.normal(size=n)
        columns[f"sigI{suffix}"] = np.full(n, factor * sigma)
        columns[f"n{suffix}"] = np.full(n, 4)
    return columns


def some_hkl(rng, n, of=400):
    every = np.stack(np.meshgrid(np.arange(1, 12), np.arange(12), np.arange(12), indexing="ij"), -1).reshape(-1, 3)
    return every[np.sort(rng.permutation(of)[:n])]


@given(st.floats(-30, 1e4), st.floats(0.1, 50))
def test_amplitude_is_the_most_probable_one(intensity, sigma):
    """The maximum of F exp(-(F^2 - I)^2 / (2 sigma^2)), and the curvature there."""

    def minus_log(f):
        return (f**2 - intensity) ** 2 / (2 * sigma**2) - np.log(f)

    amplitude, width = amplitudes(np.array([intensity]), np.array([sigma]))
    best = minimize_scalar(minus_log, bracket=(0.5 * amplitude[0], amplitude[0]), tol=1e-10).x
    assert amplitude[0] == pytest.approx(abs(best), rel=1e-4)
    step = 1e-3 * width[0]
    curvature = (minus_log(best + step) - 2 * minus_log(best) + minus_log(best - step)) / step**2
    assert width[0] == pytest.approx(curvature**-0.5, rel=1e-2)


def test_amplitude_of_a_strong_intensity_is_its_root():
    amplitude, sigma = amplitudes(np.array([1e4]), np.array([10.0]))
    assert amplitude[0] == pytest.approx(100, rel=1e-5)
    assert sigma[0] == pytest.approx(10 / (2 * 100), rel=1e-4)


def test_weights_fall_with_uncertainty_and_with_outliers():
    difference, sigma = np.array([1.0, 1.0, 10.0]), np.array([1.0, 5.0, 1.0])
    weight = map_weights(difference, sigma)
    expected = 1 / (1 + sigma**2 / np.mean(sigma**2) + difference**2 / np.mean(difference**2))
    np.testing.assert_allclose(weight, expected)
    assert weight[0] == weight.max()
    assert len(map_weights(np.empty(0), np.empty(0))) == 0
    assert np.all(map_weights(np.zeros(3), sigma) > 0), "no difference at all"


def test_differences_row_by_row():
    rng = np.random.default_rng(1)
    first, second = table(some_hkl(rng, 250), rng), table(some_hkl(rng, 300), rng)
    first["I"][3], second["sigI"][5] = np.nan, 0.0
    found = differences(first, second)
    wanted = {}
    for i in range(len(second["I"])):
        if np.isfinite(second["I"][i]) and second["sigI"][i] > 0:
            wanted[tuple(int(second[name][i]) for name in "hkl")] = i
    expected = []
    for i in range(len(first["I"])):
        index = tuple(int(first[name][i]) for name in "hkl")
        if index in wanted and np.isfinite(first["I"][i]):
            j = wanted[index]
            difference, sigma = first["I"][i] - second["I"][j], (first["sigI"][i] ** 2 + second["sigI"][j] ** 2) ** 0.5
            expected.append((*index, difference, sigma, first["I_half1"][i] - second["I_half1"][j]))
    assert len(expected) > 100
    np.testing.assert_allclose(np.column_stack([found.hkl, found.DI, found.sigDI, found.half1]), expected)
    one, two = (amplitudes(t["I"][rows], t["sigI"][rows]) for t, rows in ((first, found.rows1), (second, found.rows2)))
    np.testing.assert_allclose(found.DF, one[0] - two[0])
    np.testing.assert_allclose(found.sigDF, np.hypot(one[1], two[1]))


def test_groups_that_are_alike_differ_by_chance():
    rng = np.random.default_rng(2)
    hkl = some_hkl(rng, 1500, 1584)
    first, second = table(hkl, rng), table(hkl, rng)
    found = differences(first, second)
    overall, shells = difference_figures(found, first, second, CELL, 5)
    assert overall["chi_squared"] == pytest.approx(1.0, abs=0.12)
    assert overall["mean_abs_over_sigma"] == pytest.approx(np.sqrt(2 / np.pi), abs=0.05)
    assert abs(overall["cc_difference"]) < 0.08
    assert overall["scale"] == pytest.approx(1.0, abs=0.01)
    assert "no more than chance" in remarks(overall, "on", "off")[0]
    assert sum(shell["n_reflections"] for shell in shells) == overall["n_reflections"] == 1500
    assert set(shells[0]) == {"d_max", "d_min", *DEFINITIONS}
    assert set(overall) == {"d_max", "d_min", *DEFINITIONS, *OVERALL_DEFINITIONS}


def test_figures_of_a_shell_are_those_of_its_reflections():
    rng = np.random.default_rng(3)
    hkl = some_hkl(rng, 300)
    first, second = table(hkl, rng), table(hkl, rng)
    first["I_half1"][::7] = np.nan
    found = differences(first, second)
    _, shells = difference_figures(found, first, second, CELL, 3)
    s = np.sqrt((hkl[:, 0] ** 2 + hkl[:, 1] ** 2) / CELL[0] ** 2 + hkl[:, 2] ** 2 / CELL[2] ** 2)
    own = (s > 1 / shells[1]["d_max"]) & (s <= 1 / shells[1]["d_min"])
    both = own & np.isfinite(found.half1) & np.isfinite(found.half2)
    assert shells[1]["n_reflections"] == own.sum()
    assert shells[1]["chi_squared"] == pytest.approx(np.mean((found.DI[own] / found.sigDI[own]) ** 2))
    assert shells[1]["cc_difference"] == pytest.approx(np.corrcoef(found.half1[both], found.half2[both])[0, 1])
    amplitude = [amplitudes(t["I"], t["sigI"])[0][own] for t in (first, second)]
    r_iso = 2 * np.abs(amplitude[0] - amplitude[1]).sum() / (amplitude[0] + amplitude[1]).sum()
    assert shells[1]["r_iso"] == pytest.approx(r_iso)


def test_groups_without_a_common_reflection():
    rng = np.random.default_rng(4)
    first, second = table(some_hkl(rng, 20), rng), table(np.empty((0, 3), int), rng)
    found = differences(first, second)
    overall, shells = difference_figures(found, first, second, CELL)
    assert overall["n_reflections"] == 0
    assert overall["cc_difference"] is None
    assert shells == []
    assert "share 0 reflections" in remarks(overall, "on", "off")[0]


@pytest.fixture(scope="module")
def two_states():
    """240 crystals; odd ones are in a state whose intensities differ by 25 %."""
    simulated = simulate(240, seed=71, d_min=3.2, state_difference=0.25)
    parts = Parts(("dark", "light"), np.arange(240) % 2)
    merged = merge_observations(
        simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), Merging(), parts=parts
    )
    return simulated, merged.groups


def test_simulated_difference_is_found(two_states):
    simulated, groups = two_states
    found = differences(groups["light"], groups["dark"])
    true = {tuple(row): d for row, d in zip(simulated.hkl.tolist(), simulated.truth["second_state"], strict=True)}
    expected = np.array([true[tuple(row)] for row in found.hkl.tolist()])
    assert len(expected) > 1000
    # reflections that one of the groups recorded once are there too, with the uncertainty that they have
    often = (groups["light"]["n"][found.rows1] > 1) & (groups["dark"]["n"][found.rows2] > 1)
    assert often.mean() > 0.8
    assert np.corrcoef(found.DI[often], expected[often])[0, 1] > 0.95
    # one scale for both: slope 1 once the scale of the merged data is known
    slope = np.sum(found.DI * expected / found.sigDI**2) / np.sum(expected**2 / found.sigDI**2)
    rows = [groups["dark"]["I"][found.rows2], np.array([dict(zip(map(tuple, simulated.hkl.tolist()), simulated.intensity, strict=True))[tuple(row)] for row in found.hkl.tolist()])]  # fmt: skip
    scale = np.sum(rows[0] * rows[1]) / np.sum(rows[1] ** 2)
    assert slope / scale == pytest.approx(1.0, abs=0.07), (
        "0.82 where all crystals are scaled to what both states have in common"
    )
    residual = (found.DI - scale * expected) / found.sigDI
    assert np.median(np.abs(residual)) < 1.1, "sigma tells the error of the difference (0.67 if it is perfect)"
    overall, _ = difference_figures(found, groups["light"], groups["dark"], CELL)
    assert overall["cc_difference"] > 0.4
    assert overall["chi_squared"] > 1.5
    assert remarks(overall, "light", "dark") == []


def test_no_difference_where_the_groups_are_mixed(two_states):
    simulated, _ = two_states
    parts = Parts(("a", "b"), np.arange(240) // 2 % 2)
    merged = merge_observations(
        simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), Merging(cycles=5), parts=parts
    )
    found = differences(merged.groups["a"], merged.groups["b"])
    overall, _ = difference_figures(found, merged.groups["a"], merged.groups["b"], CELL)
    assert abs(overall["cc_difference"]) < 4 / np.sqrt(overall["n_in_halves"])
    assert overall["scale"] == pytest.approx(1.0, abs=0.05)

"""Half sets that are scaled apart."""

import numpy as np
import pytest
from observation_simulator import CELL, SPACE_GROUP, simulate, true_on_scale

from sfxflow.merging.merge import Parts, merge_observations
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

GROUP = space_group(SPACE_GROUP)


@pytest.fixture(scope="module")
def simulated():
    return simulate(120, seed=51, d_min=2.5)


@pytest.fixture(scope="module")
def apart(simulated):
    parts = Parts(("even", "odd"), np.arange(120) % 2)
    return merge_observations(
        simulated.crystals, simulated.reflections, CELL, GROUP, Merging(independent_halves=True), parts=parts
    )


@pytest.fixture(scope="module")
def together(simulated):
    return merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging())


def difference(table):
    """Mean square difference of the half sets in units of its uncertainty, and their correlation."""
    both = (table["n_half1"] > 0) & (table["n_half2"] > 0)
    first, second = table["I_half1"][both], table["I_half2"][both]
    variance = table["sigI_half1"][both] ** 2 + table["sigI_half2"][both] ** 2
    return np.mean((first - second) ** 2 / variance), np.corrcoef(first, second)[0, 1]


def test_the_whole_is_the_same(apart, together):
    for name in ("h", "k", "l", "n"):
        np.testing.assert_array_equal(apart.reflections[name], together.reflections[name])
    # with groups, the whole is a sum in another order
    np.testing.assert_allclose(apart.reflections["I"], together.reflections["I"], rtol=0.05)
    assert apart.summary["independent_halves"]
    assert not together.summary["independent_halves"]


def test_half_sets_know_nothing_of_each_other(simulated, apart, together):
    """Their difference is as large as their uncertainties say; with common scales it is too small, and CC1/2 too good."""
    honest, correlation = difference(apart.reflections)
    shared, flattered = difference(together.reflections)
    assert 0.88 < honest < 1.15
    assert shared < 0.85
    assert correlation < flattered


def test_nothing_of_the_other_half_reaches_a_half_set(simulated, apart):
    """The intensities of one half set are scrambled: the other half set stays as it was."""
    rng = np.random.default_rng(1)
    second = np.flatnonzero((apart.crystals["half"] == 2)[simulated.reflections["crystal"]])
    order = np.arange(len(simulated.reflections["I"]))
    order[second] = rng.permutation(second)
    scrambled = {name: simulated.reflections[name][order] for name in ("I", "sigI")}
    other = merge_observations(
        simulated.crystals, simulated.reflections | scrambled, CELL, GROUP, Merging(independent_halves=True)
    )
    first, now = (
        {tuple(hkl): i for *hkl, i in zip(t["h"], t["k"], t["l"], t["I_half1"], strict=True) if np.isfinite(i)}
        for t in (apart.reflections, other.reflections)
    )
    common = sorted(first.keys() & now.keys())
    assert len(common) > 0.9 * len(now)
    a, b = (np.array([d[hkl] for hkl in common]) for d in (first, now))
    # but for the common scale
    assert np.corrcoef(a, b)[0, 1] > 0.99


def test_half_sets_lie_on_the_scale_of_all_data(apart):
    r = apart.reflections
    for half in ("half1", "half2"):
        there = r[f"n_{half}"] > 1
        assert np.sum(r[f"I_{half}"][there]) / np.sum(r["I"][there]) == pytest.approx(1.0, abs=0.03)
        assert np.isnan(r[f"I_{half}"][r[f"n_{half}"] == 0]).all()


def test_groups_have_half_sets_of_their_own(apart):
    for table in apart.groups.values():
        assert table.keys() == apart.reflections.keys()
        both = (table["n_half1"] > 0) & (table["n_half2"] > 0)
        assert both.sum() > 200
        assert np.corrcoef(table["I_half1"][both], table["I_half2"][both])[0, 1] > 0.9


def test_a_half_set_that_is_too_small_tells_what_it_took():
    simulated = simulate(8, seed=3)
    result = merge_observations(
        simulated.crystals, simulated.reflections, CELL, GROUP, Merging(independent_halves=True, min_measurements=1)
    )
    counts = np.bincount(result.crystals["half"], minlength=3)[1:]
    for half in np.flatnonzero(counts < 5):
        assert f"{counts[half]} crystals are fewer than the 5" in result.summary[f"fallback_half{half + 1}"]
    assert (counts < 5).any()


def test_single_low_measurements_are_as_uncertain_as_the_intensity_in_all_data_makes_them():
    """Edges of spheres; with the half set's own intensities chi squared of the weakest third is 1.4 to 1.7."""
    deviations, merged = [], []
    for seed in (81, 82):
        simulated = simulate(150, seed=seed, profile="sphere", d_min=2.2)
        table = merge_observations(
            simulated.crystals, simulated.reflections, CELL, GROUP, Merging(independent_halves=True)
        ).reflections
        hkl = np.stack([table[name] for name in "hkl"], axis=1)
        true = true_on_scale(hkl, np.where(table["n"] > 0, table["I"], 0.0), table["sigI"], simulated)
        for half in ("half1", "half2"):
            once = table[f"n_{half}"] == 1
            deviations.append(((table[f"I_{half}"] - true) / table[f"sigI_{half}"])[once])
            merged.append(table[f"I_{half}"][once])
    squares, merged = np.concatenate(deviations) ** 2, np.concatenate(merged)
    assert len(squares) > 3000
    assert 0.8 < np.mean(squares[merged < np.quantile(merged, 1 / 3)]) < 1.25

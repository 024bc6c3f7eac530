"""All steps together: what merging adds, more crystals than are compared with each other, and what is said where nothing is found."""

import numpy as np
import pytest
from ambiguous_crystals import simulate

from sfxflow.ambiguity.assign import assign, assign_by_others
from sfxflow.ambiguity.factors import with_merged_factors
from sfxflow.ambiguity.operators import reindexed
from sfxflow.settings import Ambiguity


def tables(simulated, chosen=None):
    """Tables of the chosen crystals."""
    if chosen is None:
        return simulated.crystals, simulated.reflections
    crystals = {name: values[chosen] for name, values in simulated.crystals.items()}
    number = np.full(len(simulated.mode), -1)
    number[chosen] = np.arange(len(chosen))
    owner = number[simulated.reflections["crystal"]]
    return crystals, {name: values[owner >= 0] for name, values in (simulated.reflections | {"crystal": owner}).items()}


def test_merging_describes_the_crystals_better(prepared):
    """Factors after a merge in the true modes predict the intensities better than the first ones."""
    simulated, operators, columns = prepared("P63", 150, 100)
    mode = simulated.mode  # a two-fold operator is its own inverse
    refined, merged = with_merged_factors(columns, *tables(simulated), simulated.cell, simulated.group, operators, mode)
    assert np.mean(np.array(merged.crystals["status"], object) == "merged") > 0.9
    key = {tuple(row): value for row, value in zip(simulated.hkl.tolist(), simulated.intensity, strict=True)}
    own = columns.number[np.arange(len(columns.row)), mode[columns.crystal]]
    true = np.array([key[tuple(row)] for row in columns.hkl[own].tolist()])
    before, after = (np.corrcoef(c.factor * true, c.intensity)[0, 1] for c in (columns, refined))
    assert after > before
    assert after > 0.95
    np.testing.assert_array_equal(refined.number, columns.number)


def test_rounds_are_taken_and_not_for_the_worse():
    simulated = simulate("P63", 250, 30, seed=8)
    without, rounds = (
        assign(*tables(simulated), simulated.cell, simulated.group, simulated.operators, Ambiguity(cycles=n))
        for n in (0, 3)
    )
    assert without.summary["n_rounds"] == 0
    assert rounds.summary["n_rounds"] >= 1
    right = [simulated.right(simulated.operators, found.mode) for found in (without, rounds)]
    assert right[1] >= right[0] - 0.004
    assert right[1] > 0.97


@pytest.mark.parametrize("case", ["P63", "P3"])
def test_the_rest_is_compared_with_the_first(case):
    simulated = simulate(case, 200, 80, seed=9)
    common = (simulated.cell, simulated.group, simulated.operators, Ambiguity(cycles=1))
    turned = reindexed(simulated.hkl, simulated.operators[-1])
    first = assign(*tables(simulated, np.arange(150)), *common, (turned, simulated.intensity))
    rest = assign_by_others(*tables(simulated, np.arange(150, 200)), *common, first)
    assert simulated.right(simulated.operators, np.concatenate([first.mode, rest.mode])) > 0.98
    assert np.median(rest.margin) > 10


def test_few_crystals_say_so_and_are_not_merged_to_believe_themselves():
    simulated = simulate("P63", 20, 20, seed=10)
    found = assign(*tables(simulated), simulated.cell, simulated.group, simulated.operators, Ambiguity())
    assert not found.summary["told_apart"]
    assert found.summary["n_rounds"] == 0
    assert "the crystals can't be told apart" in found.summary["remarks"][0]


def test_crystals_without_observations_have_no_margin():
    simulated = simulate("P63", 100, 100, seed=11)
    reflections = simulated.reflections | {
        "I": np.where(simulated.reflections["crystal"] == 5, np.nan, simulated.reflections["I"])
    }
    found = assign(
        simulated.crystals, reflections, simulated.cell, simulated.group, simulated.operators, Ambiguity(cycles=1)
    )
    assert found.margin[5] == 0
    assert found.n_observations[5] == 0
    others = np.arange(100) != 5
    agree = found.mode[others] == simulated.mode[others]
    assert max(agree.mean(), 1 - agree.mean()) == 1.0


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_a_hot_pixel_and_the_unit_do_not_matter(factor):
    simulated = simulate("P63", 60, 80, seed=12)
    intensity = simulated.reflections["I"].astype(float)
    intensity[7] = 1e10
    spoilt = {"I": factor * intensity, "sigI": factor * simulated.reflections["sigI"].astype(float)}
    common = (simulated.cell, simulated.group, simulated.operators, Ambiguity(cycles=1))
    found = assign(simulated.crystals, simulated.reflections | spoilt, *common)
    assert simulated.right(simulated.operators, found.mode) == 1.0


@pytest.mark.parametrize("intensity", [0.0, -5.0, 1e30])
def test_intensities_that_say_nothing(intensity):
    """No warning of numpy, finite margins, and no claim."""
    simulated = simulate("P63", 30, 30, seed=13)
    same = {"I": np.full(len(simulated.reflections["I"]), intensity)}
    found = assign(
        simulated.crystals,
        simulated.reflections | same,
        simulated.cell,
        simulated.group,
        simulated.operators,
        Ambiguity(cycles=1),
    )
    assert np.all(np.isfinite(found.margin))
    assert not found.summary["told_apart"]


def test_perfect_twins_can_not_be_told_apart():
    """Crystals whose intensities are the same in both ways."""
    simulated = simulate("P63", 100, 80, seed=14)
    other = {name: values.copy() for name, values in simulated.reflections.items()}
    # half of the observations of each crystal are those of a reflection in the other way to index
    swapped = np.random.default_rng(1).random(len(other["I"])) < 0.5
    hkl = np.stack([other[letter] for letter in "hkl"], axis=1)
    hkl[swapped] = reindexed(hkl[swapped], simulated.operators[1])
    other |= {letter: hkl[:, axis] for axis, letter in enumerate("hkl")}
    found = assign(simulated.crystals, other, simulated.cell, simulated.group, simulated.operators, Ambiguity(cycles=1))
    assert not found.summary["told_apart"]
    assert "can't be told apart" in found.summary["remarks"][0]

"""Columns of observations: numbers in every way to index, scales and what is left out."""

import numpy as np
import pytest
from ambiguous_crystals import simulate

from sfxflow.ambiguity.observations import mean_by_resolution, observations_of
from sfxflow.ambiguity.operators import ambiguity_operators, reindexed
from sfxflow.symmetry import to_asu


def test_numbers_are_those_of_the_reindexed_reflections(prepared):
    simulated, operators, columns = prepared("P3", 20, 60)
    hkl = np.stack([simulated.reflections[letter] for letter in "hkl"], axis=1)[columns.row]
    for mode, operator in enumerate(operators):
        expected = to_asu(reindexed(hkl, operator), simulated.group)
        np.testing.assert_array_equal(columns.hkl[columns.number[:, mode]], expected)
    np.testing.assert_array_equal(columns.crystal, simulated.reflections["crystal"][columns.row])
    assert columns.offsets[-1] == len(columns.row)


def test_factors_predict_the_intensities(prepared):
    """With true intensities the factor (scale and partiality) explains the observations to within its stated error."""
    simulated, operators, columns = prepared("P63", 200, 150)
    asu = {tuple(row): value for row, value in zip(simulated.hkl.tolist(), simulated.intensity, strict=True)}
    hkl = np.stack([simulated.reflections[letter] for letter in "hkl"], axis=1)[columns.row]
    true_hkl = np.rint(np.einsum("ni,nij->nj", hkl, operators[simulated.mode][columns.crystal])).astype(int)
    true = np.array([asu[tuple(row)] for row in to_asu(true_hkl, simulated.group).tolist()])
    predicted = columns.factor * true
    scale = np.sum(predicted * columns.intensity) / np.sum(predicted**2)
    deviation = (columns.intensity - scale * predicted) / np.sqrt(
        columns.background + columns.gain * scale * predicted + (columns.error * scale * predicted) ** 2
    )
    # the scale of a crystal is known to some tenths only, and the error far from the Ewald sphere is a guess
    assert 0.6 < 1.4826 * np.median(np.abs(deviation)) < 1.5
    assert np.corrcoef(predicted, columns.intensity)[0, 1] > 0.8


def test_what_can_not_be_used_is_counted_and_left_out():
    simulated = simulate("P63", 4, 50)
    changed = {name: values.copy() for name, values in simulated.reflections.items()}
    changed["I"][3] = np.nan
    changed["sigI"][60] = 0.0
    changed["excitation_error"][70] = np.inf
    for letter, index in zip("hkl", (0, 0, 3), strict=True):
        changed[letter][110] = index
    operators = ambiguity_operators(simulated.cell, simulated.group)
    columns = observations_of(simulated.crystals, changed, simulated.cell, simulated.group, operators)
    assert columns.n_unusable == 4
    assert not np.isin([3, 60, 70, 110], columns.row).any()
    assert len(columns.row) == 196
    assert np.all(np.isfinite(columns.factor))


def test_a_crystal_without_a_width_has_no_observations():
    simulated = simulate("P63", 3, 50)
    crystals = simulated.crystals | {"profile_radius": np.array([4e-4, np.nan, 4e-4])}
    operators = ambiguity_operators(simulated.cell, simulated.group)
    columns = observations_of(crystals, simulated.reflections, simulated.cell, simulated.group, operators)
    assert np.diff(columns.offsets).tolist() == [50, 0, 50]


def test_resolution_limit():
    simulated = simulate("P63", 3, 50)
    operators = ambiguity_operators(simulated.cell, simulated.group)
    columns = observations_of(
        simulated.crystals, simulated.reflections, simulated.cell, simulated.group, operators, 5.0
    )
    assert 0 < len(columns.row) < 75


def test_mean_by_resolution_follows_a_falloff():
    rng = np.random.default_rng(1)
    q = rng.random(20000) ** (1 / 3) / 2.0
    factor = rng.exponential(size=len(q))
    observed = factor * 5.0 * np.exp(-10 * q**2) * rng.exponential(size=len(q))
    wanted = np.array([0.15, 0.3, 0.45])
    np.testing.assert_allclose(mean_by_resolution(factor, observed, q, wanted), 5 * np.exp(-10 * wanted**2), rtol=0.1)


@pytest.mark.parametrize("observed", [np.zeros(5), -np.ones(5)])
def test_mean_of_nothing_is_one(observed):
    np.testing.assert_array_equal(mean_by_resolution(np.ones(5), observed, np.full(5, 0.2), np.full(3, 0.2)), 1.0)

"""Columns of observations and the numbering of the unique reflections."""

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observation_simulator import CELL, SPACE_GROUP, simulate

from sfxflow.errors import InputError
from sfxflow.merging.observations import COLUMNS, MINUS, Collector, ReflectionNumbers, ccp4_asymmetric_unit, half_of
from sfxflow.symmetry import rotations, space_group

INDEX = st.integers(-40, 40)
HKL = st.lists(st.tuples(INDEX, INDEX, INDEX).filter(any), min_size=1, max_size=20)


@given(HKL, st.sampled_from(["P43212", "P1", "P21", "C2", "P63", "R3:H", "I213", "P422"]))
def test_equivalents_have_one_number_and_mates_are_told_apart(rows, name):
    group = space_group(name)
    numbers = ReflectionNumbers(group)
    hkl = np.array(rows)
    number, minus = numbers.number(hkl)
    absent = group.operations().systematic_absences(hkl)
    np.testing.assert_array_equal(number < 0, absent)
    for rotation in rotations(group, friedel=False):
        again, same = numbers.number(hkl @ rotation)
        np.testing.assert_array_equal(again, number)
        np.testing.assert_array_equal(same, minus)
    mate, other = numbers.number(-hkl)
    np.testing.assert_array_equal(mate, number)
    centric = np.array([group.operations().is_reflection_centric(list(map(int, row))) for row in hkl])
    np.testing.assert_array_equal(other != minus, ~centric)
    assert not np.any(minus & centric)


def test_numbers_do_not_change_when_reflections_are_added():
    numbers = ReflectionNumbers(space_group("P422"))
    rng = np.random.default_rng(1)
    first = rng.integers(-20, 20, (100, 3)) + [0, 0, 50]
    earlier, _ = numbers.number(first)
    numbers.number(rng.integers(-40, 40, (1000, 3)) + [0, 0, 50])
    later, _ = numbers.number(first)
    np.testing.assert_array_equal(earlier, later)
    unique = numbers.reflections()
    assert len(unique) == len(numbers)
    again, minus = numbers.number(unique)
    np.testing.assert_array_equal(again, np.arange(len(unique)))
    assert not minus.any()


@given(HKL, st.sampled_from(["P43212", "P1", "P21", "P63", "I213"]))
def test_ccp4_asymmetric_unit(rows, name):
    group = space_group(name)
    hkl = np.array(rows)
    placed, mate = ccp4_asymmetric_unit(hkl, group)
    unit = gemmi.ReciprocalAsu(group)
    operations = rotations(group, friedel=False)
    for own, moved, is_mate in zip(hkl, placed, mate, strict=True):
        assert unit.is_in(list(map(int, moved)))
        direct = any(np.array_equal(own @ r, moved) for r in operations)
        through = any(np.array_equal(-own @ r, moved) for r in operations)
        assert direct or through
        assert is_mate == (not direct)


def test_columns_are_small_and_hold_what_was_given():
    simulated = simulate(5, seed=1, d_min=3.0)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    block = collector.add(simulated.crystals, simulated.reflections, 0)
    assert sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values()) <= 21
    assert {name: str(values.dtype.str[1:]) for name, values in block.columns.items()} == COLUMNS
    given_i = simulated.reflections["I"] / simulated.reflections["polarisation"]
    np.testing.assert_allclose(block.columns["intensity"], given_i, rtol=1e-6)
    np.testing.assert_allclose(block.columns["polarisation"] / 60000, simulated.reflections["polarisation"], atol=1e-5)
    number = block.columns["reflection"] & np.uint32(MINUS - 1)
    unique = collector.numbers.reflections()[number]
    folded = np.sort(np.abs(unique[:, :2]), axis=1)
    own = np.stack([simulated.reflections[name] for name in "hkl"], axis=1).astype(int)
    np.testing.assert_array_equal(folded, np.sort(np.abs(own[:, :2]), axis=1))
    np.testing.assert_array_equal(np.abs(unique[:, 2]), np.abs(own[:, 2]))


@pytest.mark.parametrize("gain", [1.0, 0.05, 300.0])
def test_gain_is_found_from_strong_observations(gain):
    simulated = simulate(20, seed=1, d_min=3.0, gain=gain)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    collector.add(simulated.crystals, simulated.reflections, 0)
    assert np.median(collector.gain) == pytest.approx(gain, rel=0.1)
    assert np.all(np.isfinite(collector.gain))


def test_no_strong_observations_no_gain():
    simulated = simulate(3, seed=1, d_min=4.0)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    collector.add(simulated.crystals, simulated.reflections | {"sigI": simulated.reflections["I"] * 0 + 1e6}, 0)
    np.testing.assert_array_equal(collector.gain, 0.0)


def test_excitation_and_resolution_limits():
    simulated = simulate(5, seed=1)
    n = len(simulated.reflections["I"])
    near = Collector(CELL, space_group(SPACE_GROUP), max_excitation=1.75)
    near.add(simulated.crystals, simulated.reflections, 0)
    assert 0.4 * n < near.n_observations < 0.6 * n
    far = Collector(CELL, space_group(SPACE_GROUP), d_min=50.0)
    far.add(simulated.crystals, simulated.reflections, 0)
    assert far.n_observations == 0
    assert far.n_read == n
    assert 10 < far.largest_d < 45


def test_absent_reflections_are_counted_and_left_out():
    simulated = simulate(2, seed=1, d_min=4.0)
    hkl = {"h": 0, "k": 0, "l": 1}
    changed = {name: values.copy() for name, values in simulated.reflections.items()}
    for name, value in hkl.items():
        changed[name][:3] = value
    changed["excitation_error"][:3] = 0.0
    collector = Collector(CELL, space_group(SPACE_GROUP))
    collector.add(simulated.crystals, changed, 0)
    assert collector.n_absent == 3
    assert collector.absent_mean == pytest.approx(np.mean(changed["I"][:3] / changed["sigI"][:3]))


def test_index_out_of_range_is_an_error():
    simulated = simulate(1, seed=1, d_min=4.0)
    changed = simulated.reflections | {"h": simulated.reflections["h"] + 2000}
    with pytest.raises(InputError, match="beyond 1023"):
        Collector(CELL, space_group(SPACE_GROUP)).add(simulated.crystals, changed, 0)


def test_half_sets_are_about_equal_and_of_the_crystal_alone():
    matrices = np.random.default_rng(1).normal(size=(2000, 3, 3))
    halves = half_of(matrices)
    assert abs(halves.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(half_of(matrices[::-1])[::-1], halves)


@pytest.mark.parametrize(("part", "there"), [(1.0, True), (0.0, False)])
def test_absences_that_are_there(part, there):
    """Forty observations take the indices of absent reflections: with their own intensities, or with noise about zero."""
    simulated = simulate(20, seed=1, d_min=4.0)
    changed = {name: values.copy() for name, values in simulated.reflections.items()}
    chosen = np.random.default_rng(2).choice(len(changed["h"]), 40, replace=False)
    for name, value in {"h": 3, "k": 0, "l": 0}.items():
        changed[name][chosen] = value
    changed["excitation_error"][chosen] = 0.0
    noise = np.random.default_rng(3).normal(size=40) * changed["sigI"][chosen]
    changed["I"][chosen] = part * changed["I"][chosen] + (1 - part) * noise
    collector = Collector(CELL, space_group(SPACE_GROUP))
    collector.add(simulated.crystals, changed, 0)
    assert collector.n_absent == 40
    assert collector.absences_are_there == there
    kept = np.delete(changed["I"] / changed["sigI"], chosen)
    assert collector.present_mean == pytest.approx(kept.mean(), rel=1e-4)


def test_no_observation_no_absence():
    collector = Collector(CELL, space_group(SPACE_GROUP))
    assert not collector.absences_are_there
    assert np.isnan(collector.present_mean)

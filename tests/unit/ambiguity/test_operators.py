"""The ways to index of cells and space groups, and what reindexing does to indices and matrices."""

import itertools

import gemmi
import numpy as np
import pytest
from ambiguous_crystals import CASES, operator_of
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.ambiguity.operators import (
    ambiguity_operators,
    composition,
    described,
    in_assigned_modes,
    reindexed,
    reindexed_reciprocal,
)
from sfxflow.cell import inverse_resolution, reciprocal_matrix
from sfxflow.symmetry import rotations, space_group, to_asu

HEXAGONAL = (62.8, 62.8, 111.0, 90.0, 90.0, 120.0)
TETRAGONAL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)
CUBIC = (103.0, 103.0, 103.0, 90.0, 90.0, 90.0)


@pytest.mark.parametrize(
    ("cell", "name", "n_ways"),
    [
        (HEXAGONAL, "P63", 2),
        (HEXAGONAL, "P6122", 1),
        (HEXAGONAL, "P3", 4),
        (HEXAGONAL, "P321", 2),
        (HEXAGONAL, "P312", 2),
        (HEXAGONAL, "R3:H", 2),
        (HEXAGONAL, "R32:H", 1),
        ((70.0, 70.0, 70.0, 85.0, 85.0, 85.0), "R3:R", 2),
        (TETRAGONAL, "P43", 2),
        (TETRAGONAL, "I4", 2),
        (TETRAGONAL, "P43212", 1),
        (CUBIC, "I23", 2),
        (CUBIC, "P432", 1),
        (CUBIC, "F23", 2),
        ((48.0, 60.0, 77.0, 90.0, 90.0, 90.0), "P212121", 1),
        ((60.0, 60.1, 77.0, 90.0, 90.0, 90.0), "P212121", 2),
        ((60.0, 60.1, 59.9, 90.0, 90.0, 90.0), "P212121", 6),
        ((51.0, 42.0, 66.0, 90.0, 104.5, 90.0), "P21", 1),
        ((51.0, 42.0, 66.0, 90.0, 90.1, 90.0), "P21", 2),
        ((51.0, 42.0, 51.1, 90.0, 104.5, 90.0), "P21", 2),
        ((51.0, 42.0, 51.0, 90.0, 120.0, 90.0), "P21", 6),
        ((50.0, 50.0 * 3**0.5, 70.0, 90.0, 90.0, 90.0), "C2221", 3),
        ((38.0, 46.0, 55.0, 82.0, 77.0, 69.0), "P1", 1),
    ],
)
def test_number_of_ways(cell, name, n_ways):
    """Index of the point group's rotations in those of the lattice: tabulated by hand for each."""
    assert len(ambiguity_operators(cell, space_group(name))) == n_ways


@pytest.mark.parametrize("case", CASES)
def test_ways_are_those_of_the_textbook(case):
    """Each operator agrees with exactly one of the list written by hand, for all reflections at once."""
    cell, name, texts = CASES[case]
    group = space_group(name)
    hkl = np.array(list(itertools.product(range(-3, 4), repeat=3)))

    def images(operator):
        return tuple(to_asu(reindexed(hkl, operator), group).ravel())

    found = {images(operator) for operator in ambiguity_operators(cell, group)}
    assert found == {images(operator_of(text)) for text in texts}
    assert len(found) == len(texts)


@given(
    st.tuples(*[st.floats(20, 150)] * 3),
    st.sampled_from(["P63", "P3", "P43", "I23", "P21", "C2221", "R3:H", "P1", "P212121"]),
)
def test_operators_keep_resolution_and_are_not_equivalent(lengths, name):
    group = space_group(name)
    a, b, c = lengths
    cell = {
        "cubic": (a, a, a, 90, 90, 90),
        "hexagonal": (a, a, c, 90, 90, 120),
        "trigonal": (a, a, c, 90, 90, 120),
        "tetragonal": (a, a, c, 90, 90, 90),
        "monoclinic": (a, b, c, 90, 97, 90),
        "triclinic": (a, b, c, 81, 97, 104),
    }.get(group.crystal_system_str(), (a, b, c, 90, 90, 90))
    operators = ambiguity_operators(cell, group)
    np.testing.assert_array_equal(operators[0], np.eye(3))
    hkl = np.random.default_rng(1).integers(-20, 20, (300, 3))
    hkl = hkl[~group.operations().systematic_absences(hkl)]
    s = inverse_resolution(hkl, cell)
    asu = []
    for operator in operators:
        moved = hkl @ operator
        np.testing.assert_allclose(moved, np.rint(moved), atol=1e-4)
        np.testing.assert_allclose(inverse_resolution(moved, cell), s, rtol=0.006)
        asu.append(tuple(to_asu(np.rint(moved).astype(int), group).ravel()))
    assert len(set(asu)) == len(operators)


@given(st.integers(0, 10**6))
def test_scattering_vectors_stay(seed):
    rng = np.random.default_rng(seed)
    operators = ambiguity_operators(HEXAGONAL, space_group("P3"))
    crystals = {"reciprocal": rng.normal(size=(5, 3, 3)), "n_peaks": np.arange(5)}
    owner = np.sort(rng.integers(0, 5, 40))
    reflections = {"crystal": owner, "I": rng.normal(size=40)}
    reflections |= {letter: rng.integers(-30, 30, 40).astype(np.int16) for letter in "hkl"}
    mode, left_out = rng.integers(0, 4, 5), rng.random(5) < 0.3
    new_crystals, new = in_assigned_modes(crystals, reflections, operators, mode, left_out)
    kept = ~left_out[owner]
    np.testing.assert_array_equal(new["I"], reflections["I"][kept])
    np.testing.assert_array_equal(new["crystal"], owner[kept])
    hkl, old_hkl = (np.stack([table[letter] for letter in "hkl"], axis=1) for table in (new, reflections))
    q = np.einsum("nij,nj->ni", new_crystals["reciprocal"][new["crystal"]], hkl)
    old_q = np.einsum("nij,nj->ni", crystals["reciprocal"][owner], old_hkl)[kept]
    np.testing.assert_allclose(q, old_q, atol=1e-10)
    for c in range(5):
        np.testing.assert_array_equal(hkl[owner[kept] == c], old_hkl[kept][owner[kept] == c] @ operators[mode[c]])


def test_reindexed_matrix_of_one_crystal():
    reciprocal = reciprocal_matrix((51.0, 42.0, 66.0, 90.0, 104.5, 90.0))
    operator = operator_of("l,-k,h")
    hkl = np.array([3, -4, 5])
    np.testing.assert_allclose(reindexed_reciprocal(reciprocal, operator) @ (hkl @ operator), reciprocal @ hkl)


def test_composition_is_what_two_reindexings_give():
    group = space_group("P3")
    operators = ambiguity_operators(HEXAGONAL, group)
    table = composition(operators, group)
    hkl = np.array([[1, 2, 5], [3, -1, 4], [7, 2, -3]])
    for i, j in itertools.product(range(4), repeat=2):
        twice = to_asu(reindexed(reindexed(hkl, operators[i]), operators[j]), group)
        np.testing.assert_array_equal(twice, to_asu(reindexed(hkl, operators[table[i, j]]), group))


def test_operators_that_do_not_turn_all_crystals_alike():
    """P21 in a hexagonal metric: only operators that keep the two-fold axis turn merged data into merged data."""
    group = space_group("P21")
    operators = ambiguity_operators((51.0, 42.0, 51.0, 90.0, 120.0, 90.0), group)
    table = composition(operators, group)
    # all of 622 keep the axis along b, which is the six-fold one here
    assert np.all(table >= 0)
    group = space_group("P4")
    operators = ambiguity_operators(CUBIC, group)
    assert len(operators) == 6
    table = composition(operators, group)
    axis_kept = [np.abs(operator[2, 2]) == 1 for operator in operators]
    np.testing.assert_array_equal(np.all(table >= 0, axis=0), axis_kept)


def test_description():
    assert described(operator_of("k,h,-l")) == "k,h,-l"
    assert described(np.array([[0.5, 1.5, 0], [-0.5, 0.5, 0], [0, 0, 1]])) == "0.5h-0.5k,1.5h+0.5k,l"


def test_laue_group_is_what_gemmi_says():
    """The number of ways times the order of the point group is the order of the lattice's."""
    for cell, name, order in ((HEXAGONAL, "P3", 12), (TETRAGONAL, "P4", 8), (CUBIC, "P23", 24)):
        group = space_group(name)
        proper = [r for r in rotations(group) if np.linalg.det(r) > 0]
        assert len(ambiguity_operators(cell, group)) * len(proper) == order
        assert len(proper) == len(gemmi.find_spacegroup_by_name(name).operations().sym_ops)

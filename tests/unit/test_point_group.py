"""Point groups by CrystFEL's names, against gemmi and against the obvious loops."""

import itertools

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.point_group import (
    asymmetric,
    centering_of,
    epsilon,
    is_absent,
    is_centric,
    is_centrosymmetric,
    order,
    point_group,
    point_group_name,
    possible_reflections,
    space_group_of,
)
from sfxflow.statistics.shells import reciprocal_metric
from sfxflow.symmetry import rotations

NAMES = ["-1", "1", "2/m_uab", "2_uaa", "mmm", "mm2", "4/m", "-4", "4/mmm", "422", "-42m", "321_H", "-31m_H", "3_R", "6/m", "-62m", "23", "m-3m"]  # fmt: skip
indices = st.tuples(*[st.integers(-30, 30)] * 3)


def equivalents(hkl, operations):
    return {tuple((np.array(hkl) @ rotation).tolist()) for rotation in operations}


@pytest.mark.parametrize(
    ("name", "n", "image_of_123"),
    [
        ("2", 2, (-1, -2, 3)),
        ("2_uab", 2, (-1, 2, -3)),
        ("2_uaa", 2, (1, -2, -3)),
        ("m_uab", 2, (1, -2, 3)),
        ("2/m", 4, (1, 2, -3)),
        ("mm2", 4, (1, -2, 3)),
        ("222", 4, (1, -2, -3)),
        ("4", 4, (-2, 1, 3)),
        ("422", 8, (2, 1, -3)),
        ("4/mmm", 16, (2, 1, 3)),
        ("-42m", 8, (-1, 2, -3)),
        ("-4m2", 8, (2, 1, -3)),
        ("3_R", 3, (3, 1, 2)),
        ("32_R", 6, (-2, -1, -3)),
        ("321_H", 6, (2, 1, -3)),
        ("312_H", 6, (-2, -1, -3)),
        ("31m_H", 6, (2, 1, 3)),
        ("6", 6, (-1, -2, 3)),
        ("-6m2", 12, (1, 2, -3)),
        ("432", 24, (3, 1, 2)),
        ("m-3m", 48, (3, 2, 1)),
    ],
)
def test_operations_of_a_named_group(name, n, image_of_123):
    operations = point_group(name)
    assert len(operations) == n
    np.testing.assert_array_equal(operations[0], np.eye(3))
    assert image_of_123 in equivalents((1, 2, 3), operations)


def test_every_space_group_has_a_name_with_the_same_equivalents():
    for group, friedel in itertools.product(gemmi.spacegroup_table(), (False, True)):
        named = point_group(point_group_name(group, friedel))
        assert equivalents((1, 3, 7), named) == equivalents((1, 3, 7), rotations(group, friedel)), group.xhm()


@pytest.mark.parametrize(
    ("space_group", "laue", "without_friedel"),
    [
        ("P 43 21 2", "4/mmm", "422"),
        ("P 21 21 21", "mmm", "222"),
        ("P 63", "6/m", "6"),
        ("C 1 2 1", "2/m_uab", "2_uab"),
        ("P 1 1 2", "2/m_uac", "2_uac"),
        ("P 31 2 1", "-3m1_H", "321_H"),
        ("R 3 2:H", "-3m1_H", "321_H"),
        ("R 3:R", "-3_R", "3_R"),
        ("I 2 3", "m-3", "23"),
    ],
)
def test_names_of_common_groups(space_group, laue, without_friedel):
    group = gemmi.SpaceGroup(space_group)
    assert point_group_name(group) == laue
    assert point_group_name(group, friedel=False) == without_friedel


@pytest.mark.parametrize("name", NAMES)
def test_space_group_of_a_point_group_has_its_operations(name):
    group = space_group_of(name, "R" if name.endswith("_R") else "P")
    assert equivalents((2, 3, 7), rotations(group, friedel=False)) == equivalents((2, 3, 7), point_group(name))


def test_space_group_with_centring():
    assert space_group_of("432", "F").hm == "F 4 3 2"
    assert space_group_of("321_H", "H").xhm() == "R 3 2:H"


@pytest.mark.parametrize("name", ["", "5/m", "P43212", "4/mmm_uax", "4/mmm_ua", "321", "321_H_uaa", "422_R"])
def test_unknown_point_group_is_an_error_that_shows_how_they_look(name):
    with pytest.raises(InputError, match=r"not a point group .* 4/mmm, 422"):
        point_group(name)


@given(st.sampled_from(NAMES), st.lists(indices, min_size=1, max_size=20))
def test_asymmetric_is_the_best_of_all_equivalents(name, hkl):
    operations = point_group(name)
    expected = [max(equivalents(one, operations), key=lambda other: (min(other) >= 0, other)) for one in hkl]
    np.testing.assert_array_equal(asymmetric(hkl, operations), expected)


@given(st.sampled_from(NAMES), indices)
def test_centric_and_epsilon_by_counting(name, hkl):
    operations = point_group(name)
    images = [tuple((np.array(hkl) @ rotation).tolist()) for rotation in operations]
    assert is_centric([hkl], operations)[0] == (tuple(-i for i in hkl) in images)
    assert epsilon([hkl], operations)[0] == images.count(hkl)


def test_order_is_by_h_then_k_then_l():
    hkl = np.array([[1, 0, 0], [-1, 5, 5], [0, 2, -1], [0, 2, -3], [0, -4, 9]])
    np.testing.assert_array_equal(hkl[order(hkl)], sorted(hkl.tolist()))


@pytest.mark.parametrize(
    ("space_group", "cell", "d_min"),
    [
        ("P 4/m m m", (79.1, 79.1, 37.9, 90, 90, 90), 4.0123),
        ("P 4 2 2", (40, 40, 60, 90, 90, 90), 4.0123),
        ("C 1 2/m 1", (50, 30, 40, 90, 103, 90), 3.0123),
        ("P -1", (20, 25, 30, 80, 95, 105), 3.0123),
        ("R -3:H", (60, 60, 90, 90, 90, 120), 4.0123),
        ("F m -3 m", (80, 80, 80, 90, 90, 90), 5.0123),
        ("I 2 2 2", (40, 50, 60, 90, 90, 90), 4.0123),
        ("P 6/m", (60, 60, 100, 90, 90, 120), 5.0123),
    ],
)
def test_possible_reflections_are_those_that_gemmi_counts(space_group, cell, d_min):
    """Symmorphic groups: there gemmi's absences are those of the centring."""
    group = gemmi.SpaceGroup(space_group)
    operations = rotations(group, friedel=group.is_centrosymmetric())
    hkl = possible_reflections(reciprocal_metric(cell), (0.0, 1 / d_min), operations, centering_of(group))
    s = np.sqrt(np.einsum("ni,ij,nj->n", hkl, reciprocal_metric(cell), hkl))
    n = np.count_nonzero(s <= 1 / d_min)
    if group.is_centrosymmetric():
        assert n == gemmi.count_reflections(gemmi.UnitCell(*cell), group, d_min, unique=True)
    assert len({max(equivalents(one, operations)) for one in hkl.tolist()}) == len(hkl)
    np.testing.assert_array_equal(asymmetric(hkl, operations), hkl)


def test_bijvoet_mates_are_two_possible_reflections_without_a_centre():
    metric = reciprocal_metric((40, 40, 60, 90, 90, 90))
    centred, chiral = (possible_reflections(metric, (0, 0.25), point_group(name), "P") for name in ("4/mmm", "422"))
    acentric = ~is_centric(centred, point_group("422"))
    assert len(chiral) == len(centred) + np.count_nonzero(acentric)
    assert is_centrosymmetric(point_group("4/mmm"))
    assert not is_centrosymmetric(point_group("422"))


@pytest.mark.parametrize("letter", "PABCIFRH")
def test_absences_by_centring(letter):
    rules = {
        "P": lambda h, k, l: False, "R": lambda h, k, l: False,
        "A": lambda h, k, l: (k + l) % 2, "B": lambda h, k, l: (h + l) % 2, "C": lambda h, k, l: (h + k) % 2,
        "I": lambda h, k, l: (h + k + l) % 2, "F": lambda h, k, l: (h + k) % 2 or (h + l) % 2 or (k + l) % 2,
        "H": lambda h, k, l: (-h + k + l) % 3,
    }  # fmt: skip
    hkl = list(itertools.product(range(-4, 5), repeat=3))
    np.testing.assert_array_equal(is_absent(hkl, letter), [bool(rules[letter](*one)) for one in hkl])

"""Reduced cells, lattice symmetry and sub-lattices."""

import itertools

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfxflow.cell import real_matrix
from sfxflow.indexing.lattice import (
    PRIMITIVE,
    half_sphere,
    lattice_operators,
    prepare_lattice,
    reduce_basis,
    sublattice_tests,
)

LENGTH = st.floats(20.0, 60.0)
RATIO = st.floats(1.13, 1.37)
ANGLE = st.floats(62.0, 83.0)

#: The 14 Bravais lattices: centring, order of the proper holohedry, cell parameters from three free numbers and an angle.
BRAVAIS = {
    "aP": ("P", 1, lambda a, r, s, x: (a, r * a, r * s * a, x, x + 3.7, x + 5.1)),
    "mP": ("P", 2, lambda a, r, s, x: (a, r * a, r * s * a, 90, x + 30, 90)),
    "mC": ("C", 2, lambda a, r, s, x: (r * s * a, a, r * a, 90, x + 30, 90)),
    "oP": ("P", 4, lambda a, r, s, x: (a, r * a, r * s * a, 90, 90, 90)),
    "oC": ("C", 4, lambda a, r, s, x: (a, r * a, r * s * a, 90, 90, 90)),
    "oI": ("I", 4, lambda a, r, s, x: (a, r * a, r * s * a, 90, 90, 90)),
    "oF": ("F", 4, lambda a, r, s, x: (a, r * a, r * s * a, 90, 90, 90)),
    "tP": ("P", 8, lambda a, r, s, x: (a, a, r * a, 90, 90, 90)),
    "tI": ("I", 8, lambda a, r, s, x: (a, a, r * a, 90, 90, 90)),
    "hP": ("P", 12, lambda a, r, s, x: (a, a, r * a, 90, 90, 120)),
    "hR": ("H", 6, lambda a, r, s, x: (a, a, r * s * a, 90, 90, 120)),
    "rR": ("R", 6, lambda a, r, s, x: (a, a, a, x, x, x)),
    "cP": ("P", 24, lambda a, r, s, x: (a, a, a, 90, 90, 90)),
    "cI": ("I", 24, lambda a, r, s, x: (a, a, a, 90, 90, 90)),
    "cF": ("F", 24, lambda a, r, s, x: (a, a, a, 90, 90, 90)),
}


def spans_the_same_lattice(first, second):
    change = second @ np.linalg.inv(first)
    return np.allclose(change, np.rint(change), atol=1e-6) and round(abs(np.linalg.det(change))) == 1


@settings(max_examples=60, deadline=None)
@given(LENGTH, RATIO, RATIO, ANGLE, st.lists(st.integers(-3, 3), min_size=6, max_size=6))
def test_reduced_basis_is_gemmis_niggli_cell(a, r, s, angle, shear):
    basis = real_matrix((a, r * a, r * s * a, angle, angle + 3.0, angle + 21.0))
    upper = np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1]])
    lower = np.array([[1, 0, 0], [shear[3], 1, 0], [shear[4], shear[5], 1]])
    skewed = lower @ upper @ basis
    reduced = reduce_basis(skewed)
    assert spans_the_same_lattice(basis, reduced)
    assert np.linalg.det(reduced) > 0
    lengths = np.linalg.norm(reduced, axis=1)
    assert np.all(np.diff(lengths) >= -1e-6)
    vector = gemmi.GruberVector(gemmi.UnitCell(a, r * a, r * s * a, angle, angle + 3.0, angle + 21.0), "P")
    vector.niggli_reduce()
    niggli = vector.get_cell()
    np.testing.assert_allclose(lengths, sorted([niggli.a, niggli.b, niggli.c]), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.det(reduced), niggli.volume, rtol=1e-6)


def test_no_vector_of_the_lattice_is_shorter_than_the_reduced_basis_allows():
    rng = np.random.default_rng(1)
    for _ in range(50):
        reduced = reduce_basis(20.0 * rng.standard_normal((3, 3)))
        points = np.array([p for p in itertools.product(range(-3, 4), repeat=3) if any(p)])
        vectors = points @ reduced
        order = np.argsort(np.linalg.norm(vectors, axis=1))
        chosen = []
        for row in order:
            if np.linalg.matrix_rank(np.array([*chosen, vectors[row]]), tol=1e-6) > len(chosen):
                chosen.append(vectors[row])
        np.testing.assert_allclose(np.linalg.norm(chosen, axis=1), np.linalg.norm(reduced, axis=1), rtol=1e-9)


@pytest.mark.parametrize("bravais", BRAVAIS)
@settings(max_examples=12, deadline=None)
@given(a=LENGTH, r=RATIO, s=RATIO, x=ANGLE)
def test_lattice_operators_are_the_holohedry(bravais, a, r, s, x):
    centering, order, parameters = BRAVAIS[bravais]
    basis = PRIMITIVE[centering] @ real_matrix(parameters(a, r, s, x))
    reduced = reduce_basis(Rotation.random(random_state=3).apply(basis))
    # A random cell may come within the tolerance of a higher symmetry; exactness is what is tested here.
    operators = lattice_operators(reduced, tolerance=1e-6)
    metric = reduced @ reduced.T
    for op in operators:
        np.testing.assert_allclose(op @ metric @ op.T, metric, atol=1e-4 * metric.max())
        assert round(np.linalg.det(op)) == 1
    assert len(operators) == order
    found = {tuple(op.ravel()) for op in operators}
    assert {tuple((p @ q).ravel()) for p in operators for q in operators} == found


@pytest.mark.parametrize("bravais", BRAVAIS)
def test_conventional_cell_comes_back_from_the_reduced_one(bravais):
    centering, _, parameters = BRAVAIS[bravais]
    cell = parameters(41.0, 1.2, 1.31, 71.0)
    lattice = prepare_lattice(cell, centering)
    np.testing.assert_allclose(lattice.from_reduced @ lattice.reduced, real_matrix(cell), atol=1e-9)
    multiplicity = {"P": 1, "R": 1, "C": 2, "I": 2, "F": 4, "H": 3}[centering]
    assert round(abs(np.linalg.det(lattice.from_reduced))) == multiplicity


@pytest.mark.parametrize("centering", PRIMITIVE)
def test_primitive_basis_allows_just_the_reflections_that_gemmi_allows(centering):
    example = {
        "P": "P1",
        "A": "A 1 2 1",
        "B": "B 1 1 2",
        "C": "C121",
        "I": "I23",
        "F": "F23",
        "R": "R 3:R",
        "H": "R 3:H",
    }
    translations = gemmi.GroupOps([gemmi.Op()])
    translations.cen_ops = gemmi.SpaceGroup(example[centering]).operations().cen_ops
    for hkl in itertools.product(range(-3, 4), repeat=3):
        indices = PRIMITIVE[centering] @ hkl
        allowed = np.allclose(indices, np.rint(indices))
        assert allowed != translations.is_systematically_absent(hkl)


def test_axes_that_nothing_turns_round_are_tried_both_ways():
    assert prepare_lattice((40.0, 50.0, 60.0, 90.0, 90.0, 90.0)).two_fold == (True, True, True)
    assert prepare_lattice((40.0, 50.0, 60.0, 80.0, 75.0, 70.0)).two_fold == (False, False, False)
    # b is a two-fold axis that turns a and c round.
    assert prepare_lattice((40.0, 50.0, 60.0, 90.0, 104.0, 90.0)).two_fold == (True, False, True)


def test_nearly_orthorhombic_is_not_orthorhombic():
    lattice = prepare_lattice((60.0, 50.0, 70.0, 90.0, 90.2, 90.0))
    # The shortest axis is b, which only the two other two-fold axes of an orthorhombic lattice turn round.
    assert lattice.two_fold == (False, True, True)
    # Orientations that the wrong symmetry relates still are one crystal.
    assert len(lattice.operators) == 4


def test_sublattice_forms_are_all_sublattices_of_index_2_and_3():
    forms, moduli = sublattice_tests()
    assert [(moduli == 2).sum(), (moduli == 3).sum()] == [7, 13]
    hkl = np.array(list(itertools.product(range(6), repeat=3)))
    on = (hkl @ forms.T) % moduli == 0
    np.testing.assert_array_equal(on.mean(axis=0), 1.0 / moduli)
    assert len({tuple(column) for column in on.T}) == 20
    # Every sub-lattice of index 2 by brute force: the Hermite normal forms of determinant 2 and 3.
    for modulus in (2, 3):
        brute = set()
        for a, b, c in itertools.product(range(1, modulus + 1), repeat=3):
            if a * b * c == modulus:
                for x, y, z in itertools.product(range(modulus), repeat=3):
                    rows = np.array([[a, x, y], [0, b, z], [0, 0, c]])
                    members = hkl @ np.linalg.inv(rows)
                    brute.add(tuple(np.all(np.abs(members - np.rint(members)) < 1e-9, axis=1)))
        assert brute == {tuple(column) for column, m in zip(on.T, moduli, strict=True) if m == modulus}


@pytest.mark.parametrize("spacing", [0.03, 0.1])
def test_half_sphere_is_covered(spacing):
    directions = half_sphere(spacing)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-12)
    rng = np.random.default_rng(2)
    random = rng.standard_normal((500, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    nearest = np.arccos(np.clip(np.abs(random @ directions.T).max(axis=1), -1, 1))
    # An axis is the same as its negative; a hole as wide as the spacing would be one and a half times the hexagonal one.
    assert nearest.max() < spacing


def test_variants_are_what_nearly_is_a_symmetry():
    for cell in ((79.1, 79.1, 37.9, 90, 90, 90), (38, 46, 55, 82, 77, 69), (62.8, 62.8, 111, 90, 90, 120)):
        assert prepare_lattice(cell).variants.shape == (0, 3, 3)
    nearly_tetragonal = prepare_lattice((60.0, 60.6, 77.0, 90.0, 90.0, 90.0))
    assert len(nearly_tetragonal.variants) == 1
    swapped = nearly_tetragonal.variants[0] @ nearly_tetragonal.reduced
    np.testing.assert_allclose(np.linalg.norm(swapped, axis=1), [60.6, 60.0, 77.0])
    # The 24 rotations of a cube in sets of 8, 4 and 6: that of the lattice itself is not among the variants.
    assert len(prepare_lattice((60.0, 60.0, 60.6, 90.0, 90.0, 90.0)).variants) == 2
    assert len(prepare_lattice((60.0, 60.5, 61.0, 90.0, 90.0, 90.0)).variants) == 5
    assert len(prepare_lattice((66.0, 66.0, 80.0, 90.0, 90.0, 120.0), "H").variants) == 3

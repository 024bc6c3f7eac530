"""Conventional cells: every lattice type from its reduced cell, exactly and with errors, and in the setting of a space group."""

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.cell import real_matrix
from sfxflow.indexing.conventional import cell_in_group, conventional_cell, possible_cells
from sfxflow.indexing.lattice import PRIMITIVE, reduce_basis
from sfxflow.io.cell_file import check_cell, lattice_of
from sfxflow.symmetry import lattice_group, rotations, space_group

#: Parameters, centring; lattice type, centring, parameters of the conventional cell.
LATTICES = [
    ((38, 46, 55, 82, 77, 69), "P", "triclinic", "P", (38, 46, 55, 82, 77, 69)),
    ((38, 46, 55, 98, 103, 111), "P", "triclinic", "P", (38, 46, 55, 98, 103, 111)),
    ((51, 42, 66, 90, 104.5, 90), "P", "monoclinic", "P", (51, 42, 66, 90, 104.5, 90)),
    ((110, 42, 66, 90, 104.5, 90), "C", "monoclinic", "C", (110, 42, 66, 90, 104.5, 90)),
    ((66, 50, 70, 90, 95, 90), "I", "monoclinic", "I", (66, 50, 70, 90, 95, 90)),
    ((77, 48, 60, 90, 90, 90), "P", "orthorhombic", "P", (48, 60, 77, 90, 90, 90)),
    ((48, 60, 77, 90, 90, 90), "C", "orthorhombic", "C", (48, 60, 77, 90, 90, 90)),
    ((48, 60, 77, 90, 90, 90), "A", "orthorhombic", "C", (60, 77, 48, 90, 90, 90)),
    ((48, 60, 77, 90, 90, 90), "I", "orthorhombic", "I", (48, 60, 77, 90, 90, 90)),
    ((148, 160, 177, 90, 90, 90), "F", "orthorhombic", "F", (148, 160, 177, 90, 90, 90)),
    ((79, 79, 38, 90, 90, 90), "P", "tetragonal", "P", (79, 79, 38, 90, 90, 90)),
    ((79, 79, 38, 90, 90, 90), "I", "tetragonal", "I", (79, 79, 38, 90, 90, 90)),
    ((58, 58, 152, 90, 90, 90), "I", "tetragonal", "I", (58, 58, 152, 90, 90, 90)),
    ((62.8, 62.8, 111, 90, 90, 120), "P", "hexagonal", "P", (62.8, 62.8, 111, 90, 90, 120)),
    ((62.8, 62.8, 111, 90, 90, 120), "H", "hexagonal", "H", (62.8, 62.8, 111, 90, 90, 120)),
    ((92.8, 92.8, 41, 90, 90, 120), "H", "hexagonal", "H", (92.8, 92.8, 41, 90, 90, 120)),
    ((103, 103, 103, 90, 90, 90), "P", "cubic", "P", (103, 103, 103, 90, 90, 90)),
    ((103, 103, 103, 90, 90, 90), "I", "cubic", "I", (103, 103, 103, 90, 90, 90)),
    ((103, 103, 103, 90, 90, 90), "F", "cubic", "F", (103, 103, 103, 90, 90, 90)),
    ((117, 223, 308, 90, 90, 90), "P", "orthorhombic", "P", (117, 223, 308, 90, 90, 90)),
]


def reduced(parameters, centering, error=0.0, seed=0):
    """Reduced basis of a lattice in a random orientation, with relative errors."""
    rng = np.random.default_rng(seed)
    basis = PRIMITIVE[centering] @ real_matrix(parameters)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return reduce_basis(basis @ rotation @ (np.eye(3) + error * rng.standard_normal((3, 3))))


@pytest.mark.parametrize(("parameters", "centering", "lattice", "found", "expected"), LATTICES)
@pytest.mark.parametrize(("error", "tolerance"), [(0.0, 1e-6), (1e-3, 0.02)])
def test_every_lattice(parameters, centering, lattice, found, expected, error, tolerance):
    for seed in range(3):
        result = conventional_cell(reduced(parameters, centering, error, seed), tolerance)
        assert (result.cell.lattice_type, result.cell.centering) == (lattice, found)
        np.testing.assert_allclose(result.cell.parameters[:3], expected[:3], rtol=1e-6 + 5 * error)
        np.testing.assert_allclose(result.cell.parameters[3:], expected[3:], atol=1e-4 + 300 * error)
        group = lattice_group(result.cell)
        check_cell(result.cell, group, "found.cell")  # must not contradict the group that it is merged in
        assert result.deviation[0] < 5 * error + 1e-9 and result.deviation[1] < 300 * error + 1e-6


@pytest.mark.parametrize(("parameters", "centering", "lattice", "found", "expected"), LATTICES)
def test_axes_span_the_lattice(parameters, centering, lattice, found, expected):
    """The axes are right-handed lattice vectors, and the centring gives the primitive cell back."""
    basis = reduced(parameters, centering)
    result = conventional_cell(basis, 1e-6)
    primitive = PRIMITIVE[result.cell.centering] @ result.axes
    assert np.linalg.det(result.axes) > 0
    np.testing.assert_allclose(primitive, np.rint(primitive), atol=1e-9)
    assert abs(np.linalg.det(primitive)) == pytest.approx(1.0)
    volume = np.linalg.det(result.axes @ basis)
    assert volume == pytest.approx(result.cell.volume, rel=1e-6)


@pytest.mark.parametrize(("parameters", "centering", "lattice", "found", "expected"), LATTICES)
def test_against_gemmi(parameters, centering, lattice, found, expected):
    """gemmi's own search for the symmetry of a lattice finds as many rotations."""
    cell = gemmi.UnitCell(*parameters)
    operations = gemmi.find_lattice_symmetry(cell, "R" if centering == "H" else centering, 0.01)
    result = conventional_cell(reduced(parameters, centering), 1e-6)
    assert len(operations.sym_ops) == len(rotations(lattice_group(result.cell), friedel=False))


@given(
    st.tuples(*[st.floats(30.0, 200.0)] * 3, *[st.floats(62.0, 118.0)] * 3),
    st.integers(0, 2**31),
)
@settings(max_examples=20, deadline=None)
def test_any_cell_keeps_its_lattice(parameters, seed):
    """Whatever the cell: the conventional one spans the same lattice within the tolerance."""
    angles = np.cos(np.radians(parameters[3:]))
    if 1 - (angles**2).sum() + 2 * angles.prod() < 0.05:
        return
    basis = reduced(parameters, "P", seed=seed)
    for result in possible_cells(basis, 0.01):
        primitive = PRIMITIVE[result.cell.centering] @ result.axes
        assert abs(np.linalg.det(primitive)) == pytest.approx(1.0)
        assert result.cell.volume == pytest.approx(np.linalg.det(result.axes @ basis), rel=0.05)
    assert result.cell.lattice_type == "triclinic"


def test_from_the_highest_symmetry_to_none():
    types = [c.cell.lattice_type for c in possible_cells(reduced((50, 50.1, 70, 90, 90.2, 90), "P"), 0.02)]
    assert types == ["tetragonal", "orthorhombic", "monoclinic", "triclinic"] or types == [
        "tetragonal",
        "monoclinic",
        "triclinic",
    ]


# ---- in the setting of a space group


@pytest.mark.parametrize(
    ("parameters", "centering", "name"),
    [
        ((51, 42, 66, 90, 104.5, 90), "P", "P1211"),
        ((110, 42, 66, 90, 104.5, 90), "C", "C121"),
        ((66, 50, 70, 90, 95, 90), "I", "I121"),
        ((66, 50, 70, 90, 95, 90), "I", "C121"),
        ((51, 66, 42, 90, 90, 104.5), "P", "P1121"),
        ((48, 60, 77, 90, 90, 90), "C", "C2221"),
        ((79, 79, 38, 90, 90, 90), "P", "P43212"),
        ((79, 79, 38, 90, 90, 90), "P", "P43"),
        ((62.8, 62.8, 111, 90, 90, 120), "P", "P63"),
        ((62.8, 62.8, 111, 90, 90, 120), "P", "P31"),
        ((92.8, 92.8, 41, 90, 90, 120), "H", "R3:H"),
        ((60, 60, 60, 72, 72, 72), "R", "R32:R"),
        ((103, 103, 103, 90, 90, 90), "I", "I23"),
        # fewer rotations than the lattice has
        ((48, 60, 77, 90, 90, 90), "P", "P1211"),
        ((48, 60, 77, 90, 90, 90), "P", "P1"),
        ((79, 79, 38, 90, 90, 90), "P", "P212121"),
        ((79, 79, 38, 90, 90, 90), "P", "C2221"),
        ((103, 103, 103, 90, 90, 90), "I", "I4"),
    ],
)
def test_setting_of_a_group(parameters, centering, name):
    group = space_group(name)
    basis = reduced(parameters, centering, 2e-4, seed=4)
    cell = cell_in_group(basis, lattice_of(group))
    check_cell(cell, group, "found.cell")
    size = np.linalg.det(reduce_basis(PRIMITIVE[cell.centering] @ real_matrix(cell.parameters)))
    assert size == pytest.approx(np.linalg.det(basis), rel=2e-3)


@pytest.mark.parametrize(
    ("parameters", "centering", "name"),
    [
        ((48, 60, 77, 90, 90, 90), "P", "P43212"),
        ((79, 79, 38, 90, 90, 90), "P", "I4"),
        ((79, 79, 38, 90, 90, 90), "P", "P63"),
        ((79, 79, 38, 90, 90, 90), "P", "P23"),
        ((38, 46, 55, 82, 77, 69), "P", "P1211"),
        ((62.8, 62.8, 111, 90, 90, 120), "P", "R3:H"),
    ],
)
def test_a_group_that_the_lattice_can_not_have(parameters, centering, name):
    assert cell_in_group(reduced(parameters, centering), lattice_of(space_group(name))) is None

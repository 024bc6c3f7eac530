"""The space group that is assumed where none is given."""

import pytest

from sfxflow.cell import Cell
from sfxflow.io.cell_file import check_cell
from sfxflow.symmetry import lattice_group, rotations


@pytest.mark.parametrize(
    ("cell", "name", "n_rotations"),
    [
        (Cell(38, 46, 55, 82, 77, 69), "P 1", 1),
        (Cell(51, 42, 66, beta=104.5, lattice_type="monoclinic", unique_axis="b"), "P 1 2 1", 2),
        (Cell(51, 66, 42, gamma=104.5, lattice_type="monoclinic", unique_axis="c"), "P 1 1 2", 2),
        (Cell(110, 42, 66, beta=104.5, lattice_type="monoclinic", centering="C", unique_axis="b"), "C 1 2 1", 2),
        (Cell(66, 50, 70, beta=95, lattice_type="monoclinic", centering="I", unique_axis="b"), "I 1 2 1", 2),
        (Cell(48, 60, 77, lattice_type="orthorhombic"), "P 2 2 2", 4),
        (Cell(48, 60, 77, lattice_type="orthorhombic", centering="F"), "F 2 2 2", 4),
        (Cell(79, 79, 38, lattice_type="tetragonal", unique_axis="c"), "P 4 2 2", 8),
        (Cell(58, 58, 152, lattice_type="tetragonal", centering="I", unique_axis="c"), "I 4 2 2", 8),
        (Cell(62, 62, 111, gamma=120, lattice_type="hexagonal", unique_axis="c"), "P 6 2 2", 12),
        (Cell(92, 92, 41, gamma=120, lattice_type="hexagonal", centering="H", unique_axis="c"), "R 3 2:H", 6),
        (Cell(60, 60, 60, 72, 72, 72, lattice_type="rhombohedral", centering="R"), "R 3 2:R", 6),
        (Cell(103, 103, 103, lattice_type="cubic", centering="I"), "I 4 3 2", 24),
    ],
)
def test_all_rotations_of_the_lattice(cell, name, n_rotations):
    group = lattice_group(cell)
    assert group.xhm() == name
    assert len(rotations(group, friedel=False)) == n_rotations
    check_cell(cell, group, "x.cell")

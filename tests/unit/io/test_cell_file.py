"""Unit cell files, and whether a cell and a space group agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.cell import Cell
from sfxflow.errors import InputError
from sfxflow.io.cell_file import check_cell, lattice_of, read_cell, write_cell
from sfxflow.symmetry import space_group

LYSOZYME = """\
CrystFEL unit cell file version 1.0

lattice_type = tetragonal
unique_axis = c
centering = P

a = 79.10 A
b = 79.10 A   ; a comment
c = 37.90 A
al = 90.0 deg
be = 90.0 deg
ga = 90.0 deg
"""


def read_text(tmp_path, text):
    (tmp_path / "x.cell").write_text(text)
    return read_cell(tmp_path / "x.cell")


def test_crystfels_format(tmp_path):
    assert read_text(tmp_path, LYSOZYME) == Cell(79.1, 79.1, 37.9, 90, 90, 90, "tetragonal", "P", "c")


def test_other_units(tmp_path):
    text = LYSOZYME.replace("37.90 A", "3.79 nm").replace("ga = 90.0 deg", "ga = 1.5707963267948966 rad")
    cell = read_text(tmp_path, text)
    assert cell.c == pytest.approx(37.9)
    assert cell.gamma == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CRYST1   79.100   79.100   37.900  90.00  90.00  90.00 P 43 21 2     8", ("tetragonal", "P", "c")),
        ("CRYST1   40.000   50.000   60.000  90.00  99.00  90.00 C 1 2 1       4", ("monoclinic", "C", "b")),
        ("CRYST1   60.000   60.000   90.000  90.00  90.00 120.00 H 3           9", ("hexagonal", "H", "c")),
        ("CRYST1   60.000   60.000   90.000  90.00  90.00 120.00", ("hexagonal", "P", "c")),
        ("CRYST1   60.000   60.000   60.000  70.00  70.00  70.00", ("rhombohedral", "R", "*")),
        ("CRYST1   60.000   61.000   62.000  70.00  80.00  90.00", ("triclinic", "P", "*")),
    ],
)
def test_a_pdb_file(tmp_path, line, expected):
    cell = read_text(tmp_path, f"HEADER    SOMETHING\n{line}\nATOM\n")
    assert cell.parameters == tuple(float(x) for x in line.split()[1:7])
    assert (cell.lattice_type, cell.centering, cell.unique_axis) == expected


lengths, angles = st.floats(10, 900), st.floats(60, 119)


@given(lengths, lengths, lengths, angles, angles, angles, st.sampled_from("PABCIF"))
def test_what_is_written_reads_back_as_the_same_cell(tmp_path_factory, a, b, c, al, be, ga, centering):
    path = tmp_path_factory.getbasetemp() / "again.cell"
    cell = Cell(a, b, c, al, be, ga, "triclinic", centering)
    write_cell(path, cell)
    assert read_cell(path) == cell


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c = 37.90 A\n", "", "x.cell: no c; a cell file needs"),
        ("c = 37.90 A", "c = 37.90", "line 9: c: '37.90' has no unit"),
        ("c = 37.90 A", "c = long A", "line 9: c: 'long' is not a number"),
        ("c = 37.90 A", "c = -37.90 A", "are not lengths of a unit cell"),
        ("c = 37.90 A", "cc = 37.90 A", "line 9: unknown key 'cc'"),
        ("c = 37.90 A", "c 37.90 A", "line 9: 'c 37.90 A' is not of the form"),
        ("ga = 90.0 deg", "ga = 190.0 deg", "there is no cell with the angles"),
        ("tetragonal", "tetragonl", "line 3: lattice_type: 'tetragonl' is not one of triclinic,"),
        ("centering = P", "centering = X", "line 5: centering: 'X' is not one of"),
        ("CrystFEL unit cell", "Some other", "is neither a CrystFEL cell file"),
    ],
)
def test_mistakes_in_a_cell_file(tmp_path, old, new, message):
    assert old in LYSOZYME
    with pytest.raises(InputError) as caught:
        read_text(tmp_path, LYSOZYME.replace(old, new))
    assert "x.cell" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_cell_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.cell: the cell can't be read \(No such file"):
        read_cell(tmp_path / "none.cell")


def test_an_unknown_space_group():
    with pytest.raises(InputError, match="'P43213' is not a space group"):
        space_group("P43213")


GOOD = [
    ("P1", Cell(40, 50, 60, 70, 80, 90)),
    ("P21", Cell(40, 50, 60, 90, 99, 90, "monoclinic", "P", "b")),
    ("P 1 1 21", Cell(40, 50, 60, 90, 90, 99, "monoclinic", "P", "c")),
    ("P212121", Cell(40, 50, 60, 90, 90, 90, "orthorhombic")),
    ("P43212", Cell(79.1, 79.1, 37.9, 90, 90, 90, "tetragonal", "P", "c")),
    ("P43212", Cell(79.1, 79.13, 37.9, 90.02, 90, 90, "tetragonal", "P", "c")),
    ("P6122", Cell(50, 50, 99, 90, 90, 120, "hexagonal", "P", "c")),
    ("P3121", Cell(50, 50, 99, 90, 90, 120, "hexagonal", "P", "c")),
    ("R3", Cell(50, 50, 99, 90, 90, 120, "hexagonal", "H", "c")),
    ("R 3:R", Cell(50, 50, 50, 70, 70, 70, "rhombohedral", "R")),
    ("I213", Cell(50, 50, 50, 90, 90, 90, "cubic", "I")),
]


@pytest.mark.parametrize(("group", "cell"), GOOD)
def test_cells_that_agree_with_their_space_group(group, cell):
    check_cell(cell, space_group(group), "x.cell")
    lattice, centering, _ = lattice_of(space_group(group))
    assert (lattice, centering) == (cell.lattice_type, cell.centering)


@pytest.mark.parametrize(
    ("group", "cell", "message"),
    [
        (
            "P43212",
            Cell(79.1, 78.1, 37.9, 90, 90, 90, "tetragonal", "P", "c"),
            "a = 79.1, but space group P 43 21 2 needs a = b; it is 78.1",
        ),
        (
            "P43212",
            Cell(79.1, 79.1, 37.9, 90, 91, 90, "tetragonal", "P", "c"),
            "beta = 91, but space group P 43 21 2 needs beta = 90",
        ),
        (
            "P43212",
            Cell(79.1, 79.1, 37.9, 90, 90, 90, "orthorhombic"),
            "lattice_type is orthorhombic, but space group P 43 21 2 is tetragonal",
        ),
        ("I4", Cell(79.1, 79.1, 37.9, 90, 90, 90, "tetragonal", "P", "c"), "centering is P, but space group I 4 has I"),
        (
            "P43212",
            Cell(79.1, 79.1, 37.9, 90, 90, 90, "tetragonal", "P", "a"),
            "unique_axis is a, but in space group P 43 21 2 it is c",
        ),
        (
            "P6122",
            Cell(50, 50, 99, 90, 90, 90, "hexagonal", "P", "c"),
            "gamma = 90, but space group P 61 2 2 needs gamma = 120",
        ),
        (
            "P21",
            Cell(40, 50, 60, 99, 90, 90, "monoclinic", "P", "b"),
            "alpha = 99, but space group P 1 21 1 needs alpha = 90",
        ),
        ("I213", Cell(50, 50, 51, 90, 90, 90, "cubic", "I"), "needs a = c"),
        ("R 3:R", Cell(50, 50, 50, 70, 70, 75, "rhombohedral", "R"), "needs alpha = gamma"),
        (
            "R3",
            Cell(50, 50, 50, 70, 70, 70, "rhombohedral", "R"),
            "lattice_type is rhombohedral, but space group R 3:H is hexagonal",
        ),
    ],
)
def test_a_cell_that_contradicts_its_space_group(group, cell, message):
    with pytest.raises(InputError) as caught:
        check_cell(cell, space_group(group), "x.cell")
    assert str(caught.value).startswith("x.cell: ")
    assert message in str(caught.value)


def test_third_party_cells(shared_data):
    for name, a, c in (("crystfel_sim/lyso.cell", 79.1, 37.9), ("thaumatin_i24/thaumatin.cell", 58.4, 152.3)):
        cell = read_cell(shared_data / "data" / name)
        assert (cell.a, cell.c, cell.lattice_type, cell.unique_axis) == (a, c, "tetragonal", "c")

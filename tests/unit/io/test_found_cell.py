"""The file of found cells: there and back, and what it says of other files."""

import json

import numpy as np
import pytest

from sfxflow.cell import Cell
from sfxflow.errors import InputError
from sfxflow.indexing.forms import Form
from sfxflow.io.found_cell import cell_of_values, read_found_cell, values_of_cell, values_of_form, write_found_cell

CELL = Cell(62.8, 62.8, 111.0, gamma=120.0, lattice_type="hexagonal", centering="H", unique_axis="c")


def values():
    found = Form(CELL, np.array([0, 2]), np.array([0, 2, 3]), 1.0, {}, True, np.array([CELL.parameters] * 3))
    return {
        "provenance": {},
        "cell": values_of_cell(CELL),
        "space_group": "R 3 2:H",
        "space_group_given": False,
        "hits": 4,
        "hits_with_a_lattice": 3,
        "peak_files": ["p.h5"],
        "warnings": [],
        "forms": [values_of_form(found, [0, 0, 0, 0], [3, 5, 8, 13])],
    }


def test_there_and_back(tmp_path):
    write_found_cell(tmp_path / "clusters.json", values())
    read = read_found_cell(tmp_path / "clusters.json")
    assert read == values()
    assert cell_of_values(read["cell"]) == CELL
    assert read["forms"][0]["frames"] == [3, 8, 13] and read["forms"][0]["frames_that_agree"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not JSON \(.*; a file of `sfxflow cell --clusters` is expected"),
        ("[]", "no provenance, cell, .* a file of `sfxflow cell --clusters` is expected"),
        (json.dumps({key: value for key, value in values().items() if key != "forms"}), "no forms;"),
    ],
)
def test_other_files(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_found_cell(tmp_path / "x.json")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"clusters.json: can't be read \(No such file"):
        read_found_cell(tmp_path / "clusters.json")

"""The JSON file of `sfxflow cell`: the crystal forms that were found, and the frames that they were found on."""

import json

import numpy as np

from sfxflow.cell import Cell
from sfxflow.errors import InputError
from sfxflow.io.documents import read_json
from sfxflow.io.files import written_whole

_KEYS = ("provenance", "cell", "space_group", "space_group_given", "hits", "hits_with_a_lattice", "warnings", "forms")


def write_found_cell(path, values):
    """Write the file.

    Parameters
    ----------
    path : path
    values : dict
        provenance, cell, space_group, space_group_given, hits, hits_with_a_lattice, peak_files, warnings and forms.
    """
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_found_cell(path):
    """Content of the file as a dict.

    Raises
    ------
    InputError
        The file can't be read or is not of `sfxflow cell`.
    """
    values = read_json(path, "a file of `sfxflow cell --clusters` is expected")
    missing = [key for key in _KEYS if not isinstance(values, dict) or key not in values]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; a file of `sfxflow cell --clusters` is expected")
    return values


def values_of_cell(cell):
    """A `Cell` as the file has it."""
    return {
        "parameters": [round(x, 5) for x in cell.parameters],
        "lattice_type": cell.lattice_type,
        "centering": cell.centering,
        "unique_axis": cell.unique_axis,
    }


def cell_of_values(values):
    """The `Cell` of `values_of_cell`."""
    return Cell(*values["parameters"], values["lattice_type"], values["centering"], values["unique_axis"])


def values_of_form(form, files, frames):
    """A `sfxflow.indexing.forms.Form` as the file has it.

    Parameters
    ----------
    form : Form
    files, frames : sequence of int
        Number of the peak file and row in it of each hit that was looked at.
    """
    return {
        "cell": values_of_cell(form.cell),
        "accepted": form.accepted,
        "frames_that_agree": len(form.members),
        "indexed": len(form.indexed),
        "indexed_share_of_those": round(form.member_share, 4),
        "refused": form.reasons,
        "missed_symmetry": form.pseudo,
        "files": [files[i] for i in form.indexed],
        "frames": [frames[i] for i in form.indexed],
        "parameters": np.round(form.parameters, 4).tolist(),
    }

"""The file between ambiguity and merging: the way to index of each crystal, in HDF5.

Attributes of the file: format, provenance (JSON), space_group (H-M name), cell (a b c alpha beta gamma in angstrom and degree), integrated
(the chunk files, in the order that `crystals/chunk` counts), operators (n_modes, 3, 3) with h' = h @ operator, operator_names, and
numbers that say how clear it is.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.table import read_rows
from sfxflow.reflections import Column

FORMAT = "sfxflow assignment 1"

#: Columns of crystals/: one row a crystal, in the order of the chunk files.
CRYSTALS = (
    Column("chunk", "i4", "", (), "number of the chunk file in the attribute `integrated`"),
    Column("crystal", "i4", "", (), "row of `crystals` in that file"),
    Column("mode", "i2", "", (), "number of the operator by which the indices are to be multiplied"),
    Column("margin", "f4", "", (), "log likelihood of the mode above that of the second best"),
    Column("left_out", "?", "", (), "not to be merged: its mode is too uncertain"),
    Column("n_observations", "i4", "", (), "observations that told the mode"),
)


@dataclass(frozen=True)
class AssignmentFile:
    """Contents of the file.

    Attributes
    ----------
    path : str
    crystals : dict of ndarray
        The columns `CRYSTALS`.
    operators : ndarray, shape (n_modes, 3, 3)
    integrated : list of str
    attrs : dict
        All other attributes.
    """

    path: str
    crystals: dict
    operators: np.ndarray
    integrated: list
    attrs: dict

    def check_files(self, paths):
        """Raise InputError where the assignment is of other files than `paths`. They may have moved, so only names are compared."""
        if [Path(path).name for path in paths] != [Path(path).name for path in self.integrated]:
            raise InputError(
                f"{self.path}: tells the ways to index of the crystals of {len(self.integrated)} files"
                f" ({_few(self.integrated)}), but {len(paths)} others are given ({_few(paths)}); make it from the same files"
            )

    def of_file(self, number, n_crystals):
        """Mode and `left_out` of the crystals of chunk file `number`.

        Raises
        ------
        InputError
            The file has another number of crystals than when the assignment was made.
        """
        own = self.crystals["chunk"] == number
        if np.count_nonzero(own) != n_crystals:
            raise InputError(
                f"{self.path}: has {np.count_nonzero(own)} crystals of {self.integrated[number]}, which holds {n_crystals}; make it again"
            )
        return self.crystals["mode"][own].astype(np.int64), self.crystals["left_out"][own]

    def for_merged(self):
        """What the merged file says of the ways to index, as attributes."""
        known = ("resolved", "told_apart", "median_margin", "chance_margin", "reference_used", "remarks")
        return {
            "operators": self.operators,
            "operator_names": self.attrs["operator_names"],
            **{f"ambiguity_{name}": self.attrs[name] for name in known},
        }


def _few(names):
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "") if len(names) else "none"


def write_assignment(path, crystals, operators, attrs):
    """Write an assignment, whole or not at all.

    Parameters
    ----------
    path : path-like
    crystals : dict of ndarray
        The columns `CRYSTALS`.
    operators : ndarray, shape (n_modes, 3, 3)
    attrs : dict
        provenance, space_group, cell, integrated, operator_names; more are kept.
    """
    with hdf5_written_whole(path) as handle:
        handle.attrs["format"] = FORMAT
        handle.attrs["operators"] = np.asarray(operators, float)
        for name, value in attrs.items():
            handle.attrs[name] = [os.fspath(item) for item in value] if name == "integrated" else value
        group = handle.create_group("crystals")
        for column in CRYSTALS:
            dataset = group.create_dataset(column.name, data=np.asarray(crystals[column.name]).astype(column.dtype))
            dataset.attrs["units"] = column.unit
            dataset.attrs["meaning"] = column.meaning


def read_assignment(path):
    """Read an assignment.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    AssignmentFile

    Raises
    ------
    InputError
        The file is not there, not HDF5, no assignment or incomplete.
    """
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: can't be opened as HDF5 ({error})") from None
    with handle:
        if handle.attrs.get("format") != FORMAT:
            raise InputError(
                f"{path}: is not a file of ways to index ({FORMAT!r} expected), which sfxflow ambiguity writes"
            )
        try:
            attrs = {
                name: value.item() if isinstance(value, np.generic) else value for name, value in handle.attrs.items()
            }
            operators = attrs.pop("operators")
            integrated = [str(name) for name in attrs.pop("integrated")]
            crystals = read_rows(handle["crystals"], columns=[column.name for column in CRYSTALS])
        except (KeyError, OSError) as error:
            raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
    return AssignmentFile(str(path), crystals, operators, integrated, attrs)

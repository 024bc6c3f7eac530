"""The file between merging and what follows it: merged reflections, the crystals behind them and the partiality curve, in HDF5.

Attributes of the file: format, provenance (JSON), dataset, space_group (H-M name), cell (a b c alpha beta gamma in angstrom and
degree), wavelength (angstrom, the mean), anomalous (bool), integrated (the chunk files, in the order that `crystals/chunk` counts).
Where the dataset is split, groups/ holds a table as merged/ for each group with the attribute n_crystals; the attributes of groups/ are
names (JSON, in order), by and reference.
"""

import json
import os
from typing import NamedTuple

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.reflections import Column

FORMAT = "sfxflow merged 1"

_UNIT = "scaled unit"

#: Columns of merged/: one row a unique reflection, in the CCP4 asymmetric unit.
MERGED = (
    Column("h", "i4", "", (), "index in the CCP4 asymmetric unit"),
    Column("k", "i4", "", (), "index in the CCP4 asymmetric unit"),
    Column("l", "i4", "", (), "index in the CCP4 asymmetric unit"),
    Column("I", "f8", _UNIT, (), "merged intensity"),
    Column("sigI", "f8", _UNIT, (), "standard uncertainty of I"),
    Column(
        "n",
        "i4",
        "",
        (),
        "measurements merged: those of which enough was recorded; 0: I is what the others and the mean at the resolution tell",
    ),
    Column(
        "I_half1", "f8", _UNIT, (), "intensity from the first half of the crystals, NaN where it has no measurement"
    ),
    Column("sigI_half1", "f8", _UNIT, (), "standard uncertainty of I_half1"),
    Column("n_half1", "i4", "", (), "measurements in the first half"),
    Column(
        "I_half2", "f8", _UNIT, (), "intensity from the second half of the crystals, NaN where it has no measurement"
    ),
    Column("sigI_half2", "f8", _UNIT, (), "standard uncertainty of I_half2"),
    Column("n_half2", "i4", "", (), "measurements in the second half"),
)

#: More columns of merged/ where Friedel pairs are kept apart.
ANOMALOUS = (
    Column("I_plus", "f8", _UNIT, (), "intensity of (h k l), NaN where not measured"),
    Column("sigI_plus", "f8", _UNIT, (), "standard uncertainty of I_plus"),
    Column("n_plus", "i4", "", (), "measurements of (h k l)"),
    Column("I_minus", "f8", _UNIT, (), "intensity of (-h -k -l), NaN where not measured"),
    Column("sigI_minus", "f8", _UNIT, (), "standard uncertainty of I_minus"),
    Column("n_minus", "i4", "", (), "measurements of (-h -k -l)"),
)

#: Columns of crystals/: one row a crystal, in the order of the chunk files.
CRYSTALS = (
    Column("chunk", "i4", "", (), "number of the chunk file in the attribute `integrated`"),
    Column("crystal", "i4", "", (), "row of `crystals` in that file"),
    Column(
        "scale",
        "f8",
        "",
        (),
        "G: an observation is polarisation * G * exp(-2 B s^2) * partiality * I, s = sin(theta) / lambda",
    ),
    Column("B", "f8", "angstrom^2", (), "relative temperature factor"),
    Column("width", "f8", "", (), "factor on sigma(q) of the excitation error"),
    Column("n_observations", "i4", "", (), "observations that were merged"),
    Column("n_rejected", "i4", "", (), "observations that were left out"),
    Column("status", "str", "", (), "'merged', or why the crystal was left out"),
)


class MergedGroups(NamedTuple):
    """Groups of crystals that were merged apart.

    Attributes
    ----------
    by : str
        What the dataset was split by.
    reference : str
        The group that is subtracted from the others.
    tables : dict of dict
        Name of each group to columns as in merged/.
    n_crystals : dict of int
        Crystals merged of each group.
    """

    by: str
    reference: str
    tables: dict
    n_crystals: dict


def write_merged(path, merged, crystals, partiality, attrs, groups=None):
    """Write a merged file, whole or not at all.

    Parameters
    ----------
    path : path
    merged : dict of ndarray
        The columns `MERGED`, where `attrs['anomalous']` also `ANOMALOUS`. More columns of the same length are kept: n_measured
        counts measurements with those of which hardly anything was recorded, I_plus_half1
        and so on, in the names of both, give the figures of merit of the anomalous signal in half sets.
    crystals : dict
        The columns `CRYSTALS`; more of the same length are kept.
    partiality : dict of ndarray
        The curve that was estimated, under names of the merger's choice; may be empty. `x` (nodes), `q` (rows), `partiality`,
        `crystal_rotation` (radian, about x and y), `crystal_energy` (relative change) and `reference_width` (1/angstrom) are
        those that the export knows.
    attrs : dict
        provenance, dataset, space_group, cell, wavelength, anomalous and integrated; more are kept.
    groups : MergedGroups, optional
        What is merged apart, where the dataset is split.
    """
    columns = MERGED + (ANOMALOUS if attrs["anomalous"] else ())
    required = {"provenance", "dataset", "space_group", "cell", "wavelength", "anomalous", "integrated"}
    if missing := required - attrs.keys():
        raise ValueError(f"attributes of the merged file: {sorted(missing)} missing")
    with hdf5_written_whole(path) as handle:
        handle.attrs["format"] = FORMAT
        for name, value in attrs.items():
            handle.attrs[name] = [os.fspath(item) for item in value] if name == "integrated" else value
        _write_table(handle, "merged", merged, columns)
        _write_table(handle, "crystals", crystals, CRYSTALS)
        group = handle.create_group("partiality")
        for name, values in partiality.items():
            group[name] = values
        if groups is not None:
            of_groups = handle.create_group("groups")
            of_groups.attrs["names"] = json.dumps(list(groups.tables))
            of_groups.attrs["by"], of_groups.attrs["reference"] = groups.by, groups.reference
            for name, table in groups.tables.items():
                _write_table(handle, f"groups/{name}", table, columns)
                of_groups[name].attrs["n_crystals"] = groups.n_crystals[name]


def _write_table(handle, name, rows, columns):
    if missing := {column.name for column in columns} - rows.keys():
        raise ValueError(f"{name}: columns {sorted(missing)} are missing")
    if len({len(values) for values in rows.values()}) != 1:
        raise ValueError(f"{name}: columns of different lengths")
    group = handle.create_group(name)
    for column in columns:
        if column.dtype == "str":
            values = np.asarray([str(text) for text in rows[column.name]], dtype=object)
            dataset = group.create_dataset(column.name, data=values, dtype=h5py.string_dtype())
        else:
            dataset = group.create_dataset(column.name, data=np.asarray(rows[column.name]).astype(column.dtype))
        dataset.attrs["units"] = column.unit
        dataset.attrs["meaning"] = column.meaning
    for more in rows.keys() - {column.name for column in columns}:
        group[more] = rows[more]


def read_merged(path):
    """Read a merged file.

    Parameters
    ----------
    path : path

    Returns
    -------
    merged, crystals, partiality : dict of ndarray
        Columns as in `write_merged`; text columns are lists of str.
    attrs : dict
        As in `write_merged`: cell a tuple of 6 floats, integrated a list of str.

    Raises
    ------
    InputError
        The file is not there, not HDF5, not a merged file or incomplete.
    """
    with _opened(path) as handle:
        try:
            attrs = {name: _plain(value) for name, value in handle.attrs.items() if name != "format"}
            attrs["cell"] = tuple(float(value) for value in attrs["cell"])
            attrs["integrated"] = [str(name) for name in attrs["integrated"]]
            merged = _read_table(handle["merged"], MERGED + (ANOMALOUS if attrs["anomalous"] else ()))
            crystals = _read_table(handle["crystals"], CRYSTALS)
            partiality = {name: dataset[()] for name, dataset in handle["partiality"].items()}
        except (KeyError, OSError) as error:
            raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
    return merged, crystals, partiality, attrs


def read_groups(path, *names):
    """Some groups of a merged file, or all.

    Parameters
    ----------
    path : path
    *names : str
        All groups if none is given.

    Returns
    -------
    MergedGroups

    Raises
    ------
    InputError
        The file holds no groups or not these, or `read_merged` would fail.
    """
    with _opened(path) as handle:
        if "groups" not in handle:
            raise InputError(f"{path}: holds no groups: the dataset was not split when it was merged")
        try:
            group = handle["groups"]
            known = json.loads(group.attrs["names"])
            if unknown := [name for name in names if name not in known]:
                raise InputError(f"{path}: has no group {unknown[0]}; its groups are {', '.join(known)}")
            columns = MERGED + (ANOMALOUS if handle.attrs["anomalous"] else ())
            chosen = names or known
            tables = {name: _read_table(group[name], columns) for name in chosen}
            n_crystals = {name: int(group[name].attrs["n_crystals"]) for name in chosen}
            return MergedGroups(str(group.attrs["by"]), str(group.attrs["reference"]), tables, n_crystals)
        except (KeyError, OSError, ValueError) as error:
            raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None


def _opened(path):
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: can't be opened as HDF5 ({error})") from None
    if handle.attrs.get("format") != FORMAT:
        handle.close()
        raise InputError(f"{path}: is not a merged file of sfxflow ({FORMAT!r} expected); remove it and run again")
    return handle


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    return value


def _read_table(group, columns):
    if missing := {column.name for column in columns} - group.keys():
        raise KeyError(f"{group.name}: {', '.join(sorted(missing))} missing")
    rows = {}
    for name, dataset in group.items():
        rows[name] = list(dataset.asstr()[()]) if h5py.check_string_dtype(dataset.dtype) else dataset[()]
    return rows

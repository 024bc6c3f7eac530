"""Chunk files: the tables of `sfxflow.reflections` in HDF5, written block by block so that memory does not grow with the chunk."""

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.hdf5 import raise_if_full, unreadable
from sfxflow.reflections import TABLES

FORMAT = "sfxflow chunk 1"
_ROWS_PER_CHUNK = 4096


class ChunkWriter:
    """Appends rows to the tables of a chunk file.

    Parameters
    ----------
    handle : h5py.File
        Open for writing.
    provenance : str
        JSON text (`sfxflow.io.files.provenance_json`).
    tables : iterable of str
        Names of the tables that the file will hold.
    """

    def __init__(self, handle, provenance, tables):
        self._handle = handle
        handle.attrs["format"] = FORMAT
        handle.attrs["provenance"] = provenance
        self._columns = {name: self._create(handle, name) for name in tables}

    @staticmethod
    def _create(handle, table):
        group = handle.create_group(table)
        columns = {}
        for column in TABLES[table]:
            dtype = h5py.string_dtype() if column.dtype == "str" else np.dtype(column.dtype)
            columns[column.name] = group.create_dataset(
                column.name,
                shape=(0, *column.shape),
                maxshape=(None, *column.shape),
                chunks=(_ROWS_PER_CHUNK, *column.shape),
                dtype=dtype,
            )
            columns[column.name].attrs["units"] = column.unit
            columns[column.name].attrs["meaning"] = column.meaning
        return columns

    def n_rows(self, table):
        """Rows that `table` holds so far."""
        return next(iter(self._columns[table].values())).shape[0]

    def append(self, table, rows):
        """Append `rows`, a mapping of every column of `table` to equally long arrays."""
        columns = self._columns[table]
        if rows.keys() != columns.keys():
            raise ValueError(f"{table}: columns {sorted(columns.keys() ^ rows.keys())} are missing or unknown")
        lengths = {len(values) for values in rows.values()}
        if len(lengths) != 1:
            raise ValueError(f"{table}: columns of different lengths {sorted(lengths)}")
        added = lengths.pop()
        start = self.n_rows(table)
        if not added:
            return
        for name, dataset in columns.items():
            dataset.resize(start + added, axis=0)
            dataset[start:] = rows[name]
        raise_if_full(self._handle)


def open_chunk(path, *needed):
    """A chunk file, open for reading.

    Parameters
    ----------
    path : path-like
    *needed : str
        Tables or groups that it must hold.

    Raises
    ------
    InputError
        Not there, not HDF5, not a chunk file or one of another stage.
    """
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        reason = unreadable(path, error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: can't be opened as HDF5: {reason}") from None
    if handle.attrs.get("format") != FORMAT:
        handle.close()
        raise InputError(f"{path}: is not a chunk file of sfxflow ({FORMAT!r} expected); remove it and run again")
    missing = [name for name in needed if name not in handle]
    if missing:
        found = ", ".join(handle)
        handle.close()
        raise InputError(f"{path}: has no {missing[0]}, only {found}: it is the file of another stage")
    return handle


def read_rows(group, start=0, stop=None, columns=None):
    """Rows of a table as a dict of arrays; text columns as lists of str."""
    rows = {}
    for name in columns or group:
        dataset = group[name]
        if h5py.check_string_dtype(dataset.dtype):
            rows[name] = list(dataset.asstr()[start:stop])
        else:
            rows[name] = dataset[start:stop]
    return rows

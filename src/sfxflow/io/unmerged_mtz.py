"""Unmerged MTZ files, read: observations as they were measured, and their batches with cell, wavelength and orientation."""

from typing import NamedTuple

import gemmi
import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.mtz import FIRST_OF_UMAT, Batch, busing_levy


class Observations(NamedTuple):
    """What an unmerged MTZ file holds.

    Attributes
    ----------
    group : gemmi.SpaceGroup
    cell : tuple of 6 floats
    batches : list of Batch
        In the order of their numbers; `reciprocal` is None where a batch has no orientation, `wavelength` NaN where it has none.
    batch : ndarray of int64, shape (n,)
        Row of `batches` for each observation; they lie batch after batch.
    hkl : ndarray of int32, shape (n, 3)
        As measured.
    columns : dict of str to ndarray of float64
        The other columns by label, NaN where there is no value.
    """

    group: gemmi.SpaceGroup
    cell: tuple
    batches: list
    batch: np.ndarray
    hkl: np.ndarray
    columns: dict


def read_unmerged_mtz(path):
    """Read an unmerged MTZ file.

    Raises
    ------
    InputError
        The file can't be read as MTZ, is merged, or lacks intensities, uncertainties, batch numbers or its space group.
    """
    try:
        mtz = gemmi.read_mtz_file(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: can't be read as MTZ ({error})") from None
    if not mtz.batches:
        raise InputError(f"{path}: holds merged data; an unmerged MTZ (with batches) is expected")
    if mtz.spacegroup is None:
        raise InputError(f"{path}: its space group {mtz.spacegroup_name!r} is not known")
    labels = mtz.column_labels()
    missing = [label for label in ("M/ISYM", "BATCH", "I", "SIGI") if label not in labels]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]}; it has {', '.join(labels)}")
    mtz.switch_to_original_hkl()
    values = np.array(mtz.array, dtype=np.float64)
    columns = {label: values[:, i] for i, label in enumerate(labels) if label not in ("H", "K", "L", "M/ISYM", "BATCH")}
    batches = sorted((_batch(batch) for batch in mtz.batches), key=lambda batch: batch.number)
    numbers = np.array([batch.number for batch in batches])
    batch = np.searchsorted(numbers, values[:, labels.index("BATCH")])
    if np.any(numbers[np.minimum(batch, len(numbers) - 1)] != values[:, labels.index("BATCH")]):
        raise InputError(f"{path}: has observations of a batch that is not in its header; write it again")
    order = np.argsort(batch, kind="stable")
    # A file without reflections has one row without values.
    order = order[np.isfinite(columns["I"][order])]
    return Observations(
        mtz.spacegroup,
        tuple(mtz.cell.parameters),
        batches,
        batch[order],
        values[order, :3].astype(np.int32),
        {label: column[order] for label, column in columns.items()},
    )


def _batch(batch):
    cell = tuple(batch.cell.parameters)
    u = np.array([batch.floats[FIRST_OF_UMAT + place] for place in range(9)], dtype=np.float64).reshape(3, 3).T
    reciprocal = np.roll(u @ busing_levy(cell), -1, axis=0) if np.any(u) else None
    title = batch.title.removeprefix("TITLE").strip()
    return Batch(batch.number, title, cell, batch.wavelength or np.nan, reciprocal)

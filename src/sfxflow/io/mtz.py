"""MTZ files, through gemmi: merged and unmerged written, reference intensities read."""

import itertools
import struct
from typing import NamedTuple

import gemmi
import numpy as np

from sfxflow.cell import reciprocal_metric
from sfxflow.errors import InputError
from sfxflow.io.files import written_whole
from sfxflow.symmetry import reflection_from_key, reflection_key, rotations, to_asu

#: History line of a file without reflections: gemmi and others can't open one that has no row.
NO_REFLECTIONS = "NO REFLECTIONS: the only row has no values, it lets programs open the file"

#: Where the matrix U stands, column by column, among the numbers of a batch.
FIRST_OF_UMAT = 6

_RECORD = 80
_WORD = 4
#: Columns of an unmerged file after H, K, L: label and type.
UNMERGED_COLUMNS = (
    ("M/ISYM", "Y"),
    ("BATCH", "B"),
    ("I", "J"),
    ("SIGI", "Q"),
    ("FRACTIONCALC", "R"),
    ("SCALEUSED", "R"),
    ("XDET", "R"),
    ("YDET", "R"),
    ("EXCITATION", "R"),
)


class Intensities(NamedTuple):
    """Merged intensities of an MTZ file.

    Attributes
    ----------
    hkl : ndarray of int32, shape (n, 3)
    I, sigI : ndarray of float64, shape (n,)
        sigI is 0 where the file has none.
    group : gemmi.SpaceGroup
    cell : tuple of 6 floats
    columns : str
        The columns that were taken, for people.
    """

    hkl: np.ndarray
    I: np.ndarray
    sigI: np.ndarray
    group: gemmi.SpaceGroup
    cell: tuple
    columns: str


class Header(NamedTuple):
    """What an MTZ file says beside its reflections.

    Attributes
    ----------
    title, dataset : str
    group : gemmi.SpaceGroup
    cell : tuple of 6 floats
        Angstrom and degree.
    wavelength : float
        Angstrom.
    history : list of str
        Up to 80 characters each.
    """

    title: str
    dataset: str
    group: gemmi.SpaceGroup
    cell: tuple
    wavelength: float
    history: list


class Batch(NamedTuple):
    """A batch of an unmerged file: one crystal.

    Attributes
    ----------
    number : int
    title : str
        The first 70 characters are kept.
    cell : sequence of 6 floats
    wavelength : float
        Angstrom; NaN for that of the header.
    reciprocal : ndarray, shape (3, 3), or None
        Columns a*, b*, c* in the laboratory, 1/angstrom.
    """

    number: int
    title: str
    cell: tuple
    wavelength: float = np.nan
    reciprocal: np.ndarray | None = None


def read_intensities(path):
    """Read merged intensities, or amplitudes and square them.

    Taken are, in this order: IMEAN, the first other mean intensity (type J), the mean of the first I(+) and I(-) (type K),
    the first amplitude (type F).

    Raises
    ------
    InputError
        The file can't be read as MTZ, is unmerged, or has none of these columns.
    """
    try:
        mtz = gemmi.read_mtz_file(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: can't be read as MTZ ({error})") from None
    if mtz.batches:
        raise InputError(f"{path}: holds unmerged data; merged intensities or amplitudes are expected")
    if mtz.spacegroup is None:
        raise InputError(f"{path}: its space group {mtz.spacegroup_name!r} is not known")
    values, sigma, columns = _chosen_columns(path, mtz)
    there = np.isfinite(values)
    hkl = mtz.make_miller_array()[there].astype(np.int32)
    sigma = np.where(np.isfinite(sigma), sigma, 0.0)[there]
    return Intensities(hkl, values[there], sigma, mtz.spacegroup, tuple(mtz.cell.parameters), columns)


def _chosen_columns(path, mtz):
    means = mtz.columns_with_type("J")
    means = [c for c in means if c.label == "IMEAN"] or list(means)
    if means:
        return (*_with_sigma(mtz, means[0], "Q"), means[0].label)
    pair = list(mtz.columns_with_type("K"))[:2]
    if len(pair) == 2:
        (plus, sigma_plus), (minus, sigma_minus) = (_with_sigma(mtz, column, "M") for column in pair)
        both = np.isfinite(plus) & np.isfinite(minus)
        one = np.where(np.isfinite(plus), plus, minus)
        sigma = np.where(np.isfinite(plus), sigma_plus, sigma_minus)
        mean = np.where(both, (plus + minus) / 2.0, one)
        sigma = np.where(both, np.hypot(sigma_plus, sigma_minus) / 2.0, sigma)
        return mean, sigma, f"mean of {pair[0].label} and {pair[1].label}"
    amplitudes = list(mtz.columns_with_type("F"))
    if amplitudes:
        amplitude, sigma = _with_sigma(mtz, amplitudes[0], "Q")
        return amplitude**2, 2.0 * np.abs(amplitude) * sigma, f"{amplitudes[0].label} squared"
    labels = ", ".join(mtz.column_labels())
    raise InputError(f"{path}: has no column of intensities (type J or K) or amplitudes (type F); it has {labels}")


def _with_sigma(mtz, column, sigma_type):
    """Values of a column and of the uncertainties beside it, zeros where there are none."""
    values = np.array(column, dtype=np.float64)
    columns = list(mtz.columns)
    place = [c.idx for c in columns].index(column.idx) + 1
    if place < len(columns) and columns[place].type == sigma_type:
        return values, np.array(columns[place], dtype=np.float64)
    return values, np.zeros(len(values))


def write_merged_mtz(path, header, hkl, columns):
    """Write merged reflections, whole or not at all.

    Parameters
    ----------
    path : path
    header : Header
    hkl : array_like of int, shape (n, 3)
        In the CCP4 asymmetric unit.
    columns : list of (str, str, array_like)
        Label, MTZ type and values of each column; NaN where there is none.
    """
    if not len(hkl):
        hkl, columns = _first_reflection(header.group), [(label, kind, [np.nan]) for label, kind, _ in columns]
        header = header._replace(history=[NO_REFLECTIONS, *header.history])
    mtz = _empty(header, [(label, kind) for label, kind, _ in columns])
    data = np.column_stack([np.asarray(hkl).reshape(-1, 3), *(values for _, _, values in columns)]).astype(np.float32)
    mtz.set_data(np.ascontiguousarray(data))
    mtz.sort(3)
    with written_whole(path) as temporary:
        temporary.write_bytes(mtz.write_to_bytes())


def write_unmerged_mtz(path, header, blocks, labels=UNMERGED_COLUMNS):
    """Write unmerged observations block by block, whole or not at all; memory holds one block and the batch headers.

    Parameters
    ----------
    path : path
    header : Header
    blocks : iterable of (list of Batch, dict)
        Batches that begin in the block, and columns of equal length: hkl as measured, shape (n, 3), and `labels` except M/ISYM.
    labels : sequence of (str, str)
        Labels and types of the columns after H, K, L; the first is M/ISYM.
    """
    mtz = _empty(header, labels)
    asu = AsuFinder(header.group)
    extremes = np.empty((0, len(mtz.columns)), dtype=np.float32)
    inverse_metric = np.array(gemmi.UnitCell(*header.cell).reciprocal().metric_tensor().as_mat33().tolist())
    n_rows = 0
    with written_whole(path) as temporary, open(temporary, "wb") as handle:
        handle.write(bytes(_WORD * 20))
        for batches, columns in blocks:
            for batch in batches:
                mtz.batches.append(_batch(batch, header))
            rows = _unmerged_rows(columns, asu, labels)
            handle.write(rows.tobytes())
            n_rows += len(rows)
            extremes = _extreme_rows(np.concatenate([extremes, rows]), inverse_metric)
        if not n_rows:
            extremes = _row_without_values(header, mtz)
            handle.write(extremes.tobytes())
            n_rows = len(extremes)
        start, text = _header_text(mtz, extremes, n_rows)
        handle.write(text)
        handle.seek(0)
        handle.write(start)


def _row_without_values(header, mtz):
    """The one row of an unmerged file without observations, in a batch that it has or gets."""
    mtz.history = [NO_REFLECTIONS, *mtz.history]
    if not len(mtz.batches):
        mtz.batches.append(_batch(Batch(1, "no crystal", header.cell), header))
    row = np.full((1, len(mtz.columns)), np.nan, dtype="<f4")
    row[0, :3] = _first_reflection(header.group)[0]
    row[0, 3:5] = 1, mtz.batches[0].number
    return row


def _first_reflection(group):
    """A reflection of low order in the asymmetric unit that is not absent: ndarray of int, shape (1, 3)."""
    asu, operations = gemmi.ReciprocalAsu(group), group.operations()
    orders = sorted(itertools.product(range(-6, 7), repeat=3), key=lambda hkl: sum(abs(index) for index in hkl))
    return np.array([next(h for h in orders if any(h) and asu.is_in(h) and not operations.is_systematically_absent(h))])


def _empty(header, columns):
    mtz = gemmi.Mtz(with_base=True)
    mtz.title = header.title[:70]
    mtz.spacegroup = header.group
    mtz.set_cell_for_all(gemmi.UnitCell(*header.cell))
    dataset = mtz.add_dataset(header.dataset)
    dataset.project_name = "sfxflow"
    dataset.crystal_name = header.dataset
    # The base dataset as well: readers that want one wavelength take that of the first dataset.
    for each in mtz.datasets:
        each.wavelength = header.wavelength if np.isfinite(header.wavelength) else 0.0
    mtz.history = [line[:_RECORD] for line in header.history]
    for label, kind in columns:
        mtz.add_column(label, kind, dataset_id=dataset.id)
    return mtz


def _batch(batch, header):
    made = gemmi.Mtz.Batch()
    made.number = batch.number
    made.title = batch.title[:70]
    made.cell = gemmi.UnitCell(*(float(value) for value in batch.cell))
    length = batch.wavelength if np.isfinite(batch.wavelength) else header.wavelength
    made.wavelength = length if np.isfinite(length) else 0.0
    made.dataset_id = 1
    if batch.reciprocal is not None:
        for place, value in enumerate(orientation(batch.reciprocal, made.cell.parameters).T.ravel().tolist()):
            made.floats[FIRST_OF_UMAT + place] = value
    return made


def orientation(reciprocal, cell):
    """CCP4's matrix U of a crystal: reciprocal = P^T U B.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* in the laboratory, 1/angstrom.
    cell : sequence of 6 floats

    Returns
    -------
    ndarray, shape (3, 3)

    Notes
    -----
    B has a* along x and b* in the xy plane (Busing & Levy 1967, Acta Cryst. 22, 457, doi:10.1107/S0365110X67000970). P turns the laboratory
    of units.py to CCP4's: x along the beam, y and z our x and y.
    """
    return np.roll(reciprocal, 1, axis=0) @ np.linalg.inv(busing_levy(cell))


def busing_levy(cell):
    """B of `orientation`: the upper triangular matrix whose square is the reciprocal metric."""
    return np.linalg.cholesky(reciprocal_metric(cell)).T


class AsuFinder:
    """Moves reflections into the CCP4 asymmetric unit, as many at a time as there are."""

    def __init__(self, group):
        self._group = group
        self._asu = gemmi.ReciprocalAsu(group)
        self._group_operations = group.operations()
        self._operations = rotations(group, friedel=False)

    def __call__(self, hkl):
        """Equivalents in the asymmetric unit, and CCP4's ISYM.

        Parameters
        ----------
        hkl : array_like of int, shape (n, 3)

        Returns
        -------
        ndarray of int32, shape (n, 3); ndarray of int32, shape (n,)
            ISYM is odd, 2 i + 1, where operation i leads there, even, 2 i + 2, where its negative does.
        """
        hkl = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
        # gemmi moves one reflection at a time: it is asked once for each set of equivalents.
        one_of_set, inverse = np.unique(reflection_key(to_asu(hkl, self._group)), return_inverse=True)
        asked = [
            self._asu.to_asu(index, self._group_operations)[0] for index in reflection_from_key(one_of_set).tolist()
        ]
        moved = np.array(asked, dtype=np.int32).reshape(-1, 3)[inverse.reshape(-1)]
        isym = np.zeros(len(hkl), dtype=np.int32)
        for i, rotation in enumerate(self._operations):
            image = hkl @ rotation
            isym[(isym == 0) & np.all(image == moved, axis=1)] = 2 * i + 1
            isym[(isym == 0) & np.all(image == -moved, axis=1)] = 2 * i + 2
        return moved, isym


def _unmerged_rows(columns, asu, labels):
    hkl, isym = asu(columns["hkl"])
    others = [columns[label] for label, _ in labels if label != "M/ISYM"]
    return np.column_stack([hkl, isym, *others]).astype("<f4")


def _extreme_rows(rows, inverse_metric):
    """The rows that hold the least and the largest value of any column and of the resolution: the header's ranges need no others."""
    if not len(rows):
        return rows
    hkl = rows[:, :3].astype(np.float64)
    resolution = np.einsum("ni,ij,nj->n", hkl, inverse_metric, hkl)
    values = np.column_stack([rows, resolution])
    filled_low, filled_high = (np.where(np.isnan(values), fill, values) for fill in (np.inf, -np.inf))
    return rows[np.unique(np.concatenate([filled_low.argmin(axis=0), filled_high.argmax(axis=0)]))]


def _header_text(mtz, extremes, n_rows):
    """First 80 bytes, and what stands after the data, of a file of `n_rows` rows whose ranges are those of `extremes`."""
    mtz.set_data(np.ascontiguousarray(extremes, dtype=np.float32))
    whole = mtz.write_to_bytes()
    offset = (struct.unpack("<i", whole[4:8])[0] - 1) * _WORD
    text = bytearray(whole[offset:])
    n_columns = len(mtz.columns)
    for place in range(0, len(text), _RECORD):
        if text[place : place + 5] == b"NCOL ":
            record = f"NCOL {n_columns:8d} {n_rows:12d} {len(mtz.batches):8d}"
            text[place : place + _RECORD] = record.ljust(_RECORD).encode("ascii")
            break
    start = bytearray(whole[: _WORD * 20])
    position = 21 + n_columns * n_rows
    if position < 2**31:
        start[4:8] = struct.pack("<i", position)
    else:
        # Beyond 2^31 words the position is -1 and stands in the words after the machine stamp (as gemmi and CCP4 have it).
        start[4:8] = struct.pack("<i", -1)
        start[12:20] = struct.pack("<q", position)
    return bytes(start), bytes(text)

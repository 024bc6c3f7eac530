"""Integrated chunk files and unmerged MTZ as the same blocks of tables, some frames at a time, for writing them in another format."""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays, panel_of, polarisation_factor
from sfxflow.io.mtz import Batch
from sfxflow.io.stream_tables import NOT_KNOWN, StreamTables
from sfxflow.io.table import ChunkWriter, read_rows
from sfxflow.reflections import TABLES, Status
from sfxflow.units import HC_EV_ANGSTROM, wavelength

#: Frames of which the rows are in memory at a time.
FRAMES_AT_A_TIME = 256
#: Group of a chunk file with the lines of the stream that it was made from.
TEXTS = "stream"
#: Columns after H, K, L of an unmerged MTZ made from a table: label, type and column of the table.
MTZ_COLUMNS = (
    ("M/ISYM", "Y", None),
    ("BATCH", "B", None),
    ("I", "J", "I"),
    ("SIGI", "Q", "sigI"),
    ("XDET", "R", "fs"),
    ("YDET", "R", "ss"),
    ("EXCITATION", "R", "excitation_error"),
    ("LP", "R", "polarisation"),
    ("PEAK", "R", "peak"),
    ("BG", "R", "background"),
    ("PANEL", "R", "panel"),
)


class Texts(NamedTuple):
    """Lines of the stream that a table was made from: the header, and those of frames and crystals beside the tables."""

    header: str
    frames: list
    crystals: list


def table_blocks(handle, where):
    """Rows of an open chunk file.

    Parameters
    ----------
    handle : h5py.File
        With frames, crystals and reflections.
    where : str
        Its name, for messages.

    Yields
    ------
    first_frame, first_crystal : int
        Rows of the tables at which the block begins.
    StreamTables
        Its `crystals['frame']` and `reflections['crystal']` are rows of the file's tables.

    Raises
    ------
    InputError
        Crystals do not lie frame after frame, or reflections crystal after crystal.
    """
    frame = handle["crystals/frame"][()]
    crystal = handle["reflections/crystal"][()].astype(np.int64)
    n_frames = len(handle["frames/frame"])
    for name, rows, n in (("crystals", frame, n_frames), ("reflections", crystal, len(frame))):
        if np.any(np.diff(rows) < 0) or (len(rows) and rows[-1] >= n):
            raise InputError(f"{where}: its {name} do not lie one after the other; remove the file and run again")
    for start in range(0, n_frames, FRAMES_AT_A_TIME):
        low, high = np.searchsorted(frame, [start, start + FRAMES_AT_A_TIME])
        first, last = np.searchsorted(crystal, [low, high])
        yield (
            start,
            int(low),
            StreamTables(
                read_rows(handle["frames"], start, start + FRAMES_AT_A_TIME),
                read_rows(handle["crystals"], low, high),
                read_rows(handle["reflections"], first, last),
                None,
            ),
        )


def write_table(handle, provenance, blocks):
    """Write blocks of tables to an open HDF5 file.

    Parameters
    ----------
    handle : h5py.File
    provenance : str
        JSON text.
    blocks : iterable of (StreamTables, Texts or None)
        Rows counted through all blocks.

    Returns
    -------
    dict
        Number of frames, crystals and reflections.
    """
    writer = ChunkWriter(handle, provenance, TABLES)
    lines = {}
    for tables, texts in blocks:
        for name in TABLES:
            writer.append(name, getattr(tables, name))
        if texts is not None:
            lines = lines or _text_datasets(handle, texts.header)
            for name, dataset in lines.items():
                added = [_as_bytes(text) for text in getattr(texts, name)]
                dataset.resize(len(dataset) + len(added), axis=0)
                dataset[len(dataset) - len(added) :] = added
    return {name: writer.n_rows(name) for name in TABLES}


def _text_datasets(handle, header):
    group = handle.create_group(TEXTS)
    group.create_dataset("header", data=_as_bytes(header), dtype=h5py.string_dtype())
    return {
        name: group.create_dataset(name, (0,), h5py.string_dtype(), maxshape=(None,), chunks=(256,))
        for name in ("frames", "crystals")
    }


def _as_bytes(text):
    """Lines as they stand in the stream: HDF5's own text has no place for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def texts_of(handle):
    """`Texts` of an open chunk file, or None where it was not made from a stream."""
    if TEXTS not in handle:
        return None
    group = handle[TEXTS]
    frames, crystals = (
        [text.decode("utf-8", "surrogateescape") for text in group[name][()]] for name in ("frames", "crystals")
    )
    if len(frames) != len(handle["frames/frame"]) or len(crystals) != len(handle["crystals/frame"]):
        raise InputError(f"{handle.filename}: the stream's lines do not belong to its tables; convert the stream again")
    return Texts(group["header"][()].decode("utf-8", "surrogateescape"), frames, crystals)


def batches_of_table(tables, first_crystal, first_frame):
    """A block of tables as batches and columns of an unmerged MTZ file, one batch a crystal.

    Parameters
    ----------
    tables : StreamTables
    first_crystal, first_frame : int
        Rows at which the block begins.

    Returns
    -------
    list of sfxflow.io.mtz.Batch, dict
        Reflections without a finite intensity are left out.
    """
    crystals, reflections = tables.crystals, tables.reflections
    batches = []
    for i, (row, cell, reciprocal) in enumerate(
        zip(crystals["frame"] - first_frame, crystals["cell"], crystals["reciprocal"], strict=True)
    ):
        scale = 1.0 + float(crystals["excess"][i])
        name = " ".join(filter(None, (Path(tables.frames["file"][row]).name, tables.frames["event"][row])))
        batches.append(
            Batch(
                first_crystal + i + 1,
                name[-70:],
                tuple(cell.tolist()),
                wavelength(float(tables.frames["photon_energy"][row])) * scale,
                reciprocal if np.all(np.isfinite(reciprocal)) else None,
            )
        )
    use = np.isfinite(reflections["I"])
    columns = {label: reflections[name][use] for label, _, name in MTZ_COLUMNS if name}
    columns["BATCH"] = reflections["crystal"][use].astype(np.int64) + 1
    columns["hkl"] = np.column_stack([reflections[name][use] for name in "hkl"])
    return batches, columns


def tables_of_batches(observations, detector, polarisation_fraction, polarisation_angle=0.0):
    """Tables of an unmerged MTZ file, one crystal a batch, one frame a title.

    Parameters
    ----------
    observations : sfxflow.io.unmerged_mtz.Observations
    detector : sfxflow.geometry.Detector
        On which XDET and YDET lie.
    polarisation_fraction, polarisation_angle : float
        For files without a column LP; as `sfxflow.geometry.polarisation_factor` has them (radian).

    Returns
    -------
    StreamTables
        An intensity that was multiplied by SCALEUSED is divided by it again. What the file does not say is NaN, 0 for the widths of the
        crystals, -1 for numbers of peaks; the camera length is the geometry's.
    """
    batches, columns, owner = observations.batches, observations.columns, observations.batch
    n, nan = len(owner), np.full(len(owner), np.nan)
    length = np.array([batch.wavelength for batch in batches], dtype=np.float64)
    unknown = np.full((3, 3), np.nan)
    reciprocal = np.array([unknown if batch.reciprocal is None else batch.reciprocal for batch in batches])
    reciprocal = reciprocal.reshape(-1, 3, 3)
    outgoing = np.einsum("nij,nj->ni", reciprocal[owner], observations.hkl.astype(np.float64))
    k = 1.0 / length[owner]
    outgoing[:, 2] += k
    excitation = columns.get("EXCITATION", nan)
    excitation = np.where(np.isfinite(excitation), excitation, k - np.linalg.norm(outgoing, axis=1))
    polarisation = columns.get("LP", nan)
    computed = polarisation_factor(outgoing, polarisation_fraction, polarisation_angle) if n else polarisation
    scale = np.nan_to_num(columns.get("SCALEUSED", np.ones(n)), nan=1.0)
    fs, ss = columns.get("XDET", nan), columns.get("YDET", nan)
    rows_of_titles = {}
    frame = np.array([rows_of_titles.setdefault(batch.title, len(rows_of_titles)) for batch in batches], dtype=np.int32)
    titles = list(rows_of_titles)
    order = np.argsort(frame, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    rows = np.argsort(rank[owner], kind="stable")
    reflections = {
        "crystal": rank[owner].astype(np.uint32),
        **{name: observations.hkl[:, i].astype(np.int16) for i, name in enumerate("hkl")},
        "I": (columns["I"] / scale).astype(np.float32),
        "sigI": (columns["SIGI"] / scale).astype(np.float32),
        "excitation_error": excitation.astype(np.float32),
        "polarisation": np.where(np.isfinite(polarisation), polarisation, computed).astype(np.float32),
        "fs": fs.astype(np.float32),
        "ss": ss.astype(np.float32),
        "panel": (columns["PANEL"] if "PANEL" in columns else _panels(detector, fs, ss)).astype(np.uint16),
        "peak": columns.get("PEAK", nan).astype(np.float32),
        "background": columns.get("BG", nan).astype(np.float32),
    }
    first = np.unique(frame, return_index=True)[1]
    return StreamTables(
        _frames_of_titles(titles, frame, length[first], detector),
        _crystals_of_batches(batches, reciprocal, length / length[first][frame] - 1.0, frame, order),
        {name: values[rows] for name, values in reflections.items()},
        None,
    )


def _panels(detector, fs, ss):
    """Panels at slab positions; the first where a position is not known."""
    number = panel_of(panel_arrays(detector).bounds, np.nan_to_num(fs, nan=-1.0), np.nan_to_num(ss, nan=-1.0))
    return np.maximum(number, 0)


def _frames_of_titles(titles, frame, length, detector):
    n = len(titles)
    names = [title.rpartition(" //") for title in titles]
    return {
        "frame": np.arange(n, dtype=np.int64),
        "file": [before if separator else event for before, separator, event in names],
        "event": [f"//{event}" if separator else "" for _, separator, event in names],
        "status": np.full(n, Status.indexed, dtype=np.uint8),
        "n_peaks": np.full(n, NOT_KNOWN, dtype=np.int32),
        "n_lattices": np.bincount(frame, minlength=n).astype(np.int32),
        "resolution": np.full(n, np.nan, dtype=np.float32),
        "photon_energy": HC_EV_ANGSTROM / length,
        "clen": np.full(n, np.nan if isinstance(detector.clen, str) else detector.clen),
        "message": [""] * n,
    }


def _crystals_of_batches(batches, reciprocal, excess, frame, order):
    n = len(batches)
    zeros, nan = np.zeros(n, dtype=np.float32), np.full(n, np.nan, dtype=np.float32)
    cells = np.array([batch.cell for batch in batches], dtype=np.float32).reshape(-1, 6)
    return {
        "frame": frame[order],
        "reciprocal": reciprocal[order],
        "cell": cells[order],
        "profile_radius": nan,
        "mosaicity": zeros,
        "bandwidth": zeros,
        "shift": np.zeros((n, 2), dtype=np.float32),
        "excess": excess[order].astype(np.float32),
        "n_peaks": np.full(n, NOT_KNOWN, dtype=np.int32),
        "log10_p": nan,
        "rms_position": nan,
        "resolution": nan,
    }

"""Frames of any kind as indexamajig reads them: one HDF5 file that points into the frame files, a geometry and a list of events.

The file holds the slab of `sfxflow.geometry` for each frame, row after row, so that a panel's position in the file is that in the slab
whatever the frame files look like, the good pixels, what differs from frame to frame, and a link to the peaks. Planes that can't be
linked (images, arrays with ss last, bad pixels that differ from frame to frame) are copied.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sfxflow.geometry import Mask
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.nxmx_master import stretches
from sfxflow.io.peaks import PEAK_GROUP
from sfxflow.units import wavelength

#: Names of the files in the working directory.
FRAMES, GEOMETRY, LIST = "frames.h5", "detector.geom", "frames.lst"
_DATA, _MASK, _WAVELENGTH, _CLEN = "/data", "/mask", "/wavelength", "/clen"
#: Value of bad pixels in copied frames.
_BAD_VALUE = {"i": -(2**31), "f": -3e38}


class Shown(NamedTuple):
    """What indexamajig is told of a frame: its row of the file of all frames, photon energy (eV) and camera length (metre)."""

    row: int
    photon_energy: float
    clen: float


def present_frames(directory, frames, detector, first, n_rows, shown, peaks=None):
    """Write the three files that indexamajig needs into a directory.

    Parameters
    ----------
    directory : path-like
    frames : sfxflow.io.frames_of_files.Frames
    detector : sfxflow.geometry.Detector
    first : int
        Number, within the run, of the frame in row 0.
    n_rows : int
        Rows of the file; those of no frame in `shown` are empty.
    shown : sequence of Shown
    peaks : path-like, optional
        Peak file (`sfxflow.io.peaks`) of the same rows.

    Raises
    ------
    sfxflow.errors.FrameError
        A frame that has to be copied can't be read.
    """
    directory = Path(directory)
    planes = {frame.row: frames.planes(first + frame.row) for frame in shown}
    copied = any(of_frame is None for of_frame in planes.values()) or frames.masks_differ(
        [first + frame.row for frame in shown]
    )
    with h5py.File(directory / FRAMES, "w", libver=("v110", "v110")) as handle:
        if copied:
            flags = _copy(handle, frames, detector, first, n_rows, shown)
        else:
            flags = _link(handle, frames, detector, n_rows, planes)
        handle[_MASK] = (~frames.mask).astype(np.uint8)
        for path, name, value_of in ((_WAVELENGTH, "photon_energy", wavelength), (_CLEN, "clen", float)):
            if isinstance(getattr(detector, name), str):
                values = np.zeros(n_rows)
                for frame in shown:
                    values[frame.row] = value_of(getattr(frame, name))
                handle[path] = values
        if peaks is not None:
            handle[PEAK_GROUP] = h5py.ExternalLink(str(Path(peaks).resolve()), f"/{PEAK_GROUP}")
    write_geom(directory / GEOMETRY, _as_written(detector, flags))
    if peaks is not None:
        with open(directory / GEOMETRY, "a", encoding="utf-8") as handle:
            handle.write(f"\npeak_list = /{PEAK_GROUP}\npeak_list_type = cxi\n")
    path = (directory / FRAMES).resolve()
    (directory / LIST).write_text("".join(f"{path} //{frame.row}\n" for frame in shown), encoding="utf-8")


def row_of_event(event):
    """Row of the file of all frames that an event of the stream names.

    Parameters
    ----------
    event : str
        As '//7'.

    Raises
    ------
    ValueError
        It is no such event.
    """
    return int(event.removeprefix("//"))


def _link(handle, frames, detector, n_rows, planes):
    """Frames that stay in their files; gives the flags of bad values."""
    rows = list(planes)
    layout = h5py.VirtualLayout(shape=(n_rows, *detector.shape), dtype=frames.dtype)
    shapes = {}
    for part in stretches(list(planes.values())):
        if (part.file, part.dataset) not in shapes:
            with h5py.File(part.file, "r") as source:
                shapes[part.file, part.dataset] = source[part.dataset].shape, source[part.dataset].dtype
        shape, dtype = shapes[part.file, part.dataset]
        source = h5py.VirtualSource(part.file, part.dataset, shape=shape, dtype=dtype)
        slab_rows = slice(part.first_row, part.first_row + part.rows)
        for piece in _consecutive(rows, part.start, part.stop):
            n = piece.stop - piece.start
            first = part.first + piece.start - part.start
            where = [slice(first, first + n) if index is None else index for index in part.leading]
            to = slice(rows[piece.start], rows[piece.start] + n) if None in part.leading else rows[piece.start]
            layout[to, slab_rows, : part.columns] = source[(*where, slice(0, part.rows), slice(0, part.columns))]
    handle.create_virtual_dataset(_DATA, layout)
    low, high = frames.valid_range
    limits = [("lessthan", low), ("morethan", high)]
    common = tuple((kind, float(value)) for kind, value in limits if np.isfinite(value))
    return lambda panel: tuple(dict.fromkeys((*panel.flags, *common)))


def _consecutive(rows, start, stop):
    """Slices of start to stop within which the rows follow each other without a gap."""
    begin = start
    for i in range(start + 1, stop + 1):
        if i == stop or rows[i] != rows[i - 1] + 1:
            yield slice(begin, i)
            begin = i


def _copy(handle, frames, detector, first, n_rows, shown):
    """Frames that are copied, with bad pixels marked by their value; gives the flags of bad values."""
    kind = "i" if frames.dtype.kind in "iu" else "f"
    bad = _BAD_VALUE[kind]
    shape = detector.shape
    stored = handle.create_dataset(_DATA, (n_rows, *shape), f"{kind}4", chunks=(1, *shape), fillvalue=bad)
    low, high = frames.valid_range
    for row in (frame.row for frame in shown):
        frame = frames.read(first + row)
        with np.errstate(invalid="ignore"):
            good = (frame.data >= low) & (frame.data <= high)
        if frame.good is not None:
            good &= frame.good
        values = np.clip(frame.data.astype(np.int64), -(2**31), 2**31 - 1) if kind == "i" else frame.data
        stored[row] = np.where(good, values, bad)
    return lambda panel: (("lessthan", bad / 2),)


def _as_written(detector, flags):
    """The detector of the slab as it lies in the file of all frames."""
    panels = tuple(
        replace(
            panel,
            data=_DATA,
            dims=("%", "ss", "fs"),
            min_fs=panel.slab_fs,
            max_fs=panel.slab_fs + panel.n_fs - 1,
            min_ss=panel.slab_ss,
            max_ss=panel.slab_ss + panel.n_ss - 1,
            masks=(Mask(data=_MASK, bad_bits=1),),
            mask_edge_pixels=0,
            flags=flags(panel),
        )
        for panel in detector.panels
    )
    given = {}
    if isinstance(detector.photon_energy, str):
        given |= {"photon_energy": _WAVELENGTH, "photon_energy_is_wavelength": True, "photon_energy_scale": 1.0}
    if isinstance(detector.clen, str):
        given |= {"clen": _CLEN, "clen_scale": 1.0}
    return replace(detector, panels=panels, bad_regions=(), peak_list=None, **given)

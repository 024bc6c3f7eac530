"""NXmx files that present frames of any kind to DIALS: modules for the panels, one virtual data set that points into the frame files.

The file holds the slab of `sfxflow.geometry` for each frame: a plane of the frame files stays where it is and is linked; planes that
can't be linked (images, arrays with ss last, bad pixels that differ from frame to frame) are copied, bad pixels with a value below
`underload_value`. Sensors have hardly any thickness, so that no parallax is corrected: positions mean what the geometry file says.
"""

from dataclasses import dataclass

import h5py
import numpy as np

from sfxflow.geometry import panel_arrays
from sfxflow.units import wavelength

#: Value of bad pixels in copied frames, and the lowest that counts as good there.
BAD_VALUE, LOWEST_COPIED = -(2**31), -(2**30)
#: Of the sensor, metre: dxtbx wants one above 0.
THICKNESS = 1e-9
#: HDF5 1.10, whose virtual data sets every DIALS reads.
LIBRARY = ("v110", "v110")
#: What fs and ss of a panel may lack to a right angle, radian: DIALS knows rectangular pixels only.
LARGEST_SHEAR = 2e-3

_FRAMES = "/entry/data/data"
_DETECTOR = "/entry/instrument/detector"
_DISTANCE = f"{_DETECTOR}/transformations/distance"


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames that lie one after the other in a dataset.

    Attributes
    ----------
    start, stop : int
        Frames in the new file.
    file, dataset : str
    leading : tuple of (int or None)
        Index in each dimension but the last two; None for the one that the frames follow each other in.
    first : int
        Index of the first frame along that dimension.
    first_row, rows, columns : int
        Where the planes lie in the slab.
    """

    start: int
    stop: int
    file: str
    dataset: str
    leading: tuple
    first: int
    first_row: int
    rows: int
    columns: int


def stretches(planes):
    """Frames gathered into as few stretches as there can be.

    Parameters
    ----------
    planes : list
        For each frame the planes that make up its slab (`sfxflow.io.frames_of_files.Frames.planes`).

    Returns
    -------
    list of Stretch
    """
    open_stretches, done = {}, []
    for number, of_frame in enumerate(planes):
        for plane in of_frame:
            # The frames follow each other along the first dimension that holds events.
            axis = plane.event_axes[-1] if plane.event_axes else None
            leading = tuple(None if i == axis else index for i, index in enumerate(plane.leading))
            first = plane.leading[axis] if axis is not None else 0
            key = (plane.file, plane.dataset, leading, plane.first_row)
            last = open_stretches.get(plane.first_row)
            if (
                last
                and last[0] == key
                and axis is not None
                and number == last[2]
                and first == last[3] + number - last[1]
            ):
                last[2] = number + 1
                continue
            if last:
                done.append(_closed(last))
            open_stretches[plane.first_row] = [key, number, number + 1, first, plane.rows, plane.columns]
    done += [_closed(last) for last in open_stretches.values()]
    return sorted(done, key=lambda s: (s.start, s.first_row))


def _closed(last):
    (file, dataset, leading, first_row), start, stop, first, rows, columns = last
    return Stretch(start, stop, file, dataset, leading, first, first_row, rows, columns)


def write_linked(path, detector, planes, dtype, beam, good, valid_range):
    """Write a master file whose frames stay in their files.

    Parameters
    ----------
    path : path-like
    detector : sfxflow.geometry.Detector
    planes : list
        As `stretches` takes them.
    dtype : numpy.dtype
        Of the frames.
    beam : (ndarray, ndarray)
        Photon energy (eV) and camera length (metre) of each frame.
    good : ndarray of bool, shape of the slab
    valid_range : (float, float)
        Lowest and highest good value.
    """
    layout = h5py.VirtualLayout(shape=(len(planes), *detector.shape), dtype=dtype)
    shapes = {}
    for part in stretches(planes):
        if (part.file, part.dataset) not in shapes:
            with h5py.File(part.file, "r") as handle:
                shapes[part.file, part.dataset] = handle[part.dataset].shape, handle[part.dataset].dtype
        shape, source_dtype = shapes[part.file, part.dataset]
        source = h5py.VirtualSource(part.file, part.dataset, shape=shape, dtype=source_dtype)
        n = part.stop - part.start
        where = [slice(part.first, part.first + n) if index is None else index for index in part.leading]
        selected = source[(*where, slice(0, part.rows), slice(0, part.columns))]
        rows = slice(part.first_row, part.first_row + part.rows)
        frames = slice(part.start, part.stop) if None in part.leading else part.start
        layout[frames, rows, : part.columns] = selected
    low, high = valid_range
    if np.dtype(dtype).kind == "u":
        # dxtbx reads 32 bits as signed: the highest unsigned values, which mean bad, become negative.
        low = max(low, 0.0)
    with h5py.File(path, "w", libver=LIBRARY) as handle:
        _write_experiment(handle, detector, beam, good, (low, high))
        handle.create_virtual_dataset(_FRAMES, layout)


def write_copied(path, detector, frames, n_frames, dtype, beam, good):
    """Write a master file that holds the frames itself.

    Parameters
    ----------
    path, detector, beam, good
        As in `write_linked`.
    frames : iterable of (ndarray, ndarray of bool)
        Slab and good pixels of each frame.
    n_frames : int
    dtype : numpy.dtype
        Of the frames.
    """
    kind = np.int32 if np.dtype(dtype).kind in "iu" else np.float32
    with h5py.File(path, "w", libver=LIBRARY) as handle:
        _write_experiment(handle, detector, beam, good, (float(LOWEST_COPIED), np.inf))
        shape = detector.shape
        stored = handle.create_dataset(_FRAMES, (n_frames, *shape), kind, chunks=(1, *shape))
        for number, (data, own) in enumerate(frames):
            values = np.clip(data, LOWEST_COPIED, 2**31 - 1) if kind is np.int32 else data
            stored[number] = np.where(own & np.isfinite(data), values, BAD_VALUE).astype(kind)


def _write_experiment(handle, detector, beam, good, valid_range):
    energies, clens = (np.asarray(values, dtype=np.float64) for values in beam)
    entry = _group(handle, "entry", "NXentry")
    _text(entry, "definition", "NXmx")
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    _text(_group(entry, "sample", "NXsample"), "name", "sample")
    instrument = _group(entry, "instrument", "NXinstrument")
    _text(instrument, "name", "sfxflow")
    # A frame that could not be read has no photon energy; it is not processed, but the array has an entry for it.
    known = energies[np.isfinite(energies)]
    energies = np.where(np.isfinite(energies), energies, known[0] if len(known) else 1e4)
    _number(_group(instrument, "beam", "NXbeam"), "incident_wavelength", wavelength(energies), "angstrom")
    _write_detector(_group(instrument, "detector", "NXdetector"), detector, clens, good, valid_range)


def _write_detector(group, detector, clens, good, valid_range):
    low, high = valid_range
    known = clens[np.isfinite(clens)]
    _text(group, "depends_on", _DISTANCE)
    _text(group, "sensor_material", "Si")
    _number(group, "sensor_thickness", THICKNESS, "m")
    if np.isfinite(low):
        group["underload_value"] = low
    if np.isfinite(high):
        group["saturation_value"] = high
    group.create_dataset("pixel_mask", data=(~good).astype(np.int32), compression="gzip", compression_opts=1)
    axes = _group(group, "transformations", "NXtransformations")
    # dxtbx takes one distance for all frames; those of the frames are set in the experiments.
    distance = float(np.median(known)) if len(known) else 1.0
    _transformation(axes, "distance", distance, (0.0, 0.0, 1.0), ".")
    arrays = panel_arrays(detector)
    for number, panel in enumerate(detector.panels):
        name = f"panel{number:04d}"
        corner = arrays.origin[number]
        length = float(np.linalg.norm(corner))
        towards = corner / length if length else np.array([1.0, 0.0, 0.0])
        _transformation(axes, name, length, towards, _DISTANCE)
        module = _group(group, name, "NXdetector_module")
        module["data_origin"] = np.array([panel.slab_ss, panel.slab_fs], dtype=np.int64)
        module["data_size"] = np.array([panel.n_ss, panel.n_fs], dtype=np.int64)
        directions = rectangular(arrays.fs[number], arrays.ss[number])
        for direction, vector in zip(("fast_pixel_direction", "slow_pixel_direction"), directions, strict=True):
            size = float(np.linalg.norm(vector))
            _transformation(module, direction, size, vector / size, f"{axes.name}/{name}")


def rectangular(fs, ss):
    """The two vectors at right angles nearest to `fs` and `ss`, of the same lengths.

    Parameters
    ----------
    fs, ss : ndarray, shape (3,)

    Returns
    -------
    ndarray, shape (2, 3)
    """
    lengths = np.linalg.norm([fs, ss], axis=1)
    units = np.array([fs / lengths[0], ss / lengths[1]])
    left, _, right = np.linalg.svd(units, full_matrices=False)
    return left @ right * lengths[:, None]


def shear(detector):
    """Largest deviation from a right angle between fs and ss of a panel, radian."""
    arrays = panel_arrays(detector)
    lengths = np.linalg.norm(arrays.fs, axis=1) * np.linalg.norm(arrays.ss, axis=1)
    return float(np.abs(np.arcsin(np.einsum("ij,ij->i", arrays.fs, arrays.ss) / lengths)).max())


def _group(parent, name, nx_class):
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _text(group, name, value):
    group.create_dataset(name, data=value, dtype=h5py.string_dtype())


def _number(group, name, value, units):
    dataset = group.create_dataset(name, data=value)
    dataset.attrs["units"] = units
    return dataset


def _transformation(group, name, value, vector, depends_on):
    dataset = _number(group, name, np.array([value]), "m")
    dataset.attrs["transformation_type"] = "translation"
    dataset.attrs["vector"] = np.asarray(vector, dtype=np.float64)
    dataset.attrs["offset"] = np.zeros(3)
    dataset.attrs["offset_units"] = "m"
    dataset.attrs["depends_on"] = depends_on

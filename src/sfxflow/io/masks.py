"""Which pixels are good: from the geometry alone, from mask arrays, from pixel values, and from a mask file that the user adds."""

from pathlib import Path

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.hdf5 import listing, open_hdf5, unreadable


def geometry_mask(detector):
    """Good pixels as far as the geometry alone says.

    Bad are pixels of no panel, of panels with no_index, of mask_edge_pixels and of bad regions.

    Parameters
    ----------
    detector : Detector

    Returns
    -------
    ndarray of bool, shape of the slab
        True where good.
    """
    good = np.zeros(detector.shape, dtype=bool)
    for panel in detector.panels:
        if panel.no_index:
            continue
        edge = panel.mask_edge_pixels
        good[panel_slice(panel)][edge : panel.n_ss - edge, edge : panel.n_fs - edge] = True
    for region in detector.bad_regions:
        for panel in detector.panels:
            if region.in_xy:
                good[panel_slice(panel)] &= ~_inside_xy(region, panel)
            elif region.panel == panel.name:
                rows = slice(region.low[1] - panel.min_ss, region.high[1] - panel.min_ss + 1)
                columns = slice(region.low[0] - panel.min_fs, region.high[0] - panel.min_fs + 1)
                good[panel_slice(panel)][rows, columns] = False
    return good


def panel_slice(panel):
    """Where the panel lies in the slab."""
    return np.s_[panel.slab_ss : panel.slab_ss + panel.n_ss, panel.slab_fs : panel.slab_fs + panel.n_fs]


def _inside_xy(region, panel):
    """Pixels of a panel whose first corner is within the limits (in pixels), both excluded: CrystFEL's rule."""
    pixel = np.linalg.norm(panel.fs)
    rows, columns = np.arange(panel.n_ss)[:, None], np.arange(panel.n_fs)
    inside = True
    for axis in (0, 1):
        position = (panel.origin[axis] + rows * panel.ss[axis] + columns * panel.fs[axis]) / pixel
        # A corner that lies on a limit stays outside, whatever rounding made of it.
        inside = inside & (position > region.low[axis] + 1e-6) & (position < region.high[axis] - 1e-6)
    return inside


def good_by_bits(values, good_bits, bad_bits):
    """Good pixels of a mask array: all of `good_bits` are set and none of `bad_bits`."""
    bits = np.asarray(values).astype(np.int64)
    return ((bits & good_bits) == good_bits) & ((bits & bad_bits) == 0)


def is_per_event(mask, dataset_shape, dims):
    """True if a mask has an array for each event, not one for all."""
    if "%" in mask.data:
        return True
    if len(dataset_shape) != len(dims):
        return False
    return any(size > 1 for size, dim in zip(dataset_shape, dims, strict=True) if dim == "%")


def mask_array(dataset, dims, indices):
    """A mask array without the dimensions of the events, from a dataset with them or without.

    Parameters
    ----------
    dataset : h5py.Dataset
    dims : tuple
        As `Panel.dims`.
    indices : sequence of int
        The event's indices along the '%' dimensions.

    Returns
    -------
    ndarray

    Raises
    ------
    InputError
        It has neither the data's dimensions nor those without '%'.
    """
    without = tuple(dim for dim in dims if dim != "%")
    if dataset.ndim == len(without):
        return dataset[()]
    if dataset.ndim != len(dims):
        raise InputError(
            f"{dataset.file.filename}: the mask {dataset.name} has {dataset.ndim} dimensions; the data's {len(dims)}, or "
            f"{len(without)} without those of the events, are expected"
        )
    remaining = iter(indices)
    events = [next(remaining) if dim == "%" else None for dim in dims]
    where = [slice(None) if i is None else 0 if size == 1 else i for i, size in zip(events, dataset.shape, strict=True)]
    return dataset[tuple(where)]


def mask_plane(values, panel, name):
    """The panel's part of what `mask_array` gives.

    Parameters
    ----------
    values : ndarray
    panel : Panel
    name : str
        File and dataset, for the message.

    Returns
    -------
    ndarray, shape (n_ss, n_fs)

    Raises
    ------
    InputError
        Its shape does not reach the panel.
    """
    dims = tuple(dim for dim in panel.dims if dim != "%")
    limits = {"ss": (panel.min_ss, panel.max_ss), "fs": (panel.min_fs, panel.max_fs)}
    for dim, size in zip(dims, values.shape, strict=True):
        last = limits[dim][1] if dim in limits else dim
        if last >= size:
            raise InputError(
                f"{name}: the mask has the shape {values.shape}, but panel {panel.name} reaches {dim if dim in limits else 'index'} "
                f"{last}; the mask must have the shape of the data"
            )
    where = [slice(limits[dim][0], limits[dim][1] + 1) if dim in limits else dim for dim in dims]
    plane = values[tuple(where)]
    return plane if dims.index("ss") < dims.index("fs") else plane.T


def open_mask_file(path):
    """A mask file that the geometry names: an open h5py.File, or the array of a single-frame image (CBF and others).

    Raises
    ------
    InputError
        It is not there or can't be read.
    """
    if not Path(path).exists():
        raise InputError(
            f"{path}: the geometry names this mask file, but it is neither beside the geometry file nor in the working directory"
        )
    if h5py.is_hdf5(path):
        return open_hdf5(path)
    return image_array(path)


def image_array(path):
    """The array of a single-frame image (CBF, EDF, TIFF, ...) or of an .npy file.

    Raises
    ------
    InputError
        It can't be read.
    """
    # A tenth of a second of each job, most of which read HDF5 only.
    import fabio

    try:
        with open(path, "rb"):
            pass
        if str(path).endswith(".npy"):
            return np.load(path, allow_pickle=False)
        with fabio.open(str(path)) as image:
            return image.data
    except OSError as error:
        raise InputError(_not_an_image(path, error)) from None
    except Exception as error:  # noqa: BLE001 -- fabio's readers raise whatever a broken file makes them raise
        raise InputError(f"{path}: can't be read as an image ({type(error).__name__}: {error})") from None


def _not_an_image(path, error):
    reason = unreadable(path, error)
    if reason.endswith("is not an HDF5 file"):
        return f"{path}: is neither an HDF5 file nor an image that fabio can read (CBF, EDF, TIFF, ...)"
    return reason


def extra_mask(given, detector, frame_shape=None):
    """Good pixels of a mask file that the user gives beside the geometry.

    Parameters
    ----------
    given : str
        An image (.npy, CBF, EDF, TIFF, ...), or an HDF5 file with one array, or with one called mask or pixel_mask. Pixels are bad
        where it is not 0.
    detector : Detector
    frame_shape : tuple of int, optional
        Shape of the file's frames, where they are larger than what the geometry covers.

    Returns
    -------
    ndarray of bool, shape of the slab

    Raises
    ------
    InputError
        The file can't be read, or has another shape.
    """
    path = str(given)
    if h5py.is_hdf5(path):
        with open_hdf5(path) as handle:
            try:
                values = _only_mask(handle, path)[()]
            except (OSError, RuntimeError) as error:
                raise InputError(f"{path}: the mask can't be read ({error})") from None
    else:
        values = image_array(path)
    values = np.squeeze(values)
    rows, columns = detector.shape
    if frame_shape is not None and values.shape == tuple(frame_shape):
        values = values[:rows, :columns]
    if values.ndim == 3 and values.shape[-1] == columns:
        values = values.reshape(-1, columns)
    if values.shape != detector.shape:
        raise InputError(
            f"{path}: the mask has the shape {np.shape(values)} (ss, fs), the geometry needs {detector.shape}; "
            "a mask that is made for these frames is expected"
        )
    return values == 0


def _only_mask(handle, path):
    """The dataset of a mask file that holds one; of several, the one that is called mask or pixel_mask."""
    found = []
    handle.visititems(
        lambda name, thing: found.append(thing) if isinstance(thing, h5py.Dataset) and thing.ndim > 1 else None
    )
    if len(found) > 1:
        found = [dataset for dataset in found if dataset.name.rsplit("/", 1)[-1] in ("mask", "pixel_mask")]
    if len(found) != 1:
        raise InputError(
            f"{path}: which array is the mask? One array, or one called mask or pixel_mask, is expected; the file has {listing(handle)}"
        )
    return found[0]


def valid_range(detector, dtype, first_frame):
    """Lowest and highest good pixel value as far as it is the same on the whole detector.

    Parameters
    ----------
    detector : Detector
    dtype : numpy.dtype
        Of the frames.
    first_frame : callable
        Gives the array of a frame; asked only for signed integers without a flag_lessthan.

    Returns
    -------
    tuple of float
        A pixel v is good if low <= v <= high; -inf and inf where there is no limit. NaN is never good.

    Notes
    -----
    Detectors write gaps and dead pixels as the two highest values of unsigned and as -1 and -2 of signed integers (NXmx, Pilatus,
    EIGER): where signed frames go down to -1 or -2 and no lower, negative values are bad.
    """
    low, high = -np.inf, np.inf
    if dtype.kind == "u":
        highest = int(np.iinfo(dtype).max) - 2
        high = float(highest) if dtype.itemsize < 8 else np.nextafter(2.0**64, 0)
    common = _common_flags(detector)
    for kind, value in common:
        if kind == "lessthan":
            low = max(low, value)
        elif kind == "morethan":
            high = min(high, value)
    for kind, value in common:  # an excluded end of a range of integers moves the end
        if kind == "equal" and dtype.kind in "iu" and value in (low, high):
            low, high = (low + 1, high) if value == low else (low, high - 1)
    any_low = any(kind == "lessthan" for panel in detector.panels for kind, _ in panel.flags)
    if dtype.kind == "i" and not any_low:
        frame = first_frame()
        if frame is not None and frame.min() in (-1, -2):
            low = 0.0
    return float(low), float(high)


def _common_flags(detector):
    used = [panel for panel in detector.panels if not panel.no_index]
    if not used:
        return []
    return [flag for flag in dict.fromkeys(used[0].flags) if all(flag in panel.flags for panel in used)]


def flags_beyond_range(detector, dtype, low, high):
    """Flags that `valid_range` does not express: list of (Panel, kind, value)."""
    left = []
    for panel in detector.panels:
        for kind, value in dict.fromkeys(panel.flags):
            done = {"lessthan": value <= low, "morethan": value >= high, "equal": not low <= value <= high}[kind]
            if not done and not panel.no_index:
                left.append((panel, kind, value))
    return left


def apply_flags(good, data, flags):
    """Set `good` to False where `data` has a flagged value; `flags` as from `flags_beyond_range`."""
    for panel, kind, value in flags:
        where = panel_slice(panel)
        if kind == "lessthan":
            good[where] &= ~(data[where] < value)
        elif kind == "morethan":
            good[where] &= ~(data[where] > value)
        else:
            values = np.rint(data[where]) if data.dtype.kind == "f" else data[where]
            good[where] &= values != value

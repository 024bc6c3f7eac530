"""The detector that an NXmx file (NeXus, as DECTRIS, Diamond, ESRF, MAX IV and others write it) describes.

NeXus' laboratory is that of units.py: z along the beam, y up, right-handed. A position there is a chain of translations and
rotations, each of which says by `depends_on` what it stands on (NXtransformations); the chain ends at the sample.
"""

from dataclasses import replace

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Mask, Panel, placed_in_slab
from sfxflow.io.geom import check_overlap
from sfxflow.io.hdf5 import dataset_or_none, listing, missing_link, open_hdf5
from sfxflow.units import HC_EV_ANGSTROM

_METRES = {
    "m": 1.0,
    "metre": 1.0,
    "meter": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    "um": 1e-6,
    "micron": 1e-6,
    "µm": 1e-6,
    "nm": 1e-9,
}
_ANGSTROMS = {"A": 1.0, "angstrom": 1.0, "Angstrom": 1.0, "Å": 1.0, "nm": 10.0, "m": 1e10, "pm": 0.01}
_EV = {"eV": 1.0, "ev": 1.0, "keV": 1e3, "kev": 1e3}
_RADIANS = {
    "rad": 1.0,
    "radian": 1.0,
    "radians": 1.0,
    "deg": np.pi / 180,
    "degree": np.pi / 180,
    "degrees": np.pi / 180,
}
#: Any bit of NXmx' pixel_mask makes a pixel bad.
_ALL_BITS = 0xFFFFFFFF


def detector_from_nexus(path):
    """Detector of an NXmx file: panels from the detector's modules, masks, and where photon energy and frames are.

    Parameters
    ----------
    path : path-like
        A master file, or any file with an NXmx entry.

    Returns
    -------
    Detector

    Raises
    ------
    InputError
        The file can't be opened, or lacks what is needed; the message names it.
    """
    with open_hdf5(path) as handle:
        entry = _only(handle, "NXentry", path)
        instrument = _only(entry, "NXinstrument", path)
        detectors = _children(instrument, "NXdetector")
        if not detectors:
            raise InputError(f"{path}: no NXdetector in {instrument.name}; give a geometry file (--geometry)")
        panels = [
            p for detector in detectors for p in _panels(handle, entry, detector, path, alone=len(detectors) == 1)
        ]
        panels = placed_in_slab(panels)
        check_overlap(panels, path)
        clen = float(np.mean([_centre_z(p) for p in panels]))
        if not clen > 0:
            raise InputError(
                f"{path}: the detector is {clen} m along the beam from the sample; a positive distance is expected"
            )
        energy, scale, is_wavelength, bandwidth = _beam(entry, instrument, path)
        return Detector(
            panels=tuple(_replaced_z(p, clen) for p in panels),
            photon_energy=energy,
            clen=clen,
            photon_energy_scale=scale,
            photon_energy_is_wavelength=is_wavelength,
            bandwidth=bandwidth,
        )


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _children(group, nx_class):
    """Groups of a NeXus class directly in `group`, by name; those behind broken links are left out."""
    found = []
    for name in sorted(group):
        thing = group.get(name)
        if isinstance(thing, h5py.Group) and _text(thing.attrs.get("NX_class", "")) == nx_class:
            found.append(thing)
    return found


def _only(group, nx_class, path):
    found = _children(group, nx_class)
    if not found:
        raise InputError(
            f"{path}: no {nx_class} in {group.name}, so it is not an NXmx file; give a geometry file (--geometry). "
            f"The file has {listing(group.file)}"
        )
    return found[0]


def _unit(dataset, units, path, default=None):
    """Factor from the dataset's unit."""
    unit = _text(dataset.attrs.get("units", default or "")).strip()
    if unit not in units:
        raise InputError(f"{path}: {dataset.name} has the unit {unit!r}; one of {', '.join(units)} is expected")
    return units[unit]


def _scalar(dataset, path):
    """The one number of a dataset; an array must hold equal numbers."""
    values = np.asarray(dataset[()], dtype=np.float64).ravel()
    if not values.size or not np.isfinite(values).all():
        raise InputError(f"{path}: {dataset.name} holds no number")
    if np.ptp(values) > 1e-6 * max(1e-6, abs(values[0])):
        raise InputError(
            f"{path}: {dataset.name} differs from frame to frame; sfxflow needs a detector that stands still in a run"
        )
    return float(values[0])


# ---- transformations


def _matrix(dataset, path):
    """4 x 4 matrix of one transformation, in metre."""
    kind = _text(dataset.attrs.get("transformation_type", ""))
    vector = np.asarray(dataset.attrs.get("vector", ()), dtype=np.float64).ravel()
    length = np.linalg.norm(vector) if vector.size == 3 else 0.0
    if kind not in ("translation", "rotation") or not length > 0:
        raise InputError(f"{path}: {dataset.name} is not a transformation (transformation_type and vector are needed)")
    axis, value = vector / length, _scalar(dataset, path)
    matrix = np.eye(4)
    if kind == "translation":
        matrix[:3, 3] = axis * value * _unit(dataset, _METRES, path)
    else:
        matrix[:3, :3] = _rotation(axis, value * _unit(dataset, _RADIANS, path))
    matrix[:3, 3] += _offset(dataset, path)
    return matrix


def _offset(dataset, path):
    offset = np.asarray(dataset.attrs.get("offset", (0.0, 0.0, 0.0)), dtype=np.float64).ravel()
    if not offset.any():
        return np.zeros(3)
    unit = _text(dataset.attrs.get("offset_units", dataset.attrs.get("units", "m")))
    if unit not in _METRES:
        raise InputError(f"{path}: {dataset.name}: offset_units {unit!r} is not a length")
    return offset * _METRES[unit]


def _rotation(axis, angle):
    """Rotation matrix about a unit vector (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _chain(handle, start, path):
    """Matrix from the frame of what depends on `start` to the laboratory; `start` is the value of a depends_on."""
    matrix, where, owner = np.eye(4), start[0], start[1]
    for _ in range(100):
        if where in (".", ""):
            return matrix
        dataset = dataset_or_none(handle, where if where.startswith("/") else f"{owner}/{where}")
        if dataset is None:
            raise InputError(f"{path}: {owner}: depends_on names {where}, which is not in the file")
        matrix = _matrix(dataset, path) @ matrix
        where, owner = _text(dataset.attrs.get("depends_on", ".")), dataset.parent.name
    raise InputError(f"{path}: the chain of depends_on from {start[1]}/{start[0]} has no end")


# ---- panels


def _panels(handle, entry, detector, path, alone):
    """One panel for each module of a detector."""
    data, shape = _data(handle, entry, detector, path, alone)
    modules = _children(detector, "NXdetector_module")
    masks = _masks(detector, path)
    common = {"data": data, "masks": masks, **_limits(detector, path)}
    if not modules:
        return [_panel_from_beam_centre(detector, shape, common, path)]
    return [_panel(handle, detector, module, shape, common, path, len(modules) > 1) for module in modules]


def _data(handle, entry, detector, path, alone):
    """HDF5 path of the frames and their shape."""
    own = dataset_or_none(handle, f"{detector.name}/data")
    if own is not None and (not alone or not _children(entry, "NXdata")):
        return own.name, own.shape
    for group in _children(entry, "NXdata"):
        signal = _text(group.attrs.get("signal", "data"))
        for name in (signal, "data"):
            found = dataset_or_none(group, name)
            if found is not None and found.ndim >= 2:
                return f"{group.name}/{name}", found.shape
        numbered = sorted(name for name in group if name.startswith("data_"))
        for name in numbered:
            found = dataset_or_none(group, name)
            if found is not None:
                return f"{group.name}/%", found.shape
            missing = missing_link(group, name)
            raise InputError(
                f"{path}: {group.name}/{name} is a link to {missing or 'a dataset'}, which can't be opened"
            )
    if own is not None:
        return own.name, own.shape
    raise InputError(f"{path}: no frames in an NXdata group of {entry.name}; the file has {listing(handle)}")


def _panel(handle, detector, module, shape, common, path, several):
    """The panel of an NXdetector_module."""
    fast, slow = (_needed(module, name, path) for name in ("fast_pixel_direction", "slow_pixel_direction"))
    origin = np.asarray(_needed(module, "data_origin", path)[()], dtype=int).ravel()
    size = np.asarray(_needed(module, "data_size", path)[()], dtype=int).ravel()
    if len(origin) != len(size) or len(origin) < 2 or len(origin) > len(shape):
        raise InputError(
            f"{path}: {module.name}: data_origin {origin.tolist()} and data_size {size.tolist()} do not fit {shape}"
        )
    to_lab = _chain(handle, (_text(fast.attrs.get("depends_on", ".")), module.name), path)
    steps = [_step(dataset, to_lab, path) for dataset in (fast, slow)]
    corner = to_lab @ np.append(_offset(fast, path), 1.0)
    events = len(shape) - len(origin)
    name = module.name.rsplit("/", 1)[-1]
    return Panel(
        name=f"{detector.name.rsplit('/', 1)[-1]}_{name}" if several else name,
        dims=("%",) * events + tuple(int(i) for i in origin[:-2]) + ("ss", "fs"),
        min_fs=int(origin[-1]),
        max_fs=int(origin[-1] + size[-1] - 1),
        min_ss=int(origin[-2]),
        max_ss=int(origin[-2] + size[-2] - 1),
        origin=tuple(corner[:3]),
        fs=tuple(steps[0]),
        ss=tuple(steps[1]),
        slab_fs=0,
        slab_ss=0,
        **common,
    )


def _step(dataset, to_lab, path):
    """Step for one pixel, metre, in the laboratory."""
    vector = np.asarray(dataset.attrs.get("vector", ()), dtype=np.float64).ravel()
    if vector.size != 3 or not vector.any():
        raise InputError(f"{path}: {dataset.name} has no vector")
    return to_lab[:3, :3] @ (vector / np.linalg.norm(vector) * _scalar(dataset, path) * _unit(dataset, _METRES, path))


def _panel_from_beam_centre(detector, shape, common, path):
    """One panel perpendicular to the beam, seen from the sample with fs to the right and ss down, for files without modules."""
    pixel_x, pixel_y, centre_x, centre_y = (
        _needed(detector, name, path) for name in ("x_pixel_size", "y_pixel_size", "beam_center_x", "beam_center_y")
    )
    distance = dataset_or_none(detector, "distance")
    if distance is None:
        distance = _needed(detector, "detector_distance", path)
    step_x, step_y = (_scalar(d, path) * _unit(d, _METRES, path, "m") for d in (pixel_x, pixel_y))
    return Panel(
        name=detector.name.rsplit("/", 1)[-1],
        dims=("%",) * (len(shape) - 2) + ("ss", "fs"),
        min_fs=0,
        max_fs=int(shape[-1]) - 1,
        min_ss=0,
        max_ss=int(shape[-2]) - 1,
        origin=(
            _scalar(centre_x, path) * step_x,
            _scalar(centre_y, path) * step_y,
            _scalar(distance, path) * _unit(distance, _METRES, path, "m"),
        ),
        fs=(-step_x, 0.0, 0.0),
        ss=(0.0, -step_y, 0.0),
        slab_fs=0,
        slab_ss=0,
        **common,
    )


def _needed(group, name, path):
    found = dataset_or_none(group, name)
    if found is None:
        raise InputError(f"{path}: no {name} in {group.name}; give a geometry file (--geometry)")
    return found


def _masks(detector, path):
    mask = dataset_or_none(detector, "pixel_mask")
    return () if mask is None else (Mask(data=f"{detector.name}/pixel_mask", bad_bits=_ALL_BITS),)


def _limits(detector, path):
    """Saturation and underload values as max_adu and flags."""
    limits = {}
    saturation, underload = dataset_or_none(detector, "saturation_value"), dataset_or_none(detector, "underload_value")
    if saturation is not None:
        limits["max_adu"] = _scalar(saturation, path)
    if underload is not None:
        limits["flags"] = (("lessthan", _scalar(underload, path)),)
    return limits


def _centre_z(panel):
    return panel.origin[2] + (panel.fs[2] * panel.n_fs + panel.ss[2] * panel.n_ss) / 2


def _replaced_z(panel, clen):
    return replace(panel, origin=(float(panel.origin[0]), float(panel.origin[1]), float(panel.origin[2] - clen)))


# ---- beam


def _beam(entry, instrument, path):
    """Photon energy (eV) or the path of a value per frame, its scale, whether that is a wavelength, and the bandwidth."""
    beams = [
        beam for group in (instrument, entry, *_children(entry, "NXsample")) for beam in _children(group, "NXbeam")
    ]
    for beam in beams:
        wavelength = dataset_or_none(beam, "incident_wavelength")
        if wavelength is not None:
            return _wavelength(beam, wavelength, path)
        energy = dataset_or_none(beam, "incident_energy")
        if energy is not None:
            return energy.name, _unit(energy, _EV, path, "eV"), False, 0.0
    raise InputError(
        f"{path}: no incident_wavelength in an NXbeam group; give a geometry file (--geometry) with the photon energy"
    )


def _wavelength(beam, wavelength, path):
    scale = _unit(wavelength, _ANGSTROMS, path, "angstrom")
    weights = dataset_or_none(beam, "incident_wavelength_weights")
    if weights is not None and weights.shape == wavelength.shape and wavelength.ndim == 1:
        # A spectrum, not a value for each frame.
        mean = float(np.average(wavelength[()], weights=weights[()])) * scale
        spread = float(np.sqrt(np.average((wavelength[()] * scale - mean) ** 2, weights=weights[()])))
        return HC_EV_ANGSTROM / mean, 1.0, False, spread / mean
    bandwidth = 0.0
    spread = dataset_or_none(beam, "incident_wavelength_spread")
    if spread is not None and wavelength.size:
        bandwidth = float(np.ravel(spread[()])[0] / np.ravel(wavelength[()])[0])
    return wavelength.name, scale, True, bandwidth

"""DIALS' files: reflection tables (.refl, MessagePack) and experiments (.expt, JSON), read and written without DIALS.

dxtbx's laboratory is (-x, y, -z) of units.py, its lengths are millimetres, and positions on a panel are in pixels from the panel's own
corner. A crystal is an experiment there: one crystal model with its frame (image set), beam and detector. Formats: dials/array_family/
reflection_table_msgpack_adapter.h and dxtbx/model/experiment_list.py of DIALS 3.12.
"""

import json
import os
import uuid
from typing import NamedTuple

import msgpack
import numpy as np

from sfxflow.cell import parameters_of
from sfxflow.dials_tables import TO_LAB
from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Panel, panel_arrays, placed_in_slab
from sfxflow.io.files import written_whole
from sfxflow.io.nxmx_master import THICKNESS, rectangular

_KIND = "dials::af::reflection_table"

#: numpy type and trailing shape of each type of column.
_TYPES = {
    "int": ("<i4", ()),
    "std::size_t": ("<u8", ()),
    "double": ("<f8", ()),
    "bool": ("?", ()),
    "vec2<double>": ("<f8", (2,)),
    "vec3<double>": ("<f8", (3,)),
    "mat3<double>": ("<f8", (9,)),
    "int6": ("<i4", (6,)),
    "cctbx::miller::index<>": ("<i4", (3,)),
}
#: DIALS' type of the columns that are written; what is not named here goes by its dtype and shape.
_NAMED = {"bbox": "int6", "miller_index": "cctbx::miller::index<>", "flags": "std::size_t", "panel": "std::size_t"}


class Flag:
    """Bits of the column `flags`."""

    predicted = 1 << 0
    observed = 1 << 1
    indexed = 1 << 2
    used_in_refinement = 1 << 3
    strong = 1 << 5
    dont_integrate = 1 << 7
    integrated_sum = 1 << 8
    overloaded = 1 << 10
    overlapped_foreground = 1 << 12
    bad_foreground = 1 << 14
    failed_background = 1 << 18
    failed_summation = 1 << 19
    scaled = 1 << 26
    #: Excluded by the user, an outlier in scaling, or excluded for scaling.
    not_merged = (1 << 22) | (1 << 23) | (1 << 24)


#: Bits of the mask of a shoebox.
VALID, FOREGROUND = 1, 4


class Shoeboxes(NamedTuple):
    """Pixels around spots.

    Attributes
    ----------
    panel : ndarray of int, shape (n,)
    bbox : ndarray of int, shape (n, 6)
        First and one past the last pixel along fast, slow and frames.
    data, mask, background : list of ndarray, shape (frames, slow, fast)
        Values; bits `VALID` and `FOREGROUND`; values.
    """

    panel: np.ndarray
    bbox: np.ndarray
    data: list
    mask: list
    background: list


# ---- reflection tables


def read_refl(path):
    """Read a reflection table.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    columns : dict
        Name to ndarray; text columns are lists of str, shoeboxes `Shoeboxes`. Columns of unknown types are left out.
    identifiers : dict of int to str
        The experiment that each value of the column `id` means.

    Raises
    ------
    InputError
        Not there, not a reflection table, of another version, or damaged.
    """
    try:
        with open(path, "rb") as handle:
            kind, version, content = msgpack.unpackb(handle.read(), strict_map_key=False)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, TypeError, msgpack.UnpackException):
        raise InputError(f"{path}: is not a reflection table of DIALS (.refl), or cut short; write it again") from None
    if kind != _KIND or version != 1:
        raise InputError(f"{path}: is {kind!r} version {version}; {_KIND!r} version 1 is expected")
    try:
        columns = {}
        for name, (kind, (n, values)) in content["data"].items():
            if n != content["nrows"]:
                raise ValueError(f"column {name} has {n} of {content['nrows']} rows")
            if kind in _TYPES:
                dtype, shape = _TYPES[kind]
                columns[name] = np.frombuffer(values, dtype).reshape(n, *shape)
            elif kind == "std::string":
                columns[name] = list(values)
            elif kind == "Shoebox<>":
                columns[name] = _unpacked_shoeboxes(values, n)
        return columns, {int(key): str(value) for key, value in content["identifiers"].items()}
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: damaged reflection table ({error}); write it again") from None


def write_refl(path, columns, identifiers):
    """Write a reflection table, whole or not at all.

    Parameters
    ----------
    path : path-like
    columns : dict
        Name to ndarray, or to `Shoeboxes`, all equally long.
    identifiers : dict of int to str
        The experiment that each value of the column `id` means.
    """
    lengths = {len(values.panel if isinstance(values, Shoeboxes) else values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths {sorted(lengths)}")
    n = lengths.pop()
    data = {}
    for name, values in columns.items():
        if isinstance(values, Shoeboxes):
            data[name] = ["Shoebox<>", [n, _packed_shoeboxes(values)]]
            continue
        kind = _NAMED.get(name) or _type_of(np.asarray(values))
        data[name] = [kind, [n, np.ascontiguousarray(values, _TYPES[kind][0]).tobytes()]]
    content = {"identifiers": dict(identifiers), "nrows": n, "data": data}
    with written_whole(path) as temporary, open(temporary, "wb") as handle:
        handle.write(msgpack.packb([_KIND, 1, content]))


def _type_of(values):
    if values.ndim == 2:
        return f"vec{values.shape[1]}<double>"
    return {"b": "bool", "f": "double"}.get(values.dtype.kind, "int")


def _unpacked_shoeboxes(raw, n):
    found = Shoeboxes(np.zeros(n, np.int64), np.zeros((n, 6), np.int64), [], [], [])
    place = 0
    for i in range(n):
        found.panel[i] = np.frombuffer(raw, "<u4", 1, place)[0]
        found.bbox[i] = np.frombuffer(raw, "<i4", 6, place + 4)
        has_data = raw[place + 28]
        place += 29
        shape = tuple(found.bbox[i, 2 * axis + 1] - found.bbox[i, 2 * axis] for axis in (2, 1, 0))
        size = int(np.prod(shape)) if has_data else 0
        for values, dtype in ((found.data, "<f4"), (found.mask, "<i4"), (found.background, "<f4")):
            values.append(np.frombuffer(raw, dtype, size, place).reshape(shape if has_data else (0, 0, 0)))
            place += 4 * size
    return found


def _packed_shoeboxes(boxes):
    parts = []
    for i in range(len(boxes.panel)):
        parts.append(np.uint32(boxes.panel[i]).tobytes() + boxes.bbox[i].astype("<i4").tobytes())
        parts.append(b"\x01" if boxes.data[i].size else b"\x00")
        parts += [boxes.data[i].astype("<f4").tobytes(), boxes.mask[i].astype("<i4").tobytes()]
        parts.append(boxes.background[i].astype("<f4").tobytes())
    return b"".join(parts)


# ---- experiments


class Experiment(NamedTuple):
    """One experiment of an .expt file, in the laboratory of units.py.

    Attributes
    ----------
    identifier : str
    file : str
        Of the frame.
    index : int or None
        Number of the frame in the file, None in files of one frame.
    wavelength : float
        Angstrom.
    detector : int
        Number of the detector in the file.
    reciprocal : ndarray, shape (3, 3), or None
        Columns a*, b*, c* (1/angstrom); None without a crystal.
    space_group : str
        Hall symbol; empty without a crystal.
    domain_size, half_mosaicity : float
        Of the mosaic model (angstrom, radian), NaN where there is none.
    """

    identifier: str
    file: str
    index: int | None
    wavelength: float
    detector: int
    reciprocal: np.ndarray | None
    space_group: str
    domain_size: float
    half_mosaicity: float


def read_expt(path):
    """Read experiments of stills.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    experiments : list of Experiment
    models : dict
        The file's content as it is, for `detector_of` and for writing it again.

    Raises
    ------
    InputError
        Not there, not an experiment list, or damaged.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            models = json.load(handle)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: is not an experiment list of DIALS (.expt): {error}; write it again") from None
    if not isinstance(models, dict) or models.get("__id__") != "ExperimentList":
        raise InputError(f"{path}: is not an experiment list of DIALS ('__id__': 'ExperimentList' expected)")
    try:
        return [_experiment(models, values) for values in models["experiment"]], models
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged experiment list ({type(error).__name__}: {error}); write it again") from None


def _experiment(models, values):
    images = models["imageset"][values["imageset"]]
    if "template" in images:
        raise ValueError("a rotation scan, not stills")
    indices = images.get("single_file_indices") or []
    reciprocal, group, domain, mosaicity = None, "", np.nan, np.nan
    if values.get("crystal") is not None:
        crystal = models["crystal"][values["crystal"]]
        real = np.array([crystal[f"real_space_{axis}"] for axis in "abc"], dtype=np.float64)
        reciprocal = np.linalg.inv(real * TO_LAB)
        group = crystal["space_group_hall_symbol"]
        domain = crystal.get("ML_domain_size_ang", np.nan)
        mosaicity = np.radians(crystal.get("ML_half_mosaicity_deg", np.nan))
    return Experiment(
        identifier=str(values.get("identifier", "")),
        file=str(images["images"][0]),
        index=int(indices[0]) if indices else None,
        wavelength=float(models["beam"][values["beam"]]["wavelength"]),
        detector=int(values["detector"]),
        reciprocal=reciprocal,
        space_group=group,
        domain_size=float(domain),
        half_mosaicity=float(mosaicity),
    )


def detector_of(models, number=0, photon_energy=0.0):
    """A detector of an experiment list.

    Parameters
    ----------
    models : dict
        From `read_expt`.
    number : int
    photon_energy : float
        eV; the beam is not the detector's.

    Returns
    -------
    sfxflow.geometry.Detector
        Panels in DIALS' order, one below the other in the slab. Its clen is the mean distance of the panels along the beam.
    """
    found = models["detector"][number]
    frames = _panel_frames(found)
    distance = float(np.mean([origin[2] for _, _, origin in frames])) * 1e-3
    panels = []
    for i, (values, (fast, slow, origin)) in enumerate(zip(found["panels"], frames, strict=True)):
        n_fs, n_ss = values["image_size"]
        corner = origin * 1e-3
        panels.append(
            Panel(
                name=f"p{i}",
                data="/entry/data/data",
                dims=("%", i, "ss", "fs"),
                min_fs=0,
                max_fs=n_fs - 1,
                min_ss=0,
                max_ss=n_ss - 1,
                origin=(float(corner[0]), float(corner[1]), float(corner[2] - distance)),
                fs=tuple((fast * values["pixel_size"][0] * 1e-3).tolist()),
                ss=tuple((slow * values["pixel_size"][1] * 1e-3).tolist()),
                slab_fs=0,
                slab_ss=0,
            )
        )
    return Detector(panels=placed_in_slab(panels), photon_energy=photon_energy, clen=distance)


def _panel_frames(detector):
    """(fast, slow, origin) of each panel in our laboratory, millimetre; nodes of the hierarchy multiplied out."""
    panels, frames = detector["panels"], {}

    def descend(node, matrix):
        # A leaf is only a panel's number; the panel's own vectors are relative to the node above.
        if "panel" in node:
            frames[node["panel"]] = matrix @ _frame_matrix(panels[node["panel"]])
            return
        own = matrix @ _frame_matrix(node)
        for child in node.get("children", []):
            descend(child, own)

    if detector.get("hierarchy"):
        descend(detector["hierarchy"], np.eye(4))
    matrices = [frames[i] if i in frames else _frame_matrix(panel) for i, panel in enumerate(panels)]
    return [tuple(matrix[:3, column] * TO_LAB for column in (0, 1, 3)) for matrix in matrices]


def _frame_matrix(node):
    fast, slow, origin = (np.array(node[name], dtype=np.float64) for name in ("fast_axis", "slow_axis", "origin"))
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = fast, slow, np.cross(fast, slow), origin
    return matrix


def detector_model(detector, clen, trusted_range=(-(2.0**30), 2.0**31)):
    """The JSON of a detector with all panels at camera length `clen` (metre) and with the limits of good values."""
    arrays = panel_arrays(detector)
    panels = []
    for number, panel in enumerate(detector.panels):
        fast, slow = rectangular(arrays.fs[number], arrays.ss[number])
        origin = (arrays.origin[number] + [0.0, 0.0, clen]) * 1e3
        sizes = [float(np.linalg.norm(vector)) for vector in (fast, slow)]
        panels.append(
            {
                "name": panel.name,
                "type": "SENSOR_PAD",
                "fast_axis": (fast / sizes[0] * TO_LAB).tolist(),
                "slow_axis": (slow / sizes[1] * TO_LAB).tolist(),
                "origin": (origin * TO_LAB).tolist(),
                "raw_image_offset": [0, 0],
                "image_size": [panel.n_fs, panel.n_ss],
                "pixel_size": [size * 1e3 for size in sizes],
                "trusted_range": list(trusted_range),
                "thickness": THICKNESS * 1e3,
                "material": "Si",
                "mu": 0.0,
                "identifier": "",
                "mask": [],
                "gain": 1.0,
                "pedestal": 0.0,
                "px_mm_strategy": {"type": "SimplePxMmStrategy"},
            }
        )
    return {"panels": panels}


def beam_model(wavelength, polarisation_fraction=0.999):
    """The JSON of a beam along +z of our laboratory, polarised along x; angstrom."""
    return {
        "direction": [0.0, 0.0, 1.0],
        "wavelength": float(wavelength),
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "polarization_normal": [0.0, 1.0, 0.0],
        "polarization_fraction": float(polarisation_fraction),
        "flux": 0.0,
        "transmission": 1.0,
    }


def image_set(file, index):
    """The JSON of the image set of one frame; `index` is None in files of one frame."""
    images = {"__id__": "ImageSet", "images": [os.fspath(file)], "mask": None, "gain": None, "pedestal": None}
    images |= {"dx": None, "dy": None, "params": {"dynamic_shadowing": "Auto", "multi_panel": False}}
    return images if index is None else images | {"single_file_indices": [int(index)]}


def crystal_model(reciprocal, hall, domain_size=np.nan, half_mosaicity=np.nan):
    """The JSON of a crystal: columns a*, b*, c* (1/angstrom), Hall symbol, mosaic model (angstrom, radian)."""
    real = np.linalg.inv(reciprocal) * TO_LAB
    model = {f"real_space_{axis}": vector.tolist() for axis, vector in zip("abc", real, strict=True)}
    model = {"__id__": "crystal", **model, "space_group_hall_symbol": hall}
    if np.isfinite(domain_size) and np.isfinite(half_mosaicity):
        model |= {"ML_half_mosaicity_deg": float(np.degrees(half_mosaicity)), "ML_domain_size_ang": float(domain_size)}
    return model


def write_expt(path, models):
    """Write an experiment list, whole or not at all.

    Parameters
    ----------
    path : path-like
    models : dict
        Lists `experiment`, `imageset`, `beam`, `detector` and, where there are any, `crystal`.
    """
    content = {"__id__": "ExperimentList", "experiment": [], "imageset": [], "beam": [], "detector": []}
    content |= {"goniometer": [], "scan": [], "crystal": [], "profile": [], "scaling_model": []}
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        json.dump(content | models, handle)


def identifier(*parts):
    """A name for an experiment, the same for the same parts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "sfxflow/" + "/".join(map(str, parts))))


def cell_of(experiment):
    """Cell parameters of an experiment's crystal, angstrom and degree."""
    return parameters_of(experiment.reciprocal)

"""Ready-made experiments."""

import re

import gemmi
import numpy as np

from sfxflow.errors import InputError
from sfxflow.settings import checked_values
from sfxflow.simulate.experiment import Experiment

_TWO_MEGAPIXEL = {"panel_ss": 512, "panel_fs": 512, "pixel_size": 7.5e-5, "clen": 0.105, "d_min": 1.9}

#: Name of a preset to what it changes in `Experiment`.
PRESETS = {
    "demo": {"name": "demo"},
    "lysozyme": {**_TWO_MEGAPIXEL, "bad_pixels": "largest", "dtype": "uint16"},
    "hexagonal": {**_TWO_MEGAPIXEL, "a": 62.8, "b": 62.8, "c": 111.0, "gamma": 120.0, "space_group": "P63", "d_min": 2.2},
    "monoclinic": {**_TWO_MEGAPIXEL, "a": 51.0, "b": 42.0, "c": 66.0, "beta": 104.5, "space_group": "P1211", "d_min": 2.2},
    "triclinic": {
        **_TWO_MEGAPIXEL, "a": 38.0, "b": 46.0, "c": 55.0, "alpha": 82.0, "beta": 77.0, "gamma": 69.0,
        "space_group": "P1", "d_min": 2.2,
    },
    "orthorhombic": {**_TWO_MEGAPIXEL, "a": 48.0, "b": 60.0, "c": 77.0, "space_group": "P212121", "d_min": 2.2},
    "large": {
        **_TWO_MEGAPIXEL, "a": 117.0, "b": 223.0, "c": 308.0, "space_group": "P212121", "d_min": 3.4, "clen": 0.24,
        "profile_radius": 2.5e-4, "mosaicity": 3e-4, "bandwidth": 2e-4, "b_factor": 60.0,
    },
    "cubic": {**_TWO_MEGAPIXEL, "a": 103.0, "b": 103.0, "c": 103.0, "space_group": "I23", "d_min": 2.2},
    "tetragonal_polar": {**_TWO_MEGAPIXEL, "a": 68.0, "b": 68.0, "c": 41.5, "space_group": "P43", "d_min": 2.2},
    "trigonal": {**_TWO_MEGAPIXEL, "a": 57.5, "b": 57.5, "c": 71.0, "gamma": 120.0, "space_group": "P3", "d_min": 2.2},
    "pseudo_orthorhombic": {
        **_TWO_MEGAPIXEL, "a": 46.5, "b": 58.0, "c": 71.5, "space_group": "P1211", "d_min": 2.2,
    },
    "photon_counting": {
        "panel_rows": 8, "panel_columns": 3, "panel_ss": 195, "panel_fs": 487, "gap": 10, "stacked": False,
        "pixel_size": 1.72e-4, "clen": 0.32, "photon_energy": 12400.0, "energy_jitter": 0.0, "bandwidth": 1e-4, "d_min": 1.9,
        "dtype": "int32", "bad_pixels": "negative", "saturation": 1e6, "psf": 0.55,
    },
    "integrating": {
        **_TWO_MEGAPIXEL, "stacked": False, "gap": 12, "dtype": "float32", "bad_pixels": "nan", "adu_per_photon": 9.5,
        "read_noise": 0.04, "saturation": 11000.0, "psf": 0.6, "spectrum": "sase", "bandwidth": 0.001,
    },
}  # fmt: skip


def preset(name, /, seed=0, **overrides):
    """An experiment by name, with some settings changed.

    Parameters
    ----------
    name : str
        One of `PRESETS`.
    seed : int
    **overrides
        Fields of `sfxflow.simulate.experiment.Experiment`.

    Returns
    -------
    sfxflow.simulate.experiment.Experiment

    Raises
    ------
    InputError
        Unknown preset or setting, a value of the wrong type or out of range, settings that contradict each other.
    """
    if name not in PRESETS:
        raise InputError(f"preset: {name!r} is not one of {', '.join(PRESETS)}")
    values = {"name": name, **PRESETS[name], "seed": seed, **overrides}
    experiment = Experiment(**checked_values(Experiment, values, ""))
    _check_together(experiment)
    return experiment


def _check_cell(parameters, group, group_name):
    cell = gemmi.UnitCell(*parameters)
    described = " ".join(f"{value:g}" for value in parameters)
    if not cell.volume > 0.0:
        angles = " ".join(f"{angle:g}" for angle in parameters[3:])
        raise InputError(f"no cell has the angles {angles} degrees")
    if not cell.is_compatible_with_spacegroup(group):
        raise InputError(f"the cell {described} is impossible in space group {group_name}")


def _check_together(experiment):
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", experiment.name):
        raise InputError(f"name: {experiment.name!r} can't name a file; letters, digits and _ . + - are expected")
    _check_cell(experiment.cell_parameters, experiment.gemmi_group, experiment.space_group)
    if experiment.second_fraction:
        _check_cell(experiment.second_cell_parameters, experiment.second_gemmi_group, experiment.second_space_group)
    if experiment.heavy_atoms and gemmi.Element(experiment.heavy_element).atomic_number == 0:
        raise InputError(f"heavy_element: {experiment.heavy_element!r} is not an element (expected for example Se)")
    if experiment.ice_fraction + experiment.salt_fraction > 1.0:
        raise InputError("ice_fraction, salt_fraction: a frame has rings of one of them; their sum must not be above 1")
    if experiment.delay_high < experiment.delay_low:
        raise InputError(
            f"delay_high: {experiment.delay_high:g} is below delay_low, which is {experiment.delay_low:g} picosecond"
        )
    needs = {
        "negative": ("int16", "int32", "float32"),
        "largest": ("int16", "uint16", "int32", "uint32"),
        "nan": ("float32",),
    }
    allowed = needs.get(experiment.bad_pixels)
    if allowed and experiment.dtype not in allowed:
        raise InputError(
            f"bad_pixels: {experiment.bad_pixels!r} is impossible in pixels of type {experiment.dtype};"
            f" choose dtype from {', '.join(allowed)}, or bad_pixels = mask"
        )
    if experiment.saturation * experiment.adu_per_photon > experiment.largest_value:
        raise InputError(
            f"saturation: {experiment.saturation:g} photons of {experiment.adu_per_photon:g} are more than a pixel of type"
            f" {experiment.dtype} holds ({experiment.largest_value})"
        )
    if not experiment.stacked and (experiment.geometry_panel_error or experiment.geometry_panel_rotation):
        raise InputError(
            "geometry_panel_error, geometry_panel_rotation: the modules are one panel; set stacked = true, or"
            " geometry_shift_x, geometry_shift_y"
        )
    rows, columns = experiment.panel_rows, experiment.panel_columns
    half_width = columns * (experiment.panel_fs + experiment.gap) / 2
    half_height = rows * (experiment.panel_ss + experiment.gap) / 2
    if experiment.beamstop >= np.hypot(half_width, half_height):
        raise InputError(f"beamstop: no pixel is left outside a shadow of {experiment.beamstop:g} pixels")

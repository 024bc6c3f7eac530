"""CrystFEL geometry files (.geom): detector, beam, masks and where a frame's pixels are in its file.

The format is that of crystfel_geometry(5): `key = value` for all panels that are first mentioned below the line, `panel/key = value`
for one panel, `bad.../key = value` for a bad region, ';' begins a comment. Lengths are in pixels of the panel there, in metre here.
"""

import re
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Mask, Panel, Region, overlapping_panels, placed_in_slab
from sfxflow.io.geom_writer import write_geom
from sfxflow.units import HC_EV_ANGSTROM

__all__ = ["check_overlap", "parse_geom", "read_geom", "write_geom"]

_LENGTHS = {"m": 1.0, "mm": 1e-3}
_ENERGIES = {"eV": 1.0, "keV": 1e3}
_WAVELENGTHS = {"m": 1e10, "A": 1.0}
_VOLTAGES = {"V": 1.0, "kV": 1e3}
_REGION_KEYS = ("min_x", "max_x", "min_y", "max_y", "min_fs", "max_fs", "min_ss", "max_ss", "panel")
_OLD_MASK_KEYS = {
    "mask": "mask0_data",
    "mask_file": "mask0_file",
    "mask_good": "mask0_goodbits",
    "mask_bad": "mask0_badbits",
}
_MASK_KEY = re.compile(r"mask([0-7])_(data|file|goodbits|badbits)")
_TERM = re.compile(r"([+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)?)([xyz])")
_UNSUPPORTED = {
    "saturation_map": "maps of saturation values are not read; leave the line out and set max_adu",
    "saturation_map_file": "maps of saturation values are not read; leave the line out and set max_adu",
}


def read_geom(path):
    """Detector of a CrystFEL geometry file.

    A mask file that the geometry names is looked for beside the geometry file, then in the working directory.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Detector

    Raises
    ------
    InputError
        The file can't be read, has an unknown key or a wrong value, lacks something or has overlapping panels.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file; a CrystFEL geometry (.geom) is expected") from None
    except OSError as error:
        raise InputError(f"{path}: the geometry can't be read ({error.strerror})") from None
    return parse_geom(text, str(path), Path(path).parent)


def parse_geom(text, where, directory="."):
    """Detector of the text of a CrystFEL geometry file; `where` names it in messages, masks are looked for in `directory`."""
    top, panels, regions, groups, unused = _read_lines(text, where)
    if not panels:
        raise InputError(f"{where}: no panels; lines such as 'panel0/corner_x = -100' are expected")
    if unused:
        raise InputError(
            f"{where}, line {unused}: stands below the last panel's first line, so it holds for no panel; move it up"
        )
    shift = [_shift(top, f"detector_shift_{axis}", where) for axis in "xy"]
    built = placed_in_slab(_panel(name, values, shift, where, Path(directory)) for name, values in panels.items())
    check_overlap(built, where)
    clen, clen_scale = _clen(top, panels, where)
    energy, energy_scale, is_wavelength = _photon_energy(top, where)
    return Detector(
        panels=built,
        photon_energy=energy,
        clen=clen,
        photon_energy_scale=energy_scale,
        clen_scale=clen_scale,
        photon_energy_is_wavelength=is_wavelength,
        bandwidth=top.get("bandwidth", 0.0),
        bad_regions=tuple(_region(name, values, built, where) for name, values in regions.items()),
        rigid_groups=groups,
        peak_list=top.get("peak_list"),
    )


def check_overlap(panels, where):
    """Raise InputError where two panels of a geometry overlap in the data or in the laboratory."""
    pairs = overlapping_panels(panels)
    if pairs:
        first, second, what = pairs[0]
        how = "claim the same pixels of the data" if what == "data" else "lie on each other in the laboratory"
        hint = "min_fs to max_ss (both ends belong to the panel)" if what == "data" else "corner_x, corner_y, fs and ss"
        more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        raise InputError(f"{where}: panels {first} and {second} {how}{more}; compare their {hint}")


def _read_lines(text, where):
    """Values by key for the whole file, for each panel and for each bad region; groups; the last line that holds for no panel."""
    top, panels, regions, groups = {}, {}, {}, {}
    defaults = {"dims": {0: "ss", 1: "fs"}, "masks": {}, "flags": [], "data": "/data/data"}
    unused = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition(";")[0].strip()
        if not line:
            continue
        at = f"{where}, line {number}"
        if "=" not in line:
            raise InputError(f"{at}: {line!r} is not of the form 'key = value'")
        name, value = (part.strip() for part in line.split("=", 1))
        owner, slash, key = name.partition("/")
        if not slash:
            if name.startswith(("rigid_group", "group_")):
                groups[name] = tuple(member.strip() for member in value.split(","))
            elif name in _TOP:
                top[name] = _TOP[name](value, f"{at}: {name}")
            else:
                _set_panel_value(defaults, name, value, at, is_top=True)
                unused = number
        elif owner.startswith("bad"):
            _set_region_value(regions.setdefault(owner, {}), key, value, at)
        else:
            if owner not in panels:
                panels[owner] = _copied(defaults)
                unused = 0
            _set_panel_value(panels[owner], key, value, at)
    return top, panels, regions, groups, unused


def _copied(values):
    masks = {n: dict(mask) for n, mask in values["masks"].items()}
    return values | {"dims": dict(values["dims"]), "masks": masks, "flags": list(values["flags"])}


def _set_panel_value(values, key, value, at, is_top=False):
    """Store one `key = value` of a panel; InputError names the line."""
    what = f"{at}: {key}"
    key = _OLD_MASK_KEYS.get(key, key)
    mask = _MASK_KEY.fullmatch(key)
    if mask:
        part = mask[2]
        values["masks"].setdefault(int(mask[1]), {})[part] = _bits(value, what) if part.endswith("bits") else value
    elif re.fullmatch(r"dim\d", key):
        values["dims"][int(key[3:])] = value if value in ("ss", "fs", "%") else _whole(value, what)
    elif key in ("flag_lessthan", "flag_morethan", "flag_equal"):
        values["flags"].append((key.removeprefix("flag_"), _number(value, what)))
    elif key in _UNSUPPORTED:
        raise InputError(f"{what}: {_UNSUPPORTED[key]}")
    elif key in _PANEL:
        values[key] = _PANEL[key](value, what)
    elif key != "badrow_direction":  # of old files, without a meaning since CrystFEL 0.6
        known = [
            *_PANEL,
            *_OLD_MASK_KEYS,
            "mask0_data",
            "mask0_file",
            "mask0_goodbits",
            "mask0_badbits",
            "dim0",
            "dim1",
            "dim2",
        ]
        known += ["flag_lessthan", "flag_morethan", "flag_equal", *(_TOP if is_top else ())]
        raise InputError(f"{at}: unknown key {key!r}{_suggestion(key, known)}")


def _set_region_value(values, key, value, at):
    if key not in _REGION_KEYS:
        raise InputError(f"{at}: unknown key {key!r} of a bad region{_suggestion(key, _REGION_KEYS)}")
    values[key] = value if key == "panel" else _number(value, f"{at}: {key}")


def _suggestion(key, known):
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else "; crystfel_geometry(5) lists the keys"


def _number(value, what):
    try:
        return float(value)
    except ValueError:
        raise InputError(f"{what}: {value!r} is not a number") from None


def _whole(value, what):
    number = _number(value, what)
    if number != int(number) or number < 0:
        raise InputError(f"{what}: {value!r} is not a whole number of 0 or more")
    return int(number)


def _bits(value, what):
    try:
        return int(value, 0)
    except ValueError:
        return _whole(value, what)


def _truth(value, what):
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    return _number(value, what) != 0


def _text(value, what):
    return value


def _direction(value, what):
    """Components along x, y, z of a direction such as '+0.999x -0.01y'."""
    terms = re.sub(r"\s", "", value)
    if not terms or _TERM.sub("", terms):
        raise InputError(f"{what}: {value!r} is not a direction such as '+1.0x -0.002y'")
    direction = {"x": 0.0, "y": 0.0, "z": 0.0}
    for factor, axis in _TERM.findall(terms):
        direction[axis] += float(factor + "1" if factor in ("", "+", "-") else factor)
    return tuple(direction.values())


def _quantity(units, default_for_number=None, default_for_path=None):
    """A converter of 'value unit' to (number, factor) or (HDF5 path, factor)."""

    def convert(value, what):
        amount, _, unit = value.partition(" ")
        is_path = amount.startswith("/")
        unit = unit.strip() or (default_for_path if is_path else default_for_number)
        if unit not in units:
            raise InputError(f"{what}: {value!r} has no unit that is known here; one of {', '.join(units)} is expected")
        if is_path:
            return amount, units[unit]
        return _number(amount, what), units[unit]

    return convert


_PANEL = {
    "min_fs": _whole,
    "max_fs": _whole,
    "min_ss": _whole,
    "max_ss": _whole,
    "corner_x": _number,
    "corner_y": _number,
    "coffset": _number,
    "fs": _direction,
    "ss": _direction,
    "res": _number,
    "data": _text,
    "adu_per_photon": _number,
    "adu_per_eV": _number,
    "max_adu": _number,
    "mask_edge_pixels": _whole,
    "no_index": _truth,
    # Files for CrystFEL before 0.9 give each panel a camera length; it is taken where all agree.
    "clen": _quantity(_LENGTHS, "m", "mm"),
}

_TOP = {
    "clen": _quantity(_LENGTHS, "m", "mm"),
    "photon_energy": _quantity(_ENERGIES, "eV", "eV"),
    "wavelength": _quantity(_WAVELENGTHS),
    "electron_voltage": _quantity(_VOLTAGES),
    "bandwidth": _number,
    "detector_shift_x": _quantity(_LENGTHS, "m", "m"),
    "detector_shift_y": _quantity(_LENGTHS, "m", "m"),
    "peak_list": _text,
    "peak_list_type": _text,
}


def _shift(top, key, where):
    value, scale = top.get(key, (0.0, 1.0))
    if isinstance(value, str):
        raise InputError(
            f"{where}: {key}: a shift for each frame is not supported; give one value, or leave the line out"
        )
    return value * scale


def _clen(top, panels, where):
    """Camera length (metre) and 1, or its HDF5 path and the factor to metre."""
    given = top.get("clen")
    if given is None:
        of_panels = {values.get("clen") for values in panels.values()}
        if of_panels == {None}:
            raise InputError(f"{where}: no camera length; add a line such as 'clen = 0.1 m'")
        if len(of_panels) > 1:
            raise InputError(
                f"{where}: the panels have different clen; give one 'clen' at the top and coffset for each panel"
            )
        given = of_panels.pop()
    value, scale = given
    if isinstance(value, str):
        return value, scale
    if not value > 0:
        raise InputError(f"{where}: clen: the camera length must be positive, {value * scale} m is not")
    return value * scale, 1.0


def _photon_energy(top, where):
    """Photon energy (eV), 1, False; or the HDF5 path, the factor to eV or angstrom, and whether it holds a wavelength."""
    keys = [key for key in ("photon_energy", "wavelength", "electron_voltage") if key in top]
    if not keys:
        raise InputError(
            f"{where}: no photon energy; add a line such as 'photon_energy = 9500 eV' or 'wavelength = 1.3 A'"
        )
    if len(keys) > 1:
        raise InputError(f"{where}: {' and '.join(keys)} are both given; keep one")
    value, scale = top[keys[0]]
    if isinstance(value, str):
        if keys == ["electron_voltage"]:
            raise InputError(f"{where}: electron_voltage: a value for each frame is not supported; give a number")
        return value, scale, keys == ["wavelength"]
    if not value > 0:
        raise InputError(f"{where}: {keys[0]}: must be positive, {value} is not")
    if keys == ["wavelength"]:
        return HC_EV_ANGSTROM / (value * scale), 1.0, False
    if keys == ["electron_voltage"]:
        return HC_EV_ANGSTROM / _electron_wavelength(value * scale), 1.0, False
    return value * scale, 1.0, False


def _electron_wavelength(voltage):
    """Relativistic de Broglie wavelength, angstrom: hc / sqrt(eV (eV + 2 m c^2)), with m c^2 = 510998.95 eV."""
    return HC_EV_ANGSTROM / np.sqrt(voltage * (voltage + 2 * 510998.95))


def _panel(name, values, shift, where, directory):
    """A Panel, its place in the slab still open."""
    needed = ("min_fs", "max_fs", "min_ss", "max_ss", "corner_x", "corner_y", "fs", "ss", "res")
    missing = [key for key in needed if key not in values]
    if missing:
        raise InputError(f"{where}: panel {name}: no {', '.join(missing)}")
    if values["max_fs"] < values["min_fs"] or values["max_ss"] < values["min_ss"]:
        raise InputError(f"{where}: panel {name}: max_fs and max_ss must not be less than min_fs and min_ss")
    if not values["res"] > 0:
        raise InputError(f"{where}: panel {name}: res must be positive (pixels per metre)")
    if np.linalg.norm(np.cross(values["fs"], values["ss"])) < 1e-3:
        raise InputError(f"{where}: panel {name}: fs and ss are parallel or zero")
    pixel = 1.0 / values["res"]
    return Panel(
        name=name,
        data=values["data"],
        dims=_dims(name, values["dims"], where),
        min_fs=values["min_fs"],
        max_fs=values["max_fs"],
        min_ss=values["min_ss"],
        max_ss=values["max_ss"],
        origin=(
            values["corner_x"] * pixel + shift[0],
            values["corner_y"] * pixel + shift[1],
            values.get("coffset", 0.0),
        ),
        fs=tuple(component * pixel for component in values["fs"]),
        ss=tuple(component * pixel for component in values["ss"]),
        slab_fs=0,
        slab_ss=0,
        adu_per_photon=values.get("adu_per_photon"),
        adu_per_ev=values.get("adu_per_eV"),
        max_adu=values.get("max_adu", np.inf),
        flags=tuple(values["flags"]),
        masks=_masks(name, values, where, directory),
        mask_edge_pixels=values.get("mask_edge_pixels", 0),
        no_index=values.get("no_index", False),
    )


def _dims(name, dims, where):
    listed = tuple(dims.get(n) for n in range(max(dims) + 1))
    if listed.count("ss") != 1 or listed.count("fs") != 1 or None in listed:
        written = ", ".join(f"dim{n} = {dim}" for n, dim in sorted(dims.items()))
        raise InputError(
            f"{where}: panel {name}: dim0, dim1, ... must hold ss and fs once each, without a gap; it has {written}"
        )
    return listed


def _masks(name, values, where, directory):
    masks = []
    for number, mask in sorted(values["masks"].items()):
        if "data" not in mask:
            raise InputError(
                f"{where}: panel {name}: mask{number} has no mask{number}_data (where the mask is in its file)"
            )
        if mask["data"].count("%") > values["data"].count("%"):
            raise InputError(f"{where}: panel {name}: mask{number}_data has more '%' than data")
        masks.append(
            Mask(
                data=mask["data"],
                file=_found(mask["file"], directory) if "file" in mask else None,
                good_bits=mask.get("goodbits", 0),
                bad_bits=mask.get("badbits", 0),
            )
        )
    return tuple(masks)


def _found(name, directory):
    """A mask file beside the geometry file if it is there, else as written (from the working directory)."""
    beside = directory / name
    return str(beside.resolve()) if beside.exists() else name


def _region(name, values, panels, where):
    in_xy = any(key.endswith(("_x", "_y")) for key in values)
    if in_xy and any(key.endswith(("_fs", "_ss")) for key in values):
        raise InputError(f"{where}: {name}: either x and y or fs and ss, not both")
    first, second = ("x", "y") if in_xy else ("fs", "ss")
    missing = [key for key in (f"min_{first}", f"max_{first}", f"min_{second}", f"max_{second}") if key not in values]
    if missing:
        raise InputError(f"{where}: {name}: no {', '.join(missing)}")
    low = (values[f"min_{first}"], values[f"min_{second}"])
    high = (values[f"max_{first}"], values[f"max_{second}"])
    if in_xy:
        return Region(name, low, high)
    panel = _panel_of_region(name, values, panels, where)
    inside = panel.min_fs <= low[0] <= high[0] <= panel.max_fs and panel.min_ss <= low[1] <= high[1] <= panel.max_ss
    if not inside:
        raise InputError(f"{where}: {name}: reaches outside panel {panel.name}, or its ends are swapped")
    return Region(name, tuple(map(int, low)), tuple(map(int, high)), panel=panel.name, in_xy=False)


def _panel_of_region(name, values, panels, where):
    if "panel" not in values and len(panels) == 1:
        return panels[0]
    for panel in panels:
        if panel.name == values.get("panel"):
            return panel
    given = repr(values["panel"]) if "panel" in values else "none"
    raise InputError(
        f"{where}: {name}: its fs and ss need the name of a panel of this geometry ('{name}/panel = ...'); given: {given}"
    )

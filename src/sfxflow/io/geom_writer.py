"""Writing CrystFEL geometry files: what all panels share stands once at the top."""

from pathlib import Path

import numpy as np

from sfxflow.io.files import provenance_json, written_whole


def write_geom(target, detector, provenance=None):
    """Write a detector as a CrystFEL geometry file.

    Parameters
    ----------
    target : path-like or text file open for writing
    detector : Detector
    provenance : str, optional
        JSON text for the first comment; by default that of this process (`sfxflow.io.files.provenance_json`).

    Notes
    -----
    A mask file that was found beside the geometry file is written with its full path, so that every program finds it.
    """
    lines = [f"; provenance: {provenance or provenance_json()}", "", *_beam(detector), ""]
    scales = _pixels_per_metre(detector.panels)
    settings = [_panel_settings(panel, res) for panel, res in zip(detector.panels, scales, strict=True)]
    shared = [line for line in settings[0] if all(line in other for other in settings)]
    shared = _whole_groups(shared, settings)
    lines += shared
    for region in detector.bad_regions:
        lines += ["", *_region(region)]
    for panel, own, res in zip(detector.panels, settings, scales, strict=True):
        lines.append("")
        lines += [f"{panel.name}/{line}" for line in own if line not in shared]
        lines += [f"{panel.name}/{line}" for line in _place(panel, res)]
    lines.append("")
    lines += [f"{name} = {','.join(members)}" for name, members in detector.rigid_groups.items()]
    text = "\n".join(lines).rstrip() + "\n"
    if hasattr(target, "write"):
        target.write(text)
        return
    with written_whole(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _number(value):
    """The shortest text that reads back as the same number."""
    return repr(float(value))


def _beam(detector):
    if isinstance(detector.photon_energy, str):
        key, unit = _wavelength_unit(detector) if detector.photon_energy_is_wavelength else _energy_unit(detector)
        lines = [f"{key} = {detector.photon_energy} {unit}"]
    else:
        lines = [f"photon_energy = {_number(detector.photon_energy)} eV"]
    if isinstance(detector.clen, str):
        lines.append(f"clen = {detector.clen} {_unit(detector.clen_scale, {'m': 1.0, 'mm': 1e-3}, 'camera length')}")
    else:
        lines.append(f"clen = {_number(detector.clen)} m")
    if detector.bandwidth:
        lines.append(f"bandwidth = {_number(detector.bandwidth)}")
    if detector.peak_list:
        lines.append(f"peak_list = {detector.peak_list}")
    return lines


def _energy_unit(detector):
    return "photon_energy", _unit(detector.photon_energy_scale, {"eV": 1.0, "keV": 1e3}, "photon energy")


def _wavelength_unit(detector):
    return "wavelength", _unit(detector.photon_energy_scale, {"A": 1.0, "m": 1e10}, "wavelength")


def _unit(scale, units, meaning):
    for unit, factor in units.items():
        if np.isclose(scale, factor, rtol=1e-12):
            return unit
    raise ValueError(f"a geometry file has no unit for a {meaning} that is {scale} times the usual one")


def _pixels_per_metre(panels):
    """`res` of each panel; the same for all where it may be, for fs and ss are written in units of it."""
    exact = np.array([1.0 / np.linalg.norm(panel.fs) for panel in panels])
    if np.ptp(exact) < 1e-4 * exact[0]:
        exact[:] = np.median(exact)
    return [float(f"{res:.10g}") for res in exact]


def _panel_settings(panel, res):
    """Lines of a panel that others may share."""
    lines = [f"res = {_number(res)}", f"data = {panel.data}"]
    lines += [f"dim{n} = {dim}" for n, dim in enumerate(panel.dims)]
    if panel.adu_per_photon is not None:
        lines.append(f"adu_per_photon = {_number(panel.adu_per_photon)}")
    if panel.adu_per_ev is not None:
        lines.append(f"adu_per_eV = {_number(panel.adu_per_ev)}")
    if panel.max_adu < np.inf:
        lines.append(f"max_adu = {_number(panel.max_adu)}")
    lines += [f"flag_{kind} = {_number(value)}" for kind, value in panel.flags]
    for n, mask in enumerate(panel.masks):
        lines.append(f"mask{n}_data = {mask.data}")
        if mask.file is not None:
            lines.append(f"mask{n}_file = {mask.file}")
        lines += [f"mask{n}_goodbits = {mask.good_bits:#x}", f"mask{n}_badbits = {mask.bad_bits:#x}"]
    if panel.mask_edge_pixels:
        lines.append(f"mask_edge_pixels = {panel.mask_edge_pixels}")
    if panel.no_index:
        lines.append("no_index = true")
    return lines


def _whole_groups(shared, settings):
    """`shared` without flags and masks unless all panels have the same: a panel adds to those of the top, it can't take away."""
    kept = list(shared)
    for prefix in ("flag_", "mask"):
        groups = {tuple(line for line in lines if line.startswith(prefix)) for lines in settings}
        if len(groups) > 1:
            kept = [line for line in kept if not line.startswith(prefix)]
    return kept


def _place(panel, res):
    lines = [f"{key} = {getattr(panel, key)}" for key in ("min_fs", "max_fs", "min_ss", "max_ss")]
    for key, step in (("fs", panel.fs), ("ss", panel.ss)):
        terms = [f"{component * res:+.16f}{axis}" for component, axis in zip(step, "xyz", strict=True)]
        lines.append(f"{key} = {' '.join(terms)}")
    lines += [
        f"corner_{axis} = {_number(position * res)}" for axis, position in zip("xy", panel.origin[:2], strict=True)
    ]
    lines.append(f"coffset = {_number(panel.origin[2])}")
    return lines


def _region(region):
    first, second = ("x", "y") if region.in_xy else ("fs", "ss")
    lines = [f"{region.name}/panel = {region.panel}"] if region.panel else []
    for n, axis in enumerate((first, second)):
        lines.append(f"{region.name}/min_{axis} = {region.low[n]!r}")
        lines.append(f"{region.name}/max_{axis} = {region.high[n]!r}")
    return lines

"""Writing CrystFEL geometry files (.geom); `sfxflow.io.geom` reads them."""

import numpy as np

from sfxflow.io.files import written_whole


def write_geom(path, detector, notes=()):
    """Write a detector as a CrystFEL geometry file, with all digits, so that it is read back as it was.

    Parameters
    ----------
    path : path-like
    detector : sfxflow.geometry.Detector
    notes : iterable of str
        Comments to stand at the top.
    """
    with written_whole(path) as temporary:
        temporary.write_text(geom_text(detector, notes), encoding="utf-8")


def geom_text(detector, notes=()):
    """A detector as the text of a CrystFEL geometry file."""
    lines = [f"; {line}" for note in notes for line in note.splitlines()]
    if detector.photon_energy_is_wavelength:
        unit = "A" if detector.photon_energy_scale == 1.0 else "m"
        lines.append(f"wavelength = {_text(detector.photon_energy)} {unit}")
    else:
        unit = "eV" if detector.photon_energy_scale == 1.0 else "keV"
        lines.append(f"photon_energy = {_text(detector.photon_energy)} {unit}")
    lines.append(f"clen = {_text(detector.clen)} {'m' if detector.clen_scale == 1.0 else 'mm'}")
    if detector.bandwidth:
        lines.append(f"bandwidth = {_text(detector.bandwidth)}")
    if detector.peak_list:
        lines.append(f"peak_list = {detector.peak_list}")
    lines += [f"{name} = {','.join(members)}" for name, members in detector.rigid_groups.items()]
    for region in detector.bad_regions:
        axes = ("x", "y") if region.in_xy else ("fs", "ss")
        lines.append("")
        for axis, low, high in zip(axes, region.low, region.high, strict=True):
            lines += [f"{region.name}/min_{axis} = {_text(low)}", f"{region.name}/max_{axis} = {_text(high)}"]
        if region.panel:
            lines.append(f"{region.name}/panel = {region.panel}")
    for panel in detector.panels:
        lines += ["", *_panel_lines(panel)]
    return "\n".join(lines) + "\n"


def _text(value):
    return value if isinstance(value, str) else repr(float(value))


def _panel_lines(panel):
    pixel = float(np.linalg.norm(panel.fs))
    values = {f"dim{number}": entry for number, entry in enumerate(panel.dims)}
    values |= {
        "data": panel.data,
        "min_fs": panel.min_fs,
        "max_fs": panel.max_fs,
        "min_ss": panel.min_ss,
        "max_ss": panel.max_ss,
        "res": repr(1.0 / pixel),
        "corner_x": repr(float(panel.origin[0]) / pixel),
        "corner_y": repr(float(panel.origin[1]) / pixel),
        "coffset": repr(float(panel.origin[2])),
        "fs": _direction(panel.fs, pixel),
        "ss": _direction(panel.ss, pixel),
    }
    if panel.adu_per_photon is not None:
        values["adu_per_photon"] = _text(panel.adu_per_photon)
    if panel.adu_per_ev is not None:
        values["adu_per_eV"] = _text(panel.adu_per_ev)
    if np.isfinite(panel.max_adu):
        values["max_adu"] = _text(panel.max_adu)
    values |= {f"flag_{kind}": _text(value) for kind, value in panel.flags}
    for number, mask in enumerate(panel.masks):
        values[f"mask{number}_data"] = mask.data
        if mask.file:
            values[f"mask{number}_file"] = mask.file
        values[f"mask{number}_goodbits"] = hex(mask.good_bits)
        values[f"mask{number}_badbits"] = hex(mask.bad_bits)
    if panel.mask_edge_pixels:
        values["mask_edge_pixels"] = panel.mask_edge_pixels
    if panel.no_index:
        values["no_index"] = 1
    return [f"{panel.name}/{key} = {value}" for key, value in values.items()]


def _direction(step, pixel):
    """A step as CrystFEL writes directions, without exponents, which it may not read."""
    return " ".join(f"{component / pixel:+.12f}{axis}" for component, axis in zip(step, "xyz", strict=True))

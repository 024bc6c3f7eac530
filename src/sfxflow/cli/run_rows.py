"""Rows of the table of runs: what `sfxflow init` and `sfxflow runs add` find out about frame files before they write one."""

import glob
import math
import os
import re
from pathlib import Path

import numpy as np

from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import lab_positions, panel_arrays, scattering_vectors
from sfxflow.io.frames import matching_files, open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import linked_files
from sfxflow.io.remote_files import identified
from sfxflow.io.urls import file_name, is_remote
from sfxflow.units import wavelength

#: Columns of the table that the workflow needs.
COLUMNS = ("run", "dataset", "frames", "geometry", "mask", "n_frames")
_FRAMES_TRIED = 20


def add_data(parser, required=True):
    """The --data option."""
    parser.add_argument(
        "--data",
        action="append",
        nargs="+",
        required=required,
        metavar="PATTERN",
        help="frames of one run: a file, a pattern in quotes such as 'raw/*.h5', a list (.lst), or a file at a server "
        "(https://, s3://, root://); repeat it for more runs",
    )


def look_into(pattern, geometry, mask, name):
    """Row of the table for one run, after opening its files and reading a frame. An address at a server says then which content it has."""
    files = matching_files(pattern)
    if is_remote(pattern):
        if not geometry:
            raise InputError(f"{pattern}: the geometry of frames at a server has to be a file here: --geometry")
        pattern = identified(pattern)
    _refuse_linked(files)
    detector = read_geometry(geometry or files[0])
    with open_frames(pattern, detector, mask) as frames:
        frame, failures = _first_frame(frames)
        print(f"run {name}: {len(files)} file{'s' * (len(files) > 1)}, {frames.n_frames} frames")
        for line in _described(detector, frames, frame):
            print(f"  {line}")
        for failure in failures:
            print(f"  warning: {failure}")
        row = {"run": name, "frames": pattern, "geometry": str(geometry or files[0]), "mask": mask or ""}
        return row | {"n_frames": frames.n_frames}


def _refuse_linked(files):
    """InputError if one of the files is a part of another: its frames would count twice."""
    if len(files) < 2 or any(map(is_remote, files)):
        return
    known = {os.path.realpath(name): name for name in files}
    for name in files:
        for target in linked_files(name):
            if os.path.realpath(target) in known and os.path.realpath(target) != os.path.realpath(name):
                raise InputError(
                    f"{name}: takes its frames from {known[os.path.realpath(target)]}, which the pattern matches too: they would count "
                    "twice; choose a pattern for the master files only, such as 'raw/*_master.h5'"
                )


def _first_frame(frames):
    """The first frame that can be read, and why those before it can't."""
    failures = []
    for i in range(min(frames.n_frames, _FRAMES_TRIED)):
        try:
            return frames.read(i), failures
        except FrameError as error:
            failures.append(str(error))
    raise InputError(f"none of the first {len(failures)} frames can be read: {failures[0]}")


def _described(detector, frames, frame):
    """Lines on what was found, for a person to compare with what was meant."""
    rows, columns = detector.shape
    energy = frame.photon_energy
    edge, corner = _resolution_limits(detector, frame)
    yield f"{rows} x {columns} pixels (ss x fs) of {frames.dtype}, {len(detector.panels)} panel{'s' * (len(detector.panels) > 1)}"
    yield f"photon energy {energy:.1f} eV ({wavelength(energy):.5f} A), camera length {frame.clen * 1e3:.2f} mm"
    yield f"resolution {edge:.2f} A at the nearest edge, {corner:.2f} A in the farthest corner"
    yield f"{frames.mask.mean() * 100:.1f} % of the pixels are good by masks; good values are {_range_text(*frames.valid_range)}"
    covered = sum(panel.n_ss * panel.n_fs for panel in detector.panels) / frames.pixels_in_file
    if covered < 0.9:
        yield f"warning: the geometry's panels cover only {covered * 100:.0f} % of the file's pixels; is it that of this detector?"


def _range_text(low, high):
    if math.isinf(low) and math.isinf(high):
        return "all but NaN"
    if math.isinf(high):
        return f"{low:g} and above"
    return f"{high:.10g} and below" if math.isinf(low) else f"{low:g} to {high:.10g}"


def _resolution_limits(detector, frame):
    """d at the nearest edge of all panels together, and in the farthest corner, angstrom."""
    arrays = panel_arrays(detector)
    outer = []
    for number, (top, bottom, left, right) in enumerate(arrays.bounds):
        fs, ss = np.meshgrid(np.linspace(left, right, 9), np.linspace(top, bottom, 9))
        outer.append(lab_positions(arrays, np.full(fs.size, number), fs.ravel(), ss.ravel(), frame.clen))
    xyz = np.concatenate(outer)
    s = np.linalg.norm(scattering_vectors(xyz, wavelength(frame.photon_energy)), axis=1)
    angle = np.arctan2(xyz[:, 1], xyz[:, 0])
    sector = np.floor((angle + np.pi) / (2 * np.pi) * 16).astype(int) % 16
    reach = [s[sector == n].max() for n in range(16) if (sector == n).any()]
    return 1.0 / min(reach), 1.0 / max(reach)


# ---- names and paths


def patterns_of(given):
    """One pattern for each run of a --data option.

    Parameters
    ----------
    given : list of str
        One file or pattern; or several files, as the shell makes them of a pattern without quotes: they are one run if a pattern
        matches exactly them, otherwise a run each.
    """
    if len(given) == 1:
        return given
    folders = {os.path.dirname(name) for name in given}
    if len(folders) == 1 and all(os.path.exists(name) for name in given):
        names = [os.path.basename(name) for name in given]
        start = os.path.commonprefix(names)
        rest = [name[len(start) :] for name in names]
        end = os.path.commonprefix([name[::-1] for name in rest])[::-1]
        pattern = os.path.join(glob.escape(folders.pop()), f"{glob.escape(start)}*{glob.escape(end)}")
        if sorted(glob.glob(pattern)) == sorted(given):
            return [pattern]
    return given


def free_name(pattern, taken):
    """Name for a run from what its files' names have in common."""
    stems = [Path(file_name(name) if is_remote(name) else name).stem for name in matching_files(pattern)]
    name = os.path.commonprefix(stems)
    if len(stems) > 1 and any(stem[len(name) :][:1].isdigit() for stem in stems):
        name = name.rstrip("0123456789")  # the beginning of a number is not a name
    name = as_name(name) if re.search(r"[A-Za-z0-9]", name) else f"run{len(taken) + 1}"
    free, n = name, 1
    while free in taken:
        n += 1
        free = f"{name}_{n}"
    return free


def as_name(text):
    """`text` with nothing that would be a nuisance in a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "data"


def written_path(path, directory):
    """`path` as the written files have it: relative to `directory` if it lies below, else absolute; an empty one or an address stays."""
    if not path or is_remote(path):
        return path or ""
    here = os.getcwd()
    if not os.path.isabs(path):
        is_pattern = glob.has_magic(path) and not os.path.exists(path)
        path = os.path.join(glob.escape(here) if is_pattern else here, path)
    path, base = os.path.normpath(path), os.path.normpath(os.path.join(here, directory))
    for start in (base, os.path.realpath(base), glob.escape(base)):
        if path.startswith(start.rstrip(os.sep) + os.sep):
            return os.path.relpath(path, start)
    if re.search(r"[\t\n]", path):
        raise InputError(
            f"{path!r}: a table of runs can't hold a path with tabs or line ends; rename the folder or file"
        )
    return path

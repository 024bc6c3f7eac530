"""Look into the files and write a config that runs: DIR/config/config.yaml, DIR/config/runs.tsv and copies of the profiles.

The frames are opened and counted, one is read, and geometry, mask, cell and space group are checked against each other, before
anything is written. One --data is one run: a file, or a pattern in quotes.
"""

import glob
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import yaml

import sfxflow
from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import lab_positions, panel_arrays, scattering_vectors
from sfxflow.io.cell_file import check_cell, read_cell
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.io.frames import matching_files, open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import linked_files
from sfxflow.settings import STAGES
from sfxflow.symmetry import space_group
from sfxflow.units import wavelength

_FRAMES_TRIED = 20
_COLUMNS = ("run", "dataset", "frames", "geometry", "mask", "n_frames")


def add_arguments(parser):
    """Arguments of `sfxflow init`."""
    parser.add_argument(
        "--data",
        action="append",
        nargs="+",
        required=True,
        metavar="PATTERN",
        help="frames of one run: a file, or a pattern in quotes such as 'raw/*.h5'; repeat it for more runs",
    )
    parser.add_argument(
        "--geometry", metavar="FILE", help="CrystFEL geometry (.geom); without it NXmx files describe themselves"
    )
    parser.add_argument(
        "--cell", required=True, metavar="FILE", help="unit cell: CrystFEL .cell, or a PDB file with CRYST1"
    )
    parser.add_argument("--space-group", required=True, metavar="NAME", help="space group, for example P43212")
    parser.add_argument("--dataset", metavar="NAME", help="name of the dataset; otherwise that of the cell file")
    parser.add_argument("--d-min", type=float, metavar="A", help="highest resolution of the merged data, angstrom")
    parser.add_argument("--mask", metavar="FILE", help="mask beside the geometry's: bad where it is not 0")
    parser.add_argument("--output", default=".", metavar="DIR", help="folder to work in")
    parser.add_argument(
        "--force", action="store_true", help="overwrite config.yaml and runs.tsv (edited profiles are kept)"
    )


def run(args):
    """Check everything, then write."""
    directory = Path(args.output)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--output: {directory} is a file, a folder is expected")
    targets = [directory / "config" / name for name in ("config.yaml", "runs.tsv")]
    existing = [str(path) for path in targets if path.exists()]
    if existing and not args.force:
        raise InputError(f"{' and '.join(existing)}: already there; --force overwrites, --output names another folder")
    if args.d_min is not None and not 0.3 <= args.d_min <= 50:
        raise InputError(f"--d-min: {args.d_min} angstrom is not a resolution limit of diffraction data")
    group = space_group(args.space_group)
    cell = read_cell(args.cell)
    check_cell(cell, group, args.cell)
    dataset = _checked_name(args.dataset) if args.dataset else _as_name(Path(args.cell).stem)

    rows = []
    for pattern in [pattern for given in args.data for pattern in patterns_of(given)]:
        row = _look_into(pattern, args.geometry, args.mask, _free_name(pattern, [r["run"] for r in rows]))
        rows.append(row | {"dataset": dataset})
    # The frame files stand in the table, with their number of frames; there can be thousands.
    described = [args.cell, *(row[column] for row in rows for column in ("geometry", "mask") if row[column])]
    origin = provenance_json(vars_of(args), dict.fromkeys(described))
    config = {"cell": written_path(args.cell, directory), "space_group": args.space_group}
    if args.d_min is not None:
        config["d_min"] = args.d_min
    for row in rows:
        for column in ("frames", "geometry", "mask"):
            row[column] = written_path(row[column], directory)

    with written_whole(targets[0]) as config_file, written_whole(targets[1]) as runs_file:
        config_file.write_text(config_text(dataset, config, origin), encoding="utf-8")
        runs_file.write_text(runs_text(rows, origin), encoding="utf-8")
    print(f"wrote {targets[0]} and {targets[1]}")
    print(_copy_profiles(directory))


def vars_of(args):
    """The command's options as settings for the provenance."""
    return {name: value for name, value in vars(args).items() if name not in ("run", "command")}


# ---- looking into the files


def _look_into(pattern, geometry, mask, name):
    """Row of the table for one run, after opening its files and reading a frame."""
    files = matching_files(pattern)
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
    if len(files) < 2:
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


def _free_name(pattern, taken):
    """Name for a run from what its files' names have in common."""
    stems = [Path(name).stem for name in matching_files(pattern)]
    name = os.path.commonprefix(stems)
    if len(stems) > 1 and any(stem[len(name) :][:1].isdigit() for stem in stems):
        name = name.rstrip("0123456789")  # the beginning of a number is not a name
    name = _as_name(name) if re.search(r"[A-Za-z0-9]", name) else f"run{len(taken) + 1}"
    free, n = name, 1
    while free in taken:
        n += 1
        free = f"{name}_{n}"
    return free


def _as_name(text):
    """`text` with nothing that would be a nuisance in a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "data"


def _checked_name(name):
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
        raise InputError(
            f"--dataset: {name!r} is not a name of letters, digits and _ . + - that begins with a letter or digit"
        )
    return name


def written_path(path, directory):
    """`path` as the written files have it: relative to `directory` if it lies below, else absolute; an empty one stays empty."""
    if not path:
        return ""
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


# ---- writing


def config_text(dataset, values, origin):
    """Text of config.yaml."""
    datasets = yaml.safe_dump({dataset: values}, sort_keys=False, allow_unicode=True, width=10**6)
    stages = "\n".join(f"{stage}: {{}}" for stage in STAGES)
    indented = "\n".join(f"  {line}" for line in datasets.splitlines())
    return f"""\
# What is measured and how it is processed, written by `sfxflow init` and yours to edit. Paths are relative to the working directory.
# provenance: {origin}

# Programs that go from frames to integrated reflections, and from there to merged ones. Each gets results of its own.
engines: [builtin]
mergers: [builtin]

# The runs: frames that were taken together with one geometry.
runs: config/runs.tsv

# Frames that one job processes. A job should last minutes.
chunk_size: 2000

# What is merged together: cell, space group, and d_min (the highest resolution of the merged data, angstrom) on request.
datasets:
{indented}

# Settings of the stages; what is left out has its default. `sfxflow STAGE --help` and docs/reference/config.md list them all.
{stages}
"""


def runs_text(rows, origin):
    """Text of runs.tsv."""
    lines = ["# One row a run; more columns are kept. Written by `sfxflow init`.", f"# provenance: {origin}"]
    lines.append("\t".join(_COLUMNS))
    lines += ["\t".join(str(row[column]) for column in _COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def _copy_profiles(directory):
    """Copy the checkout's profiles and make their links; says what was done and what to type next."""
    checkout = Path(sfxflow.__file__).resolve().parents[2]
    sources = sorted((checkout / "profiles").glob("*/profile.yaml"))
    if not sources or not (checkout / "Snakefile").exists():
        return (
            "sfxflow is installed without its checkout, so there are no profiles to copy; "
            "get the repository and run: snakemake -s REPOSITORY/Snakefile --cores all"
        )
    for source in sources:
        name = source.parent.name
        target = directory / "profiles" / name / "profile.yaml"
        if not target.exists():
            with written_whole(target) as temporary:
                shutil.copyfile(source, temporary)
        link = directory / name
        if name != "default" and not os.path.lexists(link):
            _link(Path("profiles") / name, link)
    where = (
        f"cd {json.dumps(str(directory)) if ' ' in str(directory) else directory} && " if str(directory) != "." else ""
    )
    return f"next: {where}snakemake -s {checkout / 'Snakefile'} --profile local"


def _link(target, link):
    """A symbolic link to a folder, or a copy where the file system has no links."""
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        shutil.copytree(link.parent / target, link)

"""Options that several stages share, and what they are turned into."""

import sys
from dataclasses import replace

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.cell_file import check_cell, lattice_of, read_cell
from sfxflow.settings import settings_from_json
from sfxflow.symmetry import lattice_group, space_group


def add_frames(parser):
    """Frames, geometry and mask, and which part of the run is meant."""
    parser.add_argument(
        "--frames", required=True, help="frame file, a quoted pattern such as 'raw/*.h5', or a list (.lst)"
    )
    parser.add_argument(
        "--geometry", required=True, help="CrystFEL .geom file, or an NXmx file that holds the geometry"
    )
    parser.add_argument("--mask", nargs="?", help="file with a mask of bad pixels, beside those of the geometry")
    parser.add_argument("--first", type=int, default=0, help="first frame, counted through all files of the run from 0")
    parser.add_argument("--count", type=int, help="number of frames; all that follow if not given")
    parser.add_argument("--n-frames", type=int, help="number of frames that the files must hold in all")


def add_job(parser, output):
    """Settings, threads and output."""
    parser.add_argument("--settings", default="", help="settings of the stage as a JSON object")
    parser.add_argument("--threads", type=int, default=1, help="worker processes")
    parser.add_argument("--output", required=True, help=output)


def add_cell(parser):
    """Target cell and space group."""
    parser.add_argument("--cell", required=True, help="unit cell file (CrystFEL .cell, or PDB)")
    parser.add_argument(
        "--space-group",
        nargs="?",
        default="",
        help="space group, for example P43212; without it the one with all rotations of the cell's lattice, P422 for instance",
    )


def cell_and_group(path, name):
    """Cell of a file and the space group called `name`; what the cell's file leaves open is as the group says.

    Without a name the group has all rotations of the cell's lattice, and a warning says so.

    Parameters
    ----------
    path : path
    name : str
        Empty or None for no name.

    Returns
    -------
    cell : sfxflow.cell.Cell
    group : gemmi.SpaceGroup

    Raises
    ------
    InputError
        The cell can't be read, there is no such group, or they contradict each other.
    """
    cell = read_cell(path)
    if not name:
        group = lattice_group(cell)
        print(f"WARNING: {assumed_group(group)}", file=sys.stderr)
        return cell, group
    group = space_group(name)
    check_cell(cell, group, path)
    lattice_type, centering, unique_axis = lattice_of(group)
    return replace(cell, lattice_type=lattice_type, centering=centering, unique_axis=unique_axis), group


def assumed_group(group):
    """A sentence that says that a space group was not given, and what that means."""
    return (
        f"no space group is given: {group.xhm()} is assumed, which has all rotations of the lattice. The true one may have fewer, "
        "and reflections that are not equivalent would be averaged; set datasets.NAME.space_group when it is known"
    )


def stage_settings(stage, args):
    """Settings object of a stage from `--settings`."""
    return settings_from_json(stage, args.settings)


def frame_range(args, n_frames):
    """Range of frames that the job is about.

    Parameters
    ----------
    args : argparse.Namespace
        With first, count and n_frames.
    n_frames : int
        Frames that the files hold.

    Raises
    ------
    InputError
        The files do not hold what `--n-frames` says, or the range lies outside.
    """
    if args.n_frames is not None and args.n_frames != n_frames:
        raise InputError(
            f"{args.frames}: holds {n_frames} frames, but the runs table runs.tsv says {args.n_frames} (n_frames); "
            "correct the table or restore the files"
        )
    count = n_frames - args.first if args.count is None else args.count
    if args.first < 0 or count < 1 or args.first + count > n_frames:
        raise InputError(
            f"frames {args.first} to {args.first + count - 1} are wanted, but {args.frames} holds frames 0 to {n_frames - 1}"
        )
    return range(args.first, args.first + count)


def header_gain(detector, photon_energy):
    """Detector units a photon as the geometry states it, None where it does not or where panels differ."""
    gains = {
        panel.adu_per_photon or (panel.adu_per_ev * photon_energy if panel.adu_per_ev else None)
        for panel in detector.panels
    }
    return gains.pop() if len(gains) == 1 else None


def highest_values(detector):
    """max_adu of each panel, shape (n_panels,)."""
    return np.array([panel.max_adu for panel in detector.panels], dtype=float)


def clen_of_bins(detector, clen):
    """Camera length for which a frame's radial bins are made: its own, in steps of 1 % where frames differ.

    Bins of a slightly different length are as round, and so do not depend on which frame a worker meets first.
    """
    return float(np.exp(round(np.log(clen) / 0.01) * 0.01)) if isinstance(detector.clen, str) else clen


def pixel_size(arrays):
    """Mean step between pixels along fs, metre."""
    return float(np.linalg.norm(arrays.fs, axis=1).mean())


def check_failures(n_failed, n_frames, allowed, messages):
    """Fail the job if too many frames failed.

    Raises
    ------
    InputError
        More than the fraction `allowed` of the frames failed.
    """
    if n_failed > allowed * n_frames:
        shown = "; ".join(sorted(set(messages))[:3])
        raise InputError(f"{n_failed} of {n_frames} frames failed (max_bad_frames: {allowed:g}): {shown}")

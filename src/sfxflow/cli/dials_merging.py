"""What the mergers that read DIALS' files share: the crystals of any engine written for them, and the merged file."""

import numpy as np

from sfxflow.ambiguity.operators import in_assigned_modes
from sfxflow.cli import crystfel_merging, options, program_job
from sfxflow.errors import InputError
from sfxflow.io.table import open_chunk, read_rows


def add_arguments(parser):
    """Arguments of a merger that reads DIALS' files."""
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="chunk files with reflections")
    parser.add_argument(
        "--geometry", nargs="+", required=True, metavar="FILE", help="geometry (.geom or NXmx) of the runs"
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the dataset")
    options.add_cell(parser)
    parser.add_argument("--d-min", nargs="?", type=float, metavar="D", help="highest resolution to keep, angstrom")
    parser.add_argument(
        "--assignment", nargs="?", metavar="FILE", help="ways to index of the crystals, from sfxflow ambiguity"
    )
    program_job.add_program(parser)
    options.add_job(parser, "merged file to write")


def check_d_min(args):
    """Refuse a resolution that can't be meant."""
    if args.d_min is not None and not args.d_min > 0:
        raise InputError(f"--d-min {args.d_min}: a resolution in angstrom above 0 is expected")


def usable_tables(args, crystals, given, n_panels):
    """Tables of each chunk file without what can't be used; crystals in the ways to index that were assigned.

    Parameters
    ----------
    args : argparse.Namespace
    crystals : sfxflow.cli.crystfel_merging.Crystals
    given : ndarray of bool, shape (n_crystals,)
        Gets True for the crystals that are in the tables.
    n_panels : int

    Yields
    ------
    frames, crystals, reflections : dict

    Raises
    ------
    InputError
        Reflections lie on a panel that the geometry does not have.
    """
    for number, path in enumerate(args.integrated):
        with open_chunk(path, "frames", "crystals", "reflections") as handle:
            frames = read_rows(handle["frames"])
            own = read_rows(handle["crystals"])
            reflections = read_rows(handle["reflections"])
        of_chunk = np.flatnonzero(crystals.chunk == number)
        if crystals.ways:
            mode = crystals.ways.of_file(number, len(of_chunk))[0]
            left_out = crystals.left_out[of_chunk]
            own, reflections = in_assigned_modes(own, reflections, crystals.ways.operators, mode, left_out)
        if len(reflections["panel"]) and int(reflections["panel"].max()) >= n_panels:
            raise InputError(
                f"{path}: has reflections on panel {reflections['panel'].max()}, but --geometry has {n_panels} panels; give the "
                "geometry that was integrated with"
            )
        usable = np.isfinite(reflections["I"]) & (reflections["sigI"] > 0) & (reflections["polarisation"] > 0)
        kept = np.zeros(len(of_chunk), bool)
        kept[np.unique(reflections["crystal"][usable])] = True
        given[of_chunk[kept]] = True
        renumbered = np.cumsum(kept) - 1
        reflections = {name: values[usable] for name, values in reflections.items()}
        reflections["crystal"] = renumbered[reflections["crystal"]]
        yield frames, {name: values[kept] for name, values in own.items()}, reflections


def crystal_rows(crystals, given, scale, observations):
    """Columns of the merged file's crystals; `observations` is 0 for those that the program rejected."""
    status = np.full(len(given), "merged", dtype=object)
    status[observations == 0] = "rejected by the program"
    status[~given] = "no usable reflection"
    status[crystals.left_out] = "way to index uncertain"
    unknown = np.full(len(given), np.nan)
    rows = {
        "chunk": crystals.chunk,
        "crystal": crystals.crystal,
        "scale": scale,
        "B": unknown,
        "width": unknown,
        "n_observations": observations,
        "n_rejected": np.where(observations > 0, crystals.n_reflections - observations, 0),
        "status": list(status),
    }
    if crystals.ways:
        rows |= {"mode": crystals.ways.crystals["mode"], "mode_margin": crystals.ways.crystals["margin"]}
    return rows


def write(args, cell, group, crystals, lists, rows, model, program, arguments, settings, remark, anomalous=False):
    """Write the merged file and say what is in it; `anomalous`: Friedel mates stand apart in the lists."""
    words = [str(word) for word in arguments]
    crystfel_merging.write(args, cell, group, crystals, lists, rows, model, program, words, settings, remark, anomalous)

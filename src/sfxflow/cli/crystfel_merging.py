"""What the mergers of CrystFEL share: from a stream and the program's reflection lists to a merged file of sfxflow."""

import sys
from typing import NamedTuple

import numpy as np

from sfxflow.cli import options, program_job
from sfxflow.errors import InputError
from sfxflow.io.assignment import read_assignment
from sfxflow.io.files import provenance_json
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import write_merged
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.merging.from_lists import merged_columns
from sfxflow.point_group import point_group_name
from sfxflow.programs.crystfel_mergers import notes_of_crystals
from sfxflow.programs.running import ProgramError
from sfxflow.units import wavelength

#: Half sets: name in the merged file to the ending of the program's file.
ENDINGS = {"": "", "_half1": "1", "_half2": "2"}


def add_arguments(parser):
    """Arguments of a merger of CrystFEL."""
    parser.add_argument("--stream", required=True, metavar="FILE", help="the dataset's stream, from sfxflow stream")
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="the chunk files in the stream")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the dataset")
    options.add_cell(parser)
    parser.add_argument("--d-min", nargs="?", type=float, metavar="D", help="highest resolution to keep, angstrom")
    parser.add_argument(
        "--assignment", nargs="?", metavar="FILE", help="ways to index of the crystals that the stream was written with"
    )
    program_job.add_program(parser)
    options.add_job(parser, "merged file to write")


class Crystals(NamedTuple):
    """The crystals of the chunk files.

    Attributes
    ----------
    chunk, crystal, n_reflections : ndarray
        Where each stands, and its reflections.
    frame : list of str
        'FILE //N' as in the stream.
    left_out : ndarray of bool
        Not in the stream: its way to index is uncertain.
    wavelength : float
        Mean of all, angstrom.
    ways : sfxflow.io.assignment.AssignmentFile or None
    """

    chunk: np.ndarray
    crystal: np.ndarray
    n_reflections: np.ndarray
    frame: list
    left_out: np.ndarray
    wavelength: float
    ways: object


def read_crystals(args):
    """The crystals of `args.integrated`, in the order of the stream.

    Raises
    ------
    InputError
        A chunk file is damaged, or is not the one that the ways to index are of.
    """
    ways = read_assignment(args.assignment) if args.assignment else None
    if ways:
        ways.check_files(args.integrated)
    chunk, row, n_reflections, frame, energy, left_out = [], [], [], [], [], []
    for number, path in enumerate(args.integrated):
        with open_chunk(path, "frames", "crystals", "reflections") as handle:
            try:
                frames = read_rows(handle["frames"], columns=("file", "event", "photon_energy"))
                of_frame = handle["crystals/frame"][()]
                owner = handle["reflections/crystal"][()]
            except (KeyError, OSError) as error:
                raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
        n = len(of_frame)
        chunk.append(np.full(n, number))
        row.append(np.arange(n))
        n_reflections.append(np.bincount(owner, minlength=n)[:n])
        frame += [f"{frames['file'][i]} {frames['event'][i] or '//'}" for i in of_frame]
        energy.append(frames["photon_energy"][of_frame])
        left_out.append(ways.of_file(number, n)[1].astype(bool) if ways else np.zeros(n, bool))
    energy = np.concatenate(energy)
    return Crystals(
        *(np.concatenate(column) for column in (chunk, row, n_reflections)),
        frame,
        np.concatenate(left_out),
        float(np.mean(wavelength(energy))) if len(energy) else float("nan"),
        ways,
    )


def written_lists(program, paths, point_group):
    """The program's reflection lists, each read back.

    Parameters
    ----------
    program : str
    paths : dict
        Name in the merged file ('', '_half1', '_half2') to the list; what is not there is an error, but for half sets of one crystal.
    point_group : str
        That they must be merged in.

    Raises
    ------
    ProgramError
        A list is missing, cut off, empty or merged in another point group: the program said that all was well, but it was not.
    """
    lists = {}
    for name, path in paths.items():
        what = f"{program}: ended as if all were well, but its list {path.name}"
        if not path.is_file() or not path.stat().st_size:
            raise ProgramError(f"{what} is empty or missing; is the disk full?")
        try:
            lists[name] = read_hkl(path)
        except InputError as error:
            raise ProgramError(f"{what} can't be used: {error}") from None
        if lists[name].point_group != point_group:
            raise ProgramError(f"{what} is merged in point group {lists[name].point_group}, not in {point_group}")
    return lists


def crystal_columns(crystals, notes, not_mentioned):
    """Columns of the merged file's crystals.

    Parameters
    ----------
    crystals : Crystals
    notes : list of (CrystalNote or None) or None
        Of the crystals in the stream; None where the program says nothing of any.
    not_mentioned : str
        Status of a crystal that the program does not mention.
    """
    n = len(crystals.frame)
    scale, observations = np.full(n, np.nan), crystals.n_reflections.copy()
    status = np.full(n, "merged", object)
    in_stream = np.flatnonzero(~crystals.left_out)
    for c, note in zip(in_stream, [] if notes is None else notes, strict=notes is not None):
        if note is None:
            status[c] = not_mentioned
        elif not note.merged:
            status[c] = "rejected by the program"
        else:
            scale[c] = note.scale
            observations[c] = note.n_observations if note.n_observations >= 0 else observations[c]
    status[crystals.left_out] = "way to index uncertain"
    observations[status != "merged"] = 0
    columns = {
        "chunk": crystals.chunk,
        "crystal": crystals.crystal,
        "scale": scale,
        "B": np.full(n, np.nan),
        "width": np.full(n, np.nan),
        "n_observations": observations,
        "n_rejected": np.where(status == "merged", crystals.n_reflections - observations, 0),
        "status": list(status),
    }
    if crystals.ways:
        columns |= {"mode": crystals.ways.crystals["mode"], "mode_margin": crystals.ways.crystals["margin"]}
    return columns


def noted(program, crystals, notes):
    """Each crystal of the stream with its note.

    Raises
    ------
    ProgramError
        The program mentions a crystal that is not in the stream.
    """
    frames = [crystals.frame[c] for c in np.flatnonzero(~crystals.left_out)]
    try:
        return notes_of_crystals(frames, notes)
    except ValueError as error:
        raise ProgramError(
            f"{program}: speaks of a crystal on {error} that the stream does not hold at that place"
        ) from None


def write(
    args, cell, group, crystals, lists, crystal_rows, model, program, chosen, settings, remark="", anomalous=False
):
    """Write the merged file and say what is in it; `anomalous`: Friedel mates stand apart in the lists."""
    columns, left_out = merged_columns(lists, group, cell.parameters, args.d_min, anomalous)
    n_merged = sum(status == "merged" for status in crystal_rows["status"])
    n = len(columns["I"])
    if lists and not n:
        remark = "no reflection was measured often enough"
    stream = [args.stream] if "stream" in args else []
    inputs = [*stream, *args.integrated, args.cell, *([args.assignment] if args.assignment else [])]
    attrs = {
        "provenance": provenance_json(settings, inputs),
        "dataset": args.dataset,
        "space_group": group.xhm(),
        "cell": cell.parameters,
        "wavelength": crystals.wavelength,
        "anomalous": anomalous,
        "integrated": args.integrated,
        "partiality_model": model,
        "program": program,
        "options": " ".join(chosen),
        "remark": remark,
        "n_crystals": len(crystals.frame),
        "n_crystals_merged": n_merged,
        "n_observations": int(np.sum(crystal_rows["n_observations"])),
        **left_out,
        **(crystals.ways.for_merged() if crystals.ways else {}),
    }
    write_merged(args.output, columns, crystal_rows, {}, attrs)
    print(f"{n_merged} of {len(crystals.frame)} crystals merged: {n} reflections ({program})")
    reasons, counts = np.unique([text for text in crystal_rows["status"] if text != "merged"], return_counts=True)
    for reason, count in zip(reasons, counts, strict=True):
        print(f"{count} crystals left out: {reason}")
    if left_out.get("n_absent"):
        print(
            f"{left_out['n_absent']} reflections that {group.xhm()} makes absent left out, mean I/sigma "
            f"{left_out['absent_mean_i_over_sigma']:.2f}"
        )
    if left_out.get("n_beyond_d_min"):
        print(f"{left_out['n_beyond_d_min']} reflections beyond d_min = {args.d_min:g} left out")
    if remark:
        print(f"WARNING: {args.dataset}: {remark}", file=sys.stderr)


class Prepared(NamedTuple):
    """What a merger of CrystFEL works with: settings of its own and of the stages that it takes some of, and what was read."""

    settings: object
    integration: object
    anomalous: bool
    cell: object
    group: object
    point_group: str
    crystals: Crystals


def prepared(args, stage):
    """Settings, cell, space group, the point group to merge in by CrystFEL's name, and the crystals.

    The point group is the Laue group, or with merging.anomalous the one that the space group has, in which Friedel mates differ.

    Raises
    ------
    InputError
        A setting is wrong, CrystFEL has no name for the point group, or a file is damaged.
    """
    settings, integration, merging = program_job.sections(args, stage, "integration", "merging")
    if args.d_min is not None and not args.d_min > 0:
        raise InputError(f"--d-min {args.d_min}: a resolution in angstrom above 0 is expected")
    cell, group = options.cell_and_group(args.cell, args.space_group)
    name = point_group_name(group, friedel=not merging.anomalous)
    return Prepared(settings, integration, merging.anomalous, cell, group, name, read_crystals(args))


def write_prepared(args, stage, made, lists, crystal_rows, model, program, chosen, remark):
    """Write the merged file of a merger of CrystFEL; `made` is what `prepared` gave, the rest as for `write`."""
    polarisation = {name: getattr(made.integration, name) for name in ("polarisation_fraction", "polarisation_angle")}
    settings = {stage: dict(vars(made.settings)), "integration": polarisation, "merging": {"anomalous": made.anomalous}}
    write(
        args, made.cell, made.group, made.crystals, lists, crystal_rows, model, program, chosen, settings, remark, made.anomalous
    )  # fmt: skip

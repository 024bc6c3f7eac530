"""Resolve the indexing ambiguity: find the way to index of each crystal.

Where the lattice has more symmetry than the crystal (P63, P43, P3, I23, or a cell that only looks like one of higher symmetry), a crystal can
be indexed in several ways that explain its peaks equally well; the intensities tell which (docs/ambiguity.md). Where there is only
one way, the file says so and nothing is computed. The ways are relative: all crystals may be turned together, unless a reference tells.
"""

import itertools
from pathlib import Path

import numpy as np

from sfxflow.ambiguity.assign import Assignment, assign, assign_by_others
from sfxflow.ambiguity.operators import ambiguity_operators, described
from sfxflow.cli import options
from sfxflow.cli.ambigator import resolved_by_ambigator
from sfxflow.errors import InputError
from sfxflow.io.assignment import write_assignment
from sfxflow.io.files import provenance_json
from sfxflow.io.hkl import read_hkl
from sfxflow.io.mtz import read_intensities
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.point_group import point_group
from sfxflow.symmetry import rotations

_CRYSTAL_COLUMNS = ("frame", "reciprocal", "profile_radius", "mosaicity", "bandwidth")
_REFLECTION_COLUMNS = ("crystal", "h", "k", "l", "I", "sigI", "excitation_error", "polarisation")
#: Relative deviation of cell lengths, and degrees, from which a reference is one of another crystal.
_CELL_LENGTH, _CELL_ANGLE = 0.05, 3.0


def add_arguments(parser):
    """Arguments of `sfxflow ambiguity`."""
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="chunk files with reflections")
    options.add_cell(parser)
    parser.add_argument(
        "--reference", nargs="?", metavar="FILE", help="merged intensities of the same crystal (.hkl, .mtz)"
    )
    options.add_job(parser, "file with the way to index of each crystal (HDF5), to write")


def run(args):
    """Read, compare, write."""
    settings = options.stage_settings("ambiguity", args)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    counts = [_n_crystals(path) for path in args.integrated]
    operators = ambiguity_operators(cell.parameters, group, settings.tolerance)
    names = [described(operator) for operator in operators]
    _tell_ways(group, names, settings)
    reference = None
    uses_reference = settings.reference != "none" and settings.program == "builtin"
    if args.reference and settings.resolve and len(operators) > 1 and uses_reference:
        reference = _reference(args.reference, cell, group)
    by_ambigator = settings.program == "ambigator"
    if settings.resolve and len(operators) > 1 and by_ambigator:
        found = resolved_by_ambigator(args, counts, cell, group, operators, settings)
    elif settings.resolve and len(operators) > 1:
        found = _resolved(args, counts, cell.parameters, group, operators, settings, reference)
    else:
        found = _as_they_are(sum(counts), len(operators), settings)
    left_out = np.zeros(len(found.mode), bool)
    if settings.resolve and len(operators) > 1 and found.summary["told_apart"] and not by_ambigator:
        left_out = found.margin < settings.min_margin
    _report(found, left_out, names, settings)
    crystals = {
        "chunk": np.repeat(np.arange(len(counts)), counts),
        "crystal": np.concatenate([np.arange(n) for n in counts]),
        "mode": found.mode,
        "margin": found.margin,
        "left_out": left_out,
        "n_observations": found.n_observations,
    }
    inputs = [*args.integrated, args.cell, *([args.reference] if reference else [])]
    attrs = {
        "provenance": provenance_json(vars(settings), inputs),
        "space_group": group.xhm(),
        "cell": cell.parameters,
        "integrated": args.integrated,
        "operator_names": names,
        "resolved": settings.resolve and len(operators) > 1,
        **found.summary,
        "remarks": "\n".join(found.summary["remarks"]),
    }
    write_assignment(args.output, crystals, operators, attrs)


def _n_crystals(path):
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        return len(handle["crystals/frame"])


def _tables(path, chosen, first_crystal):
    """Chosen crystals of a chunk file, and their reflections; `crystal` counts from `first_crystal`."""
    with open_chunk(path) as handle:
        try:
            energy = handle["frames/photon_energy"][()]
            crystals = read_rows(handle["crystals"], columns=_CRYSTAL_COLUMNS)
            crystals["photon_energy"] = energy[crystals.pop("frame")]
            n = len(crystals["photon_energy"])
            owner = handle["reflections/crystal"][()].astype(np.int64)
            if np.any(np.diff(owner) < 0) or (len(owner) and owner[-1] >= n):
                raise InputError(f"{path}: reflections do not lie crystal after crystal; remove the file and run again")
            starts = np.searchsorted(owner, np.arange(n + 1))
            first, last = (starts[chosen[0]], starts[chosen[-1] + 1]) if len(chosen) else (0, 0)
            reflections = read_rows(handle["reflections"], first, last, _REFLECTION_COLUMNS)
        except (KeyError, OSError, IndexError) as error:
            raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
    number = np.full(n, -1)
    number[chosen] = first_crystal + np.arange(len(chosen))
    reflections["crystal"] = number[owner[first:last]]
    wanted = reflections["crystal"] >= 0
    crystals = {name: values[chosen] for name, values in crystals.items()}
    return crystals, {name: values[wanted] for name, values in reflections.items()}


def _joined(args, chosen):
    """Tables of the crystals `chosen` (an array of rows for each file), all files together."""
    parts, n = [], 0
    for path, rows in zip(args.integrated, chosen, strict=True):
        parts.append(_tables(path, rows, n))
        n += len(rows)
    return tuple({name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]} for i in (0, 1))


def _resolved(args, counts, parameters, group, operators, settings, reference):
    n = sum(counts)
    core = np.arange(n)
    if n > settings.max_crystals:
        core = np.linspace(0, n - 1, settings.max_crystals).round().astype(np.int64)
        print(f"{len(core)} of {n} crystals are compared with each other, the others with these")
    limits = np.concatenate([[0], np.cumsum(counts)])
    common = (parameters, group, operators, settings)
    tables = _joined(args, _by_file(core, limits))
    found = assign(*tables, *common, reference, args.threads)
    if len(core) == n:
        return found
    mode, margin, told = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
    mode[core], margin[core], told[core] = found.mode, found.margin, found.n_observations
    if found.intensities is not None:
        others = np.setdiff1d(np.arange(n), core)
        for start in range(0, len(others), settings.max_crystals):
            part = others[start : start + settings.max_crystals]
            own = assign_by_others(*_joined(args, _by_file(part, limits)), *common, found)
            mode[part], margin[part], told[part] = own.mode, own.margin, own.n_observations
    return Assignment(mode, margin, told, found.summary)


def _by_file(crystals, limits):
    """Numbers of crystals in the dataset as rows in each file."""
    return [crystals[(crystals >= low) & (crystals < high)] - low for low, high in itertools.pairwise(limits)]


def _as_they_are(n_crystals, n_ways, settings):
    remarks = [] if n_ways < 2 else ["the ways to index were left as they are (resolve: false)"]
    summary = {"told_apart": n_ways < 2, "median_margin": 0.0, "chance_margin": 0.0, "n_rounds": 0}
    summary |= {"reference_used": "none", "n_unusable": 0, "remarks": remarks}
    zeros = np.zeros(n_crystals, np.int64)
    return Assignment(zeros, np.zeros(n_crystals), zeros, summary)


def _reference(path, cell, group):
    """Indices and intensities of a reference, after a check that it can be one of this crystal."""
    if Path(path).suffix.lower() == ".mtz":
        contents = read_intensities(path)
        operations, parameters = rotations(contents.group), contents.cell
        _check_reference_cell(path, parameters, cell)
    else:
        contents = read_hkl(path)
        operations = point_group(contents.point_group)
    ours = {tuple(operation.ravel()) for operation in rotations(group)}
    theirs = {tuple(operation.ravel()) for operation in operations}
    if more := theirs - ours:
        raise InputError(
            f"{path}: is merged in a symmetry that space group {group.xhm()} has not ({len(more)} operations more): it can't tell "
            "the ways to index; give intensities that are merged in the crystal's own point group, or set ambiguity.reference to none"
        )
    return contents.hkl, contents.I


def _check_reference_cell(path, parameters, cell):
    found, expected = np.array(parameters), np.array(cell.parameters)
    if np.any(np.abs(found[:3] / expected[:3] - 1) > _CELL_LENGTH) or np.any(
        np.abs(found[3:] - expected[3:]) > _CELL_ANGLE
    ):
        described_cells = [", ".join(f"{value:.4g}" for value in values) for values in (found, expected)]
        raise InputError(
            f"{path}: has the cell {described_cells[0]}, but --cell says {described_cells[1]}: it is the reference of another crystal; "
            "give another one, or set ambiguity.reference to none"
        )


def _tell_ways(group, names, settings):
    if len(names) < 2:
        print(f"{group.xhm()} in this cell: one way to index, nothing to resolve")
    else:
        print(f"{group.xhm()} in this cell: {len(names)} ways to index: {'; '.join(names)}")


def _report(found, left_out, names, settings):
    summary = found.summary
    if len(names) > 1 and settings.resolve:
        counts = np.bincount(found.mode, minlength=len(names))
        for name, count in zip(names, counts, strict=True):
            print(f"{count} crystals: {name}")
        print(
            f"median margin {summary['median_margin']:.1f} (log likelihood ratio; {summary['chance_margin']:.1f} where there is nothing "
            f"to tell), {left_out.sum()} crystals below {settings.min_margin:g} are left out"
        )
        if summary["reference_used"] != "none":
            ways = ", ".join(f"{value:.2f}" for value in summary.get("reference_ways", []))
            print(f"reference: correlation {summary['reference_correlation']:.2f}; merged, in each way: {ways}")
    for remark in summary["remarks"]:
        print(f"WARNING: {remark}")

"""Scale and merge integrated reflections.

Scales, partialities, widths and orientations of the crystals are estimated from the data themselves (docs/merging.md). A dataset
without a single lattice gives a merged file without reflections and a warning, so that the report can show it.

With --assignment (of `sfxflow ambiguity`) each crystal is merged in the way to index that it says.

With --groups (a table of `sfxflow split`) all crystals are scaled together and each group is merged by itself as well.
"""

import numpy as np

from sfxflow.ambiguity.operators import in_assigned_modes
from sfxflow.cli import options
from sfxflow.errors import InputError
from sfxflow.groups import NO_GROUP, value_text
from sfxflow.io.assignment import read_assignment
from sfxflow.io.files import provenance_json
from sfxflow.io.merged import MergedGroups, write_merged
from sfxflow.io.shards import Shards
from sfxflow.io.splits import read_split, shown
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.merging.merge import Parts, merge_blocks
from sfxflow.merging.observations import Collector
from sfxflow.settings import settings_from_json
from sfxflow.units import wavelength

_ROWS_AT_A_TIME = 1_000_000
#: Relative deviation of the crystals' median cell lengths, and degrees, from which the dataset's cell is wrong.
_CELL_LENGTH, _CELL_ANGLE = 0.05, 3.0
_CRYSTAL_COLUMNS = ("frame", "reciprocal", "profile_radius", "mosaicity", "bandwidth", "cell")
_REFLECTION_COLUMNS = ("crystal", "h", "k", "l", "I", "sigI", "excitation_error", "polarisation")


def add_arguments(parser):
    """Arguments of `sfxflow merging`."""
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="chunk files with reflections")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the dataset")
    options.add_cell(parser)
    parser.add_argument("--d-min", nargs="?", type=float, metavar="D", help="highest resolution to merge, angstrom")
    parser.add_argument(
        "--assignment", nargs="?", metavar="FILE", help="ways to index of the crystals, from sfxflow ambiguity"
    )
    parser.add_argument("--groups", nargs="?", metavar="TSV", help="table of the groups that are merged apart")
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of the stage; the defaults where not given"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads to work with")
    parser.add_argument("--output", required=True, metavar="FILE", help="merged file to write")


def run(args):
    """Read, merge, write."""
    settings = settings_from_json("merging", args.settings)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    if args.d_min is not None and not args.d_min > 0:
        raise InputError(f"--d-min {args.d_min}: a resolution in angstrom above 0 is expected")
    split = read_split(args.groups) if args.groups else None
    ways = read_assignment(args.assignment) if args.assignment else None
    if ways:
        ways.check_files(args.integrated)
    collector = Collector(cell.parameters, group, args.d_min, settings.max_excitation)
    with Shards(args.output) as shards:
        origin, mean_wavelength, own_group = _collect(args.integrated, cell, collector, shards, split, ways)
        print(
            f"{args.dataset}: {len(origin['chunk'])} crystals in {len(args.integrated)} files, "
            f"{collector.n_observations} observations of {len(collector.numbers)} reflections"
        )
        if collector.n_read and not collector.n_observations:
            raise InputError(_nothing_left(args, collector, settings, group))
        parts = Parts(split.groups.names, own_group) if split else None
        merged = merge_blocks(
            shards, collector, settings, args.threads, progress=lambda line: print(line, flush=True), parts=parts
        )
    if ways:
        for c in np.flatnonzero(ways.crystals["left_out"]):
            merged.crystals["status"][c] = "way to index uncertain"
    _report(args, settings, merged)
    groups = _merged_groups(args, split, own_group, merged) if split else None
    crystals = {
        name: merged.crystals[name] for name in ("scale", "B", "width", "n_observations", "n_rejected", "status")
    }
    # of the crystals as well, but not in the columns that every merger has
    more = {f"crystal_{name}": merged.crystals[name] for name in ("rotation", "energy", "half", "delta_cc_half")}
    if split:
        more["crystal_group"] = own_group
    if ways:
        crystals |= {"mode": ways.crystals["mode"], "mode_margin": ways.crystals["margin"]}
    attrs = {
        "provenance": provenance_json(
            vars(settings),
            [*args.integrated, args.cell, *([args.groups] if split else []), *([args.assignment] if ways else [])],
        ),
        "dataset": args.dataset,
        "space_group": group.xhm(),
        "cell": cell.parameters,
        "wavelength": mean_wavelength,
        "anomalous": settings.anomalous,
        "integrated": args.integrated,
        "partiality_model": merged.model,
        **(ways.for_merged() if ways else {}),
        **{name: value for name, value in merged.summary.items() if isinstance(value, str | int | float)},
    }
    write_merged(args.output, merged.reflections, origin | crystals, merged.partiality | more, attrs, groups)


def _collect(paths, cell, collector, shards, split, ways):
    """All chunk files into shards; of each crystal the origin (chunk, crystal) and the group, and the mean wavelength."""
    chunk, row, wavelengths, groups = [], [], [], [np.empty(0, int)]
    n_crystals = n_known = 0
    for number, path in enumerate(paths):
        with open_chunk(path) as handle:
            missing = [name for name in ("frames", "crystals", "reflections") if name not in handle]
            if missing:
                raise InputError(
                    f"{path}: holds no {' and no '.join(missing)}; a file of integrated reflections is expected "
                    "(a peak file has only frames)"
                )
            try:
                energy = handle["frames/photon_energy"][()]
                crystals = read_rows(handle["crystals"], columns=_CRYSTAL_COLUMNS)
                crystals["photon_energy"] = energy[crystals["frame"]]
                _check_crystals(path, crystals, cell)
                if split:
                    frames = read_rows(handle["frames"], columns=("file", "event"))
                    numbers, known = split.numbers(*([frames[name][i] for i in crystals["frame"]] for name in frames))
                    groups.append(numbers)
                    n_known += known.sum()
                for first, last, reflections in _pieces(path, handle["reflections"], len(crystals["frame"])):
                    part = {name: values[first:last] for name, values in crystals.items()}
                    if ways:
                        mode, left_out = (values[first:last] for values in ways.of_file(number, len(crystals["frame"])))
                        part, reflections = in_assigned_modes(part, reflections, ways.operators, mode, left_out)
                    shards.append(collector.add(part, reflections, n_crystals + first))
            except (KeyError, OSError, IndexError) as error:
                raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
        n = len(crystals["frame"])
        n_crystals += n
        chunk.append(np.full(n, number))
        row.append(np.arange(n))
        wavelengths.append(wavelength(crystals["photon_energy"]))
    if split and n_known < n_crystals:
        _tell_unknown(split, n_crystals, n_known)
    origin = {"chunk": np.concatenate(chunk), "crystal": np.concatenate(row)}
    mean = float(np.mean(np.concatenate(wavelengths))) if n_crystals else float("nan")
    return origin, mean, np.concatenate(groups)


def _tell_unknown(split, n_crystals, n_known):
    if not n_known:
        raise InputError(
            f"{split.path}: has none of the frames of {n_crystals} crystals: it is the table of another dataset, or the frame files "
            "were renamed; remove it and run again"
        )
    print(
        f"WARNING: {n_crystals - n_known} of {n_crystals} crystals are on frames that {split.path} does not have: no group"
    )


def _pieces(path, group, n_crystals):
    """Rows of whole crystals, about `_ROWS_AT_A_TIME` together: first and last crystal, and columns with `crystal` from 0."""
    owner = group["crystal"][()]
    if np.any(np.diff(owner.astype(np.int64)) < 0) or (len(owner) and owner[-1] >= n_crystals):
        raise InputError(f"{path}: reflections do not lie crystal after crystal; remove the file and run again")
    starts = np.searchsorted(owner, np.arange(n_crystals + 1))
    first = 0
    while first < n_crystals:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _ROWS_AT_A_TIME, side="right")) - 1)
        rows = read_rows(group, starts[first], starts[last], _REFLECTION_COLUMNS)
        rows["crystal"] = rows["crystal"].astype(np.int64) - first
        yield first, last, rows
        first = last


def _check_crystals(path, crystals, cell):
    if not len(crystals["frame"]):
        return
    median = np.median(crystals["cell"], axis=0)
    expected = np.array(cell.parameters)
    lengths = np.abs(median[:3] / expected[:3] - 1)
    angles = np.abs(median[3:] - expected[3:])
    if np.any(lengths > _CELL_LENGTH) or np.any(angles > _CELL_ANGLE):
        found = ", ".join(f"{value:.4g}" for value in median)
        given = ", ".join(f"{value:.4g}" for value in expected)
        raise InputError(
            f"{path}: its crystals have the cell {found}, but --cell says {given}: merge with the cell that was indexed with"
        )


def _nothing_left(args, collector, settings, group):
    if args.d_min is not None and collector.largest_d < args.d_min:
        return (
            f"--d-min {args.d_min}: no reflection has so low a resolution: the largest d is {collector.largest_d:.2f} angstrom; "
            "give a smaller d_min"
        )
    return (
        f"none of {collector.n_read} observations can be used: {collector.n_unusable} without a finite intensity, uncertainty or "
        f"width, {collector.n_absent} of reflections that {group.xhm()} makes absent, the others beyond "
        f"max_excitation = {settings.max_excitation} widths or d_min"
    )


def _merged_groups(args, split, own_group, merged):
    """The groups for the file; prints how many crystals and reflections each has."""
    used = np.array([status == "merged" for status in merged.crystals["status"]], bool)
    n_crystals = {name: int(np.sum(used & (own_group == g))) for g, name in enumerate(split.groups.names)}
    for name, table in merged.groups.items():
        print(f"group {name}: {n_crystals[name]} crystals merged: {len(table['I'])} reflections")
    if n := int(np.sum(used & (own_group == NO_GROUP))):
        print(f"WARNING: {n} of {used.sum()} crystals belong to no group and are merged with the whole only")
    for name in (name for name, count in n_crystals.items() if not count):
        wanted = value_text(split.groups.definitions[name])
        print(
            f"WARNING: group {name} of {args.dataset} is empty: none of {used.sum()} crystals has the value {wanted} in "
            f"{split.groups.by}; the table {split.path} has {shown(split.values)}"
        )
    return MergedGroups(split.groups.by, split.groups.reference, merged.groups, n_crystals)


def _report(args, settings, merged):
    summary = merged.summary
    n = len(merged.reflections["I"])
    print(f"{summary['n_crystals_merged']} of {summary['n_crystals']} crystals merged: {n} reflections")
    if summary["n_recorded_once"]:
        print(f"{summary['n_recorded_once']} of the reflections were well recorded once only (n = 1)")
    if summary["n_never_recorded"] and summary["unrecorded_kept"]:
        print(
            f"{summary['n_never_recorded']} of the reflections were measured, but never well recorded (n = 0): their intensity is the "
            "mean at the resolution, as far as the measurements do not tell"
        )
    elif summary["n_never_recorded"]:
        print(f"{summary['n_never_recorded']} reflections left out: measured, but never well recorded")
    reasons, counts = np.unique([text for text in merged.crystals["status"] if text != "merged"], return_counts=True)
    for reason, count in zip(reasons, counts, strict=True):
        print(f"{count} crystals left out: {reason}")
    if summary["n_unusable"] > 0:
        print(f"{summary['n_unusable']} observations without a finite intensity, uncertainty or width left out")
    if summary["n_absent"] > 0:
        told = (
            f"{summary['n_absent']} observations of absent reflections left out, mean I/sigma "
            f"{summary['absent_mean_i_over_sigma']:.2f} ({summary['mean_i_over_sigma']:.2f} of the others)"
        )
        wrong = f"WARNING: {told}: they are there, so {args.space_group} is not the space group"
        print(wrong if summary["absences_are_there"] else told)
    if summary["fallback"]:
        print(f"WARNING: {summary['fallback']}")
    if summary["half_sets"]:
        print(f"WARNING: {summary['half_sets']}")
    if summary["n_rejected"]:
        print(
            f"{summary['n_rejected']} observations rejected: more than 8 standard deviations from what the others predict"
        )
    for half in ("half1", "half2"):
        if f"fallback_{half}" in summary:
            print(f"WARNING: {half}: {summary[f'fallback_{half}']}")
    if n == 0:
        print(
            f"WARNING: nothing was merged for {args.dataset}: {summary['remark']}; {args.output} holds no reflections"
        )

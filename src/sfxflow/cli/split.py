"""Say for each frame of a dataset which group it belongs to, so that the groups are merged apart.

The groups come from a column of the table of runs, from a dataset in the frame files (an HDF5 path, as /entry_1/laser_on) or from a
table of your own (.tsv, with the columns frame or file, and group). --runs is a JSON list with one object a run: run, frames,
geometry, and value where runs are split by a column. --settings is a JSON object: by (the column, path or table), groups (name of
each group to its value, or to [low, high]: low <= value < high) and reference (the group that is subtracted from the others).

Frames without a value, or with one that belongs to no group, are counted and told; they are merged with the whole, in no group.
"""

import json

from sfxflow.errors import InputError
from sfxflow.groups import groups_from, value_text
from sfxflow.io.files import provenance_json
from sfxflow.io.frames import matching_files, open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.splits import ALL_EVENTS, EventValues, read_values, shown, write_split


def add_arguments(parser):
    """Arguments of `sfxflow split`."""
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the dataset")
    parser.add_argument("--runs", required=True, metavar="JSON", help="the dataset's runs, see above")
    parser.add_argument("--settings", required=True, metavar="JSON", help="by, groups and reference, see above")
    parser.add_argument("--output", required=True, metavar="TSV", help="table to write: the group of each frame")


def run(args):
    """Write the table and print how many frames each group has."""
    groups = groups_from(_json(args.settings, "--settings"), "--settings")
    runs = _runs(_json(args.runs, "--runs"))
    tables = [groups.by] if groups.by.endswith(".tsv") else []
    settings = {"by": groups.by, "groups": groups.definitions, "reference": groups.reference}
    counts, left = write_split(args.output, groups, _rows(groups.by, runs), provenance_json(settings, tables))
    _tell(args, groups, counts, left)


def _json(text, option):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: not JSON: {error}") from None


def _runs(runs):
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise InputError("--runs: a JSON list with an object for each run is expected")
    for run in runs:
        if missing := [key for key in ("run", "frames") if not run.get(key)]:
            raise InputError(f"--runs: {run.get('run', 'a run')}: {' and '.join(missing)} missing")
    return runs


def _rows(by, runs):
    """Run, frame, file, event and value of each frame, or of each file where its frames have the same value."""
    if by.endswith(".tsv"):
        yield from _frames(runs, read_values(by, [run["run"] for run in runs]))
    elif by.startswith("/"):
        values = EventValues(by)
        yield from _frames(runs, lambda run, frame, file, event: values.value(file, event))
        values.require_some()
    else:
        for run in runs:
            for file in matching_files(run["frames"]):
                yield run["run"], ALL_EVENTS, file, ALL_EVENTS, run.get("value", "")


def _frames(runs, value):
    for run in runs:
        geometry = run.get("geometry") or matching_files(run["frames"])[0]
        with open_frames(run["frames"], read_geometry(geometry)) as frames:
            for frame in range(frames.n_frames):
                file, event = frames.origin(frame)
                yield run["run"], frame, file, event, value(run["run"], frame, file, event)


def _tell(args, groups, counts, left):
    unit = "frames" if groups.by.startswith("/") or groups.by.endswith(".tsv") else "files"
    total = sum(counts.values())
    told = ", ".join(f"{name}: {counts[name]}" for name in groups.names)
    print(f"{args.dataset}: {total} {unit} by {groups.by}: {told}")
    if counts[""]:
        print(f"WARNING: {counts['']} of {total} {unit} belong to no group; {groups.by} is there {shown(left)}")
    for name in groups.names:
        if not counts[name]:
            print(
                f"WARNING: group {name} of {args.dataset} is empty: none of {total} {unit} has "
                f"the value {value_text(groups.definitions[name])} in {groups.by}"
            )

"""Add a run that arrived later to the table of runs: `sfxflow runs add --data 'raw/run7_*.h5'`.

The frames are opened and counted as by `sfxflow init`. Dataset, geometry and mask are those of the table's last run unless others are
given. Only the new run's chunks, and what merges them, are computed when the workflow runs again.

`sfxflow runs refresh` is for frames at a server that were replaced there: it fetches them, counts, and writes into the table which content
they have now. Runs whose files are as they were keep their results.
"""

import csv
from pathlib import Path

from sfxflow.cli.run_rows import COLUMNS, add_data, free_name, look_into, patterns_of, written_path
from sfxflow.errors import InputError
from sfxflow.io.files import written_whole
from sfxflow.io.urls import is_remote, without_identity


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("action", choices=["add", "refresh"], help="what to do with the table")
    add_data(parser, required=False)
    parser.add_argument("--name", metavar="NAME", help="name of the run; otherwise from its files' names")
    parser.add_argument("--dataset", metavar="NAME", help="dataset that the run belongs to")
    parser.add_argument("--geometry", metavar="FILE", help="geometry of the run")
    parser.add_argument("--mask", metavar="FILE", help="mask beside the geometry's")
    parser.add_argument(
        "--table", default="config/runs.tsv", metavar="FILE", help="the table; run this where it is used"
    )


def run(args):
    """Look into the new files and append a row for each run, or look again into those at servers."""
    table = Path(args.table)
    if args.action == "refresh":
        _refresh(table)
        return
    if not args.data:
        raise InputError("--data: name the frames of the run to add")
    text, columns, rows = _read(table)
    last = rows[-1] if rows else {}
    taken = [row["run"] for row in rows]
    patterns = [pattern for given in args.data for pattern in patterns_of(given)]
    if args.name and len(patterns) > 1:
        raise InputError(f"--name: one name for {len(patterns)} runs; leave it out, or add them one by one")
    if args.name in taken:
        raise InputError(f"--name: {table} has a run {args.name} already; choose another name")
    known = {without_identity(row["frames"]): row["run"] for row in rows}
    lines = []
    for pattern in patterns:
        written = written_path(pattern, ".")
        if without_identity(written) in known:
            raise InputError(f"--data: {written} is run {known[without_identity(written)]} of {table} already")
        geometry = args.geometry or last.get("geometry")
        row = look_into(pattern, geometry, args.mask or last.get("mask"), args.name or free_name(pattern, taken))
        taken.append(row["run"])
        row["dataset"] = args.dataset or last.get("dataset")
        if not row["dataset"]:
            raise InputError(f"--dataset: {table} has no run to take the dataset from; name it")
        for column in ("frames", "geometry", "mask"):
            row[column] = written_path(row[column], ".")
        lines.append("\t".join(str(row.get(column, "")) for column in columns))
    with written_whole(table) as temporary:
        temporary.write_text("\n".join([text.rstrip("\n"), *lines]) + "\n", encoding="utf-8")
    print(f"added {len(lines)} run{'s' * (len(lines) > 1)} to {table}")


def _refresh(table):
    """Write into the table which content its files at servers have now."""
    text, _, rows = _read(table)
    lines, n_changed = text.splitlines(), 0
    places = [i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    for i, row in zip(places[1:], rows, strict=True):
        if not is_remote(row["frames"]):
            continue
        found = look_into(without_identity(row["frames"]), row["geometry"], row.get("mask") or None, row["run"])
        new = row | {"frames": found["frames"], "n_frames": str(found["n_frames"])}
        n_changed += new != row
        lines[i] = "\t".join(new.values())
    with written_whole(table) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{n_changed} run{'s' * (n_changed != 1)} of {table} changed")


def _read(table):
    """Text, columns and rows of the table."""
    try:
        text = table.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{table}: can't be read ({error.strerror}); `sfxflow init` makes one, --table names another"
        ) from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    reader = csv.DictReader(lines, delimiter="\t")
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or []) and column != "mask"]
    if missing:
        raise InputError(f"{table}: no column {', '.join(missing)}; are the columns separated by tabs?")
    return text, reader.fieldnames, list(reader)

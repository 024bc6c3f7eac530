"""The table of the runs, and the files that it and the config name."""

import csv
import glob
import os
from difflib import get_close_matches

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate


def read_runs(path):
    """The table of the runs: name of a run to its row."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = [(number, line) for number, line in enumerate(handle, 1) if line.strip() and line[0] != "#"]
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(
            f"{path}: the table of the runs can't be read ({getattr(error, 'strerror', None) or error})"
        )
    if len(lines) < 2:
        raise WorkflowError(
            f"{path}: no runs in the table; a line with the columns' names and one row a run are expected"
        )
    columns, *rows = csv.reader((line for _, line in lines), delimiter="\t")
    columns = [column.strip() for column in columns]
    required = ("run", "dataset", "frames", "geometry", "n_frames")
    missing = [column for column in required if column not in columns]
    if missing:
        hint = "" if len(columns) > 1 else "; are the columns separated by tabs?"
        raise WorkflowError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(columns)}{hint}")
    table = []
    for (number, _), row in zip(lines[1:], rows):
        values = dict(zip(columns, (value.strip() for value in row)))
        where = f"{path}, line {number} (run {values.get('run')})"
        if len(row) > len(columns):
            raise WorkflowError(f"{where}: {len(row)} values, but the table has {len(columns)} columns")
        if not values.get("n_frames", "").isdecimal():
            raise WorkflowError(f"{where}: n_frames: {values.get('n_frames')!r} is not a whole number")
        table.append(values | {"n_frames": int(values["n_frames"])})
    try:
        validate({"rows": table}, "../schemas/runs.schema.yaml", set_default=False)
    except WorkflowError as error:
        _, row, *column = error.__context__.absolute_path
        message = sentence(error.__context__, "").split(": ", 2)[-1]
        where = f"{path}, line {lines[row + 1][0]} (run {table[row].get('run')})"
        raise WorkflowError(f"{where}: {': '.join([*column, message])}") from None
    runs = {}
    for (number, _), row in zip(lines[1:], table):
        where = f"{path}, line {number} (run {row['run']})"
        if row["run"] in runs:
            raise WorkflowError(f"{where}: there is another run of this name; give each run its own name")
        if row["dataset"] not in config["datasets"]:
            near = get_close_matches(row["dataset"], config["datasets"], n=1)
            hint = f"did you mean {near[0]}?" if near else f"datasets are: {', '.join(config['datasets'])}"
            raise WorkflowError(f"{where}: dataset {row['dataset']} does not stand in {CONFIG}; {hint}")
        runs[row["run"]] = row
    return runs


def is_there(path):
    """Whether a file is there or is one that example.smk makes."""
    return os.path.exists(path) or path in EXAMPLE


def is_remote(path):
    """Whether frames are at a server: the jobs that read them fetch them (src/sfxflow/io/remote_files.py)."""
    return path.lower().startswith(REMOTE)


def files_of_list(path):
    """The file of each frame of a list (.lst) whose lines all name an event; none where only the files themselves can say."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        lines = [line.strip().rpartition(" ") for line in handle if line.strip()]
    return [file.rstrip() for file, _, event in lines] if all("//" in event for _, _, event in lines) else []


def frame_files(run):
    """Files of this machine that hold a run's frames, sorted by name; none if nothing matches."""
    pattern = RUNS[run]["frames"]
    if run in LISTED:
        return [pattern, *(path for path in dict.fromkeys(LISTED[run]) if not is_remote(path))]
    if is_remote(pattern):
        return []
    return [pattern] if is_there(pattern) else sorted(glob.glob(pattern))


def require_files():
    """Every file that the config and the table of the runs name must be there; all that are missing are said at once."""
    missing = []
    for run, row in RUNS.items():
        if os.path.normpath(row["geometry"]).startswith(os.path.join("results", "")):
            raise WorkflowError(
                f"{config['runs']}, run {run}: geometry: {row['geometry']} is a result: it would be made from the run that needs it; "
                "copy it beside the other geometry and name the copy"
            )
        if "*" in row["frames"] and is_remote(row["frames"]):
            raise WorkflowError(
                f"{config['runs']}, run {run}: frames: {row['frames']}: which files a server has can't be looked up; name one file, or a list "
                "(.lst) with a line 'ADDRESS //EVENT' for each frame"
            )
        if not FRAME_FILES[run] and not is_remote(row["frames"]):
            kind = "no file matches" if glob.has_magic(row["frames"]) else "no such file:"
            missing.append(f"{config['runs']}, run {run}: frames: {kind} {row['frames']}")
        missing += [
            f"{row['frames']}: no such file: {path}"
            for path in FRAME_FILES[run]
            if run in LISTED and not is_there(path)
        ]
        for column in ("geometry", "mask"):
            if row.get(column) and not is_there(row[column]):
                missing.append(f"{config['runs']}, run {run}: {column}: no such file: {row[column]}")
    for dataset in DATASETS:
        for key in ("cell", "reference", "split"):
            path = config["datasets"][dataset][key]
            if key == "split" and not str(path).endswith(".tsv"):
                continue
            if path and not is_there(path):
                missing.append(f"{CONFIG}: datasets.{dataset}.{key}: no such file: {path}")
    if missing:
        raise WorkflowError("\n".join(["Files are missing (paths are relative to the working directory):", *missing]))


# Files that example.smk simulates: they need not be there when the workflow starts.
EXAMPLE_FRAMES = 240
EXAMPLE = ["example/frames_00.h5", "example/detector.geom", "example/demo.cell", "example/truth.hkl"]

# A line of a geometry file that names a mask file: mask_file, mask0_file, panel/mask_file, ...
MASK_FILE = r"\s*([^;=\s]+/)?mask\d*_file\s*="

# How addresses of files at a server begin.
REMOTE = ("http://", "https://", "s3://", "root://", "roots://")

RUNS = read_runs(config["runs"])
DATASETS = list(dict.fromkeys(row["dataset"] for row in RUNS.values()))
# Frame by frame the file of those runs that are lists.
LISTED = {
    run: files_of_list(row["frames"])
    for run, row in RUNS.items()
    if row["frames"].endswith(".lst") and os.path.exists(row["frames"])
}
FRAME_FILES = {run: frame_files(run) for run in RUNS}
# A job on another machine may have only the files that it needs.
if workflow.is_main_process:
    require_files()

"""
What all of the workflow shares: the checked config, the table of the runs, and a few functions that say what belongs to what.

Only the standard library and snakemake are used here, so that the workflow can be read where the package is not installed.
"""

import csv
import functools
import glob
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from difflib import get_close_matches

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

# ---- config ---------------------------------------------------------------------------------------------------------


def sentence(error, where):
    """What a schema violation means, in one line: file, key, what is wrong, what was expected."""
    key = error.json_path.removeprefix("$").removeprefix(".")
    section = f"{key}." if key else ""
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(str(name) for name in error.instance if name not in known)[0]
        near = get_close_matches(unknown, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return f"{where}: {section}{unknown}: no such setting; {hint}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance][0]
        meaning = error.schema["properties"][missing]["description"]
        return f"{where}: {section}{missing} is missing ({meaning})"
    if error.validator == "type":
        names = {"number": "a number", "integer": "a whole number", "string": "text", "boolean": "true or false"}
        names |= {"null": "null", "object": "a section with keys of its own", "array": "a list"}
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        problem = f"{error.instance!r} is not {' or '.join(names[kind] for kind in kinds)}"
    elif error.validator in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        words = {"minimum": "below", "exclusiveMinimum": "not above", "maximum": "above"}
        problem = f"{error.instance} is {words.get(error.validator, 'not below')} {error.validator_value}"
    elif error.validator == "enum":
        problem = f"{error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    elif error.validator == "pattern" and key.endswith(".date"):
        problem = f"{error.instance!r} is not a date"
    elif error.validator == "pattern":
        problem = f"{error.instance!r} is not a name of letters, digits and _ . + - that begins with a letter or digit"
    elif error.validator in ("minLength", "minItems", "minProperties"):
        problem = "is empty"
    else:
        problem = error.message
    meaning = error.schema.get("description")
    return f"{where}: {key}: {problem} ({meaning})" if meaning else f"{where}: {key}: {problem}"


def checked(data, schema, where):
    """`data` after a check against `schema`, with the defaults filled in."""
    try:
        # The defaults come second: filling them in descends into sections that may be of the wrong type.
        validate(data, schema, set_default=False)
    except WorkflowError as error:
        raise WorkflowError(sentence(error.__context__, where)) from None
    validate(data, schema)
    return data


def require_order(section, low, high):
    """Two limits that are both set must stand the right way round."""
    first, second = config[section][low], config[section][high]
    if first is not None and second is not None and first > second:
        raise WorkflowError(f"{CONFIG}: {section}: {low} ({first}) must not be above {high} ({second})")


def write_dates_as_text():
    """YAML makes a date of 2026-01-31, which neither the schema nor JSON knows."""
    licences = config.get("licences")
    for entry in licences.values() if isinstance(licences, dict) else []:
        if isinstance(entry, dict) and hasattr(entry.get("date"), "isoformat"):
            entry["date"] = entry["date"].isoformat()


def licensed_methods():
    """CrystFEL's indexing methods of the config that run a program whose terms each user has to accept."""
    methods = config["crystfel"]["indexing"].split(",")
    names = [method.strip().partition("-")[0].lower() for method in methods]
    return [name for name in names if name in LICENSED and "crystfel" in config["engines"]]


def accepted_licences():
    """Of the licences that are used who accepted them, as JSON with sorted keys."""
    return json.dumps({name: config["licences"][name] for name in licensed_methods()}, sort_keys=True)


def require_licences():
    """Those methods need a line that says who accepted the terms."""
    for name in licensed_methods():
        program, to_read = LICENSED[name]
        if not config["licences"][name]["accepted_by"].strip():
            raise WorkflowError(
                f"{CONFIG}: crystfel.indexing: {name} runs {program}, whose terms each user has to accept. Read {to_read}. If you accept "
                f"them, write into the config: licences: {{{name}: {{accepted_by: YOUR NAME, date: 2026-01-31}}}}. The engine builtin and "
                "CrystFEL's method asdf need no such line"
            )


def settings(stage):
    """Settings of one stage as JSON with sorted keys: Snakemake compares parameters without their names."""
    values = config[stage]
    # 4 and 4.0 are the same setting.
    whole = {key: int(value) for key, value in values.items() if isinstance(value, float) and value.is_integer()}
    return json.dumps(values | whole, sort_keys=True)


def some_settings(stages):
    """Settings of several stages as JSON with a section for each; a stage's keys where only some are used, None for all."""
    used = {}
    for stage, keys in stages.items():
        values = json.loads(settings(stage))
        used[stage] = {key: values[key] for key in (values if keys is None else keys)}
    return json.dumps(used, sort_keys=True)


def version_of(program):
    """The version that a program of another package says it has; it is one of its rules' parameters, so that another version works again."""
    path = shutil.which(program)
    if path is None:
        return "not installed"
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace", "timeout": 60}
    try:
        said = subprocess.run([path, "--version"], **options)
    except (OSError, subprocess.TimeoutExpired):
        # Its jobs say what is wrong with it.
        return "does not say"
    return (said.stdout + said.stderr).strip().partition("\n")[0]


# ---- runs -----------------------------------------------------------------------------------------------------------


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


# ---- what belongs to what -------------------------------------------------------------------------------------------


def n_frames_of_run(wildcards):
    return RUNS[wildcards.run]["n_frames"]


def pattern_of_run(wildcards):
    """The run's frames as the table has them: a command looks up the files itself."""
    return RUNS[wildcards.run]["frames"]


def geometry_of_run(wildcards):
    return RUNS[wildcards.run]["geometry"]


@functools.cache
def mask_files(geometry):
    """Mask files that a geometry names, beside it or else in the working directory."""
    if not geometry.endswith(".geom") or not os.path.exists(geometry):
        return []
    with open(geometry, encoding="utf-8", errors="replace") as handle:
        names = {line.split(";")[0].split("=")[1].strip() for line in handle if re.match(MASK_FILE, line)}
    beside = {name: os.path.join(os.path.dirname(geometry), name) for name in names}
    return sorted(beside[name] if os.path.exists(beside[name]) else name for name in names)


def masks_of_geometry(wildcards):
    return mask_files(RUNS[wildcards.run]["geometry"])


def mask_of_run(wildcards):
    return RUNS[wildcards.run].get("mask") or []


def cell_file(engine, dataset):
    """The dataset's cell: the file that the config names, or else the one that the engine's peaks give."""
    return config["datasets"][dataset]["cell"] or f"results/{engine}/cell/{dataset}/found.cell"


def cell_of_run(wildcards):
    return cell_file(getattr(wildcards, "engine", "builtin"), RUNS[wildcards.run]["dataset"])


def space_group_of_run(wildcards):
    return config["datasets"][RUNS[wildcards.run]["dataset"]]["space_group"] or ""


def cell_of_dataset(wildcards):
    return cell_file(wildcards.engine, wildcards.dataset)


def space_group_of_dataset(wildcards):
    return config["datasets"][wildcards.dataset]["space_group"] or ""


def without_cell():
    """Datasets whose cell has to be found."""
    return [dataset for dataset in DATASETS if not config["datasets"][dataset]["cell"]]


def group_of_peaks(wildcards):
    """On a cluster the stages of a chunk are one job, unless the cell has to be found between the peaks and the indexing."""
    return "chunk" if config["datasets"][RUNS[wildcards.run]["dataset"]]["cell"] else "peaks"


def d_min_of_dataset(wildcards):
    return config["datasets"][wildcards.dataset]["d_min"] or ""


def reference_of_dataset(wildcards):
    return config["datasets"][wildcards.dataset]["reference"] or []


def runs_of_dataset(wildcards):
    return [run for run, row in RUNS.items() if row["dataset"] == wildcards.dataset]


def frames_of_dataset(wildcards):
    """Every frame file of the dataset's runs."""
    return [path for run in runs_of_dataset(wildcards) for path in FRAME_FILES[run]]


def geometries_of_dataset(wildcards):
    """Geometry files of the dataset's runs, each once."""
    return list(dict.fromkeys(RUNS[run]["geometry"] for run in runs_of_dataset(wildcards)))


def references():
    """The references of all datasets."""
    return sorted({config["datasets"][name]["reference"] for name in DATASETS} - {None})


def runs_and_references():
    """Runs and reference of each dataset, as JSON with sorted keys."""
    known = {name: {"runs": [], "reference": config["datasets"][name]["reference"]} for name in DATASETS}
    for run, row in RUNS.items():
        known[row["dataset"]]["runs"].append(run)
    return json.dumps(known, sort_keys=True)


def compared(path):
    """`path` where there is more than one engine or merger to compare."""
    return [path] if len(config["engines"]) * len(config["mergers"]) > 1 else []


def reference_of_ambiguity(wildcards):
    """The dataset's reference, where the settings say that it is used."""
    own = config["ambiguity"]
    used = own["resolve"] and own["reference"] != "none" and own["program"] == "builtin"
    return reference_of_dataset(wildcards) if used else []


def n_chunks(run):
    return -(-RUNS[run]["n_frames"] // config["chunk_size"])


def chunks_of_run(wildcards):
    """Names of the run's chunks: 0000, 0001, ..."""
    return [f"{number:04d}" for number in range(n_chunks(wildcards.run))]


def chunks_of_dataset(wildcards):
    """Chunks of the dataset's runs: run1/0000, ..."""
    runs = [run for run, row in RUNS.items() if row["dataset"] == wildcards.dataset]
    return [f"{run}/{number:04d}" for run in runs for number in range(n_chunks(run))]


def listed(runs):
    """Chunks of runs in the short form that `sfxflow` reads: <run1:50,run2:50>. A command must not be longer than 128 KiB."""
    return f"<{','.join(f'{run}:{n_chunks(run)}' for run in runs)}>"


def integrated_of_dataset(wildcards):
    """The dataset's files of integrated reflections, in short form."""
    return f"results/{wildcards.engine}/runs/{listed(runs_of_dataset(wildcards))}.integrated.h5"


def peaks_of_dataset(wildcards):
    """The dataset's peak files, in short form."""
    return f"results/{wildcards.engine}/runs/{listed(runs_of_dataset(wildcards))}.peaks.h5"


def integrated_of_run(wildcards):
    """The run's files of integrated reflections, in short form."""
    return f"results/{wildcards.engine}/runs/{listed([wildcards.run])}.integrated.h5"


def of_every_engine(file):
    """A file of each run or chunk for every engine, in short form."""
    runs = listed(RUNS) if file.startswith(".") else f"<{','.join(RUNS)}>/"
    return [f"results/{engine}/runs/{runs}{file}" for engine in config["engines"]]


def runs_of_geometry(wildcards):
    """Those runs of the dataset that have the geometry."""
    path = geometry_of_name(wildcards)
    return [run for run in runs_of_dataset(wildcards) if RUNS[run]["geometry"] == path]


def peaks_of_geometry(wildcards):
    return f"results/builtin/runs/{listed(runs_of_geometry(wildcards))}.peaks.h5"


def indexed_of_geometry(wildcards):
    return f"results/builtin/runs/{listed(runs_of_geometry(wildcards))}.indexed.h5"


def first_chunks_of_dataset(wildcards):
    """The dataset's first chunks, as many as hold cell.search_frames frames."""
    chosen, n_frames = [], 0
    for run, row in RUNS.items():
        for number in range(n_chunks(run) if row["dataset"] == wildcards.dataset else 0):
            if n_frames < config["cell"]["search_frames"]:
                chosen.append(f"{run}/{number:04d}")
                n_frames += min(config["chunk_size"], row["n_frames"] - number * config["chunk_size"])
    return chosen


def geometries_of_first_chunks(wildcards):
    """The geometry of each of the first chunks."""
    return [RUNS[os.path.dirname(chunk)]["geometry"] for chunk in first_chunks_of_dataset(wildcards)]


def named_geometries(dataset):
    """Geometries of a dataset's runs: the file's name without its ending, numbered where several have the same, to its path."""
    named = {}
    for path in dict.fromkeys(row["geometry"] for row in RUNS.values() if row["dataset"] == dataset):
        stem = name = os.path.splitext(os.path.basename(path))[0]
        while name in named:
            name = f"{stem}_{len(named) + 1}"
        named[name] = path
    return named


def names_of_geometries():
    """Dataset and name of every geometry: lysozyme/detector, ..."""
    return [f"{dataset}/{name}" for dataset in DATASETS for name in named_geometries(dataset)]


def geometry_of_name(wildcards):
    return named_geometries(wildcards.dataset)[wildcards.geometry]


def chunks_of_geometry(wildcards):
    """Chunks of those runs of the dataset that have the geometry: run1/0000, ..."""
    return [f"{run}/{number:04d}" for run in runs_of_geometry(wildcards) for number in range(n_chunks(run))]


def peaks_for_crystfel(wildcards):
    """The peak file that the engine crystfel takes over, where it does not search itself."""
    if config["crystfel"]["peak_search"] == "peakfinder8":
        return []
    return f"results/{config['crystfel']['peak_search']}/runs/{wildcards.run}/{wildcards.chunk}.peaks.h5"


def cell_of_crystfel_run(wildcards):
    return cell_file("crystfel", RUNS[wildcards.run]["dataset"])


def cell_of_dials_run(wildcards):
    return cell_file("dials", RUNS[wildcards.run]["dataset"])


def cell_of_builtin(wildcards):
    return cell_file("builtin", wildcards.dataset)


def first_of_chunk(wildcards):
    """Number of the chunk's first frame within the run."""
    return int(wildcards.chunk) * config["chunk_size"]


def n_frames_of_chunk(wildcards):
    """Number of frames in the chunk."""
    return min(config["chunk_size"], n_frames_of_run(wildcards) - first_of_chunk(wildcards))


def frames_of_chunk(wildcards):
    """Files that the chunk depends on: its own where a list says so or each file holds one frame, else all of the run."""
    if LISTED.get(wildcards.run):
        first = first_of_chunk(wildcards)
        return [
            pattern_of_run(wildcards),
            *(
                path
                for path in dict.fromkeys(LISTED[wildcards.run][first : first + n_frames_of_chunk(wildcards)])
                if not is_remote(path)
            ),
        ]
    files = FRAME_FILES[wildcards.run]
    if not files:
        return []
    # A command that looks up the files of a pattern must find all of them, on another machine too.
    if not workflow.storage_settings.shared_fs_usage:
        return files
    if len(files) != n_frames_of_run(wildcards):
        return files
    first = first_of_chunk(wildcards)
    return files[first : first + n_frames_of_chunk(wildcards)]


def files_of_chunk(wildcards):
    """What a command that reads frames needs. One function instead of four: calling each takes Snakemake 0.1 ms for every chunk."""
    return {
        "frames": frames_of_chunk(wildcards),
        "geometry": geometry_of_run(wildcards),
        "mask": mask_of_run(wildcards),
        "geometry_masks": masks_of_geometry(wildcards),
    }


def place_of_chunk(wildcards):
    """Which of the run's frames the chunk is: their files as the table has them, the first one, how many, and those of the run."""
    return {
        "frames": pattern_of_run(wildcards),
        "first": first_of_chunk(wildcards),
        "count": n_frames_of_chunk(wildcards),
        "n_frames": n_frames_of_run(wildcards),
    }


# ---- the experiment -------------------------------------------------------------------------------------------------

CONFIG = workflow.configfiles[-1] if workflow.configfiles else "config"

# A section whose keys are all commented out is an empty one.
config |= {key: {} for key, value in config.items() if value is None and key != "runs"}
write_dates_as_text()
checked(config, "../schemas/config.schema.yaml", CONFIG)
require_order("peaks", "min_res", "max_res")
require_order("peaks", "min_pix_count", "max_pix_count")
require_order("integration", "inner_radius", "middle_radius")
require_order("integration", "middle_radius", "outer_radius")
require_order("figures_of_merit", "d_min", "d_max")

# Methods of CrystFEL that run a program with terms of its own (src/sfxflow/licences.py).
LICENSED = {
    "mosflm": (
        "MOSFLM",
        "the licence that comes with iMosflm (https://www.mrc-lmb.cam.ac.uk/mosflm/imosflm/), or that of CCP4 (https://www.ccp4.ac.uk)",
    ),
    "xds": (
        "XDS",
        "its terms of use (https://xds.mr.mpg.de, https://download.dectris.cloud/xds/help/terms-of-use.html)",
    ),
    "dirax": (
        "DirAx",
        "the conditions on its web page (http://www.crystal.chem.uu.nl/distr/dirax/)",
    ),
}
require_licences()

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

# Minutes that each stage of a chunk may take at its first attempt: to start, and 0.15 s a frame, of which a frame of 4 megapixels takes a
# tenth where it is read from a local disk.
CHUNK_MINUTES = 5 + config["chunk_size"] // 400

# A parameter everywhere, so that results of another version are made again.
try:
    SFXFLOW = importlib.metadata.version("sfxflow")
except importlib.metadata.PackageNotFoundError:
    SFXFLOW = "not installed"

CRYSTFEL = version_of("indexamajig") if "crystfel" in config["engines"] else "not asked"
DIALS = version_of("dials.version") if "dials" in config["engines"] else "not asked"
DIALS_SCALE = version_of("dials.version") if "dials_scale" in config["mergers"] else "not asked"
# cctbx.xfel.merge says no version; that of DIALS beside it stands for it.
CCTBX_XFEL_MERGE = version_of("dials.version") if "cctbx_xfel_merge" in config["mergers"] else "not asked"
PARTIALATOR = version_of("partialator") if "partialator" in config["mergers"] else "not asked"
PROCESS_HKL = version_of("process_hkl") if "process_hkl" in config["mergers"] else "not asked"

# Settings of the engine dials that its peak search uses, and those that its indexing uses.
DIALS_PEAKS = ["threshold", "sigma_background", "sigma_strong", "gain", "extra_find_spots"]
DIALS_INDEXING = [key for key in config["dials"] if key not in DIALS_PEAKS or key == "gain"]


wildcard_constraints:
    engine="|".join(config["engines"]),
    merger="|".join(config["mergers"]),
    run="[^/]+",
    dataset="[^/]+",
    chunk=r"\d+",

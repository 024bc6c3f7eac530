"""What belongs to what: a few functions that say which files and parameters belong to a run, a chunk, a dataset or a geometry."""

import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess


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

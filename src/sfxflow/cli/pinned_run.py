"""Running the workflow on pinned frames in a folder of its own: what `sfxflow lock` and `sfxflow check-lock` share."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import yaml

import sfxflow
from sfxflow.drift import rates
from sfxflow.errors import InputError
from sfxflow.io.figures_of_merit import read_figures_of_merit
from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.frame_list import file_and_event, write_frame_list
from sfxflow.io.lock import described_file
from sfxflow.programs.probe import said_version

_PACKAGES = ("numpy", "scipy", "numba", "h5py", "hdf5plugin", "gemmi", "snakemake")
#: Engines and mergers to the programs that do their work, and how these say their version.
_PROGRAMS = {
    "crystfel": ("indexamajig",),
    "partialator": ("partialator",),
    "process_hkl": ("process_hkl",),
    "dials": ("dials.version",),
    "dials_scale": ("dials.version",),
    "cctbx_xfel_merge": ("cctbx.xfel.merge",),
}
#: Folders of the working directory that a run writes to.
_WRITTEN = ("config", "results", "logs", "benchmarks", ".snakemake")
_SHOWN_LINES = 30


def add_run(parser):
    """Arguments of both commands."""
    parser.add_argument("--config", default="config/config.yaml", metavar="FILE", help="config of the analysis")
    parser.add_argument(
        "--snakefile", metavar="FILE", help="the workflow; by default the Snakefile of the checkout that is installed"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores for the pinned frames")
    parser.add_argument(
        "--snakemake", default="", metavar="OPTIONS", help="more options of snakemake, such as '--sdm apptainer'"
    )
    parser.add_argument(
        "--keep", metavar="DIR", help="folder to keep the run of the pinned frames in; otherwise it is removed"
    )


def versions(config):
    """Versions of sfxflow, of what it is built on, and of the programs of the config's engines and mergers."""
    found = {"sfxflow": sfxflow.__version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    for name in [*config["engines"], *config["mergers"]]:
        for program in _PROGRAMS.get(name, ()):
            found[program] = said_version(program)
    return found


def cells_of(config, results="results"):
    """Cell file of each dataset: the config's, or else the one that the first engine found."""
    return {
        name: dataset["cell"] or f"{results}/{config['engines'][0]}/cell/{name}/found.cell"
        for name, dataset in config["datasets"].items()
    }


def inputs_of(config, runs, cells):
    """Size and hash of every geometry, mask, cell and reference that the runs use."""
    datasets = dict.fromkeys(row["dataset"] for row in runs)
    names = [row[column] for row in runs for column in ("geometry", "mask") if row.get(column)]
    names += [path for name in datasets for path in (cells[name], config["datasets"][name]["reference"]) if path]
    return {name: described_file(name) for name in dict.fromkeys(names)}


def pinned_results(args, config, runs, pinned):
    """What the pinned frames give with the programs and parameters of today.

    Parameters
    ----------
    args : argparse.Namespace
        With the arguments of `add_run`.
    config : dict
        With every default.
    runs : list of dict
        Rows of the table of the runs.
    pinned : dict
        Dataset to run to lines 'file //event'.

    Returns
    -------
    dict
        Dataset to engine to `sfxflow.drift.rates` and 'mergers', a dict of merger to cc_half, r_split and n_pairs.

    Raises
    ------
    InputError
        The workflow could not even account for the frames.
    """
    with _folder(args.keep) as folder:
        _lay_out(folder, config, runs, pinned)
        text = _run_workflow(args, folder, config, pinned)
        return {dataset: _seen(folder, config, dataset, of_runs, text) for dataset, of_runs in pinned.items()}


@contextmanager
def _folder(keep):
    if keep:
        folder = Path(keep)
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"--keep: {keep} is not empty; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="sfxflow-lock-") as name:
            yield Path(name)


def _lay_out(folder, config, runs, pinned):
    """Config, runs and links in place, so that paths in the config and in geometry files mean what they mean here."""
    here = Path.cwd()
    (folder / "config").mkdir()
    for source, target in ((here, folder), (here / "config", folder / "config")):
        for path in sorted(source.iterdir()) if source.is_dir() else []:
            own = path.name in _WRITTEN if source == here else path.name in ("config.yaml", "runs.tsv")
            if not own and path.absolute() != folder:
                (target / path.name).symlink_to(path.absolute())
    cells = cells_of(config)
    datasets = {
        name: config["datasets"][name]
        | {"cell": os.path.abspath(cells[name]), "reference": _absolute(config["datasets"][name]["reference"])}
        # Groups are merged together with the rest here.
        | {key: None for key in config["datasets"][name] if key.startswith("split")}
        for name in pinned
    }
    (folder / "pinned").mkdir()
    rows = []
    for row in runs:
        lines = pinned.get(row["dataset"], {}).get(row["run"])
        if lines:
            frames = folder / "pinned" / f"{row['run']}.lst"
            write_frame_list(frames, map(file_and_event, lines))
            rows.append(
                row
                | {"frames": str(frames), "geometry": _absolute(row["geometry"]), "mask": _absolute(row.get("mask"))}
                | {"n_frames": str(len(lines))}
            )
    written = config | {"datasets": datasets, "runs": "config/runs.tsv"}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    table = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (folder / "config/runs.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")


def _absolute(path):
    return os.path.abspath(path) if path else path


def _snakefile(args):
    path = Path(args.snakefile) if args.snakefile else Path(sfxflow.__file__).resolve().parents[2] / "Snakefile"
    if not path.is_file():
        raise InputError(f"--snakefile: {path} is not there; name the Snakefile of the workflow")
    return path.absolute()


def _run_workflow(args, folder, config, pinned):
    """Call Snakemake; what it prints. A job that fails is no error here: what is missing in the end is."""
    targets = []
    for dataset, of_runs in pinned.items():
        for engine in config["engines"]:
            targets += [f"results/{engine}/runs/{run}/frames.tsv" for run in of_runs]
            targets += [f"results/{engine}/merged/{m}/{dataset}/figures_of_merit.json" for m in config["mergers"]]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(_snakefile(args)), "--directory", str(folder)]
    command += ["--cores", str(args.cores), "--keep-going", *shlex.split(args.snakemake), "--", *targets]
    # What is found first on the search path is what a run uses; the environment of this command stands last.
    path = os.pathsep.join([os.environ.get("PATH", ""), os.path.dirname(sys.executable)])
    print(
        f"running {sum(len(f) for runs in pinned.values() for f in runs.values())} pinned frames in {folder}",
        flush=True,
    )
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout


def _seen(folder, config, dataset, of_runs, text):
    seen = {}
    for engine in config["engines"]:
        statuses = []
        for run in of_runs:
            path = folder / "results" / engine / "runs" / run / "frames.tsv"
            if not path.exists():
                last = "\n".join(text.splitlines()[-_SHOWN_LINES:])
                raise InputError(
                    f"the pinned frames of run {run} could not be processed by engine {engine}; the workflow's last lines:\n{last}"
                )
            statuses += read_frame_account(path)[0]["status"]
        mergers = {}
        for merger in config["mergers"]:
            path = folder / "results" / engine / "merged" / merger / dataset / "figures_of_merit.json"
            overall = read_figures_of_merit(path)["overall"] if path.exists() else {}
            mergers[merger] = {name: overall.get(name) for name in ("cc_half", "r_split", "n_pairs")}
        seen[engine] = rates(statuses) | {"mergers": mergers}
    return json.loads(json.dumps(seen))

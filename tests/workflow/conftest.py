"""A small experiment without science: the workflow's real rules with a stand-in for `sfxflow` that only makes its outputs."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import forked
import pytest
import yaml

ROOT = Path(__file__).parents[2]

#: Stand-in for the command: notes its arguments and makes the files that its options name.
STAND_IN = """\
#!{python} -SE
import json, os, sys, time
arguments = sys.argv[1:]
with open("calls.jsonl", "a") as handle:
    handle.write(json.dumps(arguments) + "\\n")
if os.path.exists("sleep"):
    time.sleep(60)
if arguments[0] == os.environ.get("FAILING_STAGE"):
    sys.exit("stand-in: this stage fails")
outputs = [value for option, value in zip(arguments, arguments[1:])
           if option in ("--output", "--json", "--tsv", "--mtz", "--unmerged", "--hkl", "--half1", "--half2", "--clusters", "--proposal", "--kept-stream")]
if arguments[0] == "simulate":
    outputs = [os.path.join(outputs[0], name) for name in ("frames_00.h5", "detector.geom", "demo.cell", "truth.hkl")]
for path in outputs:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as handle:
        handle.write(path)
"""

CONFIG = {
    "chunk_size": 100,
    "datasets": {
        "lysozyme": {"cell": "raw/lysozyme.cell", "space_group": "P43212", "d_min": 1.8},
        "thaumatin": {"cell": "raw/thaumatin.cell", "space_group": "P41212"},
    },
    "merging": {"cycles": 4, "min_measurements": 2},
}

RUNS = [
    {
        "run": "a",
        "dataset": "lysozyme",
        "frames": "raw/a_*.h5",
        "geometry": "raw/one.geom",
        "mask": "raw/mask.h5",
        "n_frames": 250,
    },
    {"run": "b", "dataset": "lysozyme", "frames": "raw/b.h5", "geometry": "raw/two.geom", "mask": "", "n_frames": 60},
    {
        "run": "c",
        "dataset": "thaumatin",
        "frames": "raw/c_*.cbf",
        "geometry": "raw/two.geom",
        "mask": "",
        "n_frames": 4,
    },
]

FILES = ["a_1.h5", "a_2.h5", "b.h5", *(f"c_{i}.cbf" for i in range(4))]
FILES += ["one.geom", "two.geom", "mask.h5", "lysozyme.cell", "thaumatin.cell"]


class Experiment:
    """A working directory with config, runs and files; `config` and `runs` are written before each call of Snakemake."""

    def __init__(self, folder, config=None, runs=None):
        self.folder = Path(folder)
        self.config = json.loads(json.dumps(config or CONFIG))
        self.runs = [dict(row) for row in runs or RUNS]
        self.snakefile = ROOT / "Snakefile"
        self.environment = {}

    def write(self):
        """Write config.yaml, runs.tsv and the stand-in."""
        (self.folder / "config").mkdir(parents=True, exist_ok=True)
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        columns = list(dict.fromkeys(name for row in self.runs for name in row))
        lines = [columns, *([str(row.get(name, "")) for name in columns] for row in self.runs)]
        (self.folder / "config/runs.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
        self.write_stand_in()

    def write_stand_in(self):
        """Write the stand-in for `sfxflow`."""
        stand_in = self.folder / "bin/sfxflow"
        if not stand_in.exists():
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text(STAND_IN.format(python=sys.executable))
            stand_in.chmod(0o755)

    def command(self, *arguments):
        """Arguments and environment of a call of Snakemake in the working directory."""
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore::UserWarning:htcondor2",
        }
        return ["--snakefile", str(self.snakefile), "--cores", "2", *arguments], environment | self.environment

    def call(self, *arguments):
        """Call Snakemake with config and runs as they stand on disk; returns its exit status and what it printed."""
        arguments, environment = self.command(*arguments)
        if "PYTHONPATH" not in self.environment:
            return forked.snakemake(arguments, self.folder, environment)
        argv = [sys.executable, "-m", "snakemake", *arguments]
        done = subprocess.run(
            argv, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def snakemake(self, *arguments):
        """Write config and runs, call Snakemake, and expect it to succeed; returns what it printed."""
        self.write()
        status, text = self.call(*arguments)
        assert status == 0, text
        return text

    def planned(self, *arguments):
        """What a dry run would do: rule to the set of its jobs' messages; empty when there is nothing to be done."""
        text = self.snakemake("--dry-run", *arguments)
        if "Nothing to be done" in text:
            return {}
        stats = re.search(r"^job +count\n[- ]+\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE).group(1)
        counts = {line.split()[0]: int(line.split()[1]) for line in stats.splitlines()}
        messages = set(re.findall(r"^ *Job \d+: (.*)$", text, re.MULTILINE))
        jobs = {rule: {m for m in messages if m.startswith(MESSAGES[rule])} for rule in counts if rule in MESSAGES}
        assert {rule: len(found) for rule, found in jobs.items()} == {r: n for r, n in counts.items() if r in MESSAGES}
        return jobs

    def refused(self, *arguments):
        """Write config and runs, call Snakemake and expect it to refuse; returns the message."""
        self.write()
        return self.refused_as_it_stands(*arguments)

    def refused_as_it_stands(self, *arguments):
        """Call Snakemake with the files on disk and expect it to refuse without a traceback; returns the message."""
        status, text = self.call("--dry-run", *arguments)
        assert status not in (0, None), text
        assert "Traceback" not in text
        return text

    def calls(self):
        """Argument lists of the stand-in's calls so far."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


#: How the message of each rule's jobs begins.
MESSAGES = {
    "example": "Simulating",
    "builtin_peaks": "Finding peaks",
    "builtin_indexing": "Indexing",
    "builtin_integration": "Integrating",
    "builtin_geometry": "Refining geometry",
    "geometry": "Proposed geometries",
    "frames": "Gathering",
    "ambiguity": "Resolving",
    "builtin_merging": "Scaling",
    "figures_of_merit": "Computing figures of merit",
    "export": "Writing MTZ",
    "split": "Splitting",
    "group_figures_of_merit": "Judging group",
    "group_export": "Exporting group",
    "difference": "Subtracting group",
    "stream": "Writing the stream",
    "crystfel_peaks": "CrystFEL finds peaks",
    "crystfel_indexing": "CrystFEL indexes",
    "partialator": "partialator merges",
    "process_hkl": "process_hkl merges",
    "dials_peaks": "DIALS finds peaks",
    "dials_indexing": "DIALS indexes",
    "dials_scale_merging": "dials.scale merges",
    "cctbx_xfel_merging": "cctbx.xfel.merge merges",
    "find_cell": "Finding the unit cell",
    "comparison": "Comparing engines",
    "report": "Writing the report",
}


def make_files(folder):
    """The files that CONFIG and RUNS name, without content of any use."""
    (folder / "raw").mkdir(parents=True)
    for name in FILES:
        (folder / "raw" / name).write_text(name)


@pytest.fixture(scope="session")
def experiment_in():
    """Make an experiment in a folder, with its files where it is a new one: `experiment_in(folder)`."""

    def make(folder):
        if not (folder / "raw").exists():
            make_files(folder)
        return Experiment(folder)

    return make


@pytest.fixture
def experiment(tmp_path):
    """An experiment of which nothing is computed yet."""
    make_files(tmp_path)
    return Experiment(tmp_path)


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory):
    """A working directory in which everything is done."""
    folder = tmp_path_factory.mktemp("finished")
    make_files(folder)
    experiment = Experiment(folder)
    experiment.snakemake()
    assert experiment.planned() == {}
    return folder


@pytest.fixture
def finished(finished_folder, tmp_path):
    """A copy of the finished experiment, modification times included."""
    folder = tmp_path / "finished"
    shutil.copytree(finished_folder, folder, symlinks=True)
    return Experiment(folder)


@pytest.fixture
def write_module(tmp_path):
    """Write a Snakefile that uses the workflow as a module, as snakedeploy does."""

    def write(folder):
        text = f"""
            configfile: "config/config.yaml"

            module sfxflow:
                snakefile: "{ROOT / "workflow" / "Snakefile"}"
                config: config

            use rule * from sfxflow
            """
        path = folder / "workflow/Snakefile"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text))
        return path

    return write

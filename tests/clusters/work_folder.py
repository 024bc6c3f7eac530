"""The small demo experiment in a folder of its own, processed by Snakemake on a cluster or here, and what came of it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
from htcondor_pool import unprivileged
from processes import descendants, send

ROOT = Path(__file__).parents[2]

#: No run of the workflow may take longer than this, seconds.
PATIENCE = 420

MTZ = "results/builtin/merged/builtin/demo/merged.mtz"
FRAMES = "results/builtin/runs/frames/frames.tsv"


class WorkFolder:
    """
    A folder as `sfxflow init` makes it, and the commands of a user there.

    Parameters
    ----------
    folder : Path
        Where it is.
    environment : dict, optional
        Variables of the cluster.
    wrap : function, optional
        What a command becomes before it is started.
    options : tuple of str, optional
        Options of every call of Snakemake.
    """

    def __init__(self, folder, environment=None, wrap=None, options=()):
        self.folder = Path(folder)
        own = {"PYTHONWARNINGS": "ignore::UserWarning:htcondor2", "OMP_NUM_THREADS": "1"}
        path = [str(Path(sys.executable).parent), (environment or {}).get("PATH", os.environ["PATH"])]
        self.environment = os.environ | (environment or {}) | own | {"PATH": os.pathsep.join(path)}
        self.wrap = wrap or (lambda argv: argv)
        self.options = options

    def start(self, *argv):
        """Start Snakemake with options; what it prints goes to the file `printed`."""
        argv = ["snakemake", "--snakefile", ROOT / "Snakefile", *self.options, *argv]
        with (self.folder / "printed").open("a") as printed:
            return subprocess.Popen(
                self.wrap([str(argument) for argument in argv]),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, process):
        """Wait for a Snakemake that was started; returns its exit status. What takes too long is killed."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL, [*descendants(process.pid), process.pid])
            raise AssertionError(f"the workflow did not end in {PATIENCE} s:\n{self.printed()}") from None

    def snakemake(self, *argv):
        """Run Snakemake with options and expect it to succeed; returns what it printed."""
        status = self.finish(self.start(*argv))
        assert status == 0, self.printed()
        return self.printed()

    def sfxflow(self, *argv):
        """Run `sfxflow` and expect it to succeed."""
        argv = [str(argument) for argument in ("sfxflow", *argv)]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def printed(self):
        """What every Snakemake here has printed so far."""
        return (self.folder / "printed").read_text(errors="replace")

    def merged(self):
        """Column labels and values of the merged MTZ."""
        mtz = gemmi.read_mtz_file(str(self.folder / MTZ))
        return mtz.column_labels(), np.array(mtz, copy=True)

    def account(self):
        """Status of every frame, in the order of the account."""
        header, *rows = [line.split("\t") for line in (self.folder / FRAMES).read_text().splitlines() if line[0] != "#"]
        column = header.index("status")
        return [row[column] for row in rows]

    def copy_to(self, folder, **options):
        """A copy of this folder, modification times included, for another cluster."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("printed"))
        return WorkFolder(folder, **options)


def small_experiment(folder, n_frames=60, n_chunks=3):
    """A folder as `sfxflow init` makes it for simulated frames that lie below it, a file for each chunk; nothing is computed yet."""
    (folder / "raw").mkdir(parents=True)
    work = WorkFolder(folder)
    in_chunk = n_frames // n_chunks
    simulate = ("--preset", "demo", "--n-frames", n_frames, "--seed", 52, "--frames-per-file", in_chunk)
    work.sfxflow("simulate", *simulate, "--output", "raw")
    init = ("--data", "raw/*.h5", "--geometry", "raw/detector.geom", "--cell", "raw/demo.cell")
    work.sfxflow("init", *init, "--space-group", "P43212", "--output", ".")
    replace_in(folder / "config/config.yaml", "\nchunk_size: 2000\n", f"\nchunk_size: {in_chunk}\n")
    return work


def replace_in(path, old, new):
    """Replace a text that a file must have."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def assert_same_results(found, expected):
    """Merged data and frame account of two folders are equal, to the last bit."""
    labels, values = found.merged()
    expected_labels, expected_values = expected.merged()
    assert labels == expected_labels
    np.testing.assert_array_equal(values, expected_values)
    assert found.account() == expected.account()


#: Each chunk a job of its own, where the profile has several chunks in one; jobs are looked at every second.
EACH_CHUNK = ("--group-components", "chunk=1", "peaks=1")
LOOK = ("--seconds-between-status-checks", "1")


def on_pool(pool, *options, profile="htcondor", groups=EACH_CHUNK):
    """Options of a `WorkFolder` whose jobs go to an HTCondor pool."""
    return {
        "environment": pool.environment,
        "wrap": unprivileged,
        "options": ("--profile", profile, *groups, *LOOK, *options),
    }


def on_slurm(slurm, *options, groups=EACH_CHUNK):
    """Options of a `WorkFolder` whose jobs go to Slurm; it has no accounting database, so squeue is asked."""
    return {
        "environment": slurm.environment,
        "options": (
            *("--profile", "slurm", *groups, *LOOK, "--slurm-init-seconds-before-status-checks", "1"),
            *("--slurm-status-command", "squeue", "--slurm-no-account", *options),
        ),
    }

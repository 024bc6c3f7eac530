"""What a cluster adds to the work: time to plan thousands of jobs, and wall seconds against the jobs' own seconds on a real HTCondor pool.

The pool is that of tests/clusters, of this machine on loopback, with four slots. A stand-in for `sfxflow` that sleeps computes the chunks, so
that neither frames nor cores are needed; everything else is as it is for a user: profile, groups, submission, start of a Snakemake a job, polling.
100 000 frames in 50 chunks take the stand-in SECONDS each, the time of 2000 frames of 2 megapixels on the four cores that a job asks for.
Fewer chunks show the same loss in seconds sooner: `python benchmarks/cluster_overhead.py --chunks 12`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import Row, main

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/clusters"))

#: Seconds of a chunk: 2000 frames of 2 megapixels, 21.6 ms of CPU each (docs/performance.md, lysozyme), on 4 cores.
SECONDS = 11
N_CHUNKS = 50
SLOTS = 4
PLANNED_CHUNKS = 2000

STAND_IN = """\
#!{python} -SE
import os, sys, time
arguments = sys.argv[1:]
if arguments[0] == "peaks":
    time.sleep({seconds})
for option, path in zip(arguments, arguments[1:]):
    if option in ("--output", "--json", "--tsv", "--mtz", "--unmerged", "--hkl", "--half1", "--half2"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
"""

CONFIG = """\
engines: [builtin]
mergers: [builtin]
chunk_size: 2000
datasets: {crystal: {cell: raw/crystal.cell, space_group: P43212}}
"""


def measure():
    """Rows of planning and of the pool."""
    return [*planning(), *on_pool(_option("--seconds", SECONDS), _option("--chunks", N_CHUNKS))]


def planning():
    """CPU and wall seconds of a dry run of 2000 chunks in 20 runs, all rules of the built-in engine and its merger."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = experiment(Path(scratch), n_runs=20, n_frames=PLANNED_CHUNKS * 2000 // 20)
        before, start = os.times(), time.monotonic()
        snakemake(folder, "--cores", "8", "--dry-run", "--quiet", "all")
        after, wall = os.times(), time.monotonic() - start
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    note = f"{3 * PLANNED_CHUNKS} jobs of chunks; wall {wall:.1f} s at load {os.getloadavg()[0]:.1f}"
    return [Row(f"plan of {PLANNED_CHUNKS} chunks", "<= 10 s", cpu, "s CPU", cpu <= 10, note)]


def on_pool(seconds, n_chunks):
    """Loss of wall time on a pool of four slots, in percent of a chunk of SECONDS."""
    import tools
    from htcondor_pool import Pool, unprivileged

    with tempfile.TemporaryDirectory() as scratch:
        folder = experiment(Path(scratch) / "work", n_runs=1, n_frames=n_chunks * 2000)
        stand_in = folder / "bin/sfxflow"
        stand_in.parent.mkdir()
        stand_in.write_text(STAND_IN.format(python=sys.executable, seconds=seconds))
        stand_in.chmod(0o755)
        pool = Pool(Path(scratch) / "pool", tools.htcondor(), cpus=4 * SLOTS)
        try:
            pool.start()
            environment = pool.environment | {
                "PATH": f"{stand_in.parent}:{Path(sys.executable).parent}:{pool.environment['PATH']}"
            }
            start = time.monotonic()
            chunks = [f"results/builtin/runs/run00/{number:04d}.integrated.h5" for number in range(n_chunks)]
            snakemake(
                folder,
                "--profile",
                ROOT / "profiles/htcondor",
                "--",
                *chunks,
                wrap=unprivileged,
                environment=environment,
            )
            wall = time.monotonic() - start
            records = [job for job in pool.history() if job["Iwd"] == str(folder)]
        finally:
            pool.stop()
    assert len(records) == n_chunks and {job["ExitCode"] for job in records} == {0}, records
    rounds = -(-n_chunks // SLOTS)
    lost = (wall - rounds * seconds) / rounds
    share = 100 * lost / (SECONDS + lost)
    note = f"{n_chunks} jobs of {seconds} s on {SLOTS} slots: {wall:.0f} s wall, at best {rounds * seconds} s; load {os.getloadavg()[0]:.1f}"
    # A stand-in sleeps: what its job takes of the processor is what is spent beside the work.
    cpu = sum(job["RemoteUserCpu"] + job["RemoteSysCpu"] for job in records) / n_chunks
    of_cpu = 100 * cpu / (4 * SECONDS + cpu)
    return [
        Row("HTCondor: CPU of a job beside its work", "", cpu, "s CPU", None, "start of Snakemake, plan of the job"),
        Row("HTCondor: lost a job by submission, start and polling", "", lost, "s", None, note),
        Row(
            "HTCondor: lost of 100 000 frames in 50 chunks", "<= 5 %", share, "%", share <= 5, f"chunks of {SECONDS} s"
        ),
        Row("the same, CPU only", "<= 5 %", of_cpu, "%", of_cpu <= 5, "of the time of four cores"),
    ]


def experiment(folder, n_runs, n_frames):
    """A folder with config, table and empty files, of which a plan only asks whether they are there."""
    for part in ("config", "raw"):
        (folder / part).mkdir(parents=True)
    (folder / "config/config.yaml").write_text(CONFIG)
    lines = ["run\tdataset\tframes\tgeometry\tmask\tn_frames"]
    for number in range(n_runs):
        (folder / f"raw/run{number:02d}.h5").touch()
        lines.append(f"run{number:02d}\tcrystal\traw/run{number:02d}.h5\traw/detector.geom\t\t{n_frames}")
    for name in ("detector.geom", "crystal.cell"):
        (folder / "raw" / name).touch()
    (folder / "config/runs.tsv").write_text("\n".join(lines) + "\n")
    return folder


def snakemake(folder, *options, wrap=list, environment=None):
    """Run Snakemake in a folder and expect it to succeed."""
    argv = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", *options]
    done = subprocess.run(
        wrap([str(argument) for argument in argv]),
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def _option(name, default):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


if __name__ == "__main__":
    main(measure)

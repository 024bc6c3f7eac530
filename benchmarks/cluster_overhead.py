"""What a cluster adds to the work: time to plan thousands of jobs, and jobs' own seconds against wall seconds on a real HTCondor pool.

The pool is that of tests/clusters, of this machine on loopback, with slots of one core, as many as it has cores, eight at most. A stand-in for
`sfxflow` that sleeps computes the chunks, so that no frames are needed; everything else is as it is for a user: profile, groups, submission, start
of a Snakemake a job, polling. 100 000 frames in 50 chunks take the stand-in SECONDS each, the time of 2000 frames of 2 megapixels on the one core
that a job asks for: on two slots 18 minutes. `--seconds 8` finds the same loss in seconds sooner, and the share that it is of full chunks.

Own seconds of a job are those of the commands in it, as the workflow's `benchmark:` files have them. All else of the slots' time, from the
start of `snakemake` to its end, is lost: plan, submission, match, start of job and Snakemake, its look at results, polling.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import Row, main

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/clusters"))

import tools
from htcondor_pool import Pool, unprivileged

#: Seconds of a chunk: 2000 frames of 2 megapixels, 21.6 ms of CPU each (docs/performance.md, lysozyme).
SECONDS = 43
N_CHUNKS = 50
SLOTS = min(8, os.cpu_count())
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

#: Fails at once, and writes down what the Snakemake that started it has used until then.
FIRST_JOB = """\
#!{python} -SE
import os, sys
def fields(process):
    with open(f"/proc/{{process}}/stat") as handle:
        return handle.read().rpartition(")")[2].split()
process = os.getpid()
while process != {above}:
    snakemake, process = process, int(fields(process)[1])
used = fields(snakemake)
with open("first_job", "w") as handle:
    handle.write(str((int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")))
sys.exit("enough")
"""

#: As many jobs of three rules, which do nothing and say nothing: what Snakemake takes by itself.
BARE = """\
rule all:
    input: expand("{run}/{chunk}.integrated", run=range(20), chunk=range(100))

rule peaks:
    output: "{run}/{chunk}.peaks"
    shell: "touch {output}"

rule indexing:
    input: "{run}/{chunk}.peaks"
    output: "{run}/{chunk}.indexed"
    shell: "touch {output}"

rule integration:
    input: "{run}/{chunk}.indexed"
    output: "{run}/{chunk}.integrated"
    shell: "touch {output}"
"""

#: A detector of 128 panels, of whose lines the workflow asks for the names of mask files.
PANEL = "".join(
    f"panel{{0}}/{key} = 0\n"
    for key in ("min_fs", "min_ss", "max_fs", "max_ss", "corner_x", "corner_y", "fs", "ss", "res", "coffset")
)
GEOMETRY = "".join(PANEL.format(number) for number in range(128))

CONFIG = """\
engines: [builtin]
mergers: [builtin]
chunk_size: 2000
datasets: {crystal: {cell: raw/crystal.cell, space_group: P43212}}
"""


def measure():
    """Rows of planning and, where a machine can have HTCondor, of the pool."""
    rows = planning()
    try:
        prefix = tools.htcondor()
    except tools.Missing as reason:
        print(f"no pool: {reason}", file=sys.stderr)
        return rows
    return [*rows, *on_pool(prefix, _option("--seconds", SECONDS), _option("--chunks", N_CHUNKS))]


def planning():
    """CPU seconds until the first of 2000 chunks in 20 runs starts, of a dry run, and of one with nothing but Snakemake's own work."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folder = experiment(scratch / "work", n_runs=20, n_frames=PLANNED_CHUNKS * 2000 // 20)
        dry, wall = used_by(folder, ROOT / "Snakefile", "--dry-run", "--quiet", "all")
        stand_in(folder, FIRST_JOB.format(python=sys.executable, above=os.getpid()))
        path = {"PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        snakemake(folder, ROOT / "Snakefile", "--cores", "8", environment=path, succeeds=False)
        first = float((folder / "first_job").read_text())
        bare = scratch / "bare"
        bare.mkdir()
        (bare / "Snakefile").write_text(BARE)
        floor, _ = used_by(bare, "Snakefile", "--dry-run", "--quiet", "all")
    jobs = f"{3 * PLANNED_CHUNKS} jobs of chunks"
    return [
        Row(f"plan of {PLANNED_CHUNKS} chunks, to the first job", "<= 10 s", first, "s CPU", first <= 10, jobs),
        Row(
            f"plan of {PLANNED_CHUNKS} chunks, dry run",
            "<= 10 s",
            dry,
            "s CPU",
            dry <= 10,
            f"the same, and each job formatted for printing; wall {wall:.1f} s at load {os.getloadavg()[0]:.1f}",
        ),
        Row(
            "dry run of as many jobs that do nothing",
            "",
            floor,
            "s CPU",
            None,
            "three rules, what Snakemake takes by itself",
        ),
    ]


def on_pool(prefix, seconds, n_chunks):
    """Wall seconds of a pool's slots against the own seconds of the jobs, and where the difference goes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = experiment(Path(scratch) / "work", n_runs=1, n_frames=n_chunks * 2000)
        stand_in(folder, STAND_IN.format(python=sys.executable, seconds=seconds))
        pool = Pool(Path(scratch) / "pool", prefix, cpus=SLOTS)
        try:
            pool.start()
            path = {"PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{pool.environment['PATH']}"}
            targets = [f"results/builtin/runs/run00/{number:04d}.integrated.h5" for number in range(n_chunks)]
            options = ("--profile", ROOT / "profiles/htcondor", "--", *targets)
            start = time.time()
            snakemake(folder, ROOT / "Snakefile", *options, wrap=unprivileged, environment=pool.environment | path)
            end = time.time()
            records = [job for job in pool.history() if job["Iwd"] == str(folder)]
        finally:
            pool.stop()
        own = own_seconds(folder)
    assert {(job["ExitCode"], job["RequestCpus"]) for job in records} == {(0, 1)}, records
    # A stand-in sleeps: what its job takes of the processor is what is spent beside the work.
    cpu = sum(job["RemoteUserCpu"] + job["RemoteSysCpu"] for job in records) / len(records)
    inside = (sum(job["CompletionDate"] - job["JobCurrentStartDate"] for job in records) - own) / len(records)
    before = min(job["JobCurrentStartDate"] for job in records) - start
    after = end - max(job["CompletionDate"] for job in records)
    # With chunks of another length as much would be lost, in seconds.
    lost = SLOTS * (end - start) - own
    share = 100 * lost / (lost + own + n_chunks * (SECONDS - seconds))
    note = f"{len(records)} jobs, {SLOTS} slots: {end - start:.0f} s wall, {own / SLOTS:.0f} s own; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    of_cpu = 100 * cpu / (cpu + (own + n_chunks * (SECONDS - seconds)) / len(records))
    return [
        Row("HTCondor: lost of 100 000 frames in 50 chunks", "<= 5 %", share, "%", share <= 5, note),
        Row("HTCondor: CPU of a job beside its work", "", cpu, "s CPU", None, f"{of_cpu:.1f} % of the job's"),
        Row(
            "HTCondor: wall of a job beside its work",
            "",
            inside,
            "s",
            None,
            "start of Snakemake, plan, results looked at",
        ),
        Row("HTCondor: until the first job runs", "", before, "s", None, "plan, submission, match"),
        Row("HTCondor: after the last job", "", after, "s", None, "polling, results looked at"),
    ]


def own_seconds(folder):
    """Seconds of all commands of the chunks, from their benchmark files."""
    total = 0.0
    for path in folder.glob("benchmarks/builtin/runs/*/*.tsv"):
        with path.open(newline="") as handle:
            total += sum(float(row["s"]) for row in csv.DictReader(handle, delimiter="\t"))
    return total


def experiment(folder, n_runs, n_frames):
    """A folder with config, table, geometry and empty files, of which a plan only asks whether they are there."""
    for part in ("config", "raw", "bin"):
        (folder / part).mkdir(parents=True)
    (folder / "config/config.yaml").write_text(CONFIG)
    lines = ["run\tdataset\tframes\tgeometry\tmask\tn_frames"]
    for number in range(n_runs):
        (folder / f"raw/run{number:02d}.h5").touch()
        lines.append(f"run{number:02d}\tcrystal\traw/run{number:02d}.h5\traw/detector.geom\t\t{n_frames}")
    (folder / "raw/detector.geom").write_text(GEOMETRY)
    (folder / "raw/crystal.cell").touch()
    (folder / "config/runs.tsv").write_text("\n".join(lines) + "\n")
    return folder


def stand_in(folder, text):
    """Put a program in the place of `sfxflow`."""
    program = folder / "bin/sfxflow"
    program.write_text(text)
    program.chmod(0o755)


def used_by(folder, snakefile, *options):
    """CPU and wall seconds of a Snakemake that succeeds."""
    before, start = os.times(), time.monotonic()
    snakemake(folder, snakefile, *options)
    after, wall = os.times(), time.monotonic() - start
    return after.children_user + after.children_system - before.children_user - before.children_system, wall


def snakemake(folder, snakefile, *options, wrap=list, environment=None, succeeds=True):
    """Run Snakemake in a folder and expect it to succeed or to fail."""
    argv = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, *options]
    done = subprocess.run(
        wrap([str(argument) for argument in argv]),
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if succeeds != (done.returncode == 0):
        raise RuntimeError(done.stdout + done.stderr)


def _option(name, default):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


if __name__ == "__main__":
    main(measure)

"""What the workflow's jobs take of a machine, from their own `benchmark:` files: memory and time of the stages of a chunk, of frames of 1, 2 and
17 megapixels, in chunks of two sizes; and of what comes after. Resources in workflow/rules stand on this (docs/clusters.md).

Memory is the sum over a job's processes, in which HTCondor counts pages that several share once for each (RSS); the kernel's own limits count
them once (PSS).
"""

import csv
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from table import Row, main

ROOT = Path(__file__).parents[1]

#: Words for a set of frames, options of the simulator, sizes of the chunks in frames.
SETS = (
    ("1.0 Mpx", ("--preset", "demo", "--n-frames", 160), (40, 160)),
    ("2.1 Mpx", ("--preset", "lysozyme", "--n-frames", 160), (40, 160)),
    ("16.8 Mpx", ("--preset", "lysozyme", "--n-frames", 24, "--set", "panel_ss=1024", "panel_fs=2048"), (24,)),
)
STAGES = ("peaks", "indexed", "integrated")
LATER = ("ambiguity/*/assignment", "merged/builtin/*/merged", "merged/builtin/*/export")
SEED = 905


def measure():
    """Rows of all sets."""
    rows = []
    for words, options, sizes in SETS:
        with tempfile.TemporaryDirectory() as scratch:
            for size, used in jobs(Path(scratch), options, sizes):
                rows += rows_of_chunks(f"{words}, {size} frames a chunk", size, used)
    return rows


def jobs(scratch, options, sizes):
    """Size of a chunk and what its run's benchmark files say: name to a list of dicts, for each size."""
    call(
        scratch,
        "sfxflow",
        "simulate",
        *options,
        "--seed",
        SEED,
        "--compression",
        "bitshuffle",
        "--threads",
        2,
        "--output",
        "raw",
    )
    (cell,) = scratch.glob("raw/*.cell")
    for size in sizes:
        work = scratch / f"work_{size}"
        inputs = ("--data", "raw/*.h5", "--geometry", "raw/detector.geom", "--cell", cell, "--space-group", "P43212")
        call(scratch, "sfxflow", "init", *inputs, "--dataset", "crystal", "--output", work)
        config = work / "config/config.yaml"
        config.write_text(re.sub(r"(?m)^chunk_size: \d+", f"chunk_size: {size}", config.read_text()))
        target = "results/builtin/merged/builtin/crystal/merged.mtz"
        # Each job has the machine for itself: four cores as far as Snakemake knows, and four threads a job.
        call(work, "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", 4, target)
        yield (
            size,
            {name: read(work, f"runs/*/*.{name}") for name in STAGES} | {name: read(work, name) for name in LATER},
        )


def call(folder, *argv):
    """Run a command; what it prints is shown where it fails."""
    done = subprocess.run([str(word) for word in argv], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def read(work, pattern):
    """Values of the jobs whose benchmark files match."""
    found = []
    for path in sorted(work.glob(f"benchmarks/builtin/{pattern}.tsv")):
        with path.open(newline="") as handle:
            found += csv.DictReader(handle, delimiter="\t")
    return found


def rows_of_chunks(words, size, used):
    """Rows of one run."""
    highest = {
        name: [max(float(job[column]) for job in own) for column in ("max_rss", "max_pss", "cpu_time")]
        for name, own in used.items()
    }
    rss, pss, _ = (max(highest[stage][i] for stage in STAGES) for i in range(3))
    seconds = sum(highest[stage][2] for stage in STAGES)
    later = max(highest[name][0] for name in LATER)
    asked = 4000
    return [
        Row(
            f"{words}: memory of a job, RSS",
            f"<= {asked} MB asked",
            rss,
            "MB",
            rss <= asked,
            f"PSS {pss:.0f} MB; 4 threads",
        ),
        Row(
            f"{words}: CPU of a chunk's three jobs",
            "",
            seconds,
            "s",
            None,
            f"{1000 * seconds / size:.0f} ms a frame, start included",
        ),
        Row(
            f"{words}: memory of what comes after, RSS",
            "<= 8000 MB asked",
            later,
            "MB",
            later <= 8000,
            "ambiguity, merging, export",
        ),
    ]


if __name__ == "__main__":
    main(measure)

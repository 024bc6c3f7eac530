"""From frames to integrated and merged reflections: CPU time, index rate and error against the truth, beside CrystFEL's programs.

    python benchmarks/engine.py

Frames of the simulator, and those of another program's simulation where shared/data lies beside the checkout. CPU time of one process
with the compiled code in the cache. Where CrystFEL is installed, indexamajig runs on the same frames with one process.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stages import NAMES, call, split, stages
from table import Row, main

from sfxflow.io.frame_account import gather_frames
from sfxflow.reflections import Status

SHARED = Path(__file__).parents[2] / "shared"

#: Peak search as in the recorded run of CrystFEL 0.12 on crystfel_sim.
INDEXAMAJIG = (
    *("--peaks=peakfinder8", "--threshold=4", "--min-snr=4", "--min-pix-count=2", "--max-pix-count=60"),
    *("--local-bg-radius=4", "--min-peaks=15", "--int-radius=3,4,6", "-j", "1"),
)
#: Name of a way to index to its options.
METHODS = {
    "asdf": ("--indexing=asdf",),
    "asdf-fast": ("--indexing=asdf", "--asdf-fast"),
    "xgandalf-fast": ("--indexing=xgandalf", "--xgandalf-fast-execution"),
}


def engine(data, folder):
    """CPU milliseconds a frame of each part of the work, and what became of the frames."""
    for command in stages(data, folder, 8):  # compiled or loaded, and the files in memory
        call(*command)
    seconds = Counter()
    start = time.process_time()
    with split(seconds):
        for command in stages(data, folder):
            call(*command)
    total = time.process_time() - start
    frames, _ = gather_frames([folder / "r.h5"])
    n = len(frames["frame"])
    seconds |= {"other": total - sum(seconds.values()), "all": total}
    return {
        "frames": n,
        "milliseconds": {name: 1e3 * seconds[name] / n for name in NAMES},
        "hits": sum(status >= Status.hit for status in frames["status"]),
        "indexed": sum(status == Status.indexed for status in frames["status"]),
        "lattices": sum(frames["n_lattices"]),
    }


def merged(data, folder):
    """Overall figures of the merged data against the truth, and the CPU seconds of merging."""
    cell = ("--cell", data["cell"], "--space-group", data["space_group"])
    command = ("merging", "--integrated", folder / "r.h5", "--dataset", "x", *cell, "--output", folder / "m.h5")
    call(*command)
    start = time.process_time()
    call(*command)
    seconds = time.process_time() - start
    files = ("--json", folder / "f.json", "--tsv", folder / "f.tsv")
    call("figures_of_merit", "--merged", folder / "m.h5", "--reference", data["truth"], *files)
    return seconds, json.loads((folder / "f.json").read_text())["overall"]


def cpu_of(argv, folder):
    """Exit status, CPU and wall seconds of a process, its children included."""
    start = time.perf_counter()
    process = subprocess.Popen([str(a) for a in argv], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def start_up(data, folder):
    """CPU seconds of each stage's job on a single frame, as the workflow calls it."""
    found = {}
    for command in stages(data, folder, 1):
        argv = (sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())", *command)
        found[command[0]] = min(cpu_of(argv, folder)[1] for _ in range(2))
    return found


def crystfel(data, folder, method):
    """indexamajig on the same frames: CPU seconds, hits and crystals; None where it or the method is not installed."""
    program = shutil.which("indexamajig")
    if not program:
        return None
    work = folder / "indexamajig"
    work.mkdir(exist_ok=True)
    mask = Path(data["geometry"]).with_name("mask.h5")
    if mask.exists() and not (work / mask.name).exists():
        (work / mask.name).symlink_to(mask)
    files = sorted(Path(data["frames"]).parent.glob(Path(data["frames"]).name))
    (work / "frames.lst").write_text("".join(f"{file}\n" for file in files))
    stream = work / f"{method}.stream"
    argv = (program, "-i", "frames.lst", "-g", data["geometry"], "-p", data["cell"], "-o", stream, *INDEXAMAJIG)
    status, cpu, _ = cpu_of((*argv, *METHODS[method]), work)
    if status or not stream.exists():
        return None
    text = stream.read_text(errors="replace")
    return cpu, text.count("\nhit = 1"), text.count("--- Begin crystal")


def simulated(folder, n_frames=200):
    """Frames of the simulator; not those on which anything was chosen."""
    options = ("--preset", "lysozyme", "--n-frames", n_frames, "--seed", 20261, "--threads", os.cpu_count())
    call("simulate", *options, "--output", folder)
    with open(folder / "truth.tsv", newline="") as handle:
        rows = list(csv.DictReader((line for line in handle if not line.startswith("#")), delimiter="\t"))
    lattices = [row for row in rows if row["lattice"] != "none"]
    return {
        "frames": str(folder / "frames_*.h5"),
        "geometry": str(folder / "detector.geom"),
        "cell": str(folder / "lysozyme.cell"),
        "space_group": "P43212",
        "truth": str(folder / "truth.hkl"),
        "true hits": len({(row["file"], row["event"]) for row in lattices}),
        "true lattices": len(lattices),
    }


def of_crystfel_sim():
    """Another program's simulation, beside the checkout; None where it is not."""
    folder = SHARED / "data/crystfel_sim"
    if not folder.is_dir():
        return None
    return {
        "frames": str(folder / "run1_*.h5"),
        "geometry": str(folder / "det.geom"),
        "cell": str(folder / "lyso.cell"),
        "space_group": "P43212",
        "truth": str(folder / "truth_4mmm.hkl"),
        "true hits": 251,
        "true lattices": 251,
    }


def rows_of_set(name, data, folder):
    """Rows of one set of frames."""
    ours = engine(data, folder)
    all_ms = ours["milliseconds"]["all"]
    note = f"{ours['frames']} frames, gzip"
    rows = [Row(f"{name}: CPU a frame, {part}", "", ms, "ms", None, note) for part, ms in ours["milliseconds"].items()]
    share = 100 * ours["indexed"] / data["true hits"]
    rows.append(Row(f"{name}: frames indexed, of those with a crystal", "", share, "%", None, f"{data['true hits']}"))
    lattices = 100 * ours["lattices"] / data["true lattices"]
    rows.append(Row(f"{name}: lattices, of those simulated", "", lattices, "%", None, f"{data['true lattices']}"))
    for method in METHODS:
        other = crystfel(data, folder, method)
        if other is None:
            print(f"{name}: indexamajig with {method} is not installed here: no comparison", file=sys.stderr)
            continue
        cpu, hits, crystals = other
        ratio = 1e3 * cpu / ours["frames"] / all_ms
        note = f"{1e3 * cpu / ours['frames']:.0f} ms a frame, {hits} hits, {crystals} crystals"
        rows.append(Row(f"{name}: CPU of indexamajig {method} over ours", ">= 10", ratio, "", ratio >= 10, note))
    seconds, overall = merged(data, folder)
    note = f"{overall['n_reflections']} reflections to {overall['d_min']:.2f} A, merged in {seconds:.1f} s"
    rows.append(Row(f"{name}: R1(I) against the truth", "", 100 * overall["reference_r1_i"], "%", None, note))
    rows.append(Row(f"{name}: CC against the truth", "", overall["reference_cc"]))
    rows.append(Row(f"{name}: CC1/2", "", overall["cc_half"]))
    return rows


def measure():
    """Both sets of frames and the start of a job."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        sets = {"lysozyme": simulated(scratch / "simulated"), "crystfel_sim": of_crystfel_sim()}
        for name, data in sets.items():
            if data is None:
                print(f"{name}: not there, no folder shared/data beside the checkout", file=sys.stderr)
                continue
            folder = scratch / name
            folder.mkdir(exist_ok=True)
            rows += rows_of_set(name, data, folder)
        for stage, cpu in start_up(sets["lysozyme"], scratch).items():
            rows.append(Row(f"start of a job, compiled code in the cache: {stage}", "", cpu, "s", None, "one frame"))
    return rows


if __name__ == "__main__":
    main(measure)

"""What sfxflow takes for its work on this machine, and how near to the truth it comes.

    python benchmarks/run.py            # prints; the same figures as JSON in benchmarks/results.json

Frames of the simulator, and those of another program's simulation where shared/data lies beside the checkout. Times are CPU time of one
process with the compiled code in the cache. Where CrystFEL is installed, indexamajig runs on the same frames with one process.
"""

import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from unittest import mock

from sfxflow.cli import indexing, integration, main, peaks
from sfxflow.io.frame_account import gather_frames
from sfxflow.io.frames import Frames
from sfxflow.io.peaks import PeakWriter
from sfxflow.io.table import ChunkWriter
from sfxflow.reflections import Status

HERE = Path(__file__).parent
ROOT = HERE.parent
SHARED = ROOT.parent / "shared"

#: Functions whose time is told apart: where they are looked up, their name, and the part of the work that they are.
PARTS = (
    (Frames, "read", "read"),
    (peaks, "find_peaks", "peaks"),
    (indexing, "frame_peaks", "index and refine"),
    (indexing, "index_frame", "index and refine"),
    (indexing, "pool_lattices", "index and refine"),
    (indexing, "refine_lattice", "index and refine"),
    (integration._Integrator, "gain", "predict and integrate"),
    (integration, "predict", "predict and integrate"),
    (integration, "integrate_rings", "predict and integrate"),
    (PeakWriter, "append", "write"),
    (ChunkWriter, "append", "write"),
)
NAMES = (*dict.fromkeys(part for _, _, part in PARTS), "other", "all")

#: As the recorded run of CrystFEL 0.12 on crystfel_sim.
INDEXAMAJIG = (
    *("--peaks=peakfinder8", "--threshold=4", "--min-snr=4", "--min-pix-count=2", "--max-pix-count=60"),
    *("--local-bg-radius=4", "--min-peaks=15", "--indexing=asdf", "--int-radius=3,4,6", "-j", "1"),
)


def versions():
    """Machine and versions."""
    names = ("sfxflow", "numpy", "scipy", "numba", "h5py", "hdf5plugin", "gemmi")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def split(seconds):
    """Add the CPU time of each of `PARTS` to `seconds`."""
    with mock.patch.multiple("sfxflow.progress.Progress", add=lambda self: None, finish=lambda self: None):
        patches = [
            mock.patch.object(owner, name, _timed(getattr(owner, name), seconds, part)) for owner, name, part in PARTS
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _timed(function, seconds, part):
    def timed(*args, **kwargs):
        start = time.process_time_ns()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += (time.process_time_ns() - start) / 1e9

    return timed


def call(*argv):
    """One command in this process, its output thrown away."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        status = main([str(argument) for argument in argv])
    if status:
        raise SystemExit(f"sfxflow {' '.join(map(str, argv))} failed")


def stages(data, folder, count=None):
    """Commands from frames to integrated reflections, the first `count` frames of them."""
    frames = ("--frames", data["frames"], "--geometry", data["geometry"], *(("--count", count) if count else ()))
    cell = ("--cell", data["cell"], "--space-group", data["space_group"])
    return (
        ("peaks", *frames, "--output", folder / "p.h5"),
        ("indexing", "--peaks", folder / "p.h5", "--geometry", data["geometry"], *cell, "--output", folder / "i.h5"),
        ("integration", "--indexed", folder / "i.h5", *frames, "--output", folder / "r.h5"),
    )


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
        "milliseconds a frame": {name: 1e3 * seconds[name] / n for name in NAMES},
        "hits": sum(status >= Status.hit for status in frames["status"]),
        "indexed": sum(status == Status.indexed for status in frames["status"]),
        "lattices": sum(frames["n_lattices"]),
    }


def merged(data, folder):
    """Merging of the integrated file: seconds, and figures against the truth."""
    cell = ("--cell", data["cell"], "--space-group", data["space_group"])
    command = ("merging", "--integrated", folder / "r.h5", "--dataset", "x", *cell, "--output", folder / "m.h5")
    call(*command)
    start = time.process_time()
    call(*command)
    seconds = time.process_time() - start
    files = ("--json", folder / "f.json", "--tsv", folder / "f.tsv")
    call("figures_of_merit", "--merged", folder / "m.h5", "--reference", data["truth"], *files)
    overall = json.loads((folder / "f.json").read_text())["overall"]
    names = (
        "n_reflections",
        "d_min",
        "completeness",
        "multiplicity",
        "r_split",
        "cc_half",
        "reference_cc",
        "reference_r1_i",
    )
    return {"merging, s": seconds, **{name: overall[name] for name in names}}


def cpu_of(argv, folder):
    """CPU and wall seconds of a process, its children included."""
    start = time.perf_counter()
    process = subprocess.Popen([str(a) for a in argv], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def start_up(data, folder):
    """CPU and wall seconds of each stage's job on a single frame, as the workflow calls it."""
    found = {}
    for command in stages(data, folder, 1):
        argv = (sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())", *command)
        tries = [cpu_of(argv, folder) for _ in range(2)]
        _, cpu, wall = min(tries, key=lambda result: result[2])
        found[command[0]] = {"cpu, s": cpu, "wall, s": wall}
    return found


def crystfel(data, folder, ours):
    """indexamajig on the same frames: CPU milliseconds a frame, crystals, and how many times as long as ours it takes."""
    program = shutil.which("indexamajig")
    if not program:
        return "indexamajig is not installed: no comparison"
    work = folder / "indexamajig"
    work.mkdir(exist_ok=True)
    mask = Path(data["geometry"]).with_name("mask.h5")
    if mask.exists() and not (work / mask.name).exists():
        (work / mask.name).symlink_to(mask)
    files = sorted(Path(data["frames"]).parent.glob(Path(data["frames"]).name))
    (work / "frames.lst").write_text("".join(f"{file}\n" for file in files))
    stream = work / "out.stream"
    argv = (program, "-i", "frames.lst", "-g", data["geometry"], "-p", data["cell"], "-o", stream, *INDEXAMAJIG)
    status, cpu, _ = cpu_of(argv, work)
    if status or not stream.exists():
        return f"indexamajig failed with exit status {status}"
    text = stream.read_text(errors="replace")
    each = 1e3 * cpu / ours["frames"]
    return {
        "version": subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout.splitlines()[:1],
        "milliseconds a frame": each,
        "hits": text.count("\nhit = 1"),
        "crystals": text.count("--- Begin crystal"),
        "times ours": each / ours["milliseconds a frame"]["all"],
    }


def simulated(folder, n_frames=200):
    """Frames of the simulator; not those on which anything was chosen."""
    call(
        "simulate",
        "--preset",
        "lysozyme",
        "--n-frames",
        n_frames,
        "--seed",
        20261,
        "--output",
        folder,
        "--threads",
        os.cpu_count(),
    )
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


def kernels(name):
    """What another benchmark of this folder prints."""
    done = subprocess.run([sys.executable, HERE / name], capture_output=True, text=True, check=False)
    print(done.stdout if done.returncode == 0 else f"{name} failed:\n{done.stderr}", flush=True)
    return done.stdout.splitlines()


def print_set(name, data, result):
    """One set of frames."""
    ours = result["engine"]
    print(f"{name}: {ours['frames']} frames, CPU ms a frame from files to a written file of integrated reflections")
    for part, value in ours["milliseconds a frame"].items():
        print(f"    {part:24s}{value:8.2f}")
    print(
        f"    {ours['hits']} hits (true: {data['true hits']}), {ours['lattices']} lattices (true: {data['true lattices']}) "
        f"on {ours['indexed']} frames"
    )
    figures = result["merged"]
    print(
        f"    merged in {figures['merging, s']:.2f} s: {figures['n_reflections']} reflections to {figures['d_min']:.2f} angstrom, "
        f"completeness {100 * figures['completeness']:.1f} %, multiplicity {figures['multiplicity']:.1f}, "
        f"Rsplit {100 * figures['r_split']:.1f} %, CC1/2 {figures['cc_half']:.4f}"
    )
    print(f"    against the truth: R1(I) {100 * figures['reference_r1_i']:.2f} %, CC {figures['reference_cc']:.4f}")
    other = result["indexamajig"]
    if isinstance(other, dict):
        print(
            f"    indexamajig: {other['milliseconds a frame']:.1f} ms a frame, {other['times ours']:.1f} times as long; "
            f"{other['hits']} hits, {other['crystals']} crystals"
        )
    else:
        print(f"    {other}")
    print(flush=True)


def run():
    """Measure, print, write."""
    begin = time.perf_counter()
    results = {"versions": versions()}
    print(", ".join(f"{name} {value}" for name, value in results["versions"].items()), "\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        sets = {"simulated (lysozyme)": simulated(scratch / "simulated"), "crystfel_sim": of_crystfel_sim()}
        for name, data in sets.items():
            if data is None:
                print(f"{name}: not there, no folder shared/data beside the checkout\n")
                continue
            folder = scratch / name.split()[0]
            folder.mkdir(exist_ok=True)
            ours = engine(data, folder)
            results[name] = {
                "engine": ours,
                "merged": merged(data, folder),
                "indexamajig": crystfel(data, folder, ours),
            }
            print_set(name, data, results[name])
        results["start-up"] = start_up(sets["simulated (lysozyme)"], scratch)
    print("start-up of a job (one frame), compiled code in the cache")
    for stage, value in results["start-up"].items():
        print(f"    {stage:24s}{value['cpu, s']:8.2f} s CPU {value['wall, s']:8.2f} s")
    print()
    results["peaks"] = kernels("peaks.py")
    results["merging"] = kernels("merging.py")
    path = HERE / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{time.perf_counter() - begin:.0f} s; written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    run()

"""What sfxflow takes for its work on this machine, and how near to the truth it comes: all benchmarks, one after the other.

    python benchmarks/run.py                    # prints, writes docs/performance.json and draws docs/performance.md from it
    python benchmarks/run.py engine indexing    # only these; the others keep the figures that they had

Where CrystFEL is installed, its programs run on the same input in the same run. Frames come from the simulator, with seeds that nothing was
chosen on.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from page import write_page

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = ROOT / "docs/performance.json"

#: Script to what it measures; the order is that of the work.
BENCHMARKS = {
    "engine": "From frames to merged data",
    "engine_crystfel": "Engine crystfel: two jobs beside one run of indexamajig",
    "engine_dials": "Engine dials: orientations, and what its jobs cost",
    "reading": "Reading and the whole way of a 4.5 megapixel frame",
    "peaks": "Peak search",
    "indexing": "Indexing with a known cell",
    "noise_lattices": "Peaks that have no lattice",
    "wrong_cells": "Wrong cells",
    "unknown_cell": "Unknown cells",
    "geometry": "Geometry: search and refinement",
    "integration": "Integration",
    "streams": "Streams: speed, and what comes back",
    "ambiguity": "Indexing ambiguity",
    "against_partialator": "Merged data against the truth, beside partialator",
    "merging_models": "Partiality models of merging",
    "error_model": "Error model",
    "merging": "Speed of merging",
    "merging_scale": "Merging of many observations",
    "splits": "Differences of groups and of Friedel mates",
    "resources": "What the workflow's jobs take of a machine",
    "cluster_overhead": "Thousands of chunks: planning, and what a cluster adds",
    "drift": "Drift guard: what moves the figures of pinned frames",
}


def versions():
    """Machine and versions."""
    names = ("sfxflow", "numpy", "scipy", "numba", "h5py", "hdf5plugin", "gemmi")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "CrystFEL": _crystfel(),
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _crystfel():
    program = shutil.which("indexamajig")
    if not program:
        return "not installed"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["?"])[0].removeprefix("CrystFEL:").strip()


def measured(name, scratch):
    """Rows of one benchmark, in a process of its own; None where it fails."""
    file = scratch / f"{name}.json"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, HERE / f"{name}.py", "--json", file], check=False)
    if done.returncode or not file.exists():
        return None
    return {"seconds": time.perf_counter() - begin, "rows": json.loads(file.read_text())}


def record(path, own_versions, name, found):
    """Put what one benchmark found into the file and the page beside it, into what others may have written there meanwhile.

    Parameters
    ----------
    path : Path
        JSON; the page lies beside it.
    own_versions : dict
        As `versions` gives them.
    name : str
        The benchmark.
    found : dict or None
        What `measured` gives; after a failure the earlier figures go.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        earlier = json.loads(path.read_text())["benchmarks"] if path.exists() else {}
        results = {key: value for key, value in (earlier | {name: found}).items() if key in BENCHMARKS and value}
        contents = {"benchmarks": results, "versions": own_versions}
        new = path.with_suffix(".new")
        new.write_text(json.dumps(contents, indent=1) + "\n")
        new.replace(path)
        write_page(contents, BENCHMARKS, path.parent)
    finally:
        os.close(folder)


def run(chosen):
    """Measure, print, write."""
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    own = versions()
    print(", ".join(f"{name} {value}" for name, value in own.items()), flush=True)
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen or BENCHMARKS:
            print(f"\n{BENCHMARKS[name]} (benchmarks/{name}.py)", flush=True)
            found = measured(name, Path(scratch))
            if found is None:
                failed.append(name)
            record(RESULTS, own, name, found)
    print(f"\nwritten: {RESULTS.relative_to(ROOT)}, docs/performance.md")
    if failed:
        raise SystemExit(f"failed, not in the page: {', '.join(failed)}")


if __name__ == "__main__":
    run(sys.argv[1:])

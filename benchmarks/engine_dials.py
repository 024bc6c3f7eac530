"""Engine dials: what becomes of the frames, how true the orientations are, and what the two jobs cost beside the built-in engine.

    python benchmarks/engine_dials.py

Frames of the simulator, of seeds that nothing was chosen on, and, where it lies beside the checkout, another program's simulation and real
frames. CPU time of all processes; where DIALS is not installed nothing is measured.
"""

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import gemmi
import numpy as np
from engine import SHARED, cpu_of, simulated
from table import Row, main

from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

N_FRAMES = 12
_RUN = (sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())")


def engine(data, folder):
    """CPU seconds of the two jobs, and the tables that they leave."""
    folder.mkdir()
    frames = ("--frames", data["frames"], "--geometry", data["geometry"])
    crystal = ("--cell", data["cell"], "--space-group", data["space_group"])
    seconds = []
    for job in (
        ("dials_peaks", *frames, "--output", "p.h5"),
        ("dials_indexing", "--peaks", "p.h5", *frames, *crystal, "--output", "i.h5"),
    ):
        status, cpu, _ = cpu_of((*_RUN, *job), folder)
        assert status == 0, job
        seconds.append(cpu)
    with open_chunk(folder / "i.h5") as handle:
        return seconds, read_rows(handle["frames"]), read_rows(handle["crystals"])


def built_in(data, folder):
    """CPU seconds of the built-in engine on the same frames, and its tables."""
    frames = ("--frames", data["frames"], "--geometry", data["geometry"])
    crystal = ("--cell", data["cell"], "--space-group", data["space_group"], "--geometry", data["geometry"])
    seconds = sum(
        cpu_of((*_RUN, *job), folder)[1]
        for job in (
            ("peaks", *frames, "--output", "b.p.h5"),
            ("indexing", "--peaks", "b.p.h5", *crystal, "--output", "b.i.h5"),
            ("integration", "--indexed", "b.i.h5", *frames, "--output", "b.h5"),
        )
    )
    with open_chunk(folder / "b.h5") as handle:
        return seconds, read_rows(handle["frames"]), read_rows(handle["crystals"])


def angle(found, true, group="P 4 2 2"):
    """Degrees between two lattices, the least of all rotations that map the lattice onto itself."""
    best = 180.0
    for operation in gemmi.find_spacegroup_by_name(group).operations():
        u, _, vt = np.linalg.svd(found @ (np.array(operation.rot).reshape(3, 3) / gemmi.Op.DEN) @ np.linalg.inv(true))
        turned = u @ vt
        axis = [turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]
        best = min(best, np.degrees(np.arctan2(np.linalg.norm(axis) / 2, (np.trace(turned) - 1) / 2)))
    return best


def of_truth(path, scale, key):
    """(file, event) to the true matrices of a*, b*, c* (columns, 1/angstrom) of a table of the simulation."""
    with open(path, newline="") as handle:
        rows = csv.DictReader((line for line in handle if not line.startswith("#")), delimiter="\t")
        true = {}
        for row in rows:
            numbers = key(row)
            if numbers is not None:
                matrix = np.array(numbers, float).reshape(3, 3).T * scale
                true.setdefault((Path(row["file"]).name, row["event"]), []).append(matrix)
    return true


def errors(frames, crystals, true):
    """Angle of each crystal to the nearest true one of its frame."""
    found = []
    for i, reciprocal in zip(crystals["frame"], crystals["reciprocal"], strict=True):
        candidates = true.get((Path(frames["file"][i]).name, frames["event"][i]), [])
        found.append(min((angle(reciprocal, one) for one in candidates), default=180.0))
    return np.array(found)


def _simulated_axes(row):
    return None if row["lattice"] == "none" else [row[f"{axis}star_{part}"] for axis in "abc" for part in "xyz"]


def measure():
    """The simulator's frames, and those of shared/data where they are."""
    if shutil.which("dials.ssx_index") is None:
        print("DIALS is not on PATH: nothing is measured", file=sys.stderr)
        return []
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data = simulated(scratch / "simulated", N_FRAMES)
        seconds, frames, crystals = engine(data, scratch / "work")
        own, *own_tables = built_in(data, scratch / "work")
        counts = np.bincount(frames["status"], minlength=4)
        note = f"{N_FRAMES} frames of 4.5 Mpx, {data['true hits']} with a crystal"
        share = 100 * counts[Status.indexed] / data["true hits"]
        total = sum(seconds) / N_FRAMES
        true = of_truth(scratch / "simulated/truth.tsv", 1.0, _simulated_axes)
        off, own_off = (float(np.median(errors(*tables, true))) for tables in ((frames, crystals), own_tables))
        rows += [
            Row("orientation, median error", "", off, "degree", None, "the photon energy varies from frame to frame"),
            Row("orientation, median error, built-in engine", "", own_off, "degree", None, "the same frames"),
            Row(
                "frames with a known end", "= 100 %", 100 * counts.sum() / N_FRAMES, "%", counts.sum() == N_FRAMES, note
            ),
            Row("frames indexed, of those with a crystal", "", share, "%", None, note),
            Row("CPU a frame, peaks", "", seconds[0] / N_FRAMES, "s", None, note),
            Row("CPU a frame, indexing and integration", "", seconds[1] / N_FRAMES, "s", None, note),
            Row(
                "CPU, DIALS over the built-in engine",
                "",
                total / (own / N_FRAMES),
                "",
                None,
                "with starting the programs",
            ),
        ]
        if (SHARED / "data").is_dir():
            rows += _shared(scratch)
    return rows


def _shared(scratch):
    sim, real = SHARED / "data/crystfel_sim", SHARED / "data/thaumatin_i24"
    data = {"frames": str(sim / "run1_01.h5"), "geometry": str(sim / "det.geom"), "cell": str(sim / "lyso.cell")}
    shutil.copy(sim / "mask.h5", scratch)
    _, frames, crystals = engine(data | {"space_group": "P43212"}, scratch / "sim")
    key = lambda row: None if row["kind"] == "blank" else row[next(n for n in row if n.startswith("asx"))].split()
    off = errors(frames, crystals, of_truth(sim / "truth_frames.tsv", 0.1, key))
    n = int(np.sum(frames["status"] == Status.indexed))
    note = "crystfel_sim run1_01.h5: 46 hits, 4 blanks"
    data = {"frames": str(real / "thaumatin_i24.h5"), "geometry": str(real / "thaumatin_i24.geom")}
    _, of_real, _ = engine(data | {"cell": str(real / "thaumatin.cell"), "space_group": "P41212"}, scratch / "real")
    n_real = int(np.sum(of_real["status"] == Status.indexed))
    return [
        Row("frames indexed, crystfel_sim", "= 46", n, "", n == 46, note),
        Row(
            "orientation, median error", "<= 0.02", float(np.median(off)), "degree", bool(np.median(off) <= 0.02), note
        ),
        Row("orientation, largest error", "", float(off.max()), "degree", None, note),
        Row("frames indexed, thaumatin_i24", "= 8", n_real, "", n_real == 8, "ten real frames, two of them blank"),
    ]


if __name__ == "__main__":
    main(measure)

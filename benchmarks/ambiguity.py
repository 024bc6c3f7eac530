"""Indexing ambiguity: how many crystals are indexed consistently, beside ambigator on the same observations where it is installed.

Simulated stills with partiality, counting noise and errors of orientation, width and energy (tests/unit/ambiguity/ambiguous_crystals.py);
of each crystal so many observations, taken at random from those within 3.5 sigma of the Ewald sphere. Seeds from 1001 on, which nothing was
chosen on. ambigator gets the intensities divided by the polarisation factor. Last, simulated frames from peaks to merged data.
"""

import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import stages
from table import Row, main

sys.path[:0] = [str(Path(__file__).parents[1] / "tests/unit" / part) for part in ("ambiguity", "merging")]

from ambiguous_crystals import simulate

from sfxflow.ambiguity.assign import assign
from sfxflow.ambiguity.operators import ambiguity_operators, reindexed_reciprocal
from sfxflow.cell import Cell
from sfxflow.io.assignment import read_assignment
from sfxflow.io.cell_file import lattice_of
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.stream import StreamWriter
from sfxflow.point_group import point_group_name
from sfxflow.settings import Ambiguity
from sfxflow.simulate.presets import preset
from sfxflow.symmetry import space_group, to_asu

#: Case, crystals, observations of each, what is to be reached.
CASES = (
    ("P63", 300, 150, 95),
    ("P63", 300, 60, 95),
    ("P63", 300, 30, None),
    ("P63", 1000, 30, None),
    ("P63 weak", 300, 60, None),
    ("P43", 300, 150, 95),
    ("P43", 300, 60, 95),
    ("P43", 300, 30, None),
    ("P43", 1000, 30, None),
    ("P3", 300, 150, None),
    ("P3", 300, 60, None),
    ("P3", 300, 30, None),
    ("P3", 1000, 30, None),
    ("P21", 300, 60, None),
    ("P21", 300, 30, None),
)
_SEEDS = (1001, 1002, 1003)
#: Presets whose frames go through all stages, with their space groups.
FRAMES = (("hexagonal", "P63"), ("trigonal", "P3"))
_N_FRAMES = 60
#: Many crystals, to see how the time grows.
_MANY = 10000


def resolved(simulated):
    """Fraction right, CPU seconds, and whether the result says that it can be believed."""
    operators = ambiguity_operators(simulated.cell, simulated.group)
    begin = time.process_time()
    found = assign(simulated.crystals, simulated.reflections, simulated.cell, simulated.group, operators, Ambiguity())
    seconds = time.process_time() - begin
    return simulated.right(operators, found.mode), seconds, found.summary["told_apart"]


def by_ambigator(simulated, folder):
    """Fraction right and CPU seconds of ambigator, at its default settings but for the resolution.

    Without a limit it counts what two crystals have in common beyond 2.5 angstrom, which these data do not reach.
    """
    stream, assigned = folder / "crystals.stream", folder / "assigned.txt"
    write_stream(stream, simulated, folder)
    command = [
        "ambigator",
        str(stream),
        "-y",
        point_group_name(simulated.group),
        "--operator=k,h,-l",
        "--highres=2.9",
        "-j",
        "1",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, f"--end-assignments={assigned}"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"ambigator failed: {done.stderr}")
    mode = np.array([int(line.split()[-1]) for line in assigned.read_text().splitlines() if line.strip()])
    right = np.mean(mode == simulated.mode)
    return max(right, 1 - right), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_stream(path, simulated, folder):
    """The simulated crystals as a stream, one on each frame."""
    detector = preset("demo").detector
    write_geom(folder / "detector.geom", detector)
    cell = Cell(*simulated.cell, *lattice_of(simulated.group))
    with open(path, "wb") as handle:
        writer = StreamWriter(handle, detector, (folder / "detector.geom").read_text(), cell, "benchmark")
        limits = np.searchsorted(simulated.reflections["crystal"], np.arange(len(simulated.mode) + 1))
        for c, (first, last) in enumerate(itertools.pairwise(limits)):
            own = {name: values[first:last] for name, values in simulated.reflections.items()}
            n = last - first
            own |= {name: own[name] / own["polarisation"] for name in ("I", "sigI")}
            own |= {name: np.zeros(n) for name in ("peak", "background", "fs", "ss")} | {"panel": np.zeros(n, int)}
            writer.begin_frame(f"{c}.h5", "//0", True, True, 9500.0, 0.1)
            crystal = {
                "reciprocal": simulated.crystals["reciprocal"][c],
                "cell": simulated.cell,
                "profile_radius": simulated.crystals["profile_radius"][c],
                "mosaicity": simulated.crystals["mosaicity"][c],
                "shift": (0.0, 0.0),
                "excess": 0.0,
                "resolution": 3.0,
            }
            writer.add_crystal(crystal, own)
            writer.end_frame()


def measure():
    """Rows of the table."""
    rows = []
    # what is compiled is compiled before the time counts
    resolved(simulate("P63", 60, 100, seed=1))
    with_ambigator = shutil.which("ambigator") is not None
    for case, n_crystals, n_observations, reach in CASES:
        right, seconds, theirs, their_seconds, believed = [], [], [], [], 0
        for seed in _SEEDS:
            name, _, weak = case.partition(" ")
            photons = {"mean_photons": 50.0} if weak else {}
            simulated = simulate(name, n_crystals, n_observations, seed=seed, **photons)
            fraction, cpu, told = resolved(simulated)
            right.append(fraction)
            seconds.append(cpu)
            believed += told
            if with_ambigator and name in ("P63", "P43"):
                with tempfile.TemporaryDirectory() as folder:
                    fraction, cpu = by_ambigator(simulated, Path(folder))
                theirs.append(fraction)
                their_seconds.append(cpu)
        what = f"{case}, {n_crystals} crystals, {n_observations} observations each"
        seen = 100 * float(np.mean(right))
        note = f"lowest of {len(right)}: {100 * min(right):.1f} %; {1e3 * np.mean(seconds) / n_crystals:.1f} ms CPU a crystal"
        note += f"; called clear in {believed}"
        rows.append(
            Row(f"{what}: right", f">= {reach} %" if reach else "", seen, "%", seen >= reach if reach else None, note)
        )
        if theirs:
            note = (
                f"lowest: {100 * min(theirs):.1f} %; {1e3 * np.mean(their_seconds) / n_crystals:.1f} ms CPU a crystal"
            )
            rows.append(Row("    ambigator", "", 100 * float(np.mean(theirs)), "%", None, note))
    simulated = simulate("P63", _MANY, 60, seed=1004)
    fraction, cpu, _ = resolved(simulated)
    rows.append(
        Row(f"P63, {_MANY} crystals, 60 observations each", "", cpu, "s CPU", None, f"{100 * fraction:.2f} % right")
    )
    return rows + [row for name, group in FRAMES for row in from_frames(name, group)]


def from_frames(name, group):
    """Rows of simulated frames: crystals that are consistent, and the merged data's correlation with the truth."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        steps = (
            f"simulate --preset {name} --n-frames {_N_FRAMES} --seed 1005 --output {folder}",
            f"peaks --frames {folder}/frames_00.h5 --geometry {folder}/detector.geom --output {folder}/peaks.h5",
            f"indexing --peaks {folder}/peaks.h5 --geometry {folder}/detector.geom CELL --output {folder}/indexed.h5",
            (
                f"integration --indexed {folder}/indexed.h5 --frames {folder}/frames_00.h5 --geometry {folder}/detector.geom "
                f"--output {folder}/integrated.h5"
            ),
            f"ambiguity --integrated {folder}/integrated.h5 CELL --reference {folder}/truth.hkl --output {folder}/assignment.h5",
            f"merging --integrated {folder}/integrated.h5 CELL --dataset it --output {folder}/left.h5",
            (
                f"merging --integrated {folder}/integrated.h5 CELL --dataset it --assignment {folder}/assignment.h5 "
                f"--output {folder}/merged.h5"
            ),
            *(
                f"figures_of_merit --merged {folder}/{file}.h5 --reference {folder}/truth.hkl --json {folder}/{file}.json "
                f"--tsv {folder}/{file}.tsv"
                for file in ("left", "merged")
            ),
        )
        for step in steps:
            step = step.replace("CELL", f"--cell {folder}/{name}.cell --space-group {group}")
            stages.call(*step.split())
        right, n = consistent(folder, group)
        left, merged = (
            json.loads((folder / f"{file}.json").read_text())["overall"]["reference_cc"] for file in ("left", "merged")
        )
    note = f"{n} crystals of {_N_FRAMES} frames; merged data's correlation with the truth {merged:.4f}, {left:.4f} as indexed"
    return [Row(f"frames of the preset {name}, {group}: right", "", 100 * right, "%", None, note)]


def consistent(folder, group):
    """Fraction of the crystals whose indices are the truth's by one operator, and how many crystals there are."""
    group = space_group(group)
    lines = [line.split("\t") for line in (folder / "truth.tsv").read_text().splitlines() if not line.startswith("#")]
    columns, truth = lines[0], lines[1:]
    axes = [columns.index(f"{axis}star_{x}") for x in "xyz" for axis in "abc"]
    numbers = [int(row[columns.index("frame")]) for row in truth]
    true = np.array([[float(row[i]) for i in axes] for row in truth]).reshape(-1, 3, 3)
    assigned = read_assignment(folder / "assignment.h5")
    with h5py.File(folder / "integrated.h5") as handle:
        frame = handle["frames/frame"][()][handle["crystals/frame"][()]]
        told = handle["crystals/reciprocal"][()]
    told = reindexed_reciprocal(told, assigned.operators[assigned.crystals["mode"]])
    probe = np.array([[1, 2, 5], [3, -1, 4]])
    names = []
    for number, matrix in zip(frame, told, strict=True):
        change = [np.linalg.inv(matrix) @ own for own, n in zip(true, numbers, strict=True) if n == number]
        nearest = min(change, key=lambda m: np.abs(m - np.rint(m)).max())
        names.append(tuple(to_asu(probe @ np.rint(nearest).T.astype(int), group).ravel()))
    return max(names.count(name) for name in set(names)) / len(names), len(names)


if __name__ == "__main__":
    main(measure)

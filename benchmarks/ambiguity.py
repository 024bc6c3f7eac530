"""Indexing ambiguity: how many crystals are indexed consistently, beside ambigator on the same observations where it is installed.

Simulated stills with partiality, counting noise and errors of orientation, width and energy (tests/unit/ambiguity/ambiguous_crystals.py);
of each crystal so many observations, taken at random from those within 3.5 sigma of the Ewald sphere. Seeds from 1001 on, which nothing was
chosen on. ambigator gets the intensities divided by the polarisation factor.
"""

import itertools
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from table import Row, main

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/ambiguity"))

from ambiguous_crystals import simulate

from sfxflow.ambiguity.assign import assign
from sfxflow.ambiguity.operators import ambiguity_operators
from sfxflow.cell import Cell
from sfxflow.io.cell_file import lattice_of
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.stream import StreamWriter
from sfxflow.point_group import point_group_name
from sfxflow.settings import Ambiguity
from sfxflow.simulate.presets import preset

#: Case, crystals, observations of each, what is to be reached.
CASES = (
    ("P63", 300, 150, 95),
    ("P63", 300, 60, 95),
    ("P63", 300, 30, None),
    ("P63", 1000, 30, None),
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
            simulated = simulate(case, n_crystals, n_observations, seed=seed)
            fraction, cpu, told = resolved(simulated)
            right.append(fraction)
            seconds.append(cpu)
            believed += told
            if with_ambigator and case in ("P63", "P43"):
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
        print(rows[-1 - bool(theirs)], file=sys.stderr, flush=True)
    simulated = simulate("P63", _MANY, 60, seed=1004)
    fraction, cpu, _ = resolved(simulated)
    rows.append(
        Row(f"P63, {_MANY} crystals, 60 observations each", "", cpu, "s CPU", None, f"{100 * fraction:.2f} % right")
    )
    return rows


if __name__ == "__main__":
    main(measure)

"""How far hit rate, index rate and CC1/2 of pinned frames move: by themselves, by what does not matter, and by what has gone wrong.

100 simulated frames, three quarters of them hits, through the built-in engine and merger. The tolerances of the config's section `lock` are
to lie between what does not matter and what has gone wrong. With --seed N another experiment.
"""

import contextlib
import io
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from table import Row, main

from sfxflow.cli import main as sfxflow
from sfxflow.drift import movements, rates
from sfxflow.io.figures_of_merit import read_figures_of_merit
from sfxflow.io.frame_account import read_frame_account
from sfxflow.settings import Lock

SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 4711
N_FRAMES = 100
GROUP = ("--space-group", "P43212")

#: What is changed: words, settings of stages, factor on the camera length, worker processes; whether it is to be noticed, None where it is only told.
CHANGES = (
    ("nothing", {}, None, 2, False),
    ("other worker processes", {}, None, 1, False),
    ("radii of integration 3, 5, 7", {"integration": {"middle_radius": 5, "outer_radius": 7}}, None, 2, False),
    ("min_snr 5 in place of 4", {"peaks": {"min_snr": 5}}, None, 2, None),
    ("peaks of 40 sigma and more only", {"peaks": {"min_snr": 40}}, None, 2, True),
    ("camera length 2 % too long", {}, 1.02, 2, None),
    ("camera length 5 % too long", {}, 1.05, 2, True),
    ("significance that no lattice has", {"indexing": {"max_log10_p": -1e6}}, None, 2, True),
    ("no partiality model", {"merging": {"partiality": "unity"}}, None, 2, None),
)


def call(*argv):
    """Run a command without its talk; the exit status."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return sfxflow([str(argument) for argument in argv])


def with_camera_length(raw, folder, factor):
    """A copy of the geometry with another camera length."""
    lines = []
    for line in (raw / "detector.geom").read_text().splitlines():
        key, _, value = line.partition("=")
        lines.append(f"clen = {float(value.split()[0]) * factor}" if key.strip() == "clen" else line)
    path = folder / "changed.geom"
    path.write_text("\n".join(lines) + "\n")
    return path


def processed(raw, folder, settings, factor, threads, unchanged=None):
    """What `sfxflow.cli.pinned_run` would see of these frames; stages before the first change are taken from `unchanged`."""
    folder.mkdir()
    geometry = with_camera_length(raw, folder, factor) if factor else raw / "detector.geom"
    frames = ("--frames", raw / "frames_00.h5", "--geometry", geometry, "--threads", threads)
    cell = ("--cell", raw / "demo.cell", *GROUP)
    stages = ("peaks", "indexing", "integration", "merging")
    first = 0 if unchanged is None or factor or threads != 2 else min(map(stages.index, settings), default=0)
    files = {stage: (unchanged if stages.index(stage) < first else folder) / f"{stage}.h5" for stage in stages}
    arguments = {
        "peaks": frames,
        "indexing": ("--peaks", files["peaks"], "--geometry", geometry, *cell, "--threads", threads),
        "integration": ("--indexed", files["indexing"], *frames),
        "merging": ("--integrated", files["integration"], "--dataset", "d", *cell),
    }
    status = {}
    for stage in stages[first:]:
        own = ("--settings", json.dumps(settings.get(stage, {})), "--output", files[stage])
        status[stage] = call(stage, *arguments[stage], *own)
    call("frames", "--chunks", files["integration"], "--n-frames", N_FRAMES, "--output", folder / "frames.tsv")
    found = rates(read_frame_account(folder / "frames.tsv")[0]["status"])
    cc_half = None
    if status["merging"] == 0:
        figures = ("--json", folder / "f.json", "--tsv", folder / "f.tsv")
        call("figures_of_merit", "--merged", files["merging"], *figures)
        cc_half = read_figures_of_merit(folder / "f.json")["overall"]["cc_half"]
    return {"d": {"builtin": found | {"mergers": {"builtin": {"cc_half": cc_half}}}}}


def measure():
    """Rows of moves."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        made = ("--preset", "demo", "--n-frames", N_FRAMES, "--seed", SEED, "--set", "blank_fraction=0.25")
        call("simulate", *made, "--output", raw)
        then = processed(raw, Path(name) / "then", {}, None, 2)
        for number, (words, settings, factor, threads, noticed) in enumerate(CHANGES):
            now = processed(raw, Path(name) / str(number), settings, factor, threads, Path(name) / "then")
            found = movements(then, now, asdict(Lock()))
            told = [
                "undefined" if movement.now is None else f"{movement.what} {movement.now - movement.then:+.4f}"
                for movement in found
            ]
            moved = sum(movement.too_far for movement in found)
            reach = {True: "noticed", False: "not noticed", None: ""}[noticed]
            ok = None if noticed is None else bool(moved) == noticed
            rows.append(Row(f"{words}: figures moved too far", reach, moved, "of 3", ok, ", ".join(told)))
    return rows


if __name__ == "__main__":
    main(measure)

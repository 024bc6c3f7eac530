"""How far hit rate, index rate and CC1/2 of pinned frames move: by themselves, by what does not matter, and by what has gone wrong.

200 simulated frames, three quarters of them hits, through the built-in engine and merger. The tolerances of the config's section `lock` are
to lie between the first two and the last. With --seed N another experiment; the tolerances were chosen with --seed 1.
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
N_FRAMES = 200
GROUP = ("--space-group", "P43212")

#: What is changed: words, settings of stages, edit of the geometry, threads; whether it is to be noticed, None where it is only told.
CHANGES = (
    ("nothing", {}, None, 2, False),
    ("other worker processes", {}, None, 1, False),
    ("radii of integration 3, 5, 7", {"integration": {"middle_radius": 5, "outer_radius": 7}}, None, 2, False),
    ("min_snr 5 in place of 4", {"peaks": {"min_snr": 5}}, None, 2, None),
    ("min_peaks 40 in place of 15", {"peaks": {"min_peaks": 40}}, None, 2, None),
    ("peaks of 40 sigma and more only", {"peaks": {"min_snr": 40}}, None, 2, True),
    ("camera length 2 % too long", {}, ("clen", 1.02), 2, True),
    ("photon energy 3 % too high", {}, ("energy", 1.03), 2, True),
    ("significance that no lattice has", {"indexing": {"max_log10_p": -1e6}}, None, 2, True),
    ("half as many cycles of merging", {"merging": {"cycles": 4}}, None, 2, None),
    ("no partiality model", {"merging": {"partiality": "unity"}}, None, 2, None),
)


def call(*argv):
    """Run a command without its talk; the exit status."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return sfxflow([str(argument) for argument in argv])


def changed_geometry(raw, folder, change):
    """A copy of the geometry with another camera length or photon energy."""
    text = (raw / "detector.geom").read_text()
    lines = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if change[0] == "clen" and key.strip() == "clen":
            line = f"clen = {float(value.split()[0]) * change[1]}"
        if change[0] == "energy" and key.strip() == "photon_energy":
            line = f"photon_energy = {_energy(raw) * change[1]}"
        lines.append(line)
    path = folder / "changed.geom"
    path.write_text("\n".join(lines) + "\n")
    if path.read_text() == text:
        raise SystemExit(f"{raw / 'detector.geom'}: no {change[0]} to change")
    return path


def _energy(raw):
    from sfxflow.io.frames import open_frames
    from sfxflow.io.geometry import read_geometry

    with open_frames(str(raw / "frames_00.h5"), read_geometry(raw / "detector.geom")) as frames:
        return frames.read(0).photon_energy


def processed(raw, folder, settings, change, threads):
    """What `sfxflow.cli.pinned_run` would see of these frames."""
    folder.mkdir()
    geometry = changed_geometry(raw, folder, change) if change else raw / "detector.geom"

    def of(stage):
        return ("--settings", json.dumps(settings.get(stage, {})))

    frames = ("--frames", raw / "frames_00.h5", "--geometry", geometry, "--threads", threads)
    cell = ("--cell", raw / "demo.cell", *GROUP)
    files = [folder / f"{name}.h5" for name in ("peaks", "indexed", "integrated", "ways", "merged")]
    call("peaks", *frames, *of("peaks"), "--output", files[0])
    indexed = ("--peaks", files[0], "--geometry", geometry, *cell, "--threads", threads)
    call("indexing", *indexed, *of("indexing"), "--output", files[1])
    call("integration", "--indexed", files[1], *frames, *of("integration"), "--output", files[2])
    call("frames", "--chunks", files[2], "--n-frames", N_FRAMES, "--output", folder / "frames.tsv")
    found = rates(read_frame_account(folder / "frames.tsv")[0]["status"])
    cc_half = None
    call("ambiguity", "--integrated", files[2], *cell, "--output", files[3])
    merging = ("--integrated", files[2], "--dataset", "d", *cell, "--assignment", files[3], *of("merging"))
    if call("merging", *merging, "--output", files[4]) == 0:
        figures = ("--json", folder / "f.json", "--tsv", folder / "f.tsv")
        call("figures_of_merit", "--merged", files[4], *figures)
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
        for number, (words, settings, change, threads, noticed) in enumerate(CHANGES):
            now = processed(raw, Path(name) / str(number), settings, change, threads)
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

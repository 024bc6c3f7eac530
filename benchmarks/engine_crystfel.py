"""Engine crystfel: what becomes of the frames, and what the two jobs cost beside one run of indexamajig with the same options.

    python benchmarks/engine_crystfel.py

Frames of the simulator, of seeds that nothing was chosen on. CPU time of one process and its children; where CrystFEL is not installed,
nothing is measured.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from engine import cpu_of, simulated
from table import Row, main

from sfxflow.io.table import open_chunk, read_rows
from sfxflow.programs.crystfel import indexing_options, peak_options
from sfxflow.reflections import Status
from sfxflow.settings import Crystfel, Integration, Peaks

N_FRAMES = 40
#: Frames of few photons need a threshold in CrystFEL's peakfinder8.
PEAKS = {"threshold": 4, "max_pix_count": 60, "local_bg_radius": 4}


def engine(data, folder):
    """CPU seconds of the two jobs, and the tables that they leave."""
    frames = ("--frames", data["frames"], "--geometry", data["geometry"])
    crystal = ("--cell", data["cell"], "--space-group", data["space_group"])
    run = (sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())")
    settings = ("--settings", json.dumps({"peaks": PEAKS}))
    jobs = {
        "peaks": (*run, "crystfel_peaks", *frames, *settings, "--output", "p.h5"),
        "indexing": (*run, "crystfel_indexing", "--peaks", "p.h5", *frames, *crystal, "--output", "i.h5"),
    }
    seconds = {}
    for name, argv in jobs.items():
        status, seconds[name], _ = cpu_of(argv, folder)
        assert status == 0, argv
    with open_chunk(folder / "i.h5") as handle:
        return seconds, read_rows(handle["frames"]), len(handle["crystals/frame"]), len(handle["reflections/h"])


def at_once(data, folder):
    """CPU seconds, crystals and reflections of one run of indexamajig that searches, indexes and integrates."""
    files = sorted(Path(data["frames"]).parent.glob(Path(data["frames"]).name))
    (folder / "frames.lst").write_text("".join(f"{file}\n" for file in files))
    search = [option for option in peak_options(Peaks(**PEAKS), Crystfel()) if option != "--indexing=none"]
    rest = [
        option
        for option in indexing_options(Crystfel(), Integration())
        if not option.startswith(("--peaks", "--min-peaks"))
    ]
    argv = ("indexamajig", "-i", "frames.lst", "-g", data["geometry"], "-p", data["cell"], "-o", "x.stream", "-j", "1")
    status, seconds, _ = cpu_of((*argv, *search, *rest), folder)
    assert status == 0, argv
    text = (folder / "x.stream").read_text()
    numbers = [int(line.split("=")[1]) for line in text.splitlines() if line.startswith("num_reflections")]
    return seconds, len(numbers), sum(numbers)


def measure():
    """One set of frames, through the engine and through indexamajig alone."""
    if shutil.which("indexamajig") is None:
        print("indexamajig is not on PATH: nothing is measured", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data = simulated(scratch / "simulated", N_FRAMES)
        work = scratch / "work"
        work.mkdir()
        seconds, frames, n_crystals, n_reflections = engine(data, work)
        alone, n_crystals_alone, n_reflections_alone = at_once(data, work)
    counts = np.bincount(frames["status"], minlength=4)
    n = len(frames["frame"])
    note = f"{n} frames of 4.5 Mpx, asdf"
    share = 100 * counts[Status.indexed] / data["true hits"]
    kept = 100 * n_reflections / n_reflections_alone
    return [
        Row("frames with a known end", "= 100 %", 100 * counts.sum() / N_FRAMES, "%", counts.sum() == N_FRAMES, note),
        Row("frames that failed", "= 0", counts[Status.failed], "", counts[Status.failed] == 0, note),
        Row("frames indexed, of those with a crystal", "", share, "%", None, f"{data['true hits']} with a crystal"),
        Row(
            "crystals, of those that one run at once finds",
            "",
            100 * n_crystals / n_crystals_alone,
            "%",
            None,
            f"{n_crystals_alone}",
        ),
        Row(
            "reflections, of those of one run at once",
            "98 to 102 %",
            kept,
            "%",
            98 <= kept <= 102,
            "peaks rounded to 0.01 pixel",
        ),
        Row("CPU a frame, job of the peaks", "", 1e3 * seconds["peaks"] / n, "ms", None, note),
        Row("CPU a frame, job of indexing and integration", "", 1e3 * seconds["indexing"] / n, "ms", None, note),
        Row("CPU a frame, indexamajig at once", "", 1e3 * alone / n, "ms", None, "the same options"),
        Row(
            "both jobs over one run at once",
            "",
            sum(seconds.values()) / alone,
            "",
            None,
            "the price of separate targets",
        ),
    ]


if __name__ == "__main__":
    main(measure)

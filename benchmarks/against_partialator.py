"""R1 against the simulator's truth after merging, beside partialator's models on the same observations.

    python benchmarks/against_partialator.py [--json FILE] [--folder DIR] [--full] [--sizes 110,250] [--spots gaussian,sphere]
                                             [--models offset]

Up to 1000 crystals of each spot model (Gaussian; sphere with a SASE spectrum; mosaic blocks) are simulated as frames, and go through peaks, indexing and
integration once. sfxflow merges the integrated files of the first 110, 250 and 1000; partialator merges the same observations, written by `sfxflow stream`,
with unity, xsphere, offset and ggpm, and with --full for 110 and 250 crystals also what indexamajig itself makes of the same frames.
Without --full there are 1000 crystals of Gaussian lattice points only, and partialator's slow models (all but unity) merge 250 at most.

R1 = sum |k exp(-2 B s^2) I - I_true| / sum I_true over the reflections that both merged lists hold, k and B those that make R1 smallest, for each list on
its own. Both ask for 2 measurements of a reflection, and absences are not counted. With min_measurements 1, sfxflow also keeps what was recorded well in one
measurement, here without what was never well recorded (rows 'all recorded'). A list can be longer because it holds reflections of which it knows nothing: so it is also counted how many are right to a
fifth. What partialator cannot be run for is said, and the figures of sfxflow stand alone.

With --folder, frames and merged files are kept there and used again: remove a file to make it again.
"""

import argparse
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
from scipy.optimize import minimize
from stages import call
from table import Row, main

from sfxflow.cell import inverse_resolution
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import read_merged
from sfxflow.symmetry import reflection_from_key, reflection_key, space_group, to_asu

GROUP = "P43212"
SIZES = (110, 250, 1000)
OWN_STREAM_SIZES = (110, 250)
#: Without --full: most crystals of each spot model, and of each model of partialator but unity.
SHORT_SIZES = {"gaussian": 1000, "sphere": 250, "mosaic_blocks": 250}
SHORT_MOST = 250
MODELS = ("unity", "xsphere", "offset", "ggpm")
#: Spot model to its settings; one has the spiky spectrum of a SASE pulse.
SPOTS = {
    "gaussian": {"profile_model": "gaussian", "profile_radius": 2.5e-4, "mosaicity": 3e-4},
    "sphere": {"profile_model": "sphere", "profile_radius": 6e-4, "spectrum": "sase", "bandwidth": 0.001},
    "mosaic_blocks": {"profile_model": "mosaic_blocks", "profile_radius": 3e-4, "mosaicity": 6e-4},
}
_COMMON = {"blank_fraction": 0.0, "multi_fraction": 0.0, "d_min": 2.6, "panel_rows": 2}
_SEED = 90210
_LIMIT = 1800
_ITERATIONS = 3


def measure(spots=tuple(SPOTS), sizes=SIZES, models=MODELS, folder=None, full=False):
    """Rows for every spot model and number of crystals."""
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            return measure(spots, sizes, models, scratch, full)
    rows = []
    for name in spots:
        own_sizes = [n for n in sizes if full or n <= SHORT_SIZES[name]]
        if own_sizes:
            rows += _spot_model(name, own_sizes, models, Path(folder), full)
    return rows


def _spot_model(name, sizes, models, scratch, full):
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    _make_observations(name, folder, max(sizes))
    truth = _keyed(read_hkl(folder / "frames/truth.hkl"))
    rows = []
    for n in sizes:
        ours, recorded = _merged(folder, n), _merged(folder, n, min_measurements=1, keep_unrecorded=False)
        well = _merged(folder, n, keep_unrecorded=False)
        observations = _n_observations(folder, n)
        rows += [
            Row(f"R1, {name}, {n} crystals, sfxflow", "", _r1(ours, truth), "%", None, f"{len(ours)} reflections, "
                f"{observations / n:.0f} observations a crystal"),
            Row(f"R1, {name}, {n} crystals, sfxflow, well recorded", "", _r1(well, truth), "%", None,
                f"{len(well)} reflections: without the {len(ours) - len(well)} that were never well recorded"),
        ]  # fmt: skip
        own_models = [model for model in models if full or n <= SHORT_MOST or model == "unity"]
        lists = _partialator_lists(folder, n, own_models, full)
        rows += _beside(f"{name}, {n}", ours, truth, lists)
        # where two measurements are too few because next to nothing was recorded in one, the other may still be good
        unity = [each for each in lists if each[0].endswith("unity")]
        rows += _beside(f"{name}, {n}, all recorded", recorded, truth, unity)
    return rows


def _beside(what, ours, truth, lists):
    """R1 of ours and of each other list on the reflections that both have; and how many each has."""
    rows = []
    for label, theirs, seconds in lists:
        shared = ours.keys() & theirs.keys()
        own, other = (_r1({key: values[key] for key in shared}, truth) for values in (ours, theirs))
        note = f"the same {len(shared)} of its {len(theirs)} reflections; {seconds:.0f} s CPU"
        rows.append(Row(f"R1, {what}, beside {label}", f"< {other:.2f} %", own, "%", own < other, note))
    right = _n_right(ours, truth)
    for label, theirs, _ in lists:
        reach, ok = f"> {len(theirs)}", len(ours) > len(theirs)
        note = f"reflections; right to a fifth: {right}, partialator's {_n_right(theirs, truth)}"
        rows.append(Row(f"kept, {what}, beside {label}", reach, len(ours), "", ok, note))
    return rows


def _make_observations(name, folder, n):
    """Frames, peaks, crystals and integrated reflections, in one chunk for each size."""
    frames = folder / "frames"
    if not (frames / "truth.tsv").exists():
        settings = [f"{key}={value}" for key, value in {**_COMMON, **SPOTS[name]}.items()]
        call(
            "simulate", "--preset", "demo", "--n-frames", n, "--seed", _SEED, "--threads", 2,
            "--output", frames, "--set", *settings,
        )  # fmt: skip
    source = ("--frames", frames / "frames_*.h5", "--geometry", frames / "detector.geom")
    cell = ("--cell", frames / "demo.cell", "--space-group", GROUP)
    for first, last in _chunks(n):
        chunk = folder / f"{first:04d}"
        part = ("--first", first, "--count", last - first)
        if not chunk.with_suffix(".integrated.h5").exists():
            call("peaks", *source, *part, "--output", chunk.with_suffix(".peaks.h5"))
            call(
                "indexing", "--peaks", chunk.with_suffix(".peaks.h5"), *source[2:], *cell, "--output",
                chunk.with_suffix(".indexed.h5"),
            )  # fmt: skip
            call(
                "integration", "--indexed", chunk.with_suffix(".indexed.h5"), *source, *part, "--output",
                chunk.with_suffix(".integrated.h5"),
            )  # fmt: skip


def _chunks(n):
    """First and last frame of the chunks of `n` crystals."""
    ends = [size for size in SIZES if size < n] + [n]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _integrated(folder, n):
    return [folder / f"{first:04d}.integrated.h5" for first, _ in _chunks(n)]


def _n_observations(folder, n):
    total = 0
    for path in _integrated(folder, n):
        with h5py.File(path) as handle:
            total += handle["reflections/h"].shape[0]
    return total


def _merged(folder, n, **settings):
    """sfxflow's merged intensities; always made anew."""
    output = folder / f"merged_{n}.h5"
    frames = folder / "frames"
    call(
        "merging", "--integrated", *_integrated(folder, n), "--dataset", "benchmark", "--cell", frames / "demo.cell",
        "--space-group", GROUP, "--settings", json.dumps(settings), "--output", output,
    )  # fmt: skip
    table = read_merged(output)[0]
    return _by_key(np.column_stack([table[name] for name in "hkl"]), table["I"])


def _partialator_lists(folder, n, models, full):
    """(label, merged intensities, CPU seconds) of every run of partialator that can be done."""
    if not shutil.which("partialator"):
        print("partialator is not installed: sfxflow's own R1 only", file=sys.stderr)
        return []
    frames = folder / "frames"
    stream = folder / f"sfxflow_{n}.stream"
    if not stream.exists():
        call(
            "stream", "--integrated", *_integrated(folder, n), "--geometry", frames / "detector.geom", "--cell",
            frames / "demo.cell", "--space-group", GROUP, "--output", stream,
        )  # fmt: skip
    streams = [("", stream)]
    if full and n in OWN_STREAM_SIZES and shutil.which("indexamajig"):
        streams.append(("indexamajig's ", _indexamajig(folder, n)))
    found = []
    for label, path in streams:
        for model in models:
            merged, seconds = _partialator(path, model)
            if merged is None:
                print(f"partialator {model} on {path.name} did not end well: left out", file=sys.stderr)
            else:
                found.append((f"{label}partialator {model}", merged, seconds))
    return found


def _partialator(stream, model):
    """Merged intensities, or None, and CPU seconds."""
    output = stream.with_name(f"{stream.stem}_{model}.hkl")
    taken = output.with_suffix(".seconds")
    if not output.exists():
        command = [
            "partialator", "-i", stream.name, "-o", output.name, "-y", "4/mmm", f"--model={model}",
            f"--iterations={_ITERATIONS}", "--min-measurements=2", "-j", "1",
        ]  # fmt: skip
        status, seconds = _timed(command, stream.parent, output.with_suffix(".log"))
        if status:
            output.unlink(missing_ok=True)
            return None, seconds
        taken.write_text(str(seconds))
    return _keyed(read_hkl(output)), float(taken.read_text())


def _indexamajig(folder, n):
    """indexamajig's own stream of the first `n` frames."""
    stream, whole, most = folder / f"indexamajig_{n}.stream", folder / "indexamajig.stream", max(OWN_STREAM_SIZES)
    if not whole.exists():
        events = folder / "events.lst"
        events.write_text("".join(f"frames/frames_{i // 1000:02d}.h5 //{i % 1000}\n" for i in range(most)))
        command = [
            "indexamajig", "-i", events.name, "-g", "frames/detector.geom", "-p", "frames/demo.cell", "-o", whole.name,
            "--peaks=peakfinder8", "--threshold=4", "--min-snr=4", "--min-pix-count=2", "--local-bg-radius=4",
            "--min-peaks=15", "--indexing=asdf", "--int-radius=3,4,6", "-j", "1",
        ]  # fmt: skip
        status, _ = _timed(command, folder, folder / "indexamajig.log")
        if status:
            whole.unlink(missing_ok=True)
            raise SystemExit(f"indexamajig failed: see {folder / 'indexamajig.log'}")
    if not stream.exists():
        begin = "----- Begin chunk -----\n"
        stream.write_text(begin.join(whole.read_text().split(begin)[: n + 1]))
    return stream


def _timed(command, folder, log):
    """Exit status and CPU seconds of a program; 124 where it ran past the limit."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    with open(log, "w") as handle:
        try:
            status = subprocess.run(
                command, cwd=folder, stdout=handle, stderr=handle, timeout=_LIMIT, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{folder.name}: {' '.join(command[:6])} ...: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return status, seconds


def _keyed(merged):
    return _by_key(merged.hkl, merged.I)


def _by_key(hkl, intensity):
    """Intensity by reflection, as a dict of the asymmetric unit's keys; NaN and absences are left out."""
    keys = reflection_key(to_asu(hkl, space_group(GROUP)))
    finite = np.isfinite(intensity) & ~space_group(GROUP).operations().systematic_absences(np.asarray(hkl, np.int32))
    return dict(zip(keys[finite].tolist(), intensity[finite].tolist(), strict=True))


def _r1(merged, truth):
    """R1 in percent with the scale and B that make it smallest."""
    ours, true = _scaled(merged, truth)
    return 100.0 * np.abs(ours - true).sum() / true.sum()


def _n_right(merged, truth):
    """Reflections within a fifth of the truth, or of the mean true intensity where that is larger."""
    ours, true = _scaled(merged, truth)
    return int(np.count_nonzero(np.abs(ours - true) < 0.2 * np.maximum(true, true.mean())))


def _scaled(merged, truth):
    """Intensities with the scale and B that make R1 smallest, and the true ones."""
    keys = sorted(merged.keys() & truth.keys())
    ours, true = (np.array([values[key] for key in keys]) for values in (merged, truth))
    s_squared = inverse_resolution(reflection_from_key(np.array(keys)), (79.1, 79.1, 37.9, 90, 90, 90)) ** 2 / 4.0

    def scaled(parameters):
        return np.exp(parameters[0] - 2.0 * parameters[1] * s_squared) * ours

    start = np.log(true.sum() / ours.sum())
    simplex = [(start, 0.0), (start + 0.1, 0.0), (start, 2.0)]
    options = {"initial_simplex": simplex}
    best = minimize(lambda p: np.abs(scaled(p) - true).sum(), simplex[0], method="Nelder-Mead", options=options)
    return scaled(best.x), true


def _parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--folder", metavar="DIR")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--spots", default=",".join(SPOTS))
    parser.add_argument("--models", default=",".join(MODELS))
    return parser.parse_args()


if __name__ == "__main__":
    options = _parsed()
    sizes = [int(n) for n in options.sizes.split(",")]
    main(lambda: measure(options.spots.split(","), sizes, options.models.split(","), options.folder, options.full))

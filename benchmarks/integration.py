"""Profile fitting beside ring summation: errors against the photons that were simulated, and merged intensities against the truth.

    python benchmarks/integration.py

Spots on frames of their own (`tests/unit/integration/spot_simulator.py`): a point spread of 0.6 pixel, a streak that grows to 0.8 pixel along the
radius, and places 0.15 pixel off the predicted ones. Merged: 200 frames of the simulator's lysozyme preset, as it is and with weak crystals on a
high background, everything but the integration the same.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from stages import call, stages
from table import Row, main

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/integration"))

from spot_simulator import BOUNDS, EVERYTHING, frame_of_spots

from sfxflow.integration.profile import integrate_profiles

RADII = (3.0, 4.0, 6.0)
SPOTS = {"sigma": 0.6, "streak": 0.8, "misplaced": 0.15}

#: Name of a merged set to what is changed in the preset, and the seed.
MERGED = {
    "lysozyme": ((), 90818),
    "lysozyme, weak on high background": (("background=3", "photons=150"), 90819),
}


def integrated(frame, good=None, **settings):
    """Intensities and sigmas of a frame of spots."""
    good = np.ones(frame.data.shape, dtype=bool) if good is None else good
    panel = np.zeros(len(frame.fs), dtype=int)
    where = (frame.fs, frame.ss, panel, RADII, 1.0, np.inf, frame.towards, frame.relative_q2)
    found, _ = integrate_profiles(frame.data, good, EVERYTHING, BOUNDS, *where, **settings)
    return found


def spots(level, method, seed=71, n_frames=6, **settings):
    """Errors and pulls of spots of all strengths."""
    rng = np.random.default_rng(seed)
    photons, errors, pulls = [], [], []
    for _ in range(n_frames):
        frame = frame_of_spots(rng, level, **SPOTS)
        found = integrated(frame, method=method, **settings)
        photons.append(frame.photons)
        errors.append(found.I - frame.photons)
        pulls.append(errors[-1] / found.sigI)
    return np.concatenate(photons), np.concatenate(errors), np.concatenate(pulls)


def masked(method, seed=72, n_frames=6):
    """Relative errors of strong spots with a bad pixel beside the brightest, and how many are kept."""
    rng = np.random.default_rng(seed)
    errors, wanted = [], 0
    for _ in range(n_frames):
        frame = frame_of_spots(rng, 1.0, 3000, **SPOTS)
        good = np.ones(frame.data.shape, dtype=bool)
        good[np.floor(frame.ss[::2]).astype(int), np.floor(frame.fs[::2]).astype(int) + 1] = False
        found = integrated(frame, good, method=method)
        errors.append(found.I[::2][found.ok[::2]] / 3000 - 1)
        wanted += len(frame.fs[::2])
    errors = np.concatenate(errors)
    return errors, len(errors) / wanted


def sloping(background, method, seed=73, n_frames=4):
    """Mean error in sigmas on a background that changes by 2 % a pixel, with a third of every ring masked."""
    rng = np.random.default_rng(seed)
    pulls = []
    for _ in range(n_frames):
        frame = frame_of_spots(rng, 100.0, 3000, slope=2.0, **SPOTS)
        good = np.ones(frame.data.shape, dtype=bool)
        for x, y in zip(frame.fs, frame.ss, strict=True):
            good[int(y) - 7 : int(y) + 8, int(x) + 4 : int(x) + 8] = False
        found = integrated(frame, good, method=method, background=background)
        away_from_steps = np.abs(frame.fs % 100 - 50) < 40
        pulls.append(((found.I - frame.photons) / found.sigI)[away_from_steps & found.ok])
    return float(np.concatenate(pulls).mean())


def of_spots():
    """Rows of the spots on frames of their own."""
    rows = []
    for level in (0.5, 3.0):
        of = {method: spots(level, method) for method in ("profile", "rings")}
        for name, low, high in (("none", 0, 1), ("2 to 30", 1, 30), ("30 to 300", 30, 300), ("300 to 20000", 300, 1e9)):
            rms = {}
            for method, (photons, errors, pulls) in of.items():
                use = (photons >= low) & (photons < high)
                rms[method] = float(np.sqrt(np.mean(errors[use] ** 2)))
                bias = f"mean error {errors[use].mean():+.2f} photons, (I - truth)/sigma scatters by {pulls[use].std():.2f}"
                what = f"rms error, {name} photons on {level:g} a pixel, {method}"
                rows.append(Row(what, "", rms[method], "photons", note=bias))
    for method in ("profile", "rings"):
        errors, kept = masked(method)
        note = f"{100 * kept:.0f} % kept, scatter {100 * errors.std():.1f} %"
        rows.append(
            Row(f"bias with a bad pixel beside the brightest, {method}", "", 100 * errors.mean(), "%", note=note)
        )
    for background in ("flat", "auto", "plane"):
        for method in ("profile", "rings"):
            bias = sloping(background, method)
            rows.append(Row(f"bias on a slope, a third of the ring masked, {background}, {method}", "", bias, "sigma"))
    return rows


def merged(name, scratch, n_frames=200):
    """Rows of one merged set."""
    changes, seed = MERGED[name]
    folder = scratch / name.replace(" ", "_").replace(",", "")
    sets = ("--set", *changes) if changes else ()
    call("simulate", "--preset", "lysozyme", "--n-frames", n_frames, "--seed", seed, "--output", folder, *sets)
    data = {
        "frames": str(folder / "frames_*.h5"),
        "geometry": str(folder / "detector.geom"),
        "cell": str(folder / "lysozyme.cell"),
        "space_group": "P43212",
    }
    peaks, indexing, integration = stages(data, folder)
    call(*peaks)
    call(*indexing)
    rows = []
    cell = ("--cell", data["cell"], "--space-group", data["space_group"])
    variants = (
        ("profile", {"method": "profile"}),
        ("rings", {"method": "rings"}),
        ("profile, push_res 0.1", {"method": "profile", "push_res": 0.1}),
        ("profile, push_res 0", {"method": "profile", "push_res": 0.0}),
    )
    for what, settings in variants:
        call(*integration, "--settings", json.dumps(settings))
        call("merging", "--integrated", folder / "r.h5", "--dataset", "x", *cell, "--output", folder / "m.h5")
        files = ("--json", folder / "f.json", "--tsv", folder / "f.tsv")
        call("figures_of_merit", "--merged", folder / "m.h5", "--reference", folder / "truth.hkl", *files)
        figures = json.loads((folder / "f.json").read_text())["overall"]
        note = (
            f"{figures['n_reflections']} reflections to {figures['d_min']:.2f} angstrom, CC {figures['reference_cc']:.4f}, "
            f"Rsplit {100 * figures['r_split']:.1f} %, CC1/2 {figures['cc_half']:.4f}"
        )
        rows.append(Row(f"merged R1(I), {name}: {what}", "", 100 * figures["reference_r1_i"], "%", note=note))
    return rows


def measure():
    """Rows of the figures."""
    rows = of_spots()
    with tempfile.TemporaryDirectory() as scratch:
        for name in MERGED:
            rows += merged(name, Path(scratch))
    return rows


if __name__ == "__main__":
    main(measure)

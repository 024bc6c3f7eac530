"""Lattices found in peaks that have none, and in ten true peaks, with the significance that each run's own peaks call for.

Noise is peaks at random places of the detector, and the peaks of ice and salt rings. `docs/indexing.md` quotes what this prints.
"""

from types import SimpleNamespace

import numpy as np
from index_runs import cell_of, compared, index_run, simulated_run
from table import Row, main

from sfxflow.geometry import panel_arrays, panel_of
from sfxflow.indexing.frame import FramePeaks, frame_peaks, panel_inverses, prepare_target
from sfxflow.settings import Indexing
from sfxflow.simulate.presets import preset
from sfxflow.units import wavelength

#: Not those on which anything was chosen.
SEED = 9072
PRESETS = ("lysozyme", "hexagonal", "monoclinic", "triclinic", "orthorhombic", "cubic", "large")
#: Spacings (angstrom) of the strong rings of ice Ih and of salt.
RINGS = {"ice": (3.90, 3.67, 3.44, 2.67, 2.25), "salt": (3.26, 2.82, 1.99)}
NO_LATTICE = SimpleNamespace(lattices=())


def anywhere(experiment, index, n_peaks):
    """Peaks at random places of the detector."""
    rng = np.random.default_rng([SEED, index, n_peaks])
    rows, columns = experiment.detector.shape
    return _listed(experiment, rng, rng.random(3 * n_peaks) * columns, rng.random(3 * n_peaks) * rows, n_peaks)


def on_rings(experiment, index, n_peaks, spacings, width=1e-3):
    """Peaks on powder rings: at random azimuths, of a relative width of 1e-3."""
    rng = np.random.default_rng([SEED, index, n_peaks, 1])
    arrays = panel_arrays(experiment.detector)
    length, clen = wavelength(experiment.photon_energy), experiment.detector.clen
    spacing = rng.choice(spacings, 20 * n_peaks) * (1.0 + width * rng.standard_normal(20 * n_peaks))
    angle, azimuth = 2.0 * np.arcsin(length / (2.0 * spacing)), 2 * np.pi * rng.random(20 * n_peaks)
    rays = np.stack([np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth), np.cos(angle)], axis=1)
    spots = np.einsum("pij,nj->pni", panel_inverses(arrays, clen), rays)
    place = spots[:, :, :2] / spots[:, :, 2:]
    bounds = arrays.bounds[:, None, :]
    inside = np.all(
        (place >= 0) & (place < np.stack([bounds[..., 3] - bounds[..., 2], bounds[..., 1] - bounds[..., 0]], axis=-1)),
        axis=2,
    )
    panel, ray = np.nonzero(inside)
    panel, ray = panel[np.argsort(ray)], np.sort(ray)
    fs, ss = place[panel, ray, 0] + arrays.bounds[panel, 2], place[panel, ray, 1] + arrays.bounds[panel, 0]
    return _listed(experiment, rng, fs, ss, n_peaks)


def _listed(experiment, rng, fs, ss, n_peaks):
    """The first `n_peaks` that are on a panel, as `peak_list` gives them."""
    arrays = panel_arrays(experiment.detector)
    panel = panel_of(arrays.bounds, fs, ss)
    on = np.flatnonzero(panel >= 0)[:n_peaks]
    length, clen = wavelength(experiment.photon_energy), experiment.detector.clen
    peaks = frame_peaks(arrays, panel[on], fs[on], ss[on], rng.exponential(size=len(on)), length, clen)
    return peaks, panel_inverses(arrays, clen), length, NO_LATTICE


def _accepted(lists, experiment):
    """Frames with a lattice, and the cut."""
    indexed = index_run(lists, cell_of(experiment), experiment.pixel_size, Indexing())
    return sum(map(bool, indexed.lattices)), indexed.cut


def random_peaks():
    """Frames of random peaks: each cell and number of peaks is a run of its own."""
    accepted, n_frames, cuts = 0, 0, []
    for name, n_each in (("lysozyme", 200), ("monoclinic", 100), ("large", 50)):
        experiment = preset(name, seed=SEED)
        for n_peaks in (10, 40, 150):
            found, cut = _accepted([anywhere(experiment, i, n_peaks) for i in range(n_each)], experiment)
            accepted, n_frames, cuts = accepted + found, n_frames + n_each, [*cuts, cut]
    note = f"{n_frames} frames of 10, 40 and 150 peaks, 3 cells; log10 P below {max(cuts):.1f} to {min(cuts):.1f}"
    return [Row("lattices in 1000 frames of random peaks", "0", 1e3 * accepted / n_frames, "", accepted == 0, note)]


def among_rings(experiment, made, index, n_peaks, spacings):
    """A crystal's peaks with `n_peaks` on rings, as `peak_list` gives them."""
    peaks, to_panel, length, truth = made
    rings = on_rings(experiment, index, n_peaks, spacings)[0]
    # The photon energy varies from frame to frame by a part in a thousand: as little as the rings are wide.
    strengths = np.resize(peaks.intensity, len(rings))
    both = FramePeaks(
        np.concatenate([peaks.panel, rings.panel]),
        np.concatenate([peaks.position, rings.position]),
        np.concatenate([peaks.q, rings.q]),
        np.concatenate([peaks.intensity, strengths]),
        peaks.distance,
    )
    return both, to_panel, length, truth


def ring_peaks():
    """Frames of peaks on rings alone, and among those of a crystal."""
    rows = []
    experiment, lists = simulated_run("lysozyme", 100, 25, 0, 1, SEED)
    cell = cell_of(experiment)
    for ring, spacings in RINGS.items():
        found, cut = _accepted([on_rings(experiment, i, 60, spacings) for i in range(150)], experiment)
        note = f"150 frames of 60 peaks; log10 P below {cut:.1f}"
        rows.append(Row(f"lattices in 1000 frames of {ring} rings", "0", 1e3 * found / 150, "", found == 0, note))
        both = [among_rings(experiment, made, i, 50, spacings) for i, made in enumerate(lists)]
        indexed = index_run(both, cell, experiment.pixel_size, Indexing())
        n_true, n_found, n_wrong = compared(both, indexed.lattices, prepare_target(cell).lattice)
        what = f"index rate, 25 peaks + 50 on {ring} rings"
        note = f"{n_true} lattices, {n_wrong} wrong ones; log10 P below {indexed.cut:.1f}"
        rows.append(
            Row(what, ">= 98 %, 0 wrong", 100 * n_found / n_true, "%", n_found >= 0.98 * n_true and not n_wrong, note)
        )
    return rows


def ten_peaks():
    """Lattices of ten peaks that are accepted, and frames of ten random peaks that are, each preset a run of its own."""
    n_true = n_found = n_wrong = n_noise = n_false = 0
    worst, cuts = 100.0, []
    for name in PRESETS:
        experiment, lists = simulated_run(name, 80, 10, 0, 1, SEED)
        cell = cell_of(experiment)
        noise = [anywhere(experiment, i, 10) for i in range(80)]
        indexed = index_run(lists, cell, experiment.pixel_size, Indexing())
        lattice = prepare_target(cell).lattice
        true, found, wrong = compared(lists, indexed.lattices, lattice)
        # Random peaks among those of crystals: the run's cut and verdict are those of a run with crystals.
        both = index_run(lists + noise, cell, experiment.pixel_size, Indexing())
        n_true, n_found, n_wrong = n_true + true, n_found + found, n_wrong + wrong
        n_noise, n_false = n_noise + len(noise), n_false + sum(map(bool, both.lattices[len(lists) :]))
        worst, cuts = min(worst, 100 * found / true), [*cuts, indexed.cut]
    rate, false = 100 * n_found / n_true, 100 * n_false / n_noise
    cut_range = f"log10 P below {max(cuts):.1f} to {min(cuts):.1f}"
    return [
        Row(
            "lattices of 10 peaks accepted", ">= 95 %", rate, "%", rate >= 95.0,
            f"{n_true} of 7 presets, {n_wrong} wrong ones, lowest preset {worst:.1f} %, {cut_range}",
        ),
        Row("frames of 10 random peaks accepted", "<= 1 %", false, "%", false <= 1.0, f"{n_noise} frames, in the same runs"),
    ]  # fmt: skip


def measure():
    """Rows for the table."""
    return [*random_peaks(), *ring_peaks(), *ten_peaks()]


if __name__ == "__main__":
    main(measure)

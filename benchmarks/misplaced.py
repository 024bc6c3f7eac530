"""Peak lists of experiments whose written geometry is wrong, and how wrong a geometry is; for the benchmark and the tests of geometry."""

import numpy as np

from sfxflow.cell import Cell
from sfxflow.geometry import panel_arrays, panel_of
from sfxflow.geometry_refinement.crystals import PeakList
from sfxflow.geometry_refinement.groups import panel_centres
from sfxflow.geometry_refinement.search import index_all
from sfxflow.indexing.frame import prepare_target
from sfxflow.io.cell_file import lattice_of
from sfxflow.settings import Indexing
from sfxflow.simulate.frames import frame_truth, simulate_spots
from sfxflow.simulate.presets import preset
from sfxflow.units import wavelength


def experiment(name, seed, **changes):
    """A preset without blanks and with one lattice a frame, and its target cell."""
    made = preset(name, seed=seed, **{"blank_fraction": 0.0, "multi_fraction": 0.0, **changes})
    lattice, centering, axis = lattice_of(made.gemmi_group)
    return made, Cell(*made.cell_parameters, lattice_type=lattice, centering=centering, unique_axis=axis)


def peak_lists(made, n_frames, n_peaks=60, n_outliers=10, position_sigma=0.3):
    """The strongest spots of each frame as they were read out, moved by errors of position, among random ones; stated camera length."""
    bounds = panel_arrays(made.detector).bounds
    rows, columns = made.detector.shape
    lists = []
    for index in range(n_frames):
        spots = simulate_spots(made, index)
        rng = np.random.default_rng([index, n_peaks, n_outliers])
        strongest = np.argsort(-spots.intensity)[:n_peaks]
        noise = position_sigma * rng.standard_normal((2, len(strongest)))
        fs = np.concatenate([spots.fs[strongest] + noise[0], rng.random(n_outliers) * columns])
        ss = np.concatenate([spots.ss[strongest] + noise[1], rng.random(n_outliers) * rows])
        intensity = np.resize(spots.intensity[strongest], len(fs))
        panel = panel_of(bounds, fs, ss)
        on = panel >= 0
        length = wavelength(frame_truth(made, index).photon_energy)
        lists.append(PeakList(panel[on], fs[on], ss[on], intensity[on], length, made.stated_detector.clen))
    return lists


def indexed(lists, detector, cell, pixel_size):
    """Crystals, number of frames with a lattice, and profile, with a geometry."""
    return index_all(lists, panel_arrays(detector), prepare_target(cell), Indexing(), pixel_size)


def errors_left(true, refined, pixel_size, with_turn=False):
    """Root mean square of the panels' errors along x and y over all panels, pixel, after their mean is taken off.

    `with_turn` takes off a turn of everything about the beam too: no crystal can tell it.
    """
    true, refined = panel_centres(panel_arrays(true)), panel_centres(panel_arrays(refined))
    errors = (refined - true)[:, :2] / pixel_size
    errors -= errors.mean(axis=0)
    if with_turn:
        arms = true[:, :2] / pixel_size
        arms = np.stack([-arms[:, 1], arms[:, 0]], axis=1)
        arms -= arms.mean(axis=0)
        errors -= arms * (errors * arms).sum() / (arms**2).sum()
    return float(np.sqrt((errors**2).mean()))

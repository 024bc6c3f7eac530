"""Peak lists with known lattices, from the simulator's spots: no images, so that thousands of frames take seconds."""

import numpy as np

from sfxflow.geometry import panel_arrays, panel_of
from sfxflow.indexing.frame import frame_peaks, panel_inverses
from sfxflow.simulate.frames import frame_truth, simulate_spots
from sfxflow.units import wavelength


def peak_list(experiment, index, n_peaks, n_outliers, position_sigma=0.3, each_lattice=False):
    """The strongest spots of a frame (or of each of its lattices) as peaks, with errors of position, among random ones.

    Returns
    -------
    peaks : FramePeaks
    to_panel : ndarray
    wavelength : float
    truth : FrameTruth
    """
    truth = frame_truth(experiment, index)
    spots = simulate_spots(experiment, index)
    rng = np.random.default_rng([index, n_peaks, n_outliers])
    arrays = panel_arrays(experiment.detector)
    strongest = np.argsort(-spots.intensity)
    if each_lattice:
        lattice = spots.lattice[strongest]
        strongest = np.concatenate([strongest[lattice == i][:n_peaks] for i in range(len(truth.lattices))])
    else:
        strongest = strongest[:n_peaks]
    fs = spots.fs[strongest] + position_sigma * rng.standard_normal(len(strongest))
    ss = spots.ss[strongest] + position_sigma * rng.standard_normal(len(strongest))
    rows, columns = experiment.detector.shape
    fs = np.concatenate([fs, rng.random(n_outliers) * columns])
    ss = np.concatenate([ss, rng.random(n_outliers) * rows])
    intensity = np.concatenate(
        [spots.intensity[strongest], rng.permutation(np.resize(spots.intensity[strongest], n_outliers))]
    )
    panel = panel_of(arrays.bounds, fs, ss)
    on = panel >= 0
    length = wavelength(truth.photon_energy)
    peaks = frame_peaks(arrays, panel[on], fs[on], ss[on], intensity[on], length, experiment.detector.clen)
    return peaks, panel_inverses(arrays, experiment.detector.clen), length, truth

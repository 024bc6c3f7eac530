"""Runs of peak lists, indexed as a job does it: significance from the lists, frame by frame, judged together, refined again."""

import time
from dataclasses import dataclass, replace

import numpy as np
from peak_lists import peak_list

from sfxflow.cell import Cell
from sfxflow.indexing.acceptance import believed, judge_run
from sfxflow.indexing.frame import (
    DEFAULT_LOG10_P,
    index_candidates,
    misorientation,
    prepare_target,
    searched_peaks,
    strength_weights,
)
from sfxflow.indexing.pool import pool_lattices
from sfxflow.indexing.refine import refine_lattice
from sfxflow.indexing.significance import calibrated_cut, chance_fit, copies_of
from sfxflow.io.cell_file import lattice_of
from sfxflow.simulate.frames import frame_truth
from sfxflow.simulate.presets import preset

#: A lattice is the right one within this angle (degree), up to the symmetry of the lattice.
RIGHT_ANGLE = 1.0


def cell_of(experiment):
    """The right cell of a simulated experiment."""
    lattice, centering, axis = lattice_of(experiment.gemmi_group)
    return Cell(*experiment.cell_parameters, lattice_type=lattice, centering=centering, unique_axis=axis)


def simulated_run(name, n_frames, n_peaks, n_outliers, n_lattices=1, seed=0, **changes):
    """Peak lists of frames with so many lattices, `n_peaks` of each of them.

    Returns
    -------
    experiment : sfxflow.simulate.experiment.Experiment
    lists : list
        What `peak_list` gives, for each frame.
    """
    several = {"multi_fraction": 1.0, "max_lattices": n_lattices} if n_lattices > 1 else {"multi_fraction": 0.0}
    experiment = preset(name, seed=seed, **{"blank_fraction": 0.0, **several, **changes})
    lists, index = [], 0
    while len(lists) < n_frames:
        if len(frame_truth(experiment, index).lattices) == n_lattices:
            made = peak_list(experiment, index, n_peaks, n_outliers, each_lattice=True)
            # Outliers that fall between panels are lost.
            if len(made[0]) >= n_peaks * n_lattices:
                lists.append(made)
        index += 1
    return experiment, lists


@dataclass
class Indexed:
    """What became of a run: for each frame its lattices (reciprocal matrices); the cut, the verdict, CPU seconds of indexing and
    refining, and of finding the cut."""

    lattices: list
    cut: float
    verdict: object
    seconds: float
    seconds_of_cut: float


def run_cut(lists, lattice, settings):
    """The significance cut of a run."""
    if settings.max_log10_p is not None:
        return settings.max_log10_p
    frames = [i for i, made in enumerate(lists) if len(made[0]) >= settings.min_peaks]
    fits = []
    for i, copy in copies_of(frames):
        peaks = lists[i][0]
        searched = searched_peaks(peaks.intensity)
        fits.append(chance_fit(peaks.q[searched], strength_weights(peaks.intensity[searched]), lattice, [i, copy]))
    cut = calibrated_cut(fits)
    return DEFAULT_LOG10_P if cut is None else cut


def index_run(lists, cell, pixel_size, settings):
    """Index a run and refine its lattices with what they have in common.

    Parameters
    ----------
    lists : list
        What `peak_list` gives, for each frame.
    cell : sfxflow.cell.Cell
    pixel_size : float
    settings : sfxflow.settings.Indexing

    Returns
    -------
    Indexed
    """
    target = prepare_target(cell)
    start = time.process_time()
    cut = run_cut(lists, target.lattice, settings)
    seconds_of_cut = time.process_time() - start
    settings = replace(settings, max_log10_p=cut)
    start = time.process_time()
    found = [index_candidates(peaks, target, *rest[:2], pixel_size, settings)[0] for peaks, *rest in lists]
    verdict = judge_run([lattice.evidence for of_frame in found for lattice in of_frame])
    kept = []
    for of_frame in found:
        doubts = [bool(believed(lattice.evidence, verdict)) for lattice in of_frame] + [True]
        kept.append(of_frame[: doubts.index(True)])
    pooled = [
        (
            np.linalg.norm(made[0].q, axis=1),
            lattice.refined.excitation_error,
            lattice.refined.inlier,
            lattice.refined.offsets,
        )
        for made, of_frame in zip(lists, kept, strict=True)
        for lattice in of_frame
    ]
    lattices = [[] for _ in lists]
    if pooled:
        profile = pool_lattices(pooled, lists[0][2], pixel_size)
        for made, of_frame, matrices in zip(lists, kept, lattices, strict=True):
            matrices += _refined_again(made, of_frame, target, pixel_size, settings, profile)
    return Indexed(lattices, cut, verdict, time.process_time() - start, seconds_of_cut)


def _refined_again(made, of_frame, target, pixel_size, settings, profile):
    peaks, to_panel, wavelength, _ = made
    matrices = []
    for lattice in of_frame:
        others = np.zeros(len(peaks), dtype=bool)
        for other in of_frame:
            others |= other.members & (other is not lattice)
        refined = refine_lattice(
            lattice.refined.reciprocal, target.cell, peaks.subset(lattice.members | ~others), to_panel, wavelength,
            start_sigma=lattice.refined.profile_sigma, pixel_size=pixel_size, profile=profile,
        )  # fmt: skip
        if (refined.inlier > 0.5).sum() >= settings.min_peaks:
            matrices.append(refined.reciprocal)
    return matrices


def compared(lists, lattices, lattice):
    """How many true lattices there are, how many were found, and how many lattices found are no true ones.

    Parameters
    ----------
    lists : list
        With the truth of each frame.
    lattices : list of list of ndarray, shape (3, 3)
        Reciprocal matrices found on each frame.
    lattice : sfxflow.indexing.lattice.Lattice
    """
    n_true = n_found = n_wrong = 0
    for (*_, truth), matrices in zip(lists, lattices, strict=True):
        found = set()
        for matrix in matrices:
            angles = [misorientation(matrix, other.reciprocal, lattice) for other in truth.lattices]
            nearest = int(np.argmin(angles)) if angles else -1
            if angles and angles[nearest] < RIGHT_ANGLE and nearest not in found:
                found.add(nearest)
            else:
                n_wrong += 1
        n_true += len(truth.lattices)
        n_found += len(found)
    return n_true, n_found, n_wrong

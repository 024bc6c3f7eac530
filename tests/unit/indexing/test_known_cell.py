"""Known-cell indexing of one lattice: right ones found, none in random peaks."""

import numpy as np
import pytest

from sfxflow.indexing.frame import (
    DEFAULT_LOG10_P,
    conventional_reciprocal,
    misorientation,
    prepare_target,
    strength_weights,
)
from sfxflow.indexing.known_cell import SIGNIFICANCE_TOLERANCES, index_lattice
from sfxflow.indexing.search import significance

NAMES = ("lysozyme", "hexagonal", "monoclinic", "triclinic", "cubic", "large")


def indexed(simulated, experiment, n_peaks, n_outliers, n_frames, position_sigma=0.3):
    """Number of frames, and for each significant lattice its angle to the truth (degree) and log10 P."""
    lattice = prepare_target(simulated.cell(experiment)).lattice
    n, found = 0, []
    for index in range(n_frames):
        peaks, _, _, truth = simulated.peak_list(experiment, index, n_peaks, n_outliers, position_sigma)
        if len(peaks) < 0.9 * (n_peaks + n_outliers) - 2:
            continue  # few spots on this frame, or few places on the panels
        n += 1
        reduced, log10_p, tolerance = index_lattice(peaks.q, strength_weights(peaks.intensity), lattice, -14.0)
        assert tolerance in SIGNIFICANCE_TOLERANCES
        if reduced is not None and log10_p < -14.0:
            reciprocal = conventional_reciprocal(reduced, lattice)
            angle = misorientation(reciprocal, truth.lattices[0].reciprocal, lattice)
            found.append((angle, log10_p))
    return n, np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_noise_free_peaks(simulated, name):
    n, found = indexed(simulated, simulated.experiment(name), 30, 0, 12, position_sigma=0.0)
    assert n >= 10 and len(found) == n
    assert found[:, 0].max() < 0.5
    assert found[:, 1].max() < -20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("n_peaks", "n_outliers", "least"), [(10, 0, 0.9), (20, 20, 0.95), (25, 75, 0.9)], ids=lambda x: str(x)
)
def test_noisy_peaks_among_false_ones(simulated, name, n_peaks, n_outliers, least):
    n, found = indexed(simulated, simulated.experiment(name), n_peaks, n_outliers, 20)
    assert n >= 15
    # What the search gives is not refined yet.
    right = (found[:, 0] < 2.5).sum()
    assert right >= least * n
    # A significant lattice is the right one: 1 in 20 may be a chance fit.
    assert len(found) - right <= 1


def test_centred_monoclinic(simulated):
    experiment = simulated.experiment("monoclinic", a=72.0, b=42.0, c=50.0, beta=108.0, space_group="C121")
    n, found = indexed(simulated, experiment, 20, 20, 15)
    assert n >= 10 and (found[:, 0] < 1.0).sum() >= 0.95 * n


def test_rhombohedral_on_both_kinds_of_axes(simulated):
    for group, changes in (
        ("R 3:H", {"a": 66.0, "b": 66.0, "c": 104.0, "gamma": 120.0}),
        ("R 3:R", {"a": 47.0, "b": 47.0, "c": 47.0, "alpha": 78.0, "beta": 78.0, "gamma": 78.0}),
    ):
        experiment = simulated.experiment("lysozyme", space_group=group, **changes)
        n, found = indexed(simulated, experiment, 20, 20, 12)
        assert n >= 10 and (found[:, 0] < 1.0).sum() >= 0.95 * n


def test_random_peaks_are_seldom_significant(simulated):
    """150 lists of peaks anywhere on the detector: at most 2 % significant at the cut that holds where none is calibrated."""
    experiment = simulated.experiment("lysozyme")
    lattice = prepare_target(simulated.cell(experiment)).lattice
    chances = []
    for index in range(150):
        n_peaks = (12, 30, 60)[index % 3]
        peaks, *_ = simulated.peak_list(experiment, index, 0, n_peaks)
        chances.append(index_lattice(peaks.q, np.ones(len(peaks)), lattice, DEFAULT_LOG10_P)[1])
    assert (np.array(chances) < DEFAULT_LOG10_P).sum() <= 3
    # Chance fits are about as significant whatever the number of peaks: so one cut serves all.
    assert -12.5 < np.median(chances) < -8.0


def test_log10_p_is_that_of_the_whole_list(simulated):
    experiment = simulated.experiment("lysozyme")
    lattice = prepare_target(simulated.cell(experiment)).lattice
    peaks, *_ = simulated.peak_list(experiment, 0, 30, 10)
    reduced, log10_p, tolerance = index_lattice(peaks.q, np.ones(len(peaks)), lattice, -14.0)
    assert (log10_p, tolerance) == significance(reduced, peaks.q, SIGNIFICANCE_TOLERANCES)


@pytest.mark.parametrize("n_peaks", [0, 1, 2, 4])
def test_too_few_peaks_are_no_error(simulated, n_peaks):
    lattice = prepare_target(simulated.cell(simulated.experiment("lysozyme"))).lattice
    q = 0.1 * np.random.default_rng(1).standard_normal((n_peaks, 3))
    assert index_lattice(q, np.ones(n_peaks), lattice, -14.0)[1] > -14.0


def test_peaks_around_the_beam_are_no_lattice(simulated):
    lattice = prepare_target(simulated.cell(simulated.experiment("lysozyme"))).lattice
    q = 5e-4 * np.random.default_rng(1).standard_normal((40, 3))
    assert index_lattice(q, np.ones(40), lattice, -14.0)[1] > -14.0

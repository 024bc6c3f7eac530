"""Refinement against truth: derivatives, every Bravais class, false peaks, and what a wrong geometry leaves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.cell import Cell, parameters_of, reciprocal_matrix
from sfxflow.geometry import panel_arrays
from sfxflow.indexing.frame import frame_peaks, misorientation, panel_inverses, prepare_target
from sfxflow.indexing.pool import pool_lattices
from sfxflow.indexing.refine import (
    Profile,
    free_parameters,
    refine_lattice,
    sigma_of_q,
    variance_shares,
)

K = 1.0 / 1.3

#: Bravais lattices with the space group and cell of a simulated crystal.
CLASSES = {
    "aP": ("P1", {"a": 38.0, "b": 46.0, "c": 55.0, "alpha": 82.0, "beta": 77.0, "gamma": 69.0}),
    "mP": ("P1211", {"a": 51.0, "b": 42.0, "c": 60.0, "beta": 104.5}),
    "mC": ("C121", {"a": 72.0, "b": 42.0, "c": 50.0, "beta": 108.0}),
    "oP": ("P212121", {"a": 42.0, "b": 50.0, "c": 61.0}),
    "oC": ("C2221", {"a": 48.0, "b": 70.0, "c": 56.0}),
    "oI": ("I222", {"a": 52.0, "b": 60.0, "c": 71.0}),
    "oF": ("F222", {"a": 62.0, "b": 74.0, "c": 85.0}),
    "tP": ("P43212", {"a": 58.0, "b": 58.0, "c": 40.0}),
    "tI": ("I41", {"a": 60.0, "b": 60.0, "c": 74.0}),
    "hP": ("P63", {"a": 62.0, "b": 62.0, "c": 50.0, "gamma": 120.0}),
    "hR": ("R 3:H", {"a": 66.0, "b": 66.0, "c": 80.0, "gamma": 120.0}),
    "rR": ("R 3:R", {"a": 47.0, "b": 47.0, "c": 47.0, "alpha": 78.0, "beta": 78.0, "gamma": 78.0}),
    "cP": ("P213", {"a": 56.0, "b": 56.0, "c": 56.0}),
    "cI": ("I23", {"a": 70.0, "b": 70.0, "c": 70.0}),
    "cF": ("F23", {"a": 88.0, "b": 88.0, "c": 88.0}),
}


def test_sigma_and_shares_add_up():
    q = np.linspace(0.01, 0.5, 9)
    total = sigma_of_q(q, 3e-4, 1e-3, 2e-3, 1.3)
    np.testing.assert_allclose(total**2, 9e-8 + 1e-6 * q**2 + (1.3e-3 * q**2) ** 2)
    shares = variance_shares(q, 3e-4, 1e-3, 2e-3, 1.3)
    np.testing.assert_allclose(shares[:, 0], 1e-6 * q**2 / total**2)
    np.testing.assert_allclose(1.0 - shares.sum(axis=1), 9e-8 / total**2)


@pytest.mark.parametrize(
    ("lattice", "axis", "free"),
    [
        ("triclinic", "*", 6),
        ("monoclinic", "b", 4),
        ("monoclinic", "c", 4),
        ("orthorhombic", "*", 3),
        ("tetragonal", "c", 2),
        ("tetragonal", "a", 2),
        ("hexagonal", "c", 2),
        ("rhombohedral", "*", 2),
        ("cubic", "*", 1),
    ],
)
def test_free_parameters_keep_the_class(lattice, axis, free):
    columns = free_parameters(lattice, axis)
    assert columns.shape == (6, free)
    rng = np.random.default_rng(1)
    start = {
        "triclinic": (30, 40, 50, 80, 75, 70),
        "monoclinic": (30, 40, 50, 90, 100, 90) if axis == "b" else (30, 40, 50, 90, 90, 100),
        "orthorhombic": (30, 40, 50, 90, 90, 90),
        "tetragonal": (30, 30, 50, 90, 90, 90) if axis == "c" else (50, 30, 30, 90, 90, 90),
        "hexagonal": (30, 30, 50, 90, 90, 120),
        "rhombohedral": (30, 30, 30, 75, 75, 75),
        "cubic": (30, 30, 30, 90, 90, 90),
    }[lattice]
    a, b, c, alpha, beta, gamma = start + columns @ rng.standard_normal(free)
    changed = np.array([a, b, c, alpha, beta, gamma]) != start
    if lattice in ("tetragonal", "hexagonal", "cubic", "rhombohedral"):
        assert (b == c if axis == "a" else a == b) and changed[:3].all()
    if lattice in ("cubic", "rhombohedral"):
        assert a == b == c
    if lattice == "rhombohedral":
        assert alpha == beta == gamma != 75
    elif lattice == "monoclinic":
        assert changed[3:].tolist() == [False, axis == "b", axis == "c"]
    elif lattice != "triclinic":
        assert not changed[3:].any()


def perturbed(reciprocal, rng, degrees=0.3, strain=0.005):
    """A start some way off: turned, and strained against the class."""
    turn = Rotation.from_rotvec(np.radians(degrees) * rng.standard_normal(3) / np.sqrt(3)).as_matrix()
    return turn @ reciprocal @ (np.eye(3) + strain * rng.standard_normal((3, 3)) / 3)


@pytest.mark.parametrize("bravais", CLASSES)
def test_every_bravais_class_converges_to_the_truth(bravais, simulated):
    group, parameters = CLASSES[bravais]
    base = {"alpha": 90.0, "beta": 90.0, "gamma": 90.0, "d_min": 2.4}
    experiment = simulated.experiment("demo", space_group=group, **{**base, **parameters})
    cell = simulated.cell(experiment)
    lattice = prepare_target(cell).lattice
    rng = np.random.default_rng(3)
    angles, lengths, cell_angles, used = [], [], [], []
    for index in range(8):
        peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, index, 60, 6)
        true = truth.lattices[0].reciprocal
        refined = refine_lattice(
            perturbed(true, rng),
            cell,
            peaks,
            to_panel,
            wavelength,
            start_sigma=1.5e-3,
            pixel_size=experiment.pixel_size,
        )
        angles.append(misorientation(refined.reciprocal, true, lattice))
        found, made = parameters_of(refined.reciprocal), parameters_of(true)
        lengths.append(found[:3] / made[:3] - 1.0)
        cell_angles.append(found[3:] - made[3:])
        used.append((refined.inlier > 0.5).sum() / min(60, len(peaks)))
        # Still of its class: what the class fixes or equates is so to rounding.
        free = free_parameters(cell.lattice_type, cell.unique_axis)
        departure = found - np.array(cell.parameters)
        within = free @ np.linalg.lstsq(free, departure, rcond=None)[0]
        np.testing.assert_allclose(departure, within, atol=1e-6)
        # Reflections that the centring forbids are not paired with.
        primitive = refined.hkl @ np.linalg.inv(lattice.from_reduced).T
        np.testing.assert_allclose(primitive, np.rint(primitive), atol=1e-9)
    # Excitation errors of sigma 5e-4 at q of 0.2 turn a lattice by 0.14 degrees, 60 of them by 0.02 about each axis across the beam.
    assert np.median(angles) < 0.06 and max(angles) < 0.15
    assert np.median(np.abs(lengths)) < 2e-3 and np.abs(lengths).max() < 1.2e-2
    assert np.abs(cell_angles).max() < 0.5
    assert np.mean(used) > 0.9


def test_excitation_errors_are_the_simulators(simulated):
    experiment = simulated.experiment("lysozyme")
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, 0, 80, 0, position_sigma=0.0)
    lattice = truth.lattices[0]
    refined = refine_lattice(
        lattice.reciprocal,
        simulated.cell(experiment),
        peaks,
        to_panel,
        wavelength,
        start_sigma=1e-3,
        pixel_size=experiment.pixel_size,
    )
    q = refined.hkl @ lattice.reciprocal.T
    true = 1 / wavelength - np.linalg.norm(q + [0, 0, 1 / wavelength], axis=1)
    assert np.corrcoef(refined.excitation_error, true)[0, 1] > 0.9
    assert np.std(refined.excitation_error - true) < 0.5 * np.std(true)


@pytest.mark.parametrize("name", ["lysozyme", "triclinic"])
def test_false_peaks_do_not_widen_the_fit(simulated, name):
    """Failure F1: with twice as many false peaks as true ones widths, orientation and cell stay what they were."""
    experiment = simulated.experiment(name)
    cell = simulated.cell(experiment)
    lattice = prepare_target(cell).lattice
    sigmas, widths, angles, n_false = {}, {}, {}, []
    for n_outliers in (0, 120):
        for index in range(12):
            peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, index, 60, n_outliers)
            true = truth.lattices[0].reciprocal
            refined = refine_lattice(
                perturbed(true, np.random.default_rng(index), 0.2, 0.003),
                cell,
                peaks,
                to_panel,
                wavelength,
                start_sigma=1.5e-3,
                pixel_size=experiment.pixel_size,
            )
            sigmas.setdefault(n_outliers, []).append(refined.position_sigma)
            widths.setdefault(n_outliers, []).append(refined.profile_sigma)
            angles.setdefault(n_outliers, []).append(misorientation(refined.reciprocal, true, lattice))
            if n_outliers:
                n_false.append((refined.inlier[60:] > 0.5).mean())
    # The peaks were moved by 0.3 pixel; mosaicity and bandwidth move the spots themselves a little more.
    assert np.median(sigmas[0]) < 0.6
    assert np.median(sigmas[120]) < 1.25 * np.median(sigmas[0])
    assert np.median(widths[120]) < 1.25 * np.median(widths[0])
    assert np.median(angles[120]) < 1.5 * np.median(angles[0]) + 0.005
    assert np.mean(n_false) < 0.04


def test_wrong_geometry_is_recovered_from_several_crystals(simulated):
    """A pattern 0.4 pixel off and a camera length 1 % too long: single crystals know it poorly, all together well."""
    experiment = simulated.experiment("demo")
    cell = simulated.cell(experiment)
    lattice = prepare_target(cell).lattice
    true_arrays = panel_arrays(experiment.detector)
    clen, pixel = experiment.detector.clen, experiment.pixel_size
    shift = np.array([0.4 * pixel, -0.3 * pixel, 0.0])
    arrays = replace(true_arrays, origin=true_arrays.origin + shift)
    clen_given = 1.01 * clen
    to_panel = panel_inverses(arrays, clen_given)

    def observed(index):
        peaks, _, wavelength, truth = simulated.peak_list(experiment, index, 60, 10)
        bounds = arrays.bounds[peaks.panel]
        fs, ss = peaks.position[:, 0] + bounds[:, 2], peaks.position[:, 1] + bounds[:, 0]
        return (
            frame_peaks(arrays, peaks.panel, fs, ss, peaks.intensity, wavelength, clen_given),
            wavelength,
            truth.lattices[0].reciprocal,
        )

    first = []
    for index in range(30):
        peaks, wavelength, true = observed(index)
        refined = refine_lattice(true / 1.01, cell, peaks, to_panel, wavelength, start_sigma=1.5e-3, pixel_size=pixel)
        members = refined.inlier > 0.01
        first.append(
            (
                np.linalg.norm(peaks.q[members], axis=1),
                refined.excitation_error[members],
                refined.inlier[members],
                refined.offsets,
            )
        )
    profile = pool_lattices(first, wavelength, pixel)
    np.testing.assert_allclose(np.array(profile.offsets[:2]) / pixel, shift[:2] / pixel, atol=0.06)
    assert profile.offsets[2] == pytest.approx(0.01, abs=0.0015)
    angles, scale = [], []
    for index in range(10):
        peaks, wavelength, true = observed(index)
        refined = refine_lattice(
            true / 1.01, cell, peaks, to_panel, wavelength, start_sigma=5e-4, pixel_size=pixel, profile=profile
        )
        angles.append(misorientation(refined.reciprocal, true, lattice))
        # The cell is that for the camera length as given: larger by the excess.
        scale.append(parameters_of(refined.reciprocal)[:3] / parameters_of(true)[:3])
    assert np.median(angles) < 0.04
    np.testing.assert_allclose(np.median(scale, axis=0), 1.01, atol=3e-3)


def test_pooled_profile_gives_the_width_as_a_factor(simulated):
    experiment = simulated.experiment("demo")
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, 1, 80, 0)
    profile = Profile(5e-4, 5e-4, 5e-4, (0.0, 0.0, 0.0), (1e-5, 1e-5, 5e-4))
    refined = refine_lattice(
        truth.lattices[0].reciprocal,
        simulated.cell(experiment),
        peaks,
        to_panel,
        wavelength,
        start_sigma=5e-4,
        pixel_size=experiment.pixel_size,
        profile=profile,
    )
    assert 0.5 < refined.profile_sigma < 2.5
    assert np.abs(refined.offsets[2]) < 2e-3


@pytest.mark.parametrize("n_peaks", [0, 1, 2, 5])
def test_too_few_peaks_are_no_error(simulated, n_peaks):
    experiment = simulated.experiment("demo")
    peaks, to_panel, wavelength, _ = simulated.peak_list(experiment, 1, 30, 0)
    some = peaks.subset(np.arange(len(peaks)) < n_peaks)
    refined = refine_lattice(
        reciprocal_matrix(experiment.cell_parameters),
        simulated.cell(experiment),
        some,
        to_panel,
        wavelength,
        start_sigma=1e-3,
        pixel_size=experiment.pixel_size,
    )
    assert len(refined.inlier) == n_peaks
    assert refined.log10_ratio <= 5.0


def test_random_peaks_are_no_error(simulated):
    """Whatever the start, refinement ends: no singular matrix, no NaN in what is returned."""
    experiment = simulated.experiment("demo")
    peaks, to_panel, wavelength, _ = simulated.peak_list(experiment, 1, 0, 40)
    for cell in (Cell(*experiment.cell_parameters), Cell(30, 200, 31, 65, 62, 118)):
        for seed in range(30):
            start = Rotation.random(random_state=seed).as_matrix() @ reciprocal_matrix(cell.parameters)
            refined = refine_lattice(
                start, cell, peaks, to_panel, wavelength, start_sigma=3e-3, pixel_size=experiment.pixel_size
            )
            assert np.all(np.isfinite(refined.reciprocal)) and np.isfinite(refined.log10_ratio)
            assert refined.log10_ratio < 15.0

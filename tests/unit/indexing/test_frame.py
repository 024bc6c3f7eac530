"""Indexing of a frame: several lattices, what is refused, and what belongs to a lattice."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.cell import Cell, parameters_of, reciprocal_matrix
from sfxflow.geometry import panel_arrays
from sfxflow.indexing import frame
from sfxflow.indexing.acceptance import (
    SUPERLATTICE_SHARE,
    cell_difference,
    evidence_of,
    superlattice_log10_p,
    unrestrained_cell,
)
from sfxflow.indexing.frame import (
    conventional_reciprocal,
    frame_peaks,
    index_deviations,
    index_frame,
    misorientation,
    panel_inverses,
    prepare_target,
    reduced_reciprocal,
    strength_weights,
)
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.indexing.lattice import lattice_operators
from sfxflow.indexing.refine import refine_lattice
from sfxflow.settings import Indexing

THAUMATIN = Cell(58.4, 58.4, 152.3, lattice_type="tetragonal", unique_axis="c")
SETTINGS = Indexing()


def index(simulated, experiment, i, n_peaks, n_outliers, target, settings=SETTINGS):
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, i, n_peaks, n_outliers)
    return *index_frame(peaks, target, to_panel, wavelength, experiment.pixel_size, settings), peaks, truth


@pytest.mark.parametrize("name", ["lysozyme", "hexagonal", "monoclinic", "triclinic", "cubic", "large"])
def test_single_lattices_are_found_and_nothing_else(simulated, name):
    experiment = simulated.experiment(name)
    target = prepare_target(simulated.cell(experiment))
    n_found = 0
    for i in range(12):
        accepted, _, _, truth = index(simulated, experiment, i, 40, 10, target)
        assert len(accepted) <= 1
        for lattice in accepted:
            n_found += 1
            assert misorientation(lattice.refined.reciprocal, truth.lattices[0].reciprocal, target.lattice) < 0.2
            lengths = parameters_of(lattice.refined.reciprocal)[:3] / parameters_of(truth.lattices[0].reciprocal)[:3]
            np.testing.assert_allclose(lengths, 1.0, atol=0.015)
            # All but a few of the 40 true peaks, and few of the false ones.
            assert lattice.members[:40].mean() > 0.9 and lattice.members[40:].mean() <= 0.4
    assert n_found >= 11


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("monoclinic", {"beta": 90.6}),
        ("orthorhombic", {"a": 60.0, "b": 60.6}),
        ("lysozyme", {"a": 60.0, "b": 60.0, "c": 60.6}),
        ("demo", {"space_group": "R 3:H", "a": 66.0, "b": 66.0, "c": 80.0, "gamma": 120.0}),
    ],
    ids=["nearly orthorhombic", "nearly tetragonal", "nearly cubic", "rhombohedral, nearly cubic"],
)
def test_nearly_symmetrical_lattices_are_not_mixed_up(simulated, name, changes):
    """Of two lattices that only peaks at high angles, or 1 % of a cell length, tell apart the right one is taken."""
    experiment = simulated.experiment(name, **changes)
    target = prepare_target(simulated.cell(experiment))
    assert len(target.lattice.variants) > 0
    exact = replace(target.lattice, operators=lattice_operators(target.lattice.reduced, tolerance=1e-4))
    right = accepted = 0
    for i in range(20):
        found, _, _, truth = index(simulated, experiment, i, 25, 25, target)
        accepted += len(found)
        right += sum(
            misorientation(lattice.refined.reciprocal, truth.lattices[0].reciprocal, exact) < 1.0 for lattice in found
        )
    assert accepted >= 19 and right >= accepted - 1


def test_several_lattices_on_a_frame(simulated):
    experiment = simulated.experiment("lysozyme", multi_fraction=1.0, max_lattices=3, scale_spread=0.1)
    target = prepare_target(simulated.cell(experiment))
    n_true = n_found = n_right = 0
    for i in range(12):
        accepted, _, peaks, truth = index(simulated, experiment, i, 120, 10, target)
        n_true += len(truth.lattices)
        n_found += len(accepted)
        taken = np.zeros(len(peaks), dtype=int)
        used = set()
        for lattice in accepted:
            angles = [
                misorientation(lattice.refined.reciprocal, other.reciprocal, target.lattice) for other in truth.lattices
            ]
            n_right += min(angles) < 0.2
            used.add(int(np.argmin(angles)))
            taken += lattice.members
        assert len(used) == len(accepted)
        assert taken.max() <= 1
    assert n_found == n_right
    assert n_right >= 0.95 * n_true


def test_a_lattice_leaves_the_other_peaks(simulated):
    """At most 4 % of 200 peaks that are not its own; a cube of 0.25 in index space would take an eighth."""
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    for i in range(3):
        accepted, _, peaks, _ = index(simulated, experiment, i, 60, 200, target)
        assert len(accepted) == 1 and len(peaks) > 200
        assert accepted[0].members[:60].mean() > 0.95 and accepted[0].members[60:].mean() < 0.04


def test_a_refused_lattice_does_not_end_the_frame(simulated, monkeypatch):
    """The search goes on for a more significant one; the cut is the first again after it."""
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    chance = Rotation.random(random_state=4).as_matrix() @ np.linalg.inv(target.lattice.reduced)
    cuts = []

    def chance_fit_first(q, weight, lattice, cut, **cascade):
        cuts.append(cut)
        return (chance, -16.0, 0.2) if len(cuts) == 1 else index_lattice(q, weight, lattice, cut, **cascade)

    monkeypatch.setattr(frame, "index_lattice", chance_fit_first)
    accepted, _, _, truth = index(simulated, experiment, 0, 40, 20, target, replace(SETTINGS, max_log10_p=-14.0))
    assert len(accepted) == 1 and cuts == [-14.0, -16.0, -14.0]
    assert misorientation(accepted[0].refined.reciprocal, truth.lattices[0].reciprocal, target.lattice) < 0.2
    # Nothing but refused lattices: the reason stands, and the search ends.
    cuts.clear()
    monkeypatch.setattr(frame, "index_lattice", lambda q, w, lattice, cut, **cascade: (chance, cut - 1.0, 0.2))
    accepted, reason, *_ = index(simulated, experiment, 0, 40, 20, target)
    assert accepted == [] and reason in ("too few peaks explained", "poor fit", "cell differs")


def test_no_more_lattices_than_asked_for(simulated):
    experiment = simulated.experiment("lysozyme", multi_fraction=1.0, max_lattices=3, scale_spread=0.1)
    target = prepare_target(simulated.cell(experiment))
    for i in range(4):
        assert len(index(simulated, experiment, i, 120, 10, target, replace(SETTINGS, max_lattices=1))[0]) == 1


def wrong_cells(cell):
    p = cell.parameters
    return {
        "c doubled": replace(cell, c=2 * p[2]),
        "c halved": replace(cell, c=p[2] / 2),
        "4 % off": replace(cell, a=1.04 * p[0], b=1.04 * p[1], c=1.04 * p[2]),
        "I centred": replace(cell, centering="I"),
        "thaumatin": THAUMATIN,
    }


@pytest.mark.parametrize("wrong", ["c doubled", "c halved", "4 % off", "I centred", "thaumatin"])
def test_wrong_cells_are_refused(simulated, wrong):
    """At most 2 % of 60 frames accept a lattice of a wrong cell; the right one is accepted by 95 %."""
    experiment = simulated.experiment("lysozyme")
    right = simulated.cell(experiment)
    target = prepare_target(wrong_cells(right)[wrong])
    accepted = sum(
        bool(index(simulated, experiment, i, n_peaks, n_outliers, target)[0])
        for i in range(30)
        for n_peaks, n_outliers in ((25, 25), (60, 10))
    )
    assert accepted <= 1


def test_the_right_cell_is_accepted(simulated):
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    accepted = sum(
        bool(index(simulated, experiment, i, n_peaks, n_outliers, target)[0])
        for i in range(30)
        for n_peaks, n_outliers in ((25, 25), (60, 10))
    )
    assert accepted >= 57


def test_random_peaks_give_no_lattice(simulated):
    """At most 1 % of 150 lists of random peaks (`benchmarks/noise_lattices.py` has 1050)."""
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    accepted = sum(bool(index(simulated, experiment, i, 0, (12, 30, 60)[i % 3], target)[0]) for i in range(150))
    assert accepted <= 1


def test_reasons_are_told(simulated):
    experiment = simulated.experiment("lysozyme")
    cell = simulated.cell(experiment)
    expected = {
        "c doubled": ("sub-lattice",),
        "c halved": ("super-lattice", "no significant lattice", "cell differs", "poor fit"),
        "I centred": ("super-lattice", "sub-lattice", "cell differs"),
    }
    for wrong, reasons in expected.items():
        _, reason, *_ = index(simulated, experiment, 1, 60, 10, prepare_target(wrong_cells(cell)[wrong]))
        assert reason in reasons
    accepted, reason, *_ = index(simulated, experiment, 1, 4, 0, prepare_target(cell))
    assert (accepted, reason) == ([], "")
    _, reason, *_ = index(simulated, experiment, 1, 0, 40, prepare_target(cell))
    assert reason == "no significant lattice"


def test_a_split_crystal_is_one_lattice(simulated):
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    arrays = panel_arrays(experiment.detector)
    peaks, to_panel, wavelength, _ = simulated.peak_list(experiment, 0, 60, 0)
    # The second half of the crystal is turned by 1.5 degrees about the beam: so are its spots on the detector.
    turned = Rotation.from_rotvec([0, 0, np.radians(1.5)]).as_matrix()
    rays = (peaks.q + [0, 0, 1 / wavelength]) @ turned.T
    found = []
    for ray in rays:
        on_panels = to_panel @ ray
        spot = on_panels[:, :2] / on_panels[:, 2:]
        size = np.stack([arrays.bounds[:, 3] - arrays.bounds[:, 2], arrays.bounds[:, 1] - arrays.bounds[:, 0]], axis=1)
        inside = np.flatnonzero(np.all((spot >= 0) & (spot < size), axis=1) & (on_panels[:, 2] > 0))
        found += [(p, spot[p, 0] + arrays.bounds[p, 2], spot[p, 1] + arrays.bounds[p, 0]) for p in inside]
    panel, fs, ss = (np.array(column) for column in zip(*found, strict=True))
    both = frame_peaks(
        arrays,
        np.concatenate([peaks.panel, panel]),
        np.concatenate([peaks.position[:, 0] + arrays.bounds[peaks.panel, 2], fs]),
        np.concatenate([peaks.position[:, 1] + arrays.bounds[peaks.panel, 0], ss]),
        np.concatenate([peaks.intensity, np.full(len(panel), np.median(peaks.intensity))]),
        wavelength,
        experiment.detector.clen,
    )
    accepted, _ = index_frame(both, target, to_panel, wavelength, experiment.pixel_size, SETTINGS)
    assert len(accepted) == 1


def test_super_lattices_need_peaks_between_the_points(simulated):
    experiment = simulated.experiment("lysozyme")
    cell = simulated.cell(experiment)
    target = prepare_target(cell)
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, 0, 60, 20, position_sigma=0.1)
    reciprocal = truth.lattices[0].reciprocal
    refined = refine_lattice(
        reciprocal, cell, peaks, to_panel, wavelength, start_sigma=1e-3, pixel_size=experiment.pixel_size
    )
    members = np.arange(len(peaks)) < 60
    assert superlattice_log10_p(evidence_of(refined, members, peaks.q, target.lattice), SUPERLATTICE_SHARE) > -3.0
    # 30 more peaks, at (h, k, l + 1/2).
    rng = np.random.default_rng(2)
    between = (rng.integers(-8, 9, (30, 3)) + [0, 0, 0.5]) @ reciprocal.T
    q = np.concatenate([peaks.q, between])
    members = np.arange(len(q)) < 60
    evidence = evidence_of(refined, members, q, target.lattice)
    assert superlattice_log10_p(evidence, SUPERLATTICE_SHARE) < -15.0 and evidence.doubt == "super-lattice"


def test_peaks_where_the_centring_forbids_do_not_belong(simulated):
    experiment = simulated.experiment("cubic")
    target = prepare_target(simulated.cell(experiment))
    reciprocal = reciprocal_matrix(experiment.cell_parameters)
    allowed, forbidden = np.array([[1, 2, 3], [4, 0, 2]]), np.array([[1, 2, 4], [1, 0, 0]])
    reduced = reduced_reciprocal(reciprocal, target.lattice)
    assert np.all(index_deviations(reduced, allowed @ reciprocal.T) < 1e-9)
    assert np.all(index_deviations(reduced, forbidden @ reciprocal.T) > 0.49)
    np.testing.assert_allclose(conventional_reciprocal(reduced, target.lattice), reciprocal, atol=1e-12)


def test_unrestrained_cell_is_the_least_squares_one(simulated):
    experiment = simulated.experiment("triclinic")
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, 0, 60, 0, position_sigma=0.0)
    refined = refine_lattice(
        truth.lattices[0].reciprocal,
        simulated.cell(experiment),
        peaks,
        to_panel,
        wavelength,
        start_sigma=1e-3,
        pixel_size=experiment.pixel_size,
    )
    free = unrestrained_cell(refined, peaks, wavelength, experiment.pixel_size)
    lengths, angles = cell_difference(free, parameters_of(truth.lattices[0].reciprocal))
    assert lengths < 0.01 and angles < 0.5
    strained = replace(refined, reciprocal=refined.reciprocal @ np.diag([1.05, 1.0, 1.0]))
    # 60 peaks outweigh the ridge: it matters only where they do not determine a direction.
    assert cell_difference(unrestrained_cell(strained, peaks, wavelength, experiment.pixel_size), free)[0] < 2e-3


def test_misorientation_is_the_angle_up_to_symmetry():
    target = prepare_target(Cell(60, 60, 40, lattice_type="tetragonal", unique_axis="c"))
    first = Rotation.random(random_state=1).as_matrix() @ reciprocal_matrix((60, 60, 40, 90, 90, 90))
    turned = Rotation.from_rotvec(np.radians(3.0) * np.array([0.6, 0.0, 0.8])).as_matrix() @ first
    swapped = np.column_stack([turned[:, 1], -turned[:, 0], turned[:, 2]])
    assert misorientation(first, turned, target.lattice) == pytest.approx(3.0, abs=1e-5)
    assert misorientation(first, swapped, target.lattice) == pytest.approx(3.0, abs=1e-5)
    tilted = np.column_stack([turned[:, 2] * 60 / 40, turned[:, 1], -turned[:, 0] * 40 / 60])
    assert misorientation(first, tilted, target.lattice) > 50


def test_strength_weights_rank_the_peaks():
    np.testing.assert_allclose(strength_weights(np.array([5.0, 1.0, 9.0, 7.0])), [0.9375, 0.8125, 1.1875, 1.0625])
    assert strength_weights(np.zeros(0)).shape == (0,)


def test_more_peaks_than_the_search_takes_are_all_refined(simulated, monkeypatch):
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(simulated.cell(experiment))
    monkeypatch.setattr(frame, "MOST_PEAKS", 30)
    accepted, _, peaks, _ = index(simulated, experiment, 0, 80, 0, target)
    assert len(accepted) == 1 and len(peaks) > 70
    assert accepted[0].members.sum() > 60


def test_panel_inverses_map_positions_back(simulated):
    experiment = simulated.experiment("demo")
    arrays = panel_arrays(experiment.detector)
    clen = experiment.detector.clen
    to_panel = panel_inverses(arrays, clen)
    for p in range(len(arrays.bounds)):
        point = arrays.origin[p] + 12.5 * arrays.fs[p] + 40.25 * arrays.ss[p] + [0, 0, clen]
        fs, ss, one = to_panel[p] @ (0.3 * point)
        np.testing.assert_allclose([fs / one, ss / one], [12.5, 40.25], atol=1e-8)

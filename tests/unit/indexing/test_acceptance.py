"""Which lattices are believed: multiples and parts of a cell, alone and as a run."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.cell import parameters_of, real_matrix
from sfxflow.indexing import acceptance
from sfxflow.indexing.acceptance import (
    Evidence,
    believed,
    count_between,
    count_off,
    judge_run,
    proposed_cell,
    unrestrained_cell,
)
from sfxflow.indexing.frame import index_candidates, prepare_target
from sfxflow.indexing.lattice import prepare_lattice, reduce_basis, sublattice_basis, sublattice_tests
from sfxflow.indexing.refine import refine_lattice
from sfxflow.settings import Indexing

FORMS, MODULI = sublattice_tests()


def evidence(off_share=0.5, between=0, n_others=20, n_pairs=20, form=0):
    """Off all sub-lattices by half of the peaks, but for one; so many peaks between the points of one larger cell."""
    off = np.full(20, n_pairs // 2)
    off[form] = round(off_share * n_pairs)
    counts = np.zeros(20, dtype=int)
    counts[form] = between
    return Evidence(n_pairs, off, n_pairs, n_others, counts)


def test_a_good_lattice_is_believed_whatever_the_run():
    alone = evidence()
    assert alone.doubt == ""
    assert believed(alone, judge_run([alone])) == "" and believed(alone, judge_run([alone] * 30)) == ""
    assert judge_run([]).refusal == ""


def test_few_lattices_on_a_sublattice_are_believed_in_a_run_of_others():
    doubtful = evidence(off_share=0.0)
    assert doubtful.doubt == "sub-lattice"
    # Alone, or among too few to judge, it is refused.
    assert believed(doubtful, judge_run([doubtful])) == "sub-lattice"
    assert believed(doubtful, judge_run([doubtful] + [evidence()] * 3)) == "sub-lattice"
    assert believed(doubtful, judge_run([doubtful] + [evidence()] * 9)) == ""
    # A third of the run: neither chance nor the whole run.
    some = judge_run([doubtful] * 3 + [evidence()] * 6)
    assert some.refusal == "" and believed(doubtful, some) == "sub-lattice" and believed(evidence(), some) == ""


def test_a_run_on_a_sublattice_is_refused_as_a_whole():
    verdict = judge_run([evidence(off_share=0.0, form=4)] * 8 + [evidence()] * 2)
    assert (verdict.refusal, verdict.modulus, tuple(verdict.form)) == ("sub-lattice", MODULI[4], tuple(FORMS[4]))
    assert believed(evidence(), verdict) == "sub-lattice"


def test_peaks_between_the_points_frame_after_frame_refuse_the_run():
    """Two such peaks are no evidence on one frame of ten peaks, but on eight."""
    few = evidence(between=2, n_others=2, n_pairs=8, form=9)
    assert few.doubt == ""
    assert judge_run([few] * 4).refusal == ""
    verdict = judge_run([few] * 8)
    assert (verdict.refusal, tuple(verdict.form)) == ("super-lattice", tuple(FORMS[9]))
    # As many as chance puts there (0.84 % for thirds) speak for nothing.
    assert judge_run([evidence(between=1, n_others=120, n_pairs=40, form=9)] * 200).refusal == ""


def test_counts_are_those_of_plain_numpy():
    rng = np.random.default_rng(3)
    hkl = rng.integers(-9, 10, (200, 3)).astype(float)
    counts = np.zeros(20, dtype=np.int64)
    count_off(hkl, FORMS, MODULI, counts)
    np.testing.assert_array_equal(counts, np.count_nonzero((hkl.astype(int) @ FORMS.T) % MODULI, axis=0))
    points = 5.0 * rng.standard_normal((400, 3))
    counts[:] = 0
    count_between(points, FORMS, MODULI, 0.15, counts)
    expected = []
    for form, modulus in zip(FORMS, MODULI, strict=True):
        away = [points - m * form / modulus for m in range(1, modulus)]
        near = [np.linalg.norm(a - np.rint(a), axis=1) < 0.15 for a in away]
        expected.append(np.any(near, axis=0).sum())
    np.testing.assert_array_equal(counts, expected)
    assert min(expected) > 0


@pytest.mark.parametrize("i", range(20))
def test_sublattice_bases_span_what_the_form_divides(i):
    basis = sublattice_basis(FORMS[i], MODULI[i])
    assert round(np.linalg.det(basis)) in (MODULI[i], -MODULI[i])
    assert np.all((basis @ FORMS[i]) % MODULI[i] == 0)


@pytest.mark.parametrize(
    ("given", "true", "refusal"),
    [
        ((79.1, 79.1, 75.8), (37.9, 79.1, 79.1), "sub-lattice"),
        ((79.1, 79.1, 18.95), (37.9, 79.1, 79.1), "super-lattice"),
        ((79.1, 79.1, 113.7), (37.9, 79.1, 79.1), "sub-lattice"),
    ],
    ids=["doubled", "halved", "tripled"],
)
def test_the_true_cell_is_proposed(given, true, refusal):
    lattice = prepare_lattice((*given, 90.0, 90.0, 90.0))
    # Reflections of the true cell in indices of the given one.
    hkl = np.random.default_rng(1).integers(-9, 10, (300, 3))
    true_basis = real_matrix((79.1, 79.1, 37.9, 90.0, 90.0, 90.0))
    indices = hkl @ np.linalg.inv(true_basis).T @ lattice.reduced.T
    whole = np.all(np.abs(indices - np.rint(indices)) < 1e-6, axis=1)
    off, between = np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64)
    count_off(np.rint(indices[whole]), FORMS, MODULI, off)
    count_between(indices[~whole], FORMS, MODULI, 0.1, between)
    of_lattice = Evidence(int(whole.sum()), off, int(whole.sum()), int((~whole).sum()), between)
    verdict = judge_run([of_lattice] * 6)
    assert verdict.refusal == refusal
    np.testing.assert_allclose(sorted(proposed_cell(verdict, lattice)[:3]), true, atol=1e-6)


@pytest.mark.parametrize(
    ("what", "changes", "refusal"),
    [
        ("c doubled", {"c": 2 * 37.9}, "sub-lattice"),
        ("c halved", {"c": 37.9 / 2}, "super-lattice"),
        ("centred", {"centering": "I"}, "super-lattice"),
        ("right", {}, ""),
    ],
)
def test_runs_of_ten_peaks_tell_multiples_and_parts(simulated, what, changes, refusal):
    """40 simulated frames of only ten peaks: all lattices are believed with the right cell, none with the others."""
    experiment = simulated.experiment("lysozyme")
    target = prepare_target(replace(simulated.cell(experiment), **changes))
    found = []
    for i in range(40):
        peaks, to_panel, wavelength, _ = simulated.peak_list(experiment, i, 10, 0)
        found += index_candidates(peaks, target, to_panel, wavelength, experiment.pixel_size, Indexing())[0]
    verdict = judge_run([lattice.evidence for lattice in found])
    assert verdict.refusal == refusal
    if what == "right":
        assert sum(believed(lattice.evidence, verdict) == "" for lattice in found) >= 39


def test_the_unrestrained_cell_knows_what_is_uncertain(simulated):
    """Reflections four times as wide: the cell stays within 2.5 %, because errors along the Ewald sphere's normal count less."""
    experiment = simulated.experiment("lysozyme", profile_radius=2e-3)
    cell = simulated.cell(experiment)
    for i in range(12):
        peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, i, 40, 0)
        true = truth.lattices[0].reciprocal
        refined = refine_lattice(
            true, cell, peaks, to_panel, wavelength, start_sigma=2e-3, pixel_size=experiment.pixel_size
        )
        free = unrestrained_cell(refined, peaks, wavelength, experiment.pixel_size)
        assert acceptance.cell_difference(free, parameters_of(true))[0] < 0.025


def test_the_unrestrained_cell_is_weighted_least_squares(simulated):
    """Against numpy's least squares on rows along and across the normal."""
    experiment = simulated.experiment("triclinic")
    peaks, to_panel, wavelength, truth = simulated.peak_list(experiment, 1, 50, 5)
    pixel_size = experiment.pixel_size
    refined = refine_lattice(
        truth.lattices[0].reciprocal, simulated.cell(experiment), peaks, to_panel, wavelength, start_sigma=1e-3,
        pixel_size=pixel_size,
    )  # fmt: skip
    scale = 1.0 / (wavelength * peaks.distance)
    across = (refined.position_sigma * pixel_size * scale) ** 2
    along = max(across, np.average(refined.excitation_error**2, weights=refined.inlier + 1e-9))
    rows, values = [], []
    for q, h, inlier in zip(peaks.q, refined.hkl, refined.inlier, strict=True):
        normal = (q + [0, 0, 1 / wavelength]) / np.linalg.norm(q + [0, 0, 1 / wavelength])
        moved = q - scale * np.array([*refined.offsets[:2], 0.0])
        frame = Rotation.align_vectors([normal], [[0, 0, 1]])[0].as_matrix().T
        for direction, weight in zip(frame, (1.0, 1.0, np.sqrt(across / along)), strict=True):
            rows.append(np.sqrt(inlier) * weight * np.outer(direction, h).ravel())
            values.append(np.sqrt(inlier) * weight * (direction @ moved))
    expected = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0].reshape(3, 3)
    free = unrestrained_cell(refined, peaks, wavelength, pixel_size)
    # The ridge moves it by less than this.
    assert acceptance.cell_difference(free, parameters_of(expected))[0] < 2e-3


def test_a_basis_is_reduced_whatever_it_was():
    basis = real_matrix((38.0, 46.0, 55.0, 82.0, 77.0, 69.0))
    skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ basis
    np.testing.assert_allclose(
        np.linalg.norm(reduce_basis(skewed), axis=1), np.linalg.norm(reduce_basis(basis), axis=1), atol=1e-9
    )

"""Lattices of unknown cell on single frames: against the simulator's truth, in noise, and the kernels against slow versions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.cell import real_matrix
from sfxflow.indexing import unknown_cell
from sfxflow.indexing.frame import strength_weights
from sfxflow.indexing.lattice import prepare_lattice, reduce_basis

NAMES = ("lysozyme", "hexagonal", "monoclinic", "triclinic", "orthorhombic", "cubic")


@pytest.fixture(scope="module")
def ball():
    return unknown_cell.search_ball(20.0, 130.0)


def is_lattice(basis, true):
    """Whether two reduced bases span lattices of the same size with the same shortest vectors."""
    if basis is None:
        return False
    lengths = np.linalg.norm(basis, axis=1) / np.linalg.norm(true, axis=1)
    volume = np.linalg.det(basis) / np.linalg.det(true)
    return bool(np.all(np.abs(lengths - 1) < 0.02) and abs(volume - 1) < 0.04)


@pytest.mark.parametrize("name", NAMES)
def test_right_lattice_on_most_frames(simulated, ball, name):
    experiment = simulated.experiment(name)
    true = prepare_lattice(experiment.cell_parameters, simulated.cell(experiment).centering).reduced
    right = 0
    for index, (n_peaks, n_outliers) in enumerate([(25, 0), (40, 0), (70, 0), (100, 0)] * 2):
        peaks, *_ = simulated.peak_list(experiment, index, n_peaks, n_outliers)
        basis, log10_p = unknown_cell.find_cell(peaks.q, strength_weights(peaks.intensity), ball)
        right += is_lattice(basis, true) and log10_p < -20
    assert right >= 7


def test_half_of_the_peaks_false(simulated, ball):
    experiment = simulated.experiment("lysozyme")
    true = prepare_lattice(experiment.cell_parameters, "P").reduced
    right = 0
    for index in range(8):
        peaks, *_ = simulated.peak_list(experiment, index, 40, 40)
        basis, _ = unknown_cell.find_cell(peaks.q, strength_weights(peaks.intensity), ball)
        right += is_lattice(basis, true)
    assert right >= 6


def test_random_peaks_are_not_significant(ball):
    rng = np.random.default_rng(4)
    found = []
    for n in (25, 50, 100, 200):
        direction = rng.standard_normal((n, 3))
        q = direction / np.linalg.norm(direction, axis=1, keepdims=True) * 0.4 * rng.random((n, 1)) ** (1 / 3)
        found.append(unknown_cell.find_cell(q, np.ones(n), ball)[1])
    assert min(found) > -21  # true lattices with so many peaks have -40 and lower


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_too_few_peaks_give_nothing_or_nothing_significant(ball, n):
    q = np.random.default_rng(1).standard_normal((n, 3)) * 0.1
    basis, log10_p = unknown_cell.find_cell(q, np.ones(n), ball)
    assert basis is None or log10_p > -10


def test_peaks_in_one_plane_give_no_lattice(ball):
    """All on a*, b*: a third axis is not determined."""
    h, k = np.meshgrid(np.arange(-4, 5), np.arange(-4, 5))
    q = np.stack([h.ravel() / 50.0, k.ravel() / 60.0, 0.0 * h.ravel()], axis=1)
    basis, _ = unknown_cell.find_cell(q, np.ones(len(q)), ball)
    assert basis is None or np.all(np.isfinite(basis))


def test_more_peaks_than_are_used(simulated, ball):
    experiment = simulated.experiment("lysozyme")
    peaks, *_ = simulated.peak_list(experiment, 0, 150, 150)
    assert len(peaks) > unknown_cell.MOST_PEAKS
    basis, _ = unknown_cell.find_cell(peaks.q, strength_weights(peaks.intensity), ball)
    assert is_lattice(basis, prepare_lattice(experiment.cell_parameters, "P").reduced)


def test_ball_covers_all_directions_and_lengths():
    ball = unknown_cell.search_ball(20.0, 60.0)
    vectors = np.stack([ball.x, ball.y, ball.z], axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    assert (
        lengths.min() == pytest.approx(20.0, abs=1e-3)
        and lengths.max() > 60.0 - unknown_cell.PHASE_STEP / unknown_cell.REFERENCE_Q
    )
    rng = np.random.default_rng(2)
    for wanted in rng.uniform(20, 60, 20):
        v = rng.standard_normal(3)
        v *= wanted / np.linalg.norm(v)
        nearest = min(np.linalg.norm(vectors - v, axis=1).min(), np.linalg.norm(vectors + v, axis=1).min())
        # Half a step along and half the diagonal across.
        assert nearest < 0.95 * unknown_cell.PHASE_STEP / unknown_cell.REFERENCE_Q


# ---- multiples of the true cell


@pytest.mark.parametrize("modulus", [2, 3, 4, 5, 6, 7])
def test_multiples_of_the_cell_are_taken_back(modulus):
    rng = np.random.default_rng(modulus)
    true = reduce_basis(real_matrix((40.0, 51.0, 63.0, 83.0, 78.0, 71.0)))
    hkl = rng.integers(-6, 7, (60, 3))
    q = hkl @ np.linalg.inv(true).T
    multiple = np.diag([1, modulus, 1]) @ np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ true
    basis = unknown_cell.without_supercell(multiple, q, 20.0)
    assert np.linalg.det(basis) == pytest.approx(np.linalg.det(true), rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(basis, axis=1), np.linalg.norm(true, axis=1), rtol=1e-9)


def test_the_true_cell_stays(simulated):
    true = reduce_basis(real_matrix((40.0, 51.0, 63.0, 83.0, 78.0, 71.0)))
    q = np.random.default_rng(3).integers(-6, 7, (25, 3)) @ np.linalg.inv(true).T
    np.testing.assert_allclose(unknown_cell.without_supercell(true, q, 20.0), true, rtol=1e-9)


def test_sublattice_forms_are_all_that_there_are():
    """(p^3 - 1) / (p - 1) sub-lattices of prime index p, no two of them the same."""
    forms, moduli = unknown_cell.sublattice_forms()
    hkl = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    for p in (2, 3, 5, 7):
        own = forms[moduli == p]
        assert len(own) == (p**3 - 1) // (p - 1)
        on = {tuple((hkl @ form) % p == 0) for form in own}
        assert len(on) == len(own)


# ---- kernels against slow versions


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_triples_against_a_slow_version(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.uniform(-60, 60, (7, 3))
    q = rng.uniform(-0.3, 0.3, (70, 3))
    masks = unknown_cell.member_masks(vectors, q)
    fits = np.abs(q @ vectors.T - np.rint(q @ vectors.T)) < unknown_cell.MEMBER_TOLERANCE
    triples, counts, volumes = unknown_cell._triples(vectors, masks)
    assert [tuple(t) for t in triples] == list(itertools.combinations(range(7), 3))
    np.testing.assert_array_equal(counts, [fits[:, list(t)].all(axis=1).sum() for t in triples])
    np.testing.assert_allclose(volumes, [abs(np.linalg.det(vectors[t])) for t in triples], atol=1e-8)


def test_bits_against_python():
    for word in (0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0):
        assert unknown_cell._bits(np.uint64(word)) == word.bit_count()


def test_refined_vectors_come_nearer_to_the_lattice():
    true = real_matrix((40.0, 51.0, 63.0, 90.0, 101.0, 90.0))
    rng = np.random.default_rng(6)
    q = rng.integers(-5, 6, (50, 3)) @ np.linalg.inv(true).T
    vectors = true + rng.uniform(-0.3, 0.3, (3, 3))
    scores = unknown_cell.refine_free_vectors(vectors, q, np.ones(50), unknown_cell.VECTOR_TOLERANCES, 20.0, 130.0)
    np.testing.assert_allclose(vectors, true, atol=0.02)
    assert np.all(scores > 49)
    assert unknown_cell.refine_free_vectors(true[:1].copy(), q, np.ones(50), np.array([0.2]), 45.0, 130.0)[0] == -1


def test_fit_against_least_squares():
    true = real_matrix((40.0, 51.0, 63.0, 90.0, 101.0, 90.0))
    rng = np.random.default_rng(7)
    hkl = rng.integers(-5, 6, (50, 3))
    q = hkl @ np.linalg.inv(true).T + 1e-4 * rng.standard_normal((50, 3))
    reciprocal = np.ascontiguousarray(np.linalg.inv(true * 1.004))
    assert unknown_cell.fit_free_cell(reciprocal, q, np.ones(50), unknown_cell.CELL_TOLERANCES)
    expected = np.linalg.lstsq(hkl.astype(float), q, rcond=None)[0].T
    np.testing.assert_allclose(reciprocal, expected, atol=3e-6)
    assert not unknown_cell.fit_free_cell(reciprocal, q[:5], np.ones(5), unknown_cell.CELL_TOLERANCES)

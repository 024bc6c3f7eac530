"""Rotation of two axes about a known one against scipy's rotations."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.indexing.lattice import prepare_lattice
from sfxflow.indexing.rotations import frame_along, rotations_about, score_rotations


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def fractions(vectors, q):
    projections = vectors @ q.T
    return projections - np.rint(projections)


def lattice_peaks(rng, n, cell):
    """Scattering vectors of random reflections of a turned cell, and its reduced reciprocal matrix."""
    reciprocal = Rotation.random(random_state=3).as_matrix() @ np.linalg.inv(prepare_lattice(cell).reduced)
    q = rng.integers(-12, 13, size=(20 * n, 3)) @ reciprocal.T
    length = np.linalg.norm(q, axis=1)
    q = q[(length > 0.02) & (length < 0.4)][:n]
    return q + 3e-4 * rng.standard_normal(q.shape), reciprocal


def test_frames_are_right_handed_and_along_the_vector(rng):
    frame = np.empty((3, 3))
    for vector, helper in rng.standard_normal((10, 2, 3)):
        frame_along(vector, helper, frame)
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(frame) > 0
        np.testing.assert_allclose(frame[0], vector / np.linalg.norm(vector))
        assert abs(frame[2] @ helper) < 1e-12 and frame[1] @ helper > 0


def test_score_rotations_is_the_score_of_the_turned_axes(rng):
    along, first, second = (0.2 * rng.standard_normal((3, 30))).astype(np.float32)
    weight = rng.random(30).astype(np.float32)
    b, c = (30.0 * rng.standard_normal((2, 3))).astype(np.float32)
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    got = np.zeros(len(cosines), np.float32)
    score_rotations(along, first, second, weight, b, c, cosines, sines, got)
    points = np.stack([along, first, second], axis=1).astype(float)
    expected = []
    for angle in angles:
        turn = Rotation.from_rotvec([angle, 0, 0]).as_matrix()
        squares = fractions(turn @ b, points) ** 2 + fractions(turn @ c, points) ** 2
        expected.append(np.maximum(0.0, 1.0 - 8.0 * squares) @ weight)
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotations_about_an_axis_find_the_cell(rng, axis):
    cell = (41.0, 53.0, 67.0, 82.0, 77.0, 69.0)
    q, reciprocal = lattice_peaks(rng, 50, cell)
    basis = prepare_lattice(cell).reduced
    true = np.linalg.inv(reciprocal)
    angles = 2 * np.pi * np.arange(400) / 400
    trial = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
    candidates = np.array([[30.0, 20.0, 10.0], -true[axis]])
    cells = rotations_about(candidates, basis, axis, True, q, np.ones(len(q)), *trial, 10)
    assert cells.shape == (10, 3, 3)
    for found in cells:
        np.testing.assert_allclose(found @ found.T, basis @ basis.T, rtol=1e-5, atol=1e-2)
    # The best is the true one to half a step, found by turning the candidate round.
    np.testing.assert_allclose(cells[0], true, atol=67.0 * np.pi / 400 * 1.1)
    only = rotations_about(candidates[1:], basis, axis, False, q, np.ones(len(q)), *trial, 1)
    np.testing.assert_allclose(only[0][axis], -true[axis], atol=1e-6)


def test_the_result_is_sorted_and_holds_the_best_maxima(rng):
    cell = (41.0, 53.0, 67.0, 82.0, 77.0, 69.0)
    q, _ = lattice_peaks(rng, 50, cell)
    basis = prepare_lattice(cell).reduced
    angles = 2 * np.pi * np.arange(300) / 300
    trial = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
    vectors = 41.0 * Rotation.random(6, random_state=1).apply([1.0, 0.0, 0.0])
    weight = np.ones(len(q))
    few = rotations_about(vectors, basis, 0, False, q, weight, *trial, 8)
    many = rotations_about(vectors, basis, 0, False, q, weight, *trial, 500)
    np.testing.assert_array_equal(few, many[:8])
    scores = []
    for found in many:
        on_plane = np.abs(fractions(found[:1], q)[0]) < 0.2
        squares = (fractions(found[1:], q[on_plane]) ** 2).sum(axis=0)
        scores.append(np.maximum(0.0, 1.0 - 8.0 * squares).sum())
    # Sorted to the precision of single floats.
    assert np.all(np.diff(scores) < 1e-2)


def test_no_peaks_give_no_cells():
    basis = prepare_lattice((41.0, 53.0, 67.0, 82.0, 77.0, 69.0)).reduced
    trial = (np.ones(4, np.float32), np.zeros(4, np.float32))
    assert rotations_about(basis[:1], basis, 0, True, np.zeros((0, 3)), np.zeros(0), *trial, 5).shape == (0, 3, 3)

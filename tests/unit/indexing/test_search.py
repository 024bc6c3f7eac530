"""Each kernel of the known-cell search against the same in plain numpy, and the binomial test against scipy."""

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import bdtrc
from scipy.stats import binom

from sfxflow.cell import real_matrix
from sfxflow.indexing import search
from sfxflow.indexing.lattice import prepare_lattice

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def lattice_peaks(rng, n, sigma=3e-4, n_random=0, cell=CELL):
    """Scattering vectors of random reflections of a turned cell, with errors, among random ones; and the true cell."""
    rotation = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
    reciprocal = rotation @ np.linalg.inv(prepare_lattice(cell).reduced)
    hkl = rng.integers(-12, 13, size=(20 * n, 3))
    q = hkl @ reciprocal.T
    length = np.linalg.norm(q, axis=1)
    q = q[(length > 0.02) & (length < 0.4)][:n]
    q = q + sigma * rng.standard_normal(q.shape)
    random = rng.standard_normal((n_random, 3))
    random *= (0.4 * rng.random(n_random) ** (1 / 3) / np.linalg.norm(random, axis=1))[:, None]
    return np.concatenate([q, random]), reciprocal


def fractions(vectors, q):
    projections = vectors @ q.T
    return projections - np.rint(projections)


def test_score_directions(rng):
    q, _ = lattice_peaks(rng, 40, n_random=10)
    weight = rng.random(len(q))
    # More than one block of directions, and a last one that is not full.
    vectors = 38.0 * Rotation.random(700, random_state=1).apply([1.0, 0.0, 0.0])
    got = search.score_directions(
        *np.ascontiguousarray(vectors.T, dtype=np.float32),
        *np.ascontiguousarray(q.T, dtype=np.float32),
        weight.astype(np.float32),
        np.float32(16.0),
    )
    expected = np.maximum(0.0, 1.0 - 16.0 * fractions(vectors, q) ** 2) @ weight
    np.testing.assert_allclose(got, expected, atol=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 70))
def test_largest(values, count):
    scores = np.array(values, dtype=float)
    got = search.largest(scores, count)
    assert len(set(got.tolist())) == len(got) == min(count, len(values))
    assert scores[got].tolist() == sorted(values, reverse=True)[:count]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12))
def test_solve3(numbers):
    a = np.array(numbers[:9]).reshape(3, 3)
    m = a @ a.T + 0.1 * np.eye(3)
    rhs = np.array(numbers[9:])
    out = np.empty(3)
    assert search.solve3(m, rhs, out)
    np.testing.assert_allclose(out, np.linalg.solve(m, rhs), rtol=1e-6, atol=1e-6)
    assert not search.solve3(np.zeros((3, 3)), rhs, out)


def refined_vector(v, q, weight, length, tolerances):
    for tolerance in tolerances:
        projection = q @ v
        near = np.abs(projection - np.rint(projection)) < tolerance
        m = (q[near] * weight[near, None]).T @ q[near]
        ridge = 0.002 * np.trace(m)
        rhs = (q[near] * weight[near, None]).T @ np.rint(projection[near]) + ridge * v * length / np.linalg.norm(v)
        v = np.linalg.solve(m + ridge * np.eye(3), rhs)
    return v


def test_refine_vectors(rng):
    q, reciprocal = lattice_peaks(rng, 60, n_random=20)
    weight = 0.75 + 0.5 * rng.random(len(q))
    axis = np.linalg.inv(reciprocal)[0]
    length = np.linalg.norm(axis)
    starts = axis + 0.4 * rng.standard_normal((20, 3))
    tolerances = np.array([0.3, 0.2, 0.15, 0.12])
    vectors = starts.copy()
    scores = search.refine_vectors(vectors, q, weight, length, tolerances, 0.06)
    for start, vector, score in zip(starts, vectors, scores, strict=True):
        expected = refined_vector(start, q, weight, length, tolerances)
        np.testing.assert_allclose(vector, expected, atol=1e-8)
        parabola = np.maximum(0.0, 1.0 - (fractions(expected, q) / 0.2) ** 2) @ weight
        assert score == pytest.approx(parabola if abs(np.linalg.norm(expected) / length - 1) <= 0.06 else -1.0)
    # From 0.7 angstrom off on average, with a quarter of the peaks false.
    assert np.linalg.norm(vectors - axis, axis=1).max() < 0.1
    assert search.refine_vectors(starts.copy(), q, weight, 2.0 * length, tolerances, 0.06).max() == -1.0


def test_distinct_vectors():
    vectors = np.array([[1.0, 0, 0], [0, 1, 0], [-1.001, 0, 0], [0, 0, 1], [0, 1.2, 0], [5, 5, 5]])
    scores = np.array([5.0, 4.0, 9.0, 3.0, 3.5, -1.0])
    assert search.distinct_vectors(vectors, scores, 0.1, 10).tolist() == [2, 1, 4, 3]
    assert search.distinct_vectors(vectors, scores, 0.1, 2).tolist() == [2, 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.integers(0, 1000))
def test_nearest_rotation_is_the_polar_factor(numbers, seed):
    rotation = Rotation.random(random_state=seed).as_matrix()
    matrix = rotation @ (np.eye(3) + 0.2 * np.array(numbers).reshape(3, 3))
    u, _, vt = np.linalg.svd(matrix)
    expected = u @ vt
    if np.linalg.det(matrix) > 0.05:
        np.testing.assert_allclose(search.nearest_rotation(matrix), expected, atol=1e-7)


def fitted_cell(reciprocal, target, q, weight, tolerances, stiffness):
    for tolerance, soft in zip(tolerances, stiffness, strict=True):
        h = q @ np.linalg.inv(reciprocal).T
        whole = np.rint(h)
        used = (np.linalg.norm(h - whole, axis=1) < tolerance) & np.any(whole != 0, axis=1)
        if used.sum() < 3:
            return reciprocal, 0.0
        weighted = whole[used] * weight[used, None]
        left = weighted.T @ whole[used]
        mu = soft * np.trace(left)
        u, _, vt = np.linalg.svd(reciprocal @ np.linalg.inv(target))
        right = q[used].T @ weighted + mu * (u @ vt) @ target
        reciprocal = right @ np.linalg.inv(left + mu * np.eye(3))
    h = q @ np.linalg.inv(reciprocal).T
    squares = np.where(np.any(np.rint(h) != 0, axis=1), ((h - np.rint(h)) ** 2).sum(axis=1), np.inf)
    return reciprocal, np.maximum(0.0, 1.0 - squares / 0.04) @ weight


def test_fit_cell(rng):
    q, true = lattice_peaks(rng, 40, n_random=20)
    # Peaks around the beam, which the origin explains, must not count.
    q = np.concatenate([q, 1e-3 * rng.standard_normal((5, 3))])
    weight = 0.75 + 0.5 * rng.random(len(q))
    target = np.linalg.inv(prepare_lattice(CELL).reduced)
    tolerances = np.array([0.3, 0.25, 0.2, 0.16, 0.14, 0.12])
    stiffness = np.array([0.02, 0.02, 0.02, 0.002, 0.002, 0.002])
    for _ in range(5):
        start = Rotation.from_rotvec(0.003 * rng.standard_normal(3)).as_matrix() @ true
        expected, expected_score = fitted_cell(start, target, q, weight, tolerances, stiffness)
        got = start.copy()
        score = search.fit_cell(got, target, q, weight, tolerances, stiffness)
        np.testing.assert_allclose(got, expected, atol=1e-9)
        assert score == pytest.approx(expected_score)
        assert 40 * 0.75 < score < 1.25 * len(q)
        np.testing.assert_allclose(got, true, atol=2e-4)


def test_fit_cell_without_peaks_of_a_lattice(rng):
    target = np.linalg.inv(real_matrix(CELL))
    near_beam = 1e-4 * rng.standard_normal((8, 3))
    arrays = (np.array([0.3, 0.2]), np.array([0.02, 0.002]))
    assert search.fit_cell(target.copy(), target, near_beam, np.ones(8), *arrays) == 0.0
    _, score = search.fit_best_cell(np.linalg.inv(target)[None], target, near_beam, np.ones(8), *arrays, 120, 1, 1)
    assert score == 0.0


@pytest.mark.parametrize(("n_first", "n_kept"), [(0, 4), (2, 4), (2, 1)])
def test_fit_best_cell_is_the_best_of_its_starts(rng, n_first, n_kept):
    q, true = lattice_peaks(rng, 40)
    q = q[np.argsort(np.linalg.norm(q, axis=1))]
    target = np.linalg.inv(prepare_lattice(CELL).reduced)
    starts = np.array([np.linalg.inv(Rotation.random(random_state=i).as_matrix() @ target) for i in range(4)])
    starts[2] = np.linalg.inv(true)
    tolerances, stiffness = np.array([0.3, 0.2, 0.12]), np.array([0.02, 0.002, 0.002])
    best, score = search.fit_best_cell(starts, target, q, np.ones(len(q)), tolerances, stiffness, 20, n_first, n_kept)
    np.testing.assert_allclose(best, true, atol=2e-4)
    assert score > 30
    # Few peaks in the first passes, all in the others.
    expected = starts[2].copy()
    for passes, peaks in ((slice(None, n_first), q[:20]), (slice(n_first, None), q)):
        expected, expected_score = fitted_cell(
            np.linalg.inv(expected) if passes.start is None else expected, target, peaks, np.ones(len(peaks)),
            tolerances[passes], stiffness[passes],
        )  # fmt: skip
    np.testing.assert_allclose(best, expected, atol=1e-9)
    assert score == pytest.approx(expected_score)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(1e-4, 0.05))
def test_binomial_tail_is_scipys(n, share, p):
    k = round(share * n)
    expected = binom.logsf(k - 1, n, p) / np.log(10)
    if bdtrc(k - 1, n, p) > 1e-290:
        assert search.log10_binomial_tail(k, n, p) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_binomial_tail_where_scipy_underflows():
    assert bdtrc(299, 300, 9e-4) == 0.0
    assert search.log10_binomial_tail(300, 300, 9e-4) == pytest.approx(300 * np.log10(9e-4), rel=1e-12)
    assert search.log10_binomial_tail(1900, 2000, 9e-4) < -5000
    assert search.log10_binomial_tail(0, 50, 0.01) == 0.0


def test_significance(rng):
    q, true = lattice_peaks(rng, 30, n_random=10)
    tolerances = np.array([0.06, 0.09, 0.12, 0.16, 0.2])
    q = np.concatenate([q, 1e-4 * rng.standard_normal((10, 3))])
    log10_p, tolerance = search.significance(true, q, tolerances)
    h = q @ np.linalg.inv(true).T
    distance = np.where(np.any(np.rint(h) != 0, axis=1), np.linalg.norm(h - np.rint(h), axis=1), np.inf)
    expected = [binom.logsf((distance < t).sum() - 1, len(q), 4 / 3 * np.pi * t**3) / np.log(10) for t in tolerances]
    assert log10_p == pytest.approx(min(expected))
    assert tolerance == tolerances[np.argmin(expected)]


def test_peaks_around_the_beam_are_not_significant():
    near_beam = 1e-4 * np.random.default_rng(3).standard_normal((30, 3))
    assert search.significance(np.linalg.inv(real_matrix(CELL)), near_beam, np.array([0.06, 0.2]))[0] == 0.0


def test_reference_peaks_are_on_the_lattice(rng):
    # The helper of this file: indices of its peaks are whole in gemmi's view of the cell.
    q, true = lattice_peaks(rng, 20, sigma=0.0)
    lengths = np.linalg.norm(q, axis=1)
    h = np.rint(q @ np.linalg.inv(true).T).astype(int)
    reduced = prepare_lattice(CELL).reduced
    parameters = np.linalg.norm(reduced, axis=1)
    cell = gemmi.UnitCell(*parameters, 90, 90, 90)
    np.testing.assert_allclose([1 / cell.calculate_d(row.tolist()) for row in h], lengths, rtol=1e-9)

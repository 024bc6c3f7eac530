"""Kernels of the expectation maximisation against the same in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from sfxflow import cell
from sfxflow.indexing import mixture
from sfxflow.indexing.lattice import PRIMITIVE
from sfxflow.indexing.refine import free_parameters

CELL = np.array([41.0, 52.0, 63.0, 82.0, 77.0, 69.0])


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(20, 200)] * 3, *[st.floats(70, 110)] * 3))
def test_reciprocal_matrix(parameters):
    got = mixture.reciprocal_matrix(np.array(parameters))
    np.testing.assert_allclose(got, cell.reciprocal_matrix(parameters), rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.sampled_from([1.0, 1e-5, 1e-9, 0.0]))
def test_rotation_by(vector, scale):
    vector = scale * np.array(vector)
    np.testing.assert_allclose(mixture.rotation_by(*vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-13)


@pytest.mark.parametrize("centering", PRIMITIVE)
def test_nearest_reflections_are_allowed_ones(rng, centering):
    primitive = PRIMITIVE[centering]
    from_primitive = np.linalg.inv(primitive)
    reciprocal = Rotation.random(random_state=2).as_matrix() @ cell.reciprocal_matrix((60, 70, 80, 90, 90, 90))
    true = np.rint(rng.integers(-9, 10, (40, 3)) @ from_primitive.T)
    q = true @ reciprocal.T + 1e-4 * rng.standard_normal((40, 3))
    hkl = np.empty((40, 3))
    mixture.nearest_reflections(reciprocal, primitive, from_primitive, q, hkl)
    np.testing.assert_array_equal(hkl, true)


def pairs(rng, n):
    return {
        "hkl": np.vstack([np.zeros((1, 3)), rng.integers(1, 9, (n - 1, 3))]).astype(float),
        "residuals": rng.standard_normal((n, 3)) * [0.5, 0.7, 5e-4],
        "spread": rng.random(n),
        "relative_width": 0.5 + rng.random(n),
        "density": 50 * rng.random(n) + 1,
    }


def test_expectation_is_bayes_rule(rng):
    p = pairs(rng, 30)
    p["residuals"][5] = [1e6, 1e6, 1.0]
    inlier, mixed_density = np.empty(30), np.empty(30)
    total = mixture.expectation(*p.values(), 0.7, 0.4, 6e-4, inlier, mixed_density)
    gaussian = norm.pdf(p["residuals"][:, 0], scale=0.4) * norm.pdf(
        p["residuals"][:, 1], scale=np.hypot(0.4, p["spread"])
    )
    gaussian *= norm.pdf(p["residuals"][:, 2], scale=6e-4 * p["relative_width"])
    gaussian[0] = 0.0  # the origin
    mixed = 0.7 * gaussian + 0.3 * p["density"]
    np.testing.assert_allclose(inlier, 0.7 * gaussian / mixed, rtol=1e-9, atol=1e-250)
    assert total == pytest.approx(inlier.sum())
    np.testing.assert_allclose(mixed_density, mixed, rtol=1e-9)
    log_ratio = mixture.log_likelihood_ratio(mixed_density, p["density"])
    assert log_ratio == pytest.approx(np.log(mixed / p["density"]).sum())
    assert inlier[0] == 0.0 and inlier[5] < 1e-100


def test_widths_are_those_that_were_drawn(rng):
    n = 20000
    spread, relative = np.zeros(n), 0.5 + rng.random(n)
    residuals = rng.standard_normal((n, 3)) * np.stack([np.full(n, 0.4), np.full(n, 0.4), 6e-4 * relative], axis=1)
    position, profile = mixture.widths(np.ones(n), residuals, spread, relative, float(n), 1.0, 0.0, 0.7)
    assert position == pytest.approx(0.4, rel=0.02) and profile == pytest.approx(6e-4, rel=0.02)
    # Fewer degrees of freedom widen, a prior weight draws to one.
    fewer = mixture.widths(np.ones(n), residuals, spread, relative, float(n), 0.25, 0.0, 0.7)
    np.testing.assert_allclose(fewer, [2 * position, 2 * profile])
    drawn = mixture.widths(np.ones(n), residuals, spread, relative, float(n), 1.0, float(n), 0.7)[1]
    assert drawn == pytest.approx(np.sqrt((profile**2 + 1.0) / 2.0))
    nothing = mixture.widths(np.ones(3), np.zeros((3, 3)), np.zeros(3), np.ones(3), 3.0, 1.0, 0.0, 0.7)
    assert nothing == (mixture.LEAST_POSITION_SIGMA, mixture.LEAST_PROFILE_SIGMA)


@pytest.mark.parametrize(
    ("lattice", "axis"), [("triclinic", "*"), ("monoclinic", "b"), ("tetragonal", "c"), ("cubic", "*")]
)
def test_lattice_gradient_is_the_finite_difference(lattice, axis):
    parameters = np.array([41.0, 41.0, 41.0, 90.0, 90.0, 90.0]) if lattice == "cubic" else CELL.copy()
    free = free_parameters(lattice, axis)
    rotation = Rotation.random(random_state=4).as_matrix()
    reciprocal = rotation @ cell.reciprocal_matrix(parameters)
    gradient = np.empty((3 + free.shape[1], 3, 3))
    mixture.lattice_gradient(reciprocal, rotation, parameters, free, gradient)
    step = 1e-5
    for j in range(3):
        turn = Rotation.from_rotvec(step * np.eye(3)[j]).as_matrix()
        back = Rotation.from_rotvec(-step * np.eye(3)[j]).as_matrix()
        np.testing.assert_allclose(gradient[j], (turn - back) @ reciprocal / (2 * step), atol=1e-9)
    for j in range(free.shape[1]):
        up = cell.reciprocal_matrix(parameters + step * free[:, j])
        down = cell.reciprocal_matrix(parameters - step * free[:, j])
        np.testing.assert_allclose(gradient[3 + j], rotation @ (up - down) / (2 * step), atol=1e-8)


def test_normal_equations(rng):
    p = pairs(rng, 25)
    free = free_parameters("monoclinic", "b")
    n = 3 + free.shape[1] + 3
    gradient, jacobian = rng.standard_normal((n - 3, 3, 3)), rng.standard_normal((25, 3, 6))
    inlier = rng.random(25)
    inlier[3] = 1e-4  # too improbable to count
    normal, right = np.zeros((n, n)), np.zeros((n, 1))
    mixture.add_pairs(
        p["hkl"],
        inlier,
        p["residuals"],
        jacobian,
        p["spread"],
        p["relative_width"],
        0.4,
        6e-4,
        gradient,
        normal,
        right,
    )
    moved = np.einsum("jrc,ic->irj", gradient, p["hkl"])
    design = np.concatenate([np.einsum("icr,irj->icj", jacobian[:, :, :3], moved), jacobian[:, :, 3:]], axis=2)
    variance = np.stack([np.full(25, 0.16), 0.16 + p["spread"] ** 2, (6e-4 * p["relative_width"]) ** 2], axis=1)
    weight = np.where(inlier < 1e-3, 0.0, inlier)[:, None] / variance
    expected = np.einsum("icj,ic,icm->jm", design, weight, design)
    expected_right = -np.einsum("icj,ic,ic->j", design, weight, p["residuals"])
    np.testing.assert_allclose(normal, expected, rtol=1e-9)
    np.testing.assert_allclose(right[:, 0], expected_right, rtol=1e-9)

    cell_weight, sigma = 1.0 + rng.random(6), np.array([1e-5, 2e-5, 0.01])
    mean, offsets, target = rng.random(3) * sigma, rng.random(3) * sigma, CELL + 1.0
    mixture.add_priors(free, cell_weight, target, CELL, mean, sigma, offsets, normal, right)
    prior = np.zeros((n, n))
    prior[3 : n - 3, 3 : n - 3] = free.T @ np.diag(cell_weight) @ free
    prior[n - 3 :, n - 3 :] = np.diag(1 / sigma**2)
    np.testing.assert_allclose(normal, expected + prior, rtol=1e-8)
    expected_right[3 : n - 3] += free.T @ (cell_weight * (target - CELL))
    expected_right[n - 3 :] += (mean - offsets) / sigma**2
    np.testing.assert_allclose(right[:, 0], expected_right, rtol=1e-9)

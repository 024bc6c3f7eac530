"""Residuals of pairs and their derivatives, against rays that are met with panels one by one."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.indexing.residuals import chance_density, pair_residuals, radial_directions, ray_offset, turn_to_radial

K = 1.0 / 1.3


def panels():
    """Two panels, turned and tilted: matrix with columns fs, ss, origin, metre."""
    tilt = Rotation.from_rotvec([0.03, -0.02, 0.01]).as_matrix()
    one = np.column_stack([[1e-4, 2e-6, 0], [-2e-6, 1e-4, 0], [-0.04, -0.05, 0.1]])
    two = np.column_stack([tilt @ [0, 1e-4, 0], tilt @ [-1e-4, 0, 0], [0.05, -0.03, 0.102]])
    return np.stack([one, two])


def residuals_and_jacobian(reciprocal, offsets, hkl, shares, panel, position, matrices):
    to_panel = np.linalg.inv(matrices)
    residuals, jacobian = np.empty((len(hkl), 3)), np.empty((len(hkl), 3, 6))
    depth = matrices[:, 2, 2].copy()
    pair_residuals(
        reciprocal, offsets, hkl.astype(float), shares, panel, position, to_panel, depth, K, residuals, jacobian
    )
    return residuals, jacobian


def obvious_residuals(reciprocal, offsets, hkl, shares, panel, position, matrices):
    """Rays met with panels that are moved as the offsets say, one by one."""
    rows = []
    k = K / (1 + offsets[2])
    for h, share, p, observed in zip(hkl, shares, panel, position, strict=True):
        q = reciprocal @ h
        s = q + [0, 0, k]
        error = k - np.linalg.norm(s)
        ray = s + error * np.array(ray_offset(*q, k, *share))
        fs, ss, origin = matrices[p].T
        moved = origin - [offsets[0], offsets[1], origin[2] * offsets[2] / (1 + offsets[2])]
        # origin + f fs + s ss = t ray
        f, t, _ = np.linalg.solve(np.column_stack([fs, ss, -ray]), -moved)
        rows.append([f - observed[0], t - observed[1], error])
    return np.array(rows)


def random_pairs(rng, shares, on_sphere):
    """A random lattice whose reflections 100, 010, 001 go to the panels; on the Ewald sphere or near it."""
    offsets = np.array([3e-5, -5e-5, 0.01])
    k = K / 1.01
    matrices = panels()
    panel = np.array([0, 1, 1])
    columns = []
    for p in panel:
        point = matrices[p] @ [rng.uniform(50, 700), rng.uniform(50, 700), 1.0]
        s = k * point / np.linalg.norm(point)
        columns.append(s - [0, 0, k] + (0 if on_sphere else 1e-3) * rng.standard_normal(3))
    reciprocal = np.column_stack(columns)
    position = rng.uniform(0, 700, (3, 2))
    return reciprocal, offsets, np.eye(3), np.tile(shares, (3, 1)).astype(float), panel, position, matrices


@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_residuals_are_where_rays_meet_moved_panels(shares, seed):
    pairs = random_pairs(np.random.default_rng(seed), shares, on_sphere=False)
    got, _ = residuals_and_jacobian(*pairs)
    np.testing.assert_allclose(got, obvious_residuals(*pairs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shares", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.4)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_jacobian_is_the_finite_difference(shares, seed):
    # On the sphere the neglected change of the ray's offset itself plays no part; without shares there is none.
    reciprocal, offsets, *rest = random_pairs(np.random.default_rng(seed), shares, on_sphere=any(shares))
    _, jacobian = residuals_and_jacobian(reciprocal, offsets, *rest)
    for r in range(3):
        step = np.zeros((3, 3))
        step[r] = 1e-7
        change = obvious_residuals(reciprocal + step, offsets, *rest) - obvious_residuals(
            reciprocal - step, offsets, *rest
        )
        np.testing.assert_allclose(jacobian[:, :, r], change / 2e-7, rtol=1e-4, atol=1e-3)
    for r, size in ((3, 1e-8), (4, 1e-8), (5, 1e-6)):
        step = np.zeros(3)
        step[r - 3] = size
        change = obvious_residuals(reciprocal, offsets + step, *rest) - obvious_residuals(
            reciprocal, offsets - step, *rest
        )
        np.testing.assert_allclose(jacobian[:, :, r], change / (2 * size), rtol=1e-4, atol=1e-3)


def test_mosaic_rays_keep_the_length_of_q():
    q, error = np.array([0.2, 0.1, -0.04]), 1e-6
    s = q + [0, 0, K]
    normal = s / np.linalg.norm(s)
    # Only the ray's direction counts: what is along it is left out of its offset and added here.
    moved = s + error * (np.array(ray_offset(*q, K, 1.0, 0.0)) + normal)
    assert np.linalg.norm(moved - [0, 0, K]) - np.linalg.norm(q) == pytest.approx(0.0, abs=1e-10)
    # ... and the point moves onto the sphere by just the excitation error.
    assert np.linalg.norm(moved) - np.linalg.norm(s) == pytest.approx(error, rel=1e-3)


def test_bandwidth_rays_are_those_of_the_energy_that_reflects():
    q = np.array([0.2, 0.1, -0.0333])
    k_reflecting = -(q @ q) / (2 * q[2])
    error = K - np.linalg.norm(q + [0, 0, K])
    ray = q + [0, 0, K] + error * np.array(ray_offset(*q, K, 0.0, 1.0))
    exact = q + [0, 0, k_reflecting]
    angle = np.linalg.norm(np.cross(ray, exact)) / np.linalg.norm(ray) / np.linalg.norm(exact)
    turned_by = np.linalg.norm(np.cross(q + [0, 0, K], exact)) / np.linalg.norm(ray) / np.linalg.norm(exact)
    assert angle < 0.02 * turned_by


def test_reflections_on_the_beams_axis_do_not_divide_by_zero():
    assert np.all(np.isfinite(ray_offset(0.0, 0.0, 0.01, K, 0.5, 0.5)))
    assert np.all(np.isfinite(ray_offset(0.0, 0.0, -2.0 * K, K, 0.5, 0.5)))


def test_turning_to_radial_directions_keeps_lengths():
    rng = np.random.default_rng(1)
    matrices = panels()
    to_panel = np.linalg.inv(matrices)
    panel = np.array([0, 1, 1, 0])
    q = 0.1 * rng.standard_normal((4, 3))
    radial = radial_directions(q, panel, to_panel)
    np.testing.assert_allclose(np.linalg.norm(radial, axis=1), 1.0)
    for direction, p, v in zip(radial, panel, q, strict=True):
        # Steps along fs and ss that lead away from the beam's axis.
        step = direction @ matrices[p][:, :2].T
        assert step[:2] @ v[:2] > 0.99 * np.linalg.norm(step[:2]) * np.linalg.norm(v[:2])
    residuals, jacobian = rng.standard_normal((4, 3)), rng.standard_normal((4, 3, 6))
    turned, turned_jacobian = residuals.copy(), jacobian.copy()
    turn_to_radial(radial, turned, turned_jacobian)
    for i, (x, y) in enumerate(radial):
        turn = np.array([[x, y, 0], [-y, x, 0], [0, 0, 1]])
        np.testing.assert_allclose(turned[i], turn @ residuals[i])
        np.testing.assert_allclose(turned_jacobian[i], turn @ jacobian[i])
    assert radial_directions(np.zeros((1, 3)), panel[:1], to_panel).tolist() == [[1.0, 0.0]]


def test_chance_density_is_that_of_lattice_points_on_the_ewald_sphere():
    """Points of a lattice near the sphere: k^2 / volume of them a steradian and 1/angstrom, seen by a pixel of known solid angle."""
    matrices = panels()
    panel, position = np.array([0, 1]), np.array([[100.0, 300.0], [20.0, 600.0]])
    reciprocal = np.diag([1 / 40, 1 / 50, 1 / 60])
    got = chance_density(panel, position, np.linalg.inv(matrices), K, reciprocal)
    for density, p, at in zip(got, panel, position, strict=True):
        corners = [matrices[p] @ [at[0] + x, at[1] + y, 1.0] for x, y in ((0, 0), (1, 0), (0, 1))]
        rays = [corner / np.linalg.norm(corner) for corner in corners]
        solid_angle = np.linalg.norm(np.cross(rays[1] - rays[0], rays[2] - rays[0]))
        assert density == pytest.approx(K**2 * solid_angle * 40 * 50 * 60, rel=2e-3)

"""Normal equations of one crystal: derivatives against differences, elimination against the whole system."""

from dataclasses import replace

import numpy as np

from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.crystals import placed_peaks, scale_to_sphere
from sfxflow.geometry_refinement.groups import moved, panel_centres
from sfxflow.geometry_refinement.normal import add_crystal, panel_gradients, turn_gradients
from sfxflow.indexing.frame import panel_inverses
from sfxflow.indexing.residuals import pair_residuals, turn_to_radial


def residuals_of(crystal, arrays, hkl, offsets, stretch=0.0):
    """Residuals along fs, ss and in excitation error, and what the kernels need beside."""
    clen = crystal.peaks.clen + stretch
    peaks = placed_peaks(crystal.peaks, arrays, clen)
    to_panel = panel_inverses(arrays, clen)
    from_panel = np.linalg.inv(to_panel)
    n = len(peaks)
    residuals, jacobian = np.empty((n, 3)), np.empty((n, 3, 6))
    depth = np.ascontiguousarray(from_panel[:, 2, 2])
    shares = np.zeros((n, 2))
    k = 1.0 / crystal.peaks.wavelength
    pair_residuals(
        crystal.reciprocal, offsets, hkl, shares, peaks.panel, peaks.position, to_panel, depth, k, residuals, jacobian
    )
    return residuals, jacobian, peaks, to_panel, from_panel


def nearest(crystal, arrays):
    q = placed_peaks(crystal.peaks, arrays, crystal.peaks.clen).q
    return np.rint(q @ np.linalg.inv(crystal.reciprocal).T)


def test_derivatives_with_the_motion_of_a_panel(panels_off):
    crystal, arrays = panels_off.crystals[4], panel_arrays(panels_off.made.stated_detector)
    offsets = np.array([2e-5, -3e-5, 1e-3])
    hkl = nearest(crystal, arrays)
    residuals, _, peaks, to_panel, from_panel = residuals_of(crystal, arrays, hkl, offsets)
    gradient = np.empty((len(peaks), 2, 6))
    centres = panel_centres(arrays) + (0.0, 0.0, crystal.peaks.clen)
    panel_gradients(peaks.panel, peaks.position, residuals, to_panel, from_panel, centres, gradient)
    used = np.abs(hkl).sum(axis=1) > 0
    for freedom, step in enumerate([1e-7] * 3 + [1e-6] * 3):
        sides = []
        for sign in (1.0, -1.0):
            motions = np.zeros((len(arrays.bounds), 6))
            motions[:, freedom] = sign * step
            sides.append(residuals_of(crystal, moved(arrays, motions), hkl, offsets)[0])
        difference = (sides[0] - sides[1]) / (2.0 * step)
        scale = np.abs(difference[used, :2]).max()
        # The offsets are small but not zero: the derivatives leave out what is of second order in them.
        np.testing.assert_allclose(gradient[used, :, freedom], difference[used, :2], rtol=0, atol=3e-3 * scale)
        assert np.abs(difference[used, 2]).max() * step < 1e-12


def test_elimination_is_the_solution_of_the_whole_system(panels_off):
    """Motions from the reduced equations are those of the system with every crystal's own parameters in it."""
    rng = np.random.default_rng(5)
    n_panels, n_own, n_crystals = 4, 7, 5
    normal, right = np.zeros((6 * n_panels, 6 * n_panels)), np.zeros(6 * n_panels)
    rows, values = [], []
    ridge = 1e-3
    for number in range(n_crystals):
        n = 30
        hkl = rng.integers(-5, 6, (n, 3)).astype(float)
        lattice = rng.standard_normal((n_own - 3, 3, 3))
        residuals, jacobian = rng.standard_normal((n, 3)), rng.standard_normal((n, 3, 6))
        gradient, panel = rng.standard_normal((n, 2, 6)), rng.integers(0, n_panels - 1, n)
        inlier, variance = rng.uniform(0.0, 1.0, n), rng.uniform(0.5, 2.0, (n, 3))
        inlier[0] = 0.0
        weight, pull = rng.uniform(0.1, 1.0, n_own), rng.standard_normal(n_own)
        assert add_crystal(
            hkl, inlier, residuals, jacobian, variance, lattice, gradient, panel, weight, pull, normal, right
        )
        for i in range(n):
            for c in range(3):
                row = np.zeros(6 * n_panels + n_own * n_crystals)
                own = np.concatenate([np.einsum("r,jrs,s->j", jacobian[i, c, :3], lattice, hkl[i]), jacobian[i, c, 3:]])
                row[6 * n_panels + n_own * number :][:n_own] = own
                if c < 2:
                    row[6 * panel[i] :][:6] = gradient[i, c]
                root = np.sqrt(inlier[i] / variance[i, c])
                rows.append(row * root)
                values.append(-residuals[i, c] * root)
        for j in range(n_own):
            row = np.zeros(6 * n_panels + n_own * n_crystals)
            row[6 * n_panels + n_own * number + j] = np.sqrt(weight[j])
            rows.append(row)
            values.append(pull[j] / np.sqrt(weight[j]))
    for j in range(6 * n_panels):
        rows.append(np.sqrt(ridge) * np.eye(1, 6 * n_panels + n_own * n_crystals, j)[0])
        values.append(0.0)
    whole, *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    reduced = np.linalg.solve(normal + ridge * np.eye(6 * n_panels), right)
    np.testing.assert_allclose(reduced, whole[: 6 * n_panels], rtol=0, atol=1e-9 * np.abs(whole).max())
    # The last panel has no peaks: nothing pulls at it.
    np.testing.assert_array_equal(normal[-6:], 0.0)
    np.testing.assert_allclose(normal, normal.T, atol=1e-9)


def test_a_crystal_without_believed_pairs_adds_nothing():
    normal, right = np.zeros((6, 6)), np.zeros(6)
    n = 5
    added = add_crystal(
        np.ones((n, 3)), np.zeros(n), np.ones((n, 3)), np.ones((n, 3, 6)), np.ones((n, 3)), np.ones((4, 3, 3)),
        np.ones((n, 2, 6)), np.zeros(n, dtype=np.int64), np.ones(7), np.zeros(7), normal, right,
    )  # fmt: skip
    assert not added and not normal.any() and not right.any()


def test_turned_gradients_are_along_and_across():
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, 2 * np.pi, 6)
    radial = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    gradient, jacobian, residuals = rng.standard_normal((6, 2, 6)), rng.standard_normal((6, 3, 6)), np.zeros((6, 3))
    jacobian[:, :2] = gradient
    turned = gradient.copy()
    turn_gradients(radial, turned)
    turn_to_radial(radial, residuals, jacobian)
    np.testing.assert_allclose(turned, jacobian[:, :2], atol=1e-15)


def test_crystals_keep_their_peaks_when_panels_move(panels_off):
    crystal = panels_off.crystals[0]
    arrays = panel_arrays(panels_off.made.stated_detector)
    shifted = replace(arrays, origin=arrays.origin + (1e-4, 0.0, 0.0))
    here, there = (placed_peaks(crystal.peaks, a, crystal.peaks.clen) for a in (arrays, shifted))
    np.testing.assert_array_equal(here.position, there.position)
    assert not np.allclose(here.q, there.q, atol=1e-6)


def test_a_longer_camera_with_a_larger_cell_and_more_excess_is_the_same_pattern(panels_off):
    """The direction that no pattern determines is exactly so in the derivatives, whatever the excitation errors are."""
    crystal, arrays = panels_off.crystals[4], panel_arrays(panels_off.made.stated_detector)
    hkl, excess, step = nearest(crystal, arrays), 8e-3, 1e-5
    offsets = np.array([0.0, 0.0, excess])
    residuals, jacobian, peaks, to_panel, from_panel = residuals_of(crystal, arrays, hkl, offsets)
    used = (np.abs(hkl).sum(axis=1) > 0) & (np.abs(residuals[:, 0]) < 5.0) & (np.abs(residuals[:, 1]) < 5.0)
    assert np.abs(residuals[used, 2]).max() > 3e-4
    centres = panel_centres(arrays) + (0.0, 0.0, crystal.peaks.clen)
    in_plane = np.empty((len(peaks), 2, 6))
    panel_gradients(peaks.panel, peaks.position, residuals, to_panel, from_panel, centres, in_plane)
    scale_to_sphere(residuals, jacobian, excess)
    q = hkl @ crystal.reciprocal.T
    # The camera longer by a part, reciprocal lengths smaller and the excess larger by the same part.
    change = step * np.einsum("icr,ir->ic", jacobian[:, :, :3], -q) + step * (1.0 + excess) * jacobian[:, :, 5]
    change[:, :2] += step * crystal.peaks.clen * in_plane[:, :, 2]
    single = np.abs(step * jacobian[used][:, :, 5]).max(axis=0)
    assert np.all(np.abs(change[used]).max(axis=0) < 0.02 * single)

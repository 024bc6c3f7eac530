"""What one crystal says of the panels: its normal equations, with all that belongs to the crystal alone eliminated.

The model is that of millepede (Blobel & Kleinwort 2002, hep-ex/0208021): residuals depend on a few parameters of each crystal and on the
motions of the panels. With the blocks A (crystal), B (mixed) and C (panels) of a crystal's normal matrix and the right-hand sides a, c,
the crystals' sums of C - B^T A^-1 B and c - B^T A^-1 a are all that is needed to solve for the motions, exactly.
"""

import numpy as np
from numba import njit

from sfxflow.small_matrices import solve_in_place

#: Pairs that are less probable than this do not count.
_LEAST_INLIER = 1e-3


@njit(cache=True)
def panel_gradients(panel, position, residuals, to_panel, from_panel, centres, gradient):
    """Derivatives of the residuals along fs and ss with respect to the panel's motion.

    Parameters
    ----------
    panel : ndarray of int, shape (n,)
    position : ndarray, shape (n, 2)
        Observed, along fs and ss from the panel's corner, pixel.
    residuals : ndarray, shape (n, 3)
        Predicted minus observed along fs and ss, pixel, in the first two columns.
    to_panel, from_panel : ndarray, shape (p, 3, 3)
        Inverse of (fs, ss, origin) of each panel in its columns, 1/metre, and the matrix itself.
    centres : ndarray, shape (p, 3)
        Middle of each panel, camera length included, metre.
    gradient : ndarray, shape (n, 2, 6)
        Set: pixel per metre and per radian.
    """
    point = np.empty(3)
    for i in range(panel.shape[0]):
        m, back, centre = to_panel[panel[i]], from_panel[panel[i]], centres[panel[i]]
        fs, ss = position[i, 0] + residuals[i, 0], position[i, 1] + residuals[i, 1]
        for r in range(3):
            point[r] = back[r, 0] * fs + back[r, 1] * ss + back[r, 2] - centre[r]
        for c in range(2):
            place = fs if c == 0 else ss
            gx, gy, gz = m[c, 0] - place * m[2, 0], m[c, 1] - place * m[2, 1], m[c, 2] - place * m[2, 2]
            # A panel that moves one way sees the ray move the other way.
            gradient[i, c, 0], gradient[i, c, 1], gradient[i, c, 2] = -gx, -gy, -gz
            gradient[i, c, 3] = -(point[1] * gz - point[2] * gy)
            gradient[i, c, 4] = -(point[2] * gx - point[0] * gz)
            gradient[i, c, 5] = -(point[0] * gy - point[1] * gx)


@njit(cache=True)
def turn_gradients(radial, gradient):
    """Turn derivatives along fs and ss to along and across the radial directions."""
    for i in range(radial.shape[0]):
        x, y = radial[i, 0], radial[i, 1]
        for r in range(6):
            along = x * gradient[i, 0, r] + y * gradient[i, 1, r]
            gradient[i, 1, r] = x * gradient[i, 1, r] - y * gradient[i, 0, r]
            gradient[i, 0, r] = along


@njit(cache=True)
def add_crystal(
    hkl, inlier, residuals, jacobian, variance, lattice, panel_gradient, panel, prior_weight, prior_pull, normal, right
):
    """Add a crystal to the normal equations of the panels' motions.

    Parameters
    ----------
    hkl : ndarray, shape (n, 3)
    inlier : ndarray, shape (n,)
        Probability that the pair is a true one.
    residuals : ndarray, shape (n, 3)
    jacobian : ndarray, shape (n, 3, 6)
        Their derivatives with respect to q, shift and excess (`sfxflow.indexing.residuals`).
    variance : ndarray, shape (n, 3)
    lattice : ndarray, shape (m, 3, 3)
        Derivatives of the reciprocal matrix with respect to rotations and cell parameters.
    panel_gradient : ndarray, shape (n, 2, 6)
    panel : ndarray of int, shape (n,)
    prior_weight, prior_pull : ndarray, shape (m + 3,)
        1 / variance of the crystal's own parameters, and that times (mean - value).
    normal : ndarray, shape (6 p, 6 p)
    right : ndarray, shape (6 p,)

    Returns
    -------
    bool
        False if the crystal's own parameters are not determined; nothing is added then.
    """
    n_lattice = lattice.shape[0]
    n_own = n_lattice + 3
    n_panels = normal.shape[0] // 6
    slot = np.full(n_panels, -1)
    n_slots = 0
    for i in range(panel.shape[0]):
        if inlier[i] >= _LEAST_INLIER and slot[panel[i]] < 0:
            slot[panel[i]] = n_slots
            n_slots += 1
    width = 6 * n_slots
    own, mixed = np.zeros((n_own, n_own)), np.zeros((n_own, width + 1))
    shared, shared_right = np.zeros((n_slots, 6, 6)), np.zeros(width)
    row = np.empty(n_own)
    for i in range(panel.shape[0]):
        if inlier[i] < _LEAST_INLIER:
            continue
        first = 6 * slot[panel[i]]
        for c in range(3):
            weight = inlier[i] / variance[i, c]
            for j in range(n_lattice):
                row[j] = 0.0
                for r in range(3):
                    change = lattice[j, r, 0] * hkl[i, 0] + lattice[j, r, 1] * hkl[i, 1] + lattice[j, r, 2] * hkl[i, 2]
                    row[j] += jacobian[i, c, r] * change
            for j in range(3):
                row[n_lattice + j] = jacobian[i, c, 3 + j]
            for j in range(n_own):
                mixed[j, width] -= weight * row[j] * residuals[i, c]
                for k in range(n_own):
                    own[j, k] += weight * row[j] * row[k]
            if c == 2:
                # Where a panel stands does not change the excitation error of a reflection.
                continue
            for r in range(6):
                g = panel_gradient[i, c, r]
                shared_right[first + r] -= weight * g * residuals[i, c]
                for j in range(n_own):
                    mixed[j, first + r] += weight * row[j] * g
                for s in range(6):
                    shared[slot[panel[i]], r, s] += weight * g * panel_gradient[i, c, s]
    for j in range(n_own):
        own[j, j] += prior_weight[j]
        mixed[j, width] += prior_pull[j]
    solved = mixed.copy()
    if n_slots == 0 or not solve_in_place(own, solved):
        return False
    for a in range(n_panels):
        if slot[a] < 0:
            continue
        for r in range(6):
            first = 6 * slot[a] + r
            total = shared_right[first]
            for j in range(n_own):
                total -= mixed[j, first] * solved[j, width]
            right[6 * a + r] += total
            for s in range(6):
                normal[6 * a + r, 6 * a + s] += shared[slot[a], r, s]
            for b in range(n_panels):
                if slot[b] < 0:
                    continue
                for s in range(6):
                    taken = 0.0
                    for j in range(n_own):
                        taken += mixed[j, first] * solved[j, 6 * slot[b] + s]
                    normal[6 * a + r, 6 * b + s] -= taken
    return True

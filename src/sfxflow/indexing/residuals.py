"""Where a reflection of a lattice is seen, and how far from there a peak is: residuals and their derivatives."""

import math

import numpy as np
from numba import njit

from sfxflow.small_matrices import determinant3, inverse3


@njit(cache=True)
def ray_offset(qx, qy, qz, k, mosaic_share, bandwidth_share):
    """How far the ray of a partially reflecting point lies from s = q + k z, for one unit of excitation error.

    Parameters
    ----------
    qx, qy, qz, k : float
        Reciprocal-lattice point and 1 / wavelength, 1/angstrom.
    mosaic_share, bandwidth_share : float
        Shares of (eta q)^2 and of the bandwidth's term in sigma(q)^2.

    Returns
    -------
    tuple of 3 floats
        e: the ray is s + excitation_error * e.

    Notes
    -----
    The mean point of a Gaussian reciprocal-lattice point with covariance C, given that it lies on the Ewald sphere with normal
    n = s/|s|, is off its centre by the excitation error times C n / (n C n). For a spherical point this is along n, which leaves
    the ray's direction alone; for mosaic blocks, turned against each other, it keeps |q|; for a band of energies, the point stays
    and k changes. With several causes, their shares of the variance weigh them.
    """
    sx, sy, sz = qx, qy, qz + k
    per_norm = 1.0 / math.sqrt(sx * sx + sy * sy + sz * sz)
    nx, ny, nz = sx * per_norm, sy * per_norm, sz * per_norm
    q2 = qx * qx + qy * qy + qz * qz
    along = (nx * qx + ny * qy + nz * qz) / q2
    # Points on the beam's axis, which no detector sees, must not divide by zero.
    per_across = 1.0 / max(1e-12, 1.0 - along * along * q2)
    from_beam = max(1e-12, 1.0 - nz)
    ex = mosaic_share * ((nx - along * qx) * per_across - nx)
    ey = mosaic_share * ((ny - along * qy) * per_across - ny)
    ez = mosaic_share * ((nz - along * qz) * per_across - nz) - bandwidth_share / from_beam
    return ex, ey, ez


@njit(cache=True)
def pair_residuals(reciprocal, offsets, hkl, shares, panel, position, to_panel, depth, k, residuals, jacobian):
    """Residuals of each pair and their derivatives with respect to q and to the shift.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
    offsets : ndarray, shape (3,)
        Shift (metre) and excess.
    hkl : ndarray, shape (n, 3)
    shares : ndarray, shape (n, 2)
        Shares of mosaicity and bandwidth in sigma(q)^2 (`ray_offset`).
    panel : ndarray of int, shape (n,)
    position : ndarray, shape (n, 2)
        Observed, along fs and ss from the panel's corner, pixel.
    to_panel : ndarray, shape (p, 3, 3)
        Inverse of (fs, ss, origin) of each panel in its columns, 1/metre: maps a ray to (fs, ss, 1) / t.
    depth : ndarray, shape (p,)
        Camera length of each panel, metre.
    k : float
        1 / wavelength, 1/angstrom.
    residuals : ndarray, shape (n, 3)
        Set to predicted minus observed fs, ss (pixel) and the excitation error (1/angstrom).
    jacobian : ndarray, shape (n, 3, 6)
        Set to their derivatives with respect to qx, qy, qz (1/angstrom), the shift in x and y (metre) and the excess.
    """
    kz = k / (1.0 + offsets[2])
    d_kz = -kz / (1.0 + offsets[2])
    nearer_share, d_nearer_share = offsets[2] / (1.0 + offsets[2]), 1.0 / (1.0 + offsets[2]) ** 2
    for i in range(hkl.shape[0]):
        residuals[i] = 0.0
        jacobian[i] = 0.0
        if hkl[i, 0] == 0 and hkl[i, 1] == 0 and hkl[i, 2] == 0:
            continue
        qx = reciprocal[0, 0] * hkl[i, 0] + reciprocal[0, 1] * hkl[i, 1] + reciprocal[0, 2] * hkl[i, 2]
        qy = reciprocal[1, 0] * hkl[i, 0] + reciprocal[1, 1] * hkl[i, 1] + reciprocal[1, 2] * hkl[i, 2]
        qz = reciprocal[2, 0] * hkl[i, 0] + reciprocal[2, 1] * hkl[i, 1] + reciprocal[2, 2] * hkl[i, 2]
        norm = math.sqrt(qx * qx + qy * qy + (qz + kz) * (qz + kz))
        per_norm = 1.0 / norm
        nx, ny, nz = qx * per_norm, qy * per_norm, (qz + kz) * per_norm
        excitation_error = kz - norm
        ex, ey, ez = ray_offset(qx, qy, qz, kz, shares[i, 0], shares[i, 1])
        sx, sy, sz = qx + excitation_error * ex, qy + excitation_error * ey, qz + kz + excitation_error * ez
        m = to_panel[panel[i]]
        u0 = m[0, 0] * sx + m[0, 1] * sy + m[0, 2] * sz
        u1 = m[1, 0] * sx + m[1, 1] * sy + m[1, 2] * sz
        u2 = m[2, 0] * sx + m[2, 1] * sy + m[2, 2] * sz
        nearer = depth[panel[i]] * nearer_share
        moved0 = m[0, 0] * offsets[0] + m[0, 1] * offsets[1] + m[0, 2] * nearer
        moved1 = m[1, 0] * offsets[0] + m[1, 1] * offsets[1] + m[1, 2] * nearer
        moved2 = m[2, 0] * offsets[0] + m[2, 1] * offsets[1] + m[2, 2] * nearer
        per_u2 = 1.0 / u2
        t = (1.0 - moved2) * per_u2
        residuals[i, 0] = t * u0 + moved0 - position[i, 0]
        residuals[i, 1] = t * u1 + moved1 - position[i, 1]
        residuals[i, 2] = excitation_error
        d_nearer = depth[panel[i]] * d_nearer_share
        for c in range(2):
            along = (u0 if c == 0 else u1) * per_u2
            mx, my, mz = m[c, 0] - along * m[2, 0], m[c, 1] - along * m[2, 1], m[c, 2] - along * m[2, 2]
            gx, gy, gz = t * mx, t * my, t * mz
            # The ray moves by dq - e (n . dq) when q moves by dq, and by (z + e (1 - n . z)) dk when k changes.
            offset = gx * ex + gy * ey + gz * ez
            jacobian[i, c, 0] = gx - offset * nx
            jacobian[i, c, 1] = gy - offset * ny
            jacobian[i, c, 2] = gz - offset * nz
            jacobian[i, c, 3], jacobian[i, c, 4] = mx, my
            jacobian[i, c, 5] = (gz + offset * (1.0 - nz)) * d_kz + mz * d_nearer
        jacobian[i, 2, 0], jacobian[i, 2, 1], jacobian[i, 2, 2] = -nx, -ny, -nz
        jacobian[i, 2, 5] = d_kz * (1.0 - nz)


@njit(cache=True)
def turn_to_radial(radial, residuals, jacobian):
    """Turn the residuals along fs and ss, and their derivatives, to along and across the radial directions."""
    for i in range(radial.shape[0]):
        x, y = radial[i, 0], radial[i, 1]
        residuals[i, 0], residuals[i, 1] = (
            x * residuals[i, 0] + y * residuals[i, 1],
            x * residuals[i, 1] - y * residuals[i, 0],
        )
        for r in range(6):
            jacobian[i, 0, r], jacobian[i, 1, r] = (
                x * jacobian[i, 0, r] + y * jacobian[i, 1, r],
                x * jacobian[i, 1, r] - y * jacobian[i, 0, r],
            )


@njit(cache=True)
def radial_directions(q, panel, to_panel):
    """Directions (fs, ss) that lead away from the beam, shape (n, 2)."""
    radial = np.empty((q.shape[0], 2))
    for i in range(q.shape[0]):
        m = to_panel[panel[i]]
        x = m[0, 0] * q[i, 0] + m[0, 1] * q[i, 1]
        y = m[1, 0] * q[i, 0] + m[1, 1] * q[i, 1]
        norm = math.sqrt(x * x + y * y)
        if norm > 0.0:
            radial[i, 0], radial[i, 1] = x / norm, y / norm
        else:
            radial[i, 0], radial[i, 1] = 1.0, 0.0
    return radial


@njit(cache=True)
def chance_density(panel, position, to_panel, k, reciprocal):
    """Density of chance residuals, 1 / (pixel^2 1/angstrom): the solid angle of a pixel times k^2, over the volume of a
    (primitive) reciprocal cell."""
    volume = abs(determinant3(reciprocal))
    density = np.empty(panel.shape[0])
    for i in range(panel.shape[0]):
        m = inverse3(to_panel[panel[i]])
        distance2 = 0.0
        for r in range(3):
            distance2 += (m[r, 0] * position[i, 0] + m[r, 1] * position[i, 1] + m[r, 2]) ** 2
        solid_angle = abs(determinant3(m)) / distance2**1.5
        density[i] = k * k * solid_angle / volume
    return density

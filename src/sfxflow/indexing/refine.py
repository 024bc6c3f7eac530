"""Prediction refinement: orientation, cell and offsets of one lattice against its peaks, with false peaks among them.

Every peak is paired with its nearest reciprocal-lattice point; its residuals are the distance from the predicted position (pixel) and
the excitation error of the point (1/angstrom). A pair is either a true one, with Gaussian residuals, or a chance one, with residuals
spread evenly over a cell of the reciprocal lattice. Expectation maximisation (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39, 1)
estimates which is which, the widths of the true ones, and the lattice.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from sfxflow.cell import parameters_of
from sfxflow.indexing.lattice import PRIMITIVE
from sfxflow.indexing.search import nearest_rotation

#: Smallest widths that are believed, pixel and 1/angstrom: both far below what a detector or crystal has.
LEAST_POSITION_SIGMA = 0.05
LEAST_PROFILE_SIGMA = 1e-5
#: Standard deviations of the priors: cell length (relative), cell angle (degree).
CELL_LENGTH_PRIOR = 0.02
CELL_ANGLE_PRIOR = 1.0
#: Standard deviations of a crystal's shift (pixel) and excess before anything is pooled: centres are known to half a pixel, camera
#: lengths to one per cent.
FIRST_SHIFT_SIGMA = 0.5
FIRST_EXCESS_SIGMA = 0.01
#: The width of one crystal's excitation errors is drawn to the pooled one as if so many more peaks had been seen.
POOLED_WIDTH_WEIGHT = 10.0


@dataclass(frozen=True)
class Profile:
    """Widths of the excitation error, pooled over crystals: sigma(q)^2 = R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2.

    Attributes
    ----------
    radius : float
        R0, 1/angstrom.
    mosaicity : float
        eta, radian.
    bandwidth : float
        Relative sigma of the photon energy.
    offsets : tuple of 3 floats
        Mean shift of the pattern along x and y, metre, and mean excess (`RefinedLattice`).
    offset_sigmas : tuple of 3 floats
        Standard deviation of one crystal's offsets from them.
    """

    radius: float
    mosaicity: float
    bandwidth: float
    offsets: tuple
    offset_sigmas: tuple


@dataclass(frozen=True)
class RefinedLattice:
    """A lattice after refinement.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the conventional cell, 1/angstrom.
    offsets : ndarray, shape (3,)
        Shift of the pattern along x and y, metre, and excess: the camera length is too long by this fraction. The cell is that for
        the camera length as given: with an excess of 1 % it is 1 % larger than the crystal's own, positions at low angles hardly
        change, and the Ewald sphere that fits this cell is 1 % smaller than 1 / wavelength.
    hkl : ndarray of int, shape (n, 3)
        Nearest reflection of each peak among those that the centring allows.
    inlier : ndarray, shape (n,)
        Probability that the pair is a true one.
    distance : ndarray, shape (n,)
        From the predicted position, pixel.
    excitation_error : ndarray, shape (n,)
        From the Ewald sphere that the excess gives, 1/angstrom.
    position_sigma : float
        Pixel, in each direction.
    profile_sigma : float
        Width of the excitation errors, 1/angstrom, or factor on the pooled widths where those were given.
    log10_ratio : float
        log10 of the likelihood of all peaks under the mixture over that under chance alone.
    """

    reciprocal: np.ndarray
    offsets: np.ndarray
    hkl: np.ndarray
    inlier: np.ndarray
    distance: np.ndarray
    excitation_error: np.ndarray
    position_sigma: float
    profile_sigma: float
    log10_ratio: float


def free_parameters(lattice_type, unique_axis="c"):
    """How the six cell parameters depend on the free ones of a lattice type.

    Parameters
    ----------
    lattice_type : str
        triclinic, monoclinic, orthorhombic, tetragonal, rhombohedral, hexagonal or cubic.
    unique_axis : str
        a, b or c, for monoclinic, tetragonal and hexagonal lattices.

    Returns
    -------
    ndarray, shape (6, n)
        Columns add to (a, b, c, alpha, beta, gamma); angles that the type fixes have no column.
    """
    unit = np.eye(6)
    a, b, c, alpha, beta, gamma = unit
    axis = "abc".index(unique_axis) if unique_axis in "abc" else 2
    columns = {
        "triclinic": list(unit),
        "monoclinic": [a, b, c, unit[3 + (axis if unique_axis in "abc" else 1)]],
        "orthorhombic": [a, b, c],
        "tetragonal": [(a + b + c) - unit[axis], unit[axis]],
        "hexagonal": [(a + b + c) - unit[axis], unit[axis]],
        "rhombohedral": [a + b + c, alpha + beta + gamma],
        "cubic": [a + b + c],
    }
    return np.array(columns[lattice_type]).T


@njit(cache=True)
def _reciprocal_matrix(parameters):
    cosines = np.cos(np.radians(parameters[3:]))
    sine = math.sin(math.radians(parameters[5]))
    x = cosines[1]
    y = (cosines[0] - cosines[1] * cosines[2]) / sine
    z = math.sqrt(max(1e-6, 1.0 - x * x - y * y))
    real = np.array(
        [
            [parameters[0], 0.0, 0.0],
            [parameters[1] * cosines[2], parameters[1] * sine, 0.0],
            [parameters[2] * x, parameters[2] * y, parameters[2] * z],
        ]
    )
    return np.linalg.inv(real)


@njit(cache=True)
def _rotation(vector):
    angle = math.sqrt((vector**2).sum())
    if angle < 1e-15:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


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
    norm = math.sqrt(sx * sx + sy * sy + sz * sz)
    nx, ny, nz = sx / norm, sy / norm, sz / norm
    q2 = qx * qx + qy * qy + qz * qz
    along = (nx * qx + ny * qy + nz * qz) / q2
    # Points on the beam's axis, which no detector sees, must not divide by zero.
    across = max(1e-12, 1.0 - along * along * q2)
    from_beam = max(1e-12, 1.0 - nz)
    ex = mosaic_share * ((nx - along * qx) / across - nx)
    ey = mosaic_share * ((ny - along * qy) / across - ny)
    ez = mosaic_share * ((nz - along * qz) / across - nz) - bandwidth_share / from_beam
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
    for i in range(hkl.shape[0]):
        residuals[i] = 0.0
        jacobian[i] = 0.0
        if hkl[i, 0] == 0 and hkl[i, 1] == 0 and hkl[i, 2] == 0:
            continue
        qx = reciprocal[0, 0] * hkl[i, 0] + reciprocal[0, 1] * hkl[i, 1] + reciprocal[0, 2] * hkl[i, 2]
        qy = reciprocal[1, 0] * hkl[i, 0] + reciprocal[1, 1] * hkl[i, 1] + reciprocal[1, 2] * hkl[i, 2]
        qz = reciprocal[2, 0] * hkl[i, 0] + reciprocal[2, 1] * hkl[i, 1] + reciprocal[2, 2] * hkl[i, 2]
        kz = k / (1.0 + offsets[2])
        norm = math.sqrt(qx * qx + qy * qy + (qz + kz) ** 2)
        nx, ny, nz = qx / norm, qy / norm, (qz + kz) / norm
        excitation_error = kz - norm
        ex, ey, ez = ray_offset(qx, qy, qz, kz, shares[i, 0], shares[i, 1])
        sx, sy, sz = qx + excitation_error * ex, qy + excitation_error * ey, qz + kz + excitation_error * ez
        m = to_panel[panel[i]]
        u0 = m[0, 0] * sx + m[0, 1] * sy + m[0, 2] * sz
        u1 = m[1, 0] * sx + m[1, 1] * sy + m[1, 2] * sz
        u2 = m[2, 0] * sx + m[2, 1] * sy + m[2, 2] * sz
        nearer = depth[panel[i]] * offsets[2] / (1.0 + offsets[2])
        moved0 = m[0, 0] * offsets[0] + m[0, 1] * offsets[1] + m[0, 2] * nearer
        moved1 = m[1, 0] * offsets[0] + m[1, 1] * offsets[1] + m[1, 2] * nearer
        moved2 = m[2, 0] * offsets[0] + m[2, 1] * offsets[1] + m[2, 2] * nearer
        t = (1.0 - moved2) / u2
        residuals[i, 0] = t * u0 + moved0 - position[i, 0]
        residuals[i, 1] = t * u1 + moved1 - position[i, 1]
        residuals[i, 2] = excitation_error
        d_kz = -kz / (1.0 + offsets[2])
        d_nearer = depth[panel[i]] / (1.0 + offsets[2]) ** 2
        for c in range(2):
            u = u0 if c == 0 else u1
            gx = t * (m[c, 0] - u / u2 * m[2, 0])
            gy = t * (m[c, 1] - u / u2 * m[2, 1])
            gz = t * (m[c, 2] - u / u2 * m[2, 2])
            # The ray moves by dq - e (n . dq) when q moves by dq, and by (z + e (1 - n . z)) dk when k changes.
            offset = gx * ex + gy * ey + gz * ez
            jacobian[i, c, 0] = gx - offset * nx
            jacobian[i, c, 1] = gy - offset * ny
            jacobian[i, c, 2] = gz - offset * nz
            for r in range(2):
                jacobian[i, c, 3 + r] = m[c, r] - u / u2 * m[2, r]
            jacobian[i, c, 5] = (gz + offset * (1.0 - nz)) * d_kz + (m[c, 2] - u / u2 * m[2, 2]) * d_nearer
        jacobian[i, 2, 0], jacobian[i, 2, 1], jacobian[i, 2, 2] = -nx, -ny, -nz
        jacobian[i, 2, 5] = d_kz * (1.0 - nz)


@njit(cache=True)
def _turn_to_radial(radial, residuals, jacobian):
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
def _radial_directions(q, panel, to_panel):
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
def _chance_density(panel, position, to_panel, k, reciprocal):
    """Density of chance residuals, 1 / (pixel^2 1/angstrom): the solid angle of a pixel times k^2, over the volume of a
    (primitive) reciprocal cell."""
    volume = abs(np.linalg.det(reciprocal))
    density = np.empty(panel.shape[0])
    for i in range(panel.shape[0]):
        m = np.linalg.inv(to_panel[panel[i]])
        ray = m[:, 0] * position[i, 0] + m[:, 1] * position[i, 1] + m[:, 2]
        solid_angle = abs(np.linalg.det(m)) / (ray**2).sum() ** 1.5
        density[i] = k * k * solid_angle / volume
    return density


@njit(cache=True)
def _refine(
    parameters,
    free,
    rotation,
    offsets,
    q,
    primitive,
    shares,
    radial,
    spread,
    panel,
    position,
    to_panel,
    k,
    position_sigma,
    profile_sigma,
    relative_width,
    width_weight,
    cell_weight,
    offset_mean,
    offset_sigma,
    density,
    iterations,
):
    n, n_free = q.shape[0], free.shape[1]
    from_primitive = np.linalg.inv(primitive)
    nearest = np.empty(3)
    n_parameters = 3 + n_free + 3
    target = parameters.copy()
    parameters = parameters.copy()
    offsets = offsets.copy()
    hkl = np.zeros((n, 3))
    inlier = np.ones(n)
    residuals = np.empty((n, 3))
    jacobian = np.empty((n, 3, 6))
    depth = np.empty(to_panel.shape[0])
    for i in range(to_panel.shape[0]):
        depth[i] = np.linalg.inv(to_panel[i])[2, 2]
    share = 0.8
    log_ratio = 0.0
    reciprocal = rotation @ _reciprocal_matrix(parameters)
    gradient = np.empty((3, 3, 3 + n_free))
    row = np.empty(n_parameters)
    for iteration in range(iterations + 1):
        inverse = primitive @ np.linalg.inv(reciprocal)
        for i in range(n):
            for r in range(3):
                nearest[r] = np.rint(inverse[r, 0] * q[i, 0] + inverse[r, 1] * q[i, 1] + inverse[r, 2] * q[i, 2])
            for r in range(3):
                index = (
                    from_primitive[r, 0] * nearest[0]
                    + from_primitive[r, 1] * nearest[1]
                    + from_primitive[r, 2] * nearest[2]
                )
                hkl[i, r] = np.rint(index)
        pair_residuals(reciprocal, offsets, hkl, shares, panel, position, to_panel, depth, k, residuals, jacobian)
        _turn_to_radial(radial, residuals, jacobian)

        total, log_ratio = 0.0, 0.0
        for i in range(n):
            width = profile_sigma * relative_width[i]
            across = math.sqrt(position_sigma**2 + spread[i] ** 2)
            exponent = (
                (residuals[i, 0] / position_sigma) ** 2
                + (residuals[i, 1] / across) ** 2
                + (residuals[i, 2] / width) ** 2
            )
            gaussian = math.exp(-0.5 * min(exponent, 1400.0)) / ((2 * math.pi) ** 1.5 * position_sigma * across * width)
            if hkl[i, 0] == 0 and hkl[i, 1] == 0 and hkl[i, 2] == 0:
                gaussian = 0.0
            mixed = share * gaussian + (1.0 - share) * density[i]
            inlier[i] = share * gaussian / mixed
            log_ratio += math.log(mixed / density[i])
            total += inlier[i]
        if total < 3.0:
            log_ratio = 0.0
            break
        share = min(0.99, max(0.02, total / n))
        position_sum, profile_sum = 0.0, 0.0
        for i in range(n):
            narrowed = position_sigma**2 / (position_sigma**2 + spread[i] ** 2)
            position_sum += inlier[i] * (residuals[i, 0] ** 2 + residuals[i, 1] ** 2 * narrowed)
            profile_sum += inlier[i] * (residuals[i, 2] / relative_width[i]) ** 2
        # Fitted residuals are too small by the parameters' share of the degrees of freedom.
        freedom = max(0.3, (3.0 * total - n_parameters) / (3.0 * total)) if iteration else 1.0
        new_position = math.sqrt(position_sum / (2.0 * total) / freedom)
        new_profile = math.sqrt((profile_sum / freedom + width_weight) / (total + width_weight))
        change = abs(new_position / position_sigma - 1.0) + abs(new_profile / profile_sigma - 1.0)
        position_sigma = max(LEAST_POSITION_SIGMA, new_position)
        profile_sigma = max(LEAST_PROFILE_SIGMA, new_profile)
        if iteration == iterations or (iteration > 3 and change < 1e-3):
            break

        standard = _reciprocal_matrix(parameters)
        for j in range(3):
            axis = np.zeros(3)
            axis[j] = 1.0
            cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
            gradient[:, :, j] = cross @ reciprocal
        for j in range(n_free):
            step = 1e-4
            gradient[:, :, 3 + j] = rotation @ (_reciprocal_matrix(parameters + step * free[:, j]) - standard) / step
        normal = np.zeros((n_parameters, n_parameters))
        rhs = np.zeros(n_parameters)
        for i in range(n):
            if inlier[i] < 1e-3:
                continue
            width = profile_sigma * relative_width[i]
            for c in range(3):
                if c == 0:
                    weight = inlier[i] / position_sigma**2
                elif c == 1:
                    weight = inlier[i] / (position_sigma**2 + spread[i] ** 2)
                else:
                    weight = inlier[i] / width**2
                for j in range(3 + n_free):
                    value = 0.0
                    for r in range(3):
                        dq = (
                            gradient[r, 0, j] * hkl[i, 0]
                            + gradient[r, 1, j] * hkl[i, 1]
                            + gradient[r, 2, j] * hkl[i, 2]
                        )
                        value += jacobian[i, c, r] * dq
                    row[j] = value
                for j in range(3):
                    row[3 + n_free + j] = jacobian[i, c, 3 + j]
                for j in range(n_parameters):
                    rhs[j] -= weight * row[j] * residuals[i, c]
                    for m in range(j, n_parameters):
                        normal[j, m] += weight * row[j] * row[m]
        for j in range(n_parameters):
            for m in range(j):
                normal[j, m] = normal[m, j]
        for j in range(n_free):
            for r in range(6):
                if free[r, j] != 0.0:
                    weight = cell_weight[r] * free[r, j] ** 2
                    normal[3 + j, 3 + j] += weight
                    rhs[3 + j] += weight * (target[r] - parameters[r])
        for j in range(3):
            normal[3 + n_free + j, 3 + n_free + j] += 1.0 / offset_sigma[j] ** 2
            rhs[3 + n_free + j] += (offset_mean[j] - offsets[j]) / offset_sigma[j] ** 2
        for j in range(3):
            normal[j, j] *= 1.0 + 1e-9
        step_vector = np.linalg.solve(normal, rhs)
        rotation = _rotation(step_vector[:3]) @ rotation
        for j in range(n_free):
            parameters += free[:, j] * step_vector[3 + j]
        offsets += step_vector[3 + n_free :]
        reciprocal = rotation @ _reciprocal_matrix(parameters)
    return reciprocal, offsets, hkl, inlier, residuals, position_sigma, profile_sigma, log_ratio


def refine_lattice(
    reciprocal,
    cell,
    peaks,
    to_panel,
    wavelength,
    *,
    start_sigma,
    pixel_size,
    profile=None,
    iterations=25,
):
    """Refine a lattice against the peaks of its frame.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the conventional cell as indexed, 1/angstrom.
    cell : sfxflow.cell.Cell
        Target cell: its lattice type decides what is refined, its centring which reflections there are, its parameters are the prior.
    peaks : FramePeaks
        Positions, panels and scattering vectors.
    to_panel : ndarray, shape (p, 3, 3)
        As in `pair_residuals`, for the frame's camera length.
    wavelength : float
        Angstrom.
    start_sigma : float
        First guess of the error of a scattering vector, 1/angstrom.
    pixel_size : float
        Metre; scale of the prior on the shift where `profile` is None.
    profile : Profile, optional
        Pooled widths and shift, from a first round over many crystals.
    iterations : int

    Returns
    -------
    RefinedLattice
    """
    k = 1.0 / wavelength
    start = np.asarray(cell.parameters, dtype=float)
    free = free_parameters(cell.lattice_type, cell.unique_axis)
    primitive = PRIMITIVE[cell.centering]
    standard = _reciprocal_matrix(start)
    rotation = nearest_rotation(reciprocal @ np.linalg.inv(standard))
    q = peaks.q
    lengths = np.linalg.norm(q, axis=1)
    if profile is None:
        relative_width, width_weight, profile_sigma = np.ones(len(q)), 0.0, start_sigma
        shares, mosaicity = np.zeros((len(q), 2)), 0.0
        offsets = np.zeros(3)
        offset_sigmas = np.array([FIRST_SHIFT_SIGMA * pixel_size, FIRST_SHIFT_SIGMA * pixel_size, FIRST_EXCESS_SIGMA])
    else:
        relative_width = sigma_of_q(lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength)
        shares = variance_shares(lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength)
        width_weight, profile_sigma, mosaicity = POOLED_WIDTH_WEIGHT, 1.0, profile.mosaicity
        offsets, offset_sigmas = np.array(profile.offsets), np.array(profile.offset_sigmas)
    # One pixel at the mean distance of the peaks, in 1/angstrom.
    pixel_angle = pixel_size / peaks.distance
    # Mosaic blocks are turned against each other: which of them reflect shows as a spread across the radial direction.
    spread = mosaicity * lengths / (k * pixel_angle)
    radial = _radial_directions(q, peaks.panel, to_panel)
    cell_weight = np.concatenate(
        [1.0 / (CELL_LENGTH_PRIOR * start[:3]) ** 2, np.full(3, 1.0 / CELL_ANGLE_PRIOR**2)],
    )
    density = _chance_density(peaks.panel, peaks.position, to_panel, k, standard @ np.linalg.inv(primitive))
    found, offsets, hkl, inlier, residuals, position_sigma, profile_sigma, log_ratio = _refine(
        start,
        free,
        rotation,
        offsets,
        q,
        primitive,
        shares,
        radial,
        spread,
        peaks.panel,
        peaks.position,
        to_panel,
        k,
        max(0.3, start_sigma / (k * pixel_angle)),
        profile_sigma,
        relative_width,
        width_weight,
        cell_weight,
        offsets.copy(),
        offset_sigmas,
        density,
        iterations,
    )
    return RefinedLattice(
        reciprocal=found,
        offsets=offsets,
        hkl=hkl.astype(np.int64),
        inlier=inlier,
        distance=np.hypot(residuals[:, 0], residuals[:, 1]),
        excitation_error=residuals[:, 2].copy(),
        position_sigma=position_sigma,
        profile_sigma=profile_sigma,
        log10_ratio=log_ratio / math.log(10.0),
    )


def sigma_of_q(q, radius, mosaicity, bandwidth, wavelength):
    """Width of the excitation error at |q|: sqrt(R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2), 1/angstrom."""
    return np.sqrt(radius**2 + (mosaicity * q) ** 2 + (0.5 * bandwidth * wavelength * q**2) ** 2)


def variance_shares(q, radius, mosaicity, bandwidth, wavelength):
    """Shares of mosaicity and bandwidth in sigma(q)^2, shape (n, 2)."""
    terms = np.stack([(mosaicity * q) ** 2, (0.5 * bandwidth * wavelength * q**2) ** 2], axis=1)
    return terms / np.maximum(radius**2 + terms.sum(axis=1), 1e-300)[:, None]


def cell_of(refined):
    """Cell parameters (angstrom, degree) of a refined lattice."""
    return parameters_of(refined.reciprocal)

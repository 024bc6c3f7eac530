"""Prediction refinement: orientation, cell and shift of one lattice against its peaks, with false peaks among them.

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
from sfxflow.indexing.search import nearest_rotation

#: Smallest widths that are believed, pixel and 1/angstrom: both far below what a detector or crystal has.
LEAST_POSITION_SIGMA = 0.05
LEAST_PROFILE_SIGMA = 1e-5
#: Standard deviations of the priors: cell length (relative), cell angle (degree).
CELL_LENGTH_PRIOR = 0.02
CELL_ANGLE_PRIOR = 1.0
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
    shift : tuple of float
        Mean shift of the pattern, metre.
    shift_sigma : float
        Standard deviation of one crystal's shift from it, metre.
    """

    radius: float
    mosaicity: float
    bandwidth: float
    shift: tuple
    shift_sigma: float


@dataclass(frozen=True)
class RefinedLattice:
    """A lattice after refinement.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the conventional cell, 1/angstrom.
    shift : ndarray, shape (2,)
        Of the pattern, metre.
    hkl : ndarray of int, shape (n, 3)
        Nearest reflection of each peak.
    inlier : ndarray, shape (n,)
        Probability that the pair is a true one.
    distance : ndarray, shape (n,)
        From the predicted position, pixel.
    excitation_error : ndarray, shape (n,)
        1/angstrom.
    position_sigma : float
        Pixel, in each direction.
    profile_sigma : float
        Width of the excitation errors, 1/angstrom, or factor on the pooled widths where those were given.
    """

    reciprocal: np.ndarray
    shift: np.ndarray
    hkl: np.ndarray
    inlier: np.ndarray
    distance: np.ndarray
    excitation_error: np.ndarray
    position_sigma: float
    profile_sigma: float


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
def pair_residuals(reciprocal, shift, hkl, panel, position, to_panel, k, residuals, jacobian):
    """Residuals of each pair and their derivatives with respect to q and to the shift.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
    shift : ndarray, shape (2,)
        Metre.
    hkl : ndarray, shape (n, 3)
    panel : ndarray of int, shape (n,)
    position : ndarray, shape (n, 2)
        Observed, along fs and ss from the panel's corner, pixel.
    to_panel : ndarray, shape (p, 3, 3)
        Inverse of (fs, ss, origin) of each panel in its columns, 1/metre: maps a ray to (fs, ss, 1) / t.
    k : float
        1 / wavelength, 1/angstrom.
    residuals : ndarray, shape (n, 3)
        Set to predicted minus observed fs, ss (pixel) and the excitation error (1/angstrom).
    jacobian : ndarray, shape (n, 3, 5)
        Set to their derivatives with respect to qx, qy, qz (1/angstrom) and the shift in x and y (metre).
    """
    for i in range(hkl.shape[0]):
        sx = reciprocal[0, 0] * hkl[i, 0] + reciprocal[0, 1] * hkl[i, 1] + reciprocal[0, 2] * hkl[i, 2]
        sy = reciprocal[1, 0] * hkl[i, 0] + reciprocal[1, 1] * hkl[i, 1] + reciprocal[1, 2] * hkl[i, 2]
        sz = reciprocal[2, 0] * hkl[i, 0] + reciprocal[2, 1] * hkl[i, 1] + reciprocal[2, 2] * hkl[i, 2] + k
        norm = math.sqrt(sx * sx + sy * sy + sz * sz)
        m = to_panel[panel[i]]
        u0 = m[0, 0] * sx + m[0, 1] * sy + m[0, 2] * sz
        u1 = m[1, 0] * sx + m[1, 1] * sy + m[1, 2] * sz
        u2 = m[2, 0] * sx + m[2, 1] * sy + m[2, 2] * sz
        moved0 = m[0, 0] * shift[0] + m[0, 1] * shift[1]
        moved1 = m[1, 0] * shift[0] + m[1, 1] * shift[1]
        moved2 = m[2, 0] * shift[0] + m[2, 1] * shift[1]
        t = (1.0 - moved2) / u2
        residuals[i, 0] = t * u0 + moved0 - position[i, 0]
        residuals[i, 1] = t * u1 + moved1 - position[i, 1]
        residuals[i, 2] = k - norm
        for r in range(3):
            jacobian[i, 0, r] = t * (m[0, r] - u0 / u2 * m[2, r])
            jacobian[i, 1, r] = t * (m[1, r] - u1 / u2 * m[2, r])
        jacobian[i, 2, 0], jacobian[i, 2, 1], jacobian[i, 2, 2] = -sx / norm, -sy / norm, -sz / norm
        for r in range(2):
            jacobian[i, 0, 3 + r] = m[0, r] - u0 / u2 * m[2, r]
            jacobian[i, 1, 3 + r] = m[1, r] - u1 / u2 * m[2, r]
            jacobian[i, 2, 3 + r] = 0.0


@njit(cache=True)
def _chance_density(panel, position, to_panel, k, reciprocal):
    """Density of chance residuals, 1 / (pixel^2 1/angstrom): the solid angle of a pixel times k^2, over the volume of a reciprocal cell."""
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
    shift,
    q,
    panel,
    position,
    to_panel,
    k,
    position_sigma,
    profile_sigma,
    relative_width,
    width_weight,
    cell_weight,
    shift_mean,
    shift_sigma,
    density,
    iterations,
):
    n, n_free = q.shape[0], free.shape[1]
    n_parameters = 3 + n_free + 2
    target = parameters.copy()
    parameters = parameters.copy()
    shift = shift.copy()
    hkl = np.zeros((n, 3))
    inlier = np.ones(n)
    residuals = np.empty((n, 3))
    jacobian = np.empty((n, 3, 5))
    share = 0.8
    reciprocal = rotation @ _reciprocal_matrix(parameters)
    gradient = np.empty((3, 3, 3 + n_free))
    row = np.empty(n_parameters)
    for iteration in range(iterations + 1):
        inverse = np.linalg.inv(reciprocal)
        for i in range(n):
            for r in range(3):
                hkl[i, r] = np.rint(inverse[r, 0] * q[i, 0] + inverse[r, 1] * q[i, 1] + inverse[r, 2] * q[i, 2])
        pair_residuals(reciprocal, shift, hkl, panel, position, to_panel, k, residuals, jacobian)

        total = 0.0
        for i in range(n):
            width = profile_sigma * relative_width[i]
            exponent = (residuals[i, 0] ** 2 + residuals[i, 1] ** 2) / position_sigma**2 + (residuals[i, 2] / width) ** 2
            gaussian = math.exp(-0.5 * min(exponent, 1400.0)) / ((2 * math.pi) ** 1.5 * position_sigma**2 * width)
            inlier[i] = share * gaussian / (share * gaussian + (1.0 - share) * density[i])
            if hkl[i, 0] == 0 and hkl[i, 1] == 0 and hkl[i, 2] == 0:
                inlier[i] = 0.0
            total += inlier[i]
        if total < 3.0:
            break
        share = min(0.99, max(0.02, total / n))
        position_sum, profile_sum = 0.0, 0.0
        for i in range(n):
            position_sum += inlier[i] * (residuals[i, 0] ** 2 + residuals[i, 1] ** 2)
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
                weight = inlier[i] / (position_sigma**2 if c < 2 else width**2)
                for j in range(3 + n_free):
                    value = 0.0
                    for r in range(3):
                        dq = gradient[r, 0, j] * hkl[i, 0] + gradient[r, 1, j] * hkl[i, 1] + gradient[r, 2, j] * hkl[i, 2]
                        value += jacobian[i, c, r] * dq
                    row[j] = value
                row[3 + n_free] = jacobian[i, c, 3]
                row[4 + n_free] = jacobian[i, c, 4]
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
        for j in range(2):
            normal[3 + n_free + j, 3 + n_free + j] += 1.0 / shift_sigma**2
            rhs[3 + n_free + j] += (shift_mean[j] - shift[j]) / shift_sigma**2
        for j in range(3):
            normal[j, j] *= 1.0 + 1e-9
        step_vector = np.linalg.solve(normal, rhs)
        rotation = _rotation(step_vector[:3]) @ rotation
        for j in range(n_free):
            parameters += free[:, j] * step_vector[3 + j]
        shift += step_vector[3 + n_free :]
        reciprocal = rotation @ _reciprocal_matrix(parameters)
    return reciprocal, shift, hkl, inlier, residuals, position_sigma, profile_sigma


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
        Target cell: its lattice type decides what is refined, its parameters are the prior.
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
    standard = _reciprocal_matrix(start)
    rotation = nearest_rotation(reciprocal @ np.linalg.inv(standard))
    q = peaks.q
    lengths = np.linalg.norm(q, axis=1)
    if profile is None:
        relative_width, width_weight, profile_sigma = np.ones(len(q)), 0.0, start_sigma
        shift, shift_sigma = np.zeros(2), 0.5 * pixel_size
    else:
        relative_width = sigma_of_q(lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength)
        width_weight, profile_sigma = POOLED_WIDTH_WEIGHT, 1.0
        shift, shift_sigma = np.array(profile.shift), profile.shift_sigma
    # One pixel at the mean distance of the peaks, in 1/angstrom.
    pixel_angle = pixel_size / peaks.distance
    cell_weight = np.concatenate(
        [1.0 / (CELL_LENGTH_PRIOR * start[:3]) ** 2, np.full(3, 1.0 / CELL_ANGLE_PRIOR**2)],
    )
    density = _chance_density(peaks.panel, peaks.position, to_panel, k, standard)
    found, shift, hkl, inlier, residuals, position_sigma, profile_sigma = _refine(
        start,
        free,
        rotation,
        shift,
        q,
        peaks.panel,
        peaks.position,
        to_panel,
        k,
        max(0.3, start_sigma / (k * pixel_angle)),
        profile_sigma,
        relative_width,
        width_weight,
        cell_weight,
        shift.copy(),
        shift_sigma,
        density,
        iterations,
    )
    return RefinedLattice(
        reciprocal=found,
        shift=shift,
        hkl=hkl.astype(np.int64),
        inlier=inlier,
        distance=np.hypot(residuals[:, 0], residuals[:, 1]),
        excitation_error=residuals[:, 2].copy(),
        position_sigma=position_sigma,
        profile_sigma=profile_sigma,
    )


def sigma_of_q(q, radius, mosaicity, bandwidth, wavelength):
    """Width of the excitation error at |q|: sqrt(R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2), 1/angstrom."""
    return np.sqrt(radius**2 + (mosaicity * q) ** 2 + (0.5 * bandwidth * wavelength * q**2) ** 2)


def cell_of(refined):
    """Cell parameters (angstrom, degree) of a refined lattice."""
    return parameters_of(refined.reciprocal)

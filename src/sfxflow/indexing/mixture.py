"""Expectation maximisation of a lattice among true and chance pairs: the kernels of `sfxflow.indexing.refine`.

Parameters of the lattice are three rotations, the free cell parameters of its type, and three offsets (shift in x and y, excess of
the camera length).
"""

import math

import numpy as np
from numba import njit

from sfxflow.indexing.residuals import pair_residuals, turn_to_radial
from sfxflow.small_matrices import inverse3, product3, solve_in_place

#: Smallest widths that are believed, pixel and 1/angstrom: both far below what a detector or crystal has.
LEAST_POSITION_SIGMA = 0.05
LEAST_PROFILE_SIGMA = 1e-5
#: Step of the cell parameters (angstrom, degree) for their derivatives.
_CELL_STEP = 1e-4


@njit(cache=True)
def reciprocal_matrix(parameters):
    """`sfxflow.cell.reciprocal_matrix` for kernels: columns a*, b*, c*, 1/angstrom."""
    cos_alpha = math.cos(math.radians(parameters[3]))
    cos_beta = math.cos(math.radians(parameters[4]))
    cos_gamma = math.cos(math.radians(parameters[5]))
    sine = math.sin(math.radians(parameters[5]))
    y = (cos_alpha - cos_beta * cos_gamma) / sine
    real = np.zeros((3, 3))
    real[0, 0] = parameters[0]
    real[1, 0], real[1, 1] = parameters[1] * cos_gamma, parameters[1] * sine
    real[2, 0], real[2, 1] = parameters[2] * cos_beta, parameters[2] * y
    real[2, 2] = parameters[2] * math.sqrt(max(1e-6, 1.0 - cos_beta * cos_beta - y * y))
    return inverse3(real)


@njit(cache=True)
def rotation_by(x, y, z):
    """Rotation matrix of a rotation vector, radian (Rodrigues' formula)."""
    angle = math.sqrt(x * x + y * y + z * z)
    first = math.sin(angle) / angle if angle > 1e-12 else 1.0
    second = (1.0 - math.cos(angle)) / (angle * angle) if angle > 1e-6 else 0.5
    cross = np.zeros((3, 3))
    cross[0, 1], cross[0, 2], cross[1, 2] = -z, y, -x
    cross[1, 0], cross[2, 0], cross[2, 1] = z, -y, x
    square = product3(cross, cross)
    rotation = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            rotation[i, j] = first * cross[i, j] + second * square[i, j]
        rotation[i, i] += 1.0
    return rotation


@njit(cache=True)
def nearest_reflections(reciprocal, primitive, from_primitive, q, hkl):
    """Set `hkl` to the reflection that the centring allows nearest to each q.

    `primitive` has the rows of a primitive basis in terms of the conventional axes, `from_primitive` is its inverse.
    """
    inverse = product3(primitive, inverse3(reciprocal))
    nearest = np.empty(3)
    for i in range(q.shape[0]):
        for r in range(3):
            nearest[r] = np.rint(inverse[r, 0] * q[i, 0] + inverse[r, 1] * q[i, 1] + inverse[r, 2] * q[i, 2])
        for r in range(3):
            index = (
                from_primitive[r, 0] * nearest[0]
                + from_primitive[r, 1] * nearest[1]
                + from_primitive[r, 2] * nearest[2]
            )
            hkl[i, r] = np.rint(index)


@njit(cache=True)
def expectation(hkl, residuals, spread, relative_width, density, share, position_sigma, profile_sigma, inlier, mixed):
    """Set `inlier` to the probability that each pair is a true one, and `mixed` to the density of all pairs where it is.

    Parameters
    ----------
    hkl, residuals : ndarray, shape (n, 3)
    spread : ndarray, shape (n,)
        Extra width across the radial direction, pixel.
    relative_width : ndarray, shape (n,)
        Width of the excitation error in units of `profile_sigma`.
    density : ndarray, shape (n,)
        Of chance pairs.
    share : float
        Of true pairs among all.
    position_sigma, profile_sigma : float

    Returns
    -------
    float
        Sum of the probabilities.
    """
    total = 0.0
    of_position, of_profile = 1.0 / position_sigma, 1.0 / profile_sigma
    height = share * of_position * of_profile / (2 * math.pi) ** 1.5
    for i in range(hkl.shape[0]):
        of_width = of_profile / relative_width[i]
        of_across = 1.0 / math.sqrt(position_sigma**2 + spread[i] ** 2)
        along, across = residuals[i, 0] * of_position, residuals[i, 1] * of_across
        radial = residuals[i, 2] * of_width
        exponent = along * along + across * across + radial * radial
        # Any lattice has a point at the origin: it is no evidence.
        true = 0.0
        if hkl[i, 0] != 0 or hkl[i, 1] != 0 or hkl[i, 2] != 0:
            true = height * of_across / relative_width[i] * math.exp(-0.5 * min(exponent, 1400.0))
        mixed[i] = true + (1.0 - share) * density[i]
        inlier[i] = true / mixed[i]
        total += inlier[i]
    return total


@njit(cache=True)
def log_likelihood_ratio(mixed, density):
    """Logarithm of the likelihood of the mixture over that of chance pairs alone."""
    total = 0.0
    for i in range(mixed.size):
        total += math.log(mixed[i] / density[i])
    return total


@njit(cache=True)
def widths(inlier, residuals, spread, relative_width, total, freedom, width_weight, position_sigma):
    """Widths of the true pairs' residuals: position (pixel) and excitation error (in units of `relative_width`).

    `freedom` is the share of the degrees of freedom that the fit left; `width_weight` so many peaks speak for a width of one.
    """
    position_sum, profile_sum = 0.0, 0.0
    for i in range(inlier.shape[0]):
        narrowed = position_sigma**2 / (position_sigma**2 + spread[i] ** 2)
        position_sum += inlier[i] * (residuals[i, 0] ** 2 + residuals[i, 1] ** 2 * narrowed)
        profile_sum += inlier[i] * (residuals[i, 2] / relative_width[i]) ** 2
    position = math.sqrt(position_sum / (2.0 * total) / freedom)
    profile = math.sqrt((profile_sum / freedom + width_weight) / (total + width_weight))
    return max(LEAST_POSITION_SIGMA, position), max(LEAST_PROFILE_SIGMA, profile)


@njit(cache=True)
def lattice_gradient(reciprocal, rotation, parameters, free, gradient):
    """Set `gradient` (3 + n_free, 3, 3) to the derivatives of the reciprocal matrix with rotations and free cell parameters."""
    for j in range(3):
        # Rotation about axis j: its cross product with each column.
        r1, r2 = (j + 1) % 3, (j + 2) % 3
        for c in range(3):
            gradient[j, j, c] = 0.0
            gradient[j, r1, c] = -reciprocal[r2, c]
            gradient[j, r2, c] = reciprocal[r1, c]
    moved = np.empty(6)
    for j in range(free.shape[1]):
        for r in range(6):
            moved[r] = parameters[r] + _CELL_STEP * free[r, j]
        turned = product3(rotation, reciprocal_matrix(moved))
        for r in range(3):
            for c in range(3):
                gradient[3 + j, r, c] = (turned[r, c] - reciprocal[r, c]) / _CELL_STEP


@njit(cache=True, forceinline=True)
def add_pairs(
    hkl, inlier, residuals, jacobian, spread, relative_width, position_sigma, profile_sigma, gradient, normal, right
):
    """Add every pair, weighted with its probability, to the normal equations of a Gauss-Newton step."""
    n, n_lattice = hkl.shape[0], gradient.shape[0]
    n_parameters = n_lattice + 3
    # One row a parameter and the residuals in the last, each entry divided by its standard deviation.
    design = np.empty((n_parameters + 1, 3 * n))
    moved = np.empty((n_lattice, 3))
    n_entries = 0
    for i in range(n):
        if inlier[i] < 1e-3:
            continue
        for j in range(n_lattice):
            for r in range(3):
                moved[j, r] = (
                    gradient[j, r, 0] * hkl[i, 0] + gradient[j, r, 1] * hkl[i, 1] + gradient[j, r, 2] * hkl[i, 2]
                )
        weight = math.sqrt(inlier[i])
        roots = (
            weight / position_sigma,
            weight / math.sqrt(position_sigma**2 + spread[i] ** 2),
            weight / (profile_sigma * relative_width[i]),
        )
        for c in range(3):
            root = roots[c]
            x, y, z = root * jacobian[i, c, 0], root * jacobian[i, c, 1], root * jacobian[i, c, 2]
            for j in range(n_lattice):
                design[j, n_entries] = x * moved[j, 0] + y * moved[j, 1] + z * moved[j, 2]
            for j in range(3):
                design[n_lattice + j, n_entries] = root * jacobian[i, c, 3 + j]
            design[n_parameters, n_entries] = root * residuals[i, c]
            n_entries += 1
    for j in range(n_parameters):
        right[j, 0] -= _product_sum(design[j], design[n_parameters], n_entries)
        for m in range(j, n_parameters):
            normal[j, m] += _product_sum(design[j], design[m], n_entries)
            normal[m, j] = normal[j, m]


# Only the order of the additions is left to the compiler, which then takes several at once.
@njit(cache=True, fastmath={"reassoc", "nsz"}, forceinline=True)
def _product_sum(first, second, n):
    total = 0.0
    for i in range(n):
        total += first[i] * second[i]
    return total


@njit(cache=True)
def add_priors(free, cell_weight, target, parameters, offset_mean, offset_sigma, offsets, normal, right):
    """Add the priors of cell and offsets to the normal equations."""
    n_free = free.shape[1]
    for j in range(n_free):
        for r in range(6):
            if free[r, j] != 0.0:
                weight = cell_weight[r] * free[r, j] ** 2
                normal[3 + j, 3 + j] += weight
                right[3 + j, 0] += weight * (target[r] - parameters[r])
    for j in range(3):
        weight = 1.0 / offset_sigma[j] ** 2
        normal[3 + n_free + j, 3 + n_free + j] += weight
        right[3 + n_free + j, 0] += weight * (offset_mean[j] - offsets[j])
        normal[j, j] *= 1.0 + 1e-9


@njit(cache=True)
def estimate(
    target, free, rotation, offset_mean, offset_sigma, cell_weight, q, primitive, shares, radial, spread, panel, position,
    to_panel, k, relative_width, width_weight, density, position_sigma, profile_sigma, iterations,
):  # fmt: skip
    """Alternate between the probabilities of the pairs and the lattice, until the widths stand still.

    Parameters
    ----------
    target : ndarray, shape (6,)
        Cell parameters to start from, and mean of their prior, angstrom and degree.
    free : ndarray, shape (6, n_free)
        `sfxflow.indexing.refine.free_parameters`.
    rotation : ndarray, shape (3, 3)
        First orientation: reciprocal = rotation @ reciprocal_matrix(target).
    offset_mean, offset_sigma : ndarray, shape (3,)
        Prior of the offsets.
    cell_weight : ndarray, shape (6,)
        1 / variance of the prior of the cell parameters.
    q : ndarray, shape (n, 3)
    primitive : ndarray, shape (3, 3)
        Rows of a primitive basis in terms of the conventional axes.
    shares, radial, panel, position, to_panel, k
        `sfxflow.indexing.residuals`.
    spread, relative_width, width_weight, density, position_sigma, profile_sigma
        `expectation` and `widths`.
    iterations : int

    Returns
    -------
    reciprocal, offsets, hkl, inlier, residuals, position_sigma, profile_sigma, log_ratio
    """
    n, n_free = q.shape[0], free.shape[1]
    n_parameters = 3 + n_free + 3
    parameters, offsets = target.copy(), offset_mean.copy()
    from_primitive = inverse3(primitive)
    depth = np.empty(to_panel.shape[0])
    for i in range(to_panel.shape[0]):
        depth[i] = inverse3(to_panel[i])[2, 2]
    hkl, inlier, mixed = np.zeros((n, 3)), np.ones(n), density.copy()
    residuals, jacobian = np.empty((n, 3)), np.empty((n, 3, 6))
    gradient = np.empty((3 + n_free, 3, 3))
    share = 0.8
    reciprocal = product3(rotation, reciprocal_matrix(parameters))
    for iteration in range(iterations + 1):
        nearest_reflections(reciprocal, primitive, from_primitive, q, hkl)
        pair_residuals(reciprocal, offsets, hkl, shares, panel, position, to_panel, depth, k, residuals, jacobian)
        turn_to_radial(radial, residuals, jacobian)
        total = expectation(
            hkl, residuals, spread, relative_width, density, share, position_sigma, profile_sigma, inlier, mixed
        )
        if total < 3.0:
            mixed[:] = density
            break
        share = min(0.99, max(0.02, total / n))
        # Fitted residuals are too small by the parameters' share of the degrees of freedom.
        freedom = max(0.3, (3.0 * total - n_parameters) / (3.0 * total)) if iteration else 1.0
        new_position, new_profile = widths(
            inlier, residuals, spread, relative_width, total, freedom, width_weight, position_sigma
        )
        change = abs(new_position / position_sigma - 1.0) + abs(new_profile / profile_sigma - 1.0)
        position_sigma, profile_sigma = new_position, new_profile
        if iteration == iterations or (iteration > 3 and change < 1e-3):
            break
        lattice_gradient(reciprocal, rotation, parameters, free, gradient)
        normal, step = np.zeros((n_parameters, n_parameters)), np.zeros((n_parameters, 1))
        add_pairs(
            hkl,
            inlier,
            residuals,
            jacobian,
            spread,
            relative_width,
            position_sigma,
            profile_sigma,
            gradient,
            normal,
            step,
        )
        add_priors(free, cell_weight, target, parameters, offset_mean, offset_sigma, offsets, normal, step)
        if not solve_in_place(normal, step):
            break
        rotation = product3(rotation_by(step[0, 0], step[1, 0], step[2, 0]), rotation)
        for j in range(n_free):
            for r in range(6):
                parameters[r] += free[r, j] * step[3 + j, 0]
        for j in range(3):
            offsets[j] += step[3 + n_free + j, 0]
        reciprocal = product3(rotation, reciprocal_matrix(parameters))
    log_ratio = log_likelihood_ratio(mixed, density)
    return reciprocal, offsets, hkl, inlier, residuals, position_sigma, profile_sigma, log_ratio

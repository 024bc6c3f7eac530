"""What the crystals of a chunk have in common: the profile of their reflections, the shift of the pattern and the excess of the camera length."""

import itertools

import numpy as np

from sfxflow.indexing.mixture import LEAST_PROFILE_SIGMA
from sfxflow.indexing.refine import FIRST_EXCESS_SIGMA, FIRST_SHIFT_SIGMA, Profile

#: With fewer lattices offsets are not pooled: their mean says little.
LEAST_LATTICES = 5
#: Least standard deviation of a crystal's shift from the pooled one, pixel: a tighter prior would bias what is refined with it.
LEAST_SHIFT_SIGMA = 0.1
#: Standard deviation of a crystal's excess from the pooled one. The detector stands still: what varies is where along the beam the crystal
#: is and the photon energy, by some 1e-4.
EXCESS_SIGMA = 5e-4


def pooled_profile(q, excitation_error, weight, wavelength):
    """Fit sigma(q)^2 = R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2 to the excitation errors of many peaks.

    Parameters
    ----------
    q : ndarray, shape (n,)
        |q| of the peaks' reflections, 1/angstrom.
    excitation_error : ndarray, shape (n,)
        1/angstrom.
    weight : ndarray, shape (n,)
        Probability that the pair is a true one.
    wavelength : float
        Mean, angstrom.

    Returns
    -------
    tuple of float
        R0 (1/angstrom), eta (radian), bandwidth.

    Notes
    -----
    The squares have the variance 2 sigma^4: their non-negative least-squares fit is repeated with the weights that follow from the fit
    before, which is the maximum-likelihood estimate where it converges. Squares above 9 sigma^2 are cut to that.
    """
    design = np.stack([np.ones_like(q), q**2, (0.5 * wavelength * q**2) ** 2], axis=1)
    # Columns of like size make the solution well conditioned.
    size = np.maximum(design.mean(axis=0), 1e-30)
    squares = excitation_error**2
    variance = np.full(len(q), max(np.average(squares, weights=weight), LEAST_PROFILE_SIGMA**2))
    terms = np.zeros(3)
    for _ in range(10):
        root = np.sqrt(weight) / variance
        limited = np.minimum(squares, 9.0 * variance)
        terms = nonnegative_fit(design / size * root[:, None], limited * root) / size
        variance = np.maximum(design @ terms, LEAST_PROFILE_SIGMA**2)
    return tuple(float(np.sqrt(term)) for term in terms)


def nonnegative_fit(design, values):
    """Least-squares solution without negative elements, for a few columns.

    Parameters
    ----------
    design : ndarray, shape (n, m)
        n >= m.
    values : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (m,)

    Notes
    -----
    The solution is that of the unconstrained problem for some of the columns, the others being zero: with three columns all choices are
    tried. `scipy.optimize.nnls` finds the same; to import it takes longer than the fits of a job.
    """
    # What is orthogonal to all columns is the same for every choice.
    basis, triangle = np.linalg.qr(design)
    target = basis.T @ values
    n_columns = design.shape[1]
    best, least = np.zeros(n_columns), target @ target
    for n_used in range(1, n_columns + 1):
        for used in map(list, itertools.combinations(range(n_columns), n_used)):
            solution = np.linalg.lstsq(triangle[:, used], target, rcond=None)[0]
            rest = target - triangle[:, used] @ solution
            if solution.min() >= 0 and rest @ rest < least:
                best, least = np.zeros(n_columns), rest @ rest
                best[used] = solution
    return best


def pool_lattices(lattices, wavelength, pixel_size):
    """Profile and offsets common to the lattices of a chunk.

    Parameters
    ----------
    lattices : list of tuple
        (|q|, excitation error, probability of a true pair) of the peaks, and the offsets, of each lattice.
    wavelength, pixel_size : float
        Angstrom, metre.

    Returns
    -------
    Profile
    """
    q, excitation_error, weight = (np.concatenate([lattice[i] for lattice in lattices]) for i in range(3))
    radius, mosaicity, bandwidth = pooled_profile(q, excitation_error, weight, wavelength)
    offsets = np.zeros(3)
    sigmas = np.array([FIRST_SHIFT_SIGMA * pixel_size, FIRST_SHIFT_SIGMA * pixel_size, FIRST_EXCESS_SIGMA])
    if len(lattices) >= LEAST_LATTICES:
        several = np.array([lattice[3] for lattice in lattices])
        offsets = np.median(several, axis=0)
        spread = 1.48 * np.median(np.abs(several - offsets), axis=0)
        sigmas = np.array([*np.maximum(LEAST_SHIFT_SIGMA * pixel_size, spread[:2]), EXCESS_SIGMA])
    return Profile(radius, mosaicity, bandwidth, tuple(offsets), tuple(sigmas))

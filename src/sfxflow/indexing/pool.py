"""What the crystals of a chunk have in common: the profile of their reflections and the shift of the pattern."""

import numpy as np
from scipy.optimize import nnls

from sfxflow.indexing.refine import LEAST_PROFILE_SIGMA, Profile

#: With fewer lattices the shift is not pooled: their mean says little.
LEAST_LATTICES = 10
#: Least standard deviation of a crystal's shift from the pooled one, pixel: a tighter prior would bias what is refined with it.
LEAST_SHIFT_SIGMA = 0.1
#: First guess of a crystal's shift, pixel.
FIRST_SHIFT_SIGMA = 0.5


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
        terms, _ = nnls(design / size * root[:, None], limited * root)
        terms = terms / size
        variance = np.maximum(design @ terms, LEAST_PROFILE_SIGMA**2)
    return tuple(float(np.sqrt(term)) for term in terms)


def pool_lattices(lattices, wavelength, pixel_size):
    """Profile and shift common to the lattices of a chunk.

    Parameters
    ----------
    lattices : list of tuple
        (|q|, excitation error, probability of a true pair) of the peaks, and the shift in metre, of each lattice.
    wavelength, pixel_size : float
        Angstrom, metre.

    Returns
    -------
    Profile
    """
    q, excitation_error, weight = (np.concatenate([lattice[i] for lattice in lattices]) for i in range(3))
    radius, mosaicity, bandwidth = pooled_profile(q, excitation_error, weight, wavelength)
    shift, shift_sigma = np.zeros(2), FIRST_SHIFT_SIGMA * pixel_size
    if len(lattices) >= LEAST_LATTICES:
        shifts = np.array([lattice[3] for lattice in lattices])
        shift = np.median(shifts, axis=0)
        spread = 1.48 * np.median(np.abs(shifts - shift))
        shift_sigma = max(LEAST_SHIFT_SIGMA * pixel_size, float(spread))
    return Profile(radius, mosaicity, bandwidth, tuple(shift), shift_sigma)

"""Weighted means of observations that are scaled already."""

import numpy as np

from sfxflow.symmetry import reflection_key


def weighted_means(hkl, intensity, sigma):
    """Mean of each reflection, weighted by 1 / sigma^2.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
        In the asymmetric unit.
    intensity, sigma : ndarray, shape (n,)
        `sigma` above 0.

    Returns
    -------
    hkl : ndarray of int, shape (m, 3)
        Each reflection once.
    mean, error : ndarray of float64, shape (m,)
        Mean, and its uncertainty as that of the observations implies it.
    count : ndarray of int, shape (m,)
        Observations.
    """
    _, first, number, count = np.unique(reflection_key(hkl), return_index=True, return_inverse=True, return_counts=True)
    weight = 1.0 / np.asarray(sigma, np.float64) ** 2
    sums = np.bincount(number, weight, len(count))
    mean = np.bincount(number, weight * intensity, len(count)) / sums
    return np.asarray(hkl)[first], mean, 1.0 / np.sqrt(sums), count

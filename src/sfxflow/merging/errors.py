"""Uncertainties of merged intensities: one factor for each range of intensity, and what the crystals' parameters add."""

import numpy as np
from scipy.special import erfcx

from sfxflow.merging.kernels import CAUCHY

#: Ranges of intensity, and the weight in observations with which the factor of all ranges stands in for that of each.
N_RANGES = 10
_FEWEST = 100.0
#: Variance of a mean with Cauchy's weights w(r) = 1 / (1 + r^2 / c^2), c = `CAUCHY`, of normal errors, times the sum of the
#: weights: E[r^2 w^2] E[w] / E[(1 - r^2 / c^2) w^2]^2 (Huber 1981, Robust Statistics, equation 3.2.13).
ROBUST_MEAN = 0.9402


def ranges(intensities, measured):
    """Upper limits of the ranges of intensity but the last: as many of the measured reflections in each.

    Parameters
    ----------
    intensities : ndarray, shape (n,)
    measured : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray, shape (N_RANGES - 1,)
    """
    if not measured.any():
        return np.zeros(N_RANGES - 1)
    return np.quantile(intensities[measured], np.arange(1, N_RANGES) / N_RANGES)


def mean_square(variance):
    """Mean of r^2 with Cauchy's weights, where r is normal with this variance: 9 (1 - m) / m with m the mean weight."""
    # m = sqrt(pi / 2) (c / s) exp(c^2 / 2 s^2) erfc(c / (s sqrt 2)), and erfcx is exp(x^2) erfc(x)
    x = CAUCHY / np.sqrt(2.0 * np.asarray(variance, float))
    weight = np.sqrt(np.pi) * x * erfcx(x)
    return CAUCHY**2 * (1.0 - weight) / weight


_VARIANCES = np.geomspace(1e-3, 1e3, 601)
_MEAN_SQUARES = mean_square(_VARIANCES)


def scatter(squares):
    """Variance of the residuals, in units of what was expected of them, in each range of intensity.

    Parameters
    ----------
    squares : ndarray, shape (N_RANGES, 2)
        From `assessment.assess_block`: sums of the weights and of weight * residual^2.

    Returns
    -------
    ndarray, shape (N_RANGES,)
        1 where there is nothing to tell it from.
    """
    weights, weighted = squares.T
    if not weights.sum() > 0:
        return np.ones(len(squares))
    overall = weighted.sum() / weights.sum()
    ratio = (weighted + _FEWEST * overall) / (weights + _FEWEST)
    return np.exp(np.interp(np.log(np.maximum(ratio, 1e-300)), np.log(_MEAN_SQUARES), np.log(_VARIANCES)))


def merged_sigma(sums, factor):
    """Standard uncertainties of merged intensities.

    Parameters
    ----------
    sums : ndarray, shape (n, 5)
        Of g y / var, g^2 / var, y^2 / var, the number of observations, and of the part of the crystals' parameters.
    factor : ndarray, shape (n,)
        `scatter` in the range of each reflection.

    Returns
    -------
    ndarray, shape (n,)
        NaN where there is no observation.
    """
    information = np.where(sums[:, 1] > 0, sums[:, 1], np.nan)
    return np.sqrt((ROBUST_MEAN * factor + sums[:, 4] / information) / information)

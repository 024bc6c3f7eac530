"""Uncertainties of merged intensities: one factor for each range of intensity, and what the crystals' parameters add."""

import numpy as np

#: Ranges of intensity, and the weight in observations with which the factor of all ranges stands in for that of each.
N_RANGES = 10
_FEWEST = 100.0
#: `scatter` of normal residuals of variance 1.
NORMAL = 0.9402


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


def scatter(squares):
    """Variance of a robust mean times the sum of its weights, in each range of intensity.

    With residuals r in units of what is expected of them and Cauchy's weights s = 1 / (1 + r^2 / c^2), it is
    E[s^2 r^2] E[s] / E[s (2 s - 1)]^2, s (2 s - 1) being the derivative of s r (Huber 1981, Robust Statistics, section 3.2, doi:10.1002/0471725250).
    Normal residuals of variance 1 give 0.94 with c = 3.

    Parameters
    ----------
    squares : ndarray, shape (N_RANGES, 4)
        From `assessment.assess_block`: sums of 1, s, s^2 r^2 and s (2 s - 1) with weights.

    Returns
    -------
    ndarray, shape (N_RANGES,)
        That of normal residuals where there is nothing to tell it from.
    """
    if not squares[:, 0].sum() > 0:
        return np.full(len(squares), NORMAL)
    overall = squares.sum(axis=0) / squares[:, 0].sum()
    _, weight, square, slope = (squares + _FEWEST * overall).T
    number = squares[:, 0] + _FEWEST
    return square * weight / np.maximum(slope, 0.1 * number) ** 2


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
    return np.sqrt((factor + sums[:, 4] / information) / information)

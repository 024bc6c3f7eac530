"""Uncertainties of merged intensities."""

import numpy as np

#: Bins of resolution and of significance, and the fewest degrees of freedom that a bin's factor may rest on.
_N_RESOLUTION, _N_SIGNIFICANCE = 5, 4
_FEWEST = 100.0


def chi_squared(sums):
    """Weighted squares of the residuals of each reflection, and their degrees of freedom.

    Parameters
    ----------
    sums : ndarray, shape (n, 4)
        Of g y / var, g^2 / var, y^2 / var, and the number of observations.

    Returns
    -------
    squares, freedom : ndarray, shape (n,)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.where(sums[:, 1] > 0, sums[:, 0] ** 2 / sums[:, 1], 0.0)
    return np.maximum(sums[:, 2] - explained, 0.0), np.maximum(sums[:, 3] - 1.0, 0.0)


def corrected_sigma(sums, q):
    """Factor on 1/sqrt(sum of weights) for each reflection: the root of chi^2 in its bin of resolution and significance.

    Parameters
    ----------
    sums : ndarray, shape (n, 4)
    q : ndarray, shape (n,)
        1/d.

    Returns
    -------
    ndarray, shape (n,)
    """
    squares, freedom = chi_squared(sums)
    factor = np.ones(len(sums))
    if freedom.sum() <= 0:
        return factor
    overall = squares.sum() / freedom.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        significance = np.where(sums[:, 1] > 0, sums[:, 0] / np.sqrt(sums[:, 1]), 0.0)
    used = freedom > 0
    shell = _quantile_bins(q, used, _N_RESOLUTION)
    for s in range(_N_RESOLUTION):
        own = shell == s
        level = _quantile_bins(significance, used & own, _N_SIGNIFICANCE)
        for b in range(_N_SIGNIFICANCE):
            chosen = own & (level == b)
            # few degrees of freedom: towards the overall value
            value = (squares[chosen].sum() + _FEWEST * overall) / (freedom[chosen].sum() + _FEWEST)
            factor[chosen] = np.sqrt(value)
    return factor


def _quantile_bins(values, used, n):
    if not used.any():
        return np.zeros(len(values), int)
    edges = np.quantile(values[used], np.arange(1, n) / n)
    return np.searchsorted(edges, values)

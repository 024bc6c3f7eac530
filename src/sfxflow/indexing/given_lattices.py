"""Widths of the reflections of lattices that another program found."""

import numpy as np

from sfxflow.indexing.mixture import LEAST_PROFILE_SIGMA
from sfxflow.indexing.pool import pooled_profile

#: Spots that each crystal is given beside its own, with the width that all share.
_SPOTS_OF_ALL = 10.0


def common_widths(spots, wavelength):
    """Widths of the reflections that the crystals of a chunk share, and a factor for each crystal.

    Parameters
    ----------
    spots : list of (ndarray, ndarray)
        |q| and excitation errors of the spots that each crystal explains, 1/angstrom.
    wavelength : float
        Mean, angstrom.

    Returns
    -------
    widths : tuple of float
        R0 (1/angstrom), eta (radian) and bandwidth, as `sfxflow.indexing.pool.pooled_profile` gives them.
    factors : ndarray, shape (n_crystals,)
        Root mean square of a crystal's excitation errors in units of the shared widths, drawn towards 1 as if ten more spots had that.
    """
    q, error = (np.concatenate([crystal[i] for crystal in spots]) for i in (0, 1))
    if not len(q):
        return (LEAST_PROFILE_SIGMA, 0.0, 0.0), np.ones(len(spots))
    widths = pooled_profile(q, error, np.ones(len(q)), wavelength)
    if not any(widths):
        widths = (LEAST_PROFILE_SIGMA, 0.0, 0.0)
    factors = []
    for own_q, own_error in spots:
        variance = widths[0] ** 2 + (widths[1] * own_q) ** 2 + (widths[2] * wavelength * own_q**2 / 2) ** 2
        squares = np.minimum(own_error**2 / variance, 9.0)
        factors.append(np.sqrt((squares.sum() + _SPOTS_OF_ALL) / (len(own_q) + _SPOTS_OF_ALL)))
    return widths, np.array(factors)

"""Resolution shells of equal volume, as compare_hkl and check_hkl make them. s = 1/d in 1/angstrom throughout."""

import numpy as np

from sfxflow.cell import inverse_resolution, reciprocal_metric
from sfxflow.point_group import possible_reflections


def shell_limits(s_min, s_max, n_shells):
    """Limits of shells of equal volume in reciprocal space.

    Parameters
    ----------
    s_min, s_max : float
        1/angstrom.
    n_shells : int

    Returns
    -------
    ndarray, shape (n_shells + 1,)
        1/angstrom, ascending.
    """
    limits = np.full(n_shells + 1, s_max, dtype=np.float64)
    limits[0] = s_min
    volume = (s_max**3 - s_min**3) / n_shells
    for i in range(1, n_shells):
        limits[i] = (volume + limits[i - 1] ** 3) ** (1.0 / 3.0)
    return limits


def shell_centres(limits):
    """Mean s of the limits of each shell: ndarray, shape (n_shells,)."""
    return limits[:-1] + np.diff(limits) / 2.0


def shell_of(s, limits):
    """Number of the shell that holds each reflection: limits[i] < s <= limits[i + 1].

    What lies outside counts in shell 0: by rounding it may be the reflection that set the limit, and compare_hkl
    and check_hkl put it there at both ends.
    """
    shell = np.searchsorted(limits, s, side="left") - 1
    return np.where((shell < 0) | (shell >= len(limits) - 1), 0, shell)


def possible_per_shell(parameters, centering, operations, limits):
    """How many unique reflections each shell can hold: absences by centring are left out, those by screw axes are not.

    Parameters
    ----------
    parameters : sequence of 6 floats
        Angstrom and degree.
    centering : str
    operations : ndarray of int, shape (m, 3, 3)
        The point group in which reflections are unique.
    limits : ndarray, shape (n_shells + 1,)

    Returns
    -------
    ndarray of int64, shape (n_shells,)
    """
    n_shells = len(limits) - 1
    if not np.isfinite(limits).all() or limits[-1] <= 0.0:
        return np.zeros(n_shells, dtype=np.int64)
    hkl = possible_reflections(reciprocal_metric(parameters), (limits[0], limits[-1]), operations, centering)
    s = inverse_resolution(hkl, parameters)
    inside = (s > limits[0]) & (s <= limits[-1])
    return np.bincount(shell_of(s[inside], limits), minlength=n_shells)


def add_up(values, shell, n_shells):
    """Sum of `values` in each shell: ndarray of float64, shape (n_shells,)."""
    return np.bincount(shell, weights=np.asarray(values, dtype=np.float64), minlength=n_shells)

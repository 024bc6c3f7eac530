"""L-test for twinning: local differences of intensity, as in check_hkl --ltest --ignore-negs."""

import numpy as np

from sfxflow.point_group import asymmetric
from sfxflow.symmetry import reflection_key

#: Steps along h, k, l to the next reflection that the centring does not forbid.
_STEPS = {
    "P": (1, 1, 1), "R": (1, 1, 1), "A": (1, 2, 2), "B": (2, 1, 2), "C": (2, 2, 1), "I": (2, 2, 2), "F": (2, 2, 2),
    "H": (3, 3, 3),
}  # fmt: skip


def l_test(hkl, intensity, operations, centering):
    """Mean |L| and mean L^2 over neighbours, L = (I1 - I2) / (I1 + I2); negative intensities are left out.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
        Unique reflections.
    intensity : ndarray, shape (n,)
    operations : ndarray of int, shape (m, 3, 3)
        The point group.
    centering : str

    Returns
    -------
    mean_abs_l, mean_l2 : float
        Untwinned 1/2 and 1/3, perfectly twinned 3/8 and 1/5; NaN without a pair.
    n_pairs : int

    References
    ----------
    Padilla & Yeates (2003), Acta Cryst. D59, 1124-1130, doi:10.1107/S0907444903007947.
    """
    use = np.isfinite(intensity) & (intensity >= 0)
    hkl, intensity = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)[use], np.asarray(intensity, dtype=np.float64)[use]
    if not len(hkl):
        return np.nan, np.nan, 0
    key = reflection_key(asymmetric(hkl, operations)[:, ::-1])
    sort = np.argsort(key)
    sorted_key, sorted_intensity = key[sort], intensity[sort]
    total, squares, n_pairs = 0.0, 0.0, 0
    # Only upwards: a pair counts where its first member comes first, whichever of the two it is reached from.
    for step in np.diag(_STEPS[centering]):
        neighbour = reflection_key(asymmetric(hkl + step, operations)[:, ::-1])
        place = np.minimum(np.searchsorted(sorted_key, neighbour), len(sorted_key) - 1)
        there = sorted_key[place] == neighbour
        one, other = intensity[there], sorted_intensity[place[there]]
        defined = one + other > 0
        value = np.abs(one[defined] - other[defined]) / (one[defined] + other[defined])
        total, squares, n_pairs = total + value.sum(), squares + np.sum(value**2), n_pairs + len(value)
    if not n_pairs:
        return np.nan, np.nan, 0
    return float(total / n_pairs), float(squares / n_pairs), n_pairs

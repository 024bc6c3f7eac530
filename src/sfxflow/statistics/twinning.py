"""Does an operator that is symmetry of the lattice only relate the merged intensities? Figures of twinning, by such an operator."""

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.point_group import asymmetric
from sfxflow.symmetry import reflection_key

#: Pairs whose sum is weaker than so many standard uncertainties have a ratio that is mostly noise. Of an untwinned crystal the ratio does not
#: depend on the sum; a limit for each of the two would leave out pairs that differ much.
_LEAST_SIGNIFICANCE = 10.0
#: Pairs are correlated where both uncertainties are below so much of the mean intensity at their resolution.
_WELL_KNOWN = 0.5
_RANGE = (-1.0, 4.0)
_N_SHELLS = 20
_FEWEST_PAIRS = 10


def twin_figures(hkl, intensity, sigma, operations, operator, parameters):
    """Twin fraction and correlation of reflections that an operator relates.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
        Unique reflections.
    intensity, sigma : ndarray, shape (n,)
    operations : ndarray of int, shape (m, 3, 3)
        The Laue group.
    operator : ndarray, shape (3, 3)
        h' = h @ operator, not in the Laue group.
    parameters : sequence of 6 floats
        Cell, angstrom and degree.

    Returns
    -------
    dict
        n_pairs; mean_abs_h, mean |H| of the n_strong_pairs whose sum is ten times its uncertainty, H = (I1 - I2) / (I1 + I2);
        twin_fraction = 1/2 - mean |H|, within 0 and 1/2; correlation of I1 with I2, both over the mean at their resolution, of the
        n_known_pairs whose uncertainties are below half of that. NaN with fewer than ten pairs.

    References
    ----------
    Yeates (1988), Acta Cryst. A44, 142-144, doi:10.1107/S0108767387009632: mean |H| = 1/2 - alpha for acentric reflections.
    """
    use = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    hkl, intensity, sigma = (
        np.asarray(hkl, np.int64)[use],
        np.asarray(intensity, float)[use],
        np.asarray(sigma, float)[use],
    )
    one, other = twin_pairs(hkl, operations, operator)
    figures = {"n_pairs": len(one), "n_strong_pairs": 0, "n_known_pairs": 0}
    figures |= dict.fromkeys(("mean_abs_h", "twin_fraction", "correlation"), np.nan)
    if not len(one):
        return figures
    total, spread = intensity[one] + intensity[other], np.hypot(sigma[one], sigma[other])
    strong = total > _LEAST_SIGNIFICANCE * spread
    figures["n_strong_pairs"] = int(strong.sum())
    if strong.sum() >= _FEWEST_PAIRS:
        mean = float(np.mean(np.abs(intensity[one] - intensity[other])[strong] / total[strong]))
        figures["mean_abs_h"], figures["twin_fraction"] = mean, float(np.clip(0.5 - mean, 0.0, 0.5))
    typical = _mean_by_resolution(inverse_resolution(hkl, parameters), intensity)
    ratio = np.clip(intensity / typical, *_RANGE)
    known = (sigma / typical < _WELL_KNOWN)[one] & (sigma / typical < _WELL_KNOWN)[other]
    figures["n_known_pairs"] = int(known.sum())
    # a pair has no order
    both = np.stack([np.concatenate([ratio[one], ratio[other]]), np.concatenate([ratio[other], ratio[one]])])
    both = both[:, np.concatenate([known, known])]
    if known.sum() >= _FEWEST_PAIRS and np.ptp(both) > 0:
        figures["correlation"] = float(np.corrcoef(both)[0, 1])
    return figures


def twin_pairs(hkl, operations, operator):
    """Rows of reflections that the operator relates, each pair once; reflections that it maps onto equivalents are left out.

    Returns
    -------
    one, other : ndarray of int, shape (n,)
    """
    key = reflection_key(asymmetric(hkl, operations)[:, ::-1])
    mapped = np.rint(np.asarray(hkl) @ operator).astype(np.int64)
    related = reflection_key(asymmetric(mapped, operations)[:, ::-1])
    order = np.argsort(key)
    if not len(key):
        return np.empty(0, int), np.empty(0, int)
    place = order[np.minimum(np.searchsorted(key, related, sorter=order), len(key) - 1)]
    there = (key[place] == related) & (related != key)
    pairs = np.sort(np.stack([np.flatnonzero(there), place[there]], axis=1), axis=1)
    pairs = np.unique(pairs, axis=0)
    return pairs[:, 0], pairs[:, 1]


def _mean_by_resolution(s, intensity):
    """Mean intensity of the shell of each reflection; shells hold equal numbers of reflections."""
    n_shells = max(1, min(_N_SHELLS, len(s) // 50))
    shell = np.empty(len(s), int)
    shell[np.argsort(s)] = np.arange(len(s)) * n_shells // len(s)
    mean = np.bincount(shell, intensity, n_shells) / np.bincount(shell, minlength=n_shells)
    positive = mean[mean > 0]
    return np.where(mean > 0, mean, positive.min() if len(positive) else 1.0)[shell]

"""Figures of merit of one merged list, as sums over reflections that add up over shells. Definitions are those of check_hkl."""

import numpy as np

from sfxflow.statistics.shells import add_up


def single_sums(intensity, sigma, n_measurements, shell, n_shells):
    """Sums that `single_figures` needs, for each shell.

    Parameters
    ----------
    intensity, sigma : ndarray, shape (n,)
    n_measurements : ndarray of int, shape (n,)
        Measurements merged into each reflection.
    shell : ndarray of int, shape (n,)
    n_shells : int

    Returns
    -------
    dict of ndarray, shape (n_shells,)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.asarray(intensity, dtype=np.float64) / sigma
    finite = np.isfinite(ratio)
    return {
        "n": add_up(np.ones(len(ratio)), shell, n_shells),
        "measurements": add_up(n_measurements, shell, n_shells),
        "i_over_sigma": add_up(np.where(finite, ratio, 0.0), shell, n_shells),
        "n_with_sigma": add_up(finite, shell, n_shells),
        "intensity": add_up(intensity, shell, n_shells),
    }


def single_figures(sums):
    """Figures from `single_sums` and the sum `possible` (`shells.possible_per_shell`), NaN where they are not defined.

    Returns
    -------
    dict
        n_reflections, n_possible, completeness (a fraction), n_measurements, multiplicity, i_over_sigma (the mean of the
        ratios), mean_i.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "n_reflections": sums["n"],
            "n_possible": sums["possible"],
            "completeness": sums["n"] / sums["possible"],
            "n_measurements": sums["measurements"],
            "multiplicity": sums["measurements"] / sums["n"],
            "i_over_sigma": sums["i_over_sigma"] / sums["n_with_sigma"],
            "mean_i": sums["intensity"] / sums["n"],
        }

"""Figures of merit of two lists of the same reflections: half sets, or data and reference.

Everything is a ratio of sums over reflections. `pair_sums` gives the sums of each shell; added up over shells they are those of
the whole (`overall`), and `pair_figures` turns either into figures. Definitions are those of compare_hkl, to every digit.
"""

import numpy as np

from sfxflow.point_group import asymmetric, is_centric, order
from sfxflow.statistics.shells import add_up
from sfxflow.symmetry import reflection_key


def relative_scale(first, second, s):
    """Scale and relative B factor that bring `second` to `first`: least squares of ln(I1 / I2) on (sin(theta) / lambda)^2.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Intensities of the same reflections; pairs with one that is not positive are left out.
    s : ndarray, shape (n,)
        1/d, 1/angstrom.

    Returns
    -------
    scale, b : float
        second * scale * exp(2 b (s / 2)^2) is on the scale of `first`; b in angstrom^2. NaN where fewer than two
        different resolutions are left.
    """
    use = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
    x, y = (s[use] / 2.0) ** 2, np.log(first[use] / second[use])
    if len(x) < 2:
        return np.nan, np.nan
    spread = np.sum((x - x.mean()) ** 2)
    if not spread > 0.0:
        return np.nan, np.nan
    slope = np.sum((x - x.mean()) * (y - y.mean())) / spread
    return np.exp(y.mean() - slope * x.mean()), slope / 2.0


def pair_sums(first, sigma_first, second, sigma_second, shell, n_shells):
    """Sums that `pair_figures` needs, for each shell.

    Parameters
    ----------
    first, sigma_first, second, sigma_second : ndarray, shape (n,)
        Intensities of the same reflections on one scale, and their standard uncertainties.
    shell : ndarray of int, shape (n,)
    n_shells : int

    Returns
    -------
    dict of ndarray, shape (n_shells,)
        They may be added up over shells, and over lists that share `first` and `second`'s origin of the moments.
    """

    def total(values):
        return add_up(values, shell, n_shells)

    difference = np.abs(first - second)
    root_first, root_second = np.sqrt(np.maximum(first, 0.0)), np.sqrt(np.maximum(second, 0.0))
    sigma = np.sqrt(sigma_first**2 + sigma_second**2)
    return {
        "n": total(np.ones(len(first))),
        "difference": total(difference),
        "sum": total(first + second),
        "first": total(first),
        "root_difference": total(np.abs(root_first - root_second)),
        "root_first": total(root_first),
        "square_difference": total(difference**2),
        "square_first": total(first**2),
        "within_1_sigma": total(difference < sigma),
        "within_2_sigma": total(difference < 2.0 * sigma),
        **_moments(first, second, total),
    }


def pair_figures(sums):
    """Figures from `pair_sums`, NaN where they are not defined.

    Returns
    -------
    dict
        n_pairs, r_split, cc, cc_star, r1_i, r1_f, r2, within_1_sigma, within_2_sigma; fractions, not per cent.

    References
    ----------
    Rsplit: White et al. (2012), J. Appl. Cryst. 45, 335-341, doi:10.1107/S0021889812002312.
    CC*: Karplus & Diederichs (2012), Science 336, 1030-1033, doi:10.1126/science.1218231.
    """
    cc = _correlation(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "n_pairs": sums["n"],
            "r_split": np.sqrt(2.0) * sums["difference"] / sums["sum"],
            "cc": cc,
            "cc_star": np.sqrt(2.0 * cc / (1.0 + cc)),
            "r1_i": sums["difference"] / sums["first"],
            "r1_f": sums["root_difference"] / sums["root_first"],
            "r2": np.sqrt(sums["square_difference"] / sums["square_first"]),
            "within_1_sigma": sums["within_1_sigma"] / sums["n"],
            "within_2_sigma": sums["within_2_sigma"] / sums["n"],
        }


def bijvoet_pairs(hkl, operations):
    """Rows of the two mates of each acentric Bijvoet pair that a list holds, each pair once.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
        Unique reflections as `point_group.asymmetric` chooses them.
    operations : ndarray of int, shape (m, 3, 3)
        The point group without Friedel's law.

    Returns
    -------
    one, other : ndarray of int
        `one` comes first in CrystFEL's order (h, then k, then l), which sets the sign of the difference.
    """
    hkl = np.asarray(hkl).reshape(-1, 3)
    acentric = np.flatnonzero(~is_centric(hkl, operations))
    acentric = acentric[order(hkl[acentric])]
    key = reflection_key(hkl[acentric][:, ::-1])
    mate = reflection_key(asymmetric(-hkl[acentric], operations)[:, ::-1])
    place = np.minimum(np.searchsorted(key, mate), max(len(key) - 1, 0))
    there = (key[place] == mate) & (key < mate) if len(key) else np.zeros(0, dtype=bool)
    return acentric[there], acentric[place[there]]


def anomalous_sums(first_one, first_other, second_one, second_other, shell, n_shells):
    """Sums that `anomalous_figures` needs, for each shell.

    Parameters
    ----------
    first_one, first_other, second_one, second_other : ndarray, shape (n,)
        Intensities of the two mates of each Bijvoet pair in the two half sets, all on one scale.
    shell : ndarray of int, shape (n,)
    n_shells : int
    """

    def total(values):
        return add_up(values, shell, n_shells)

    one, other = (first_one + second_one) / 2.0, (first_other + second_other) / 2.0
    first, second = first_one - first_other, second_one - second_other
    return {
        "n": total(np.ones(len(one))),
        "anomalous_difference": total(np.abs(one - other)),
        "anomalous_sum": total(one + other),
        "difference": total(np.abs(first_one - second_one)),
        "sum": total(first_one + second_one),
        "along_diagonal": total((first + second) ** 2),
        "across_diagonal": total((first - second) ** 2),
        **_moments(first, second, total),
    }


def anomalous_figures(sums):
    """n_bijvoet_pairs, r_ano, r_ano_over_r_split, cc_ano and crd_ano from `anomalous_sums`, NaN where not defined.

    References
    ----------
    CRDano: Evans (2006), Acta Cryst. D62, 72-82, doi:10.1107/S0907444905036693.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r_ano = 2.0 * sums["anomalous_difference"] / sums["anomalous_sum"]
        r_split = np.sqrt(2.0) * sums["difference"] / sums["sum"]
        crd = np.sqrt(sums["along_diagonal"] / sums["across_diagonal"])
        return {
            "n_bijvoet_pairs": sums["n"],
            "r_ano": r_ano,
            "r_ano_over_r_split": r_ano / r_split,
            "cc_ano": _correlation(sums),
            "crd_ano": np.where(sums["n"] > 1, crd, np.nan),
        }


def overall(sums):
    """Sums of all shells together: a dict of arrays of shape (1,)."""
    return {name: np.sum(values, keepdims=True) for name, values in sums.items()}


def _moments(first, second, total):
    """Sums for Pearson's correlation, about one origin for all shells so that they can be added up without cancellation."""
    x = first - (first.mean() if len(first) else 0.0)
    y = second - (second.mean() if len(second) else 0.0)
    return {"x": total(x), "y": total(y), "xx": total(x * x), "yy": total(y * y), "xy": total(x * y)}


def _correlation(sums):
    n = sums["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = sums["xy"] - sums["x"] * sums["y"] / n
        variances = (sums["xx"] - sums["x"] ** 2 / n) * (sums["yy"] - sums["y"] ** 2 / n)
        return np.where(n > 1, covariance / np.sqrt(variances), np.nan)

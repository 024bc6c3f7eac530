"""Isomorphous differences of two groups that were scaled together and merged apart, with their uncertainties."""

import itertools
from typing import NamedTuple

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.statistics.pairs import relative_scale
from sfxflow.statistics.shells import add_up, shell_limits, shell_of
from sfxflow.symmetry import reflection_key

#: Name to (definition, unit); the order is that of the table's columns. 1 is the group, 2 the one that is subtracted.
DEFINITIONS = {
    "n_reflections": ("reflections that both groups hold", ""),
    "mean_abs_over_sigma": ("mean of |DI| / sigma(DI); 0.80 where there is no difference", ""),
    "chi_squared": ("mean of (DI / sigma(DI))^2; 1 where there is no difference", ""),
    "r_iso": ("2 sum |F1 - F2| / sum (F1 + F2)", "fraction"),
    "n_in_halves": ("reflections that both half sets of both groups hold", ""),
    "cc_difference": ("Pearson's correlation of DI from the first and from the second half sets", ""),
}
#: The same for the whole only.
OVERALL_DEFINITIONS = {
    "scale": ("I2 times this and exp(2 relative_b s^2), s = sin(theta)/lambda, fits I1 best (ln I); not applied", ""),
    "relative_b": ("see scale", "angstrom^2"),
}

_FEW = 3


class Differences(NamedTuple):
    """Differences of the reflections that both groups hold, group 1 minus group 2.

    Attributes
    ----------
    hkl : ndarray of int32, shape (n, 3)
    DI, sigDI : ndarray, shape (n,)
        Of intensities.
    DF, sigDF : ndarray, shape (n,)
        Of amplitudes (`amplitudes`).
    weight : ndarray, shape (n,)
        For difference maps (`map_weights`).
    half1, half2 : ndarray, shape (n,)
        Differences of intensities from the first and the second half sets, NaN where one is missing.
    rows1, rows2 : ndarray of int
        Rows of the two tables.
    """

    hkl: np.ndarray
    DI: np.ndarray
    sigDI: np.ndarray
    DF: np.ndarray
    sigDF: np.ndarray
    weight: np.ndarray
    half1: np.ndarray
    half2: np.ndarray
    rows1: np.ndarray
    rows2: np.ndarray


def amplitudes(intensity, sigma):
    """Amplitudes and their uncertainties from intensities that may be weak or negative.

    The most probable F where nothing is known but that intensities are not negative (prior proportional to F), and the width of the
    posterior there: F^2 = (I + sqrt(I^2 + 2 sigma^2)) / 2, 1 / sigma_F^2 = 1 / F^2 + 2 (3 F^2 - I) / sigma^2. Unlike the
    estimate of French & Wilson it needs no mean intensity, which a difference could not be told from.

    Parameters
    ----------
    intensity, sigma : ndarray, shape (n,)

    Returns
    -------
    amplitude, sigma : ndarray, shape (n,)

    References
    ----------
    Sivia & David (1994), Acta Cryst. A50, 703-714, doi:10.1107/S0108767394003235.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.hypot(intensity, np.sqrt(2.0) * sigma)
        # for negative I the sum would cancel
        square = np.where(intensity > 0, (intensity + root) / 2.0, sigma**2 / (root - intensity))
        return np.sqrt(square), (1.0 / square + 2.0 * (3.0 * square - intensity) / sigma**2) ** -0.5


def map_weights(difference, sigma):
    """Weights of amplitude differences in a map: uncertain ones and those that stand out count less.

    w = 1 / (1 + sigma^2 / <sigma^2> + DF^2 / <DF^2>).

    References
    ----------
    Ren et al. (2001), Biochemistry 40, 13788-13801, doi:10.1021/bi0107142.
    """
    if not len(difference):
        return np.empty(0)
    squares, variances = difference**2, sigma**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1.0 / (1.0 + variances / variances.mean() + np.nan_to_num(squares / squares.mean()))


def differences(first, second):
    """Differences of two tables of merged reflections on one scale, `first` minus `second`.

    The groups have no crystal in common, so the variances add up; what scaling has in common cancels and is not in sigma.

    Parameters
    ----------
    first, second : dict of ndarray
        Columns as in `io.merged.MERGED`.

    Returns
    -------
    Differences
        In the order of `first`.
    """
    tables = [{name: np.asarray(values) for name, values in table.items()} for table in (first, second)]
    keys = []
    for table in tables:
        key = reflection_key(np.stack([table[name] for name in "hkl"], axis=1).reshape(-1, 3))
        usable = np.isfinite(table["I"]) & (table["sigI"] > 0)
        keys.append(np.where(usable, key, -1 - np.arange(len(key)) - len(keys) * 2**61))
    _, rows1, rows2 = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    order = np.argsort(rows1)
    rows1, rows2 = rows1[order], rows2[order]
    one, two = (
        {name: values[rows] for name, values in t.items()} for t, rows in zip(tables, (rows1, rows2), strict=True)
    )
    (f1, sigma1), (f2, sigma2) = (amplitudes(table["I"], table["sigI"]) for table in (one, two))
    df, sigma = f1 - f2, np.hypot(sigma1, sigma2)
    return Differences(
        np.stack([one[name] for name in "hkl"], axis=1).astype(np.int32),
        one["I"] - two["I"],
        np.hypot(one["sigI"], two["sigI"]),
        df,
        sigma,
        map_weights(df, sigma),
        one["I_half1"] - two["I_half1"],
        one["I_half2"] - two["I_half2"],
        rows1,
        rows2,
    )


def difference_figures(found, first, second, cell, n_shells=10):
    """How significant and how reproducible the differences are, overall and by shell.

    Parameters
    ----------
    found : Differences
    first, second : dict of ndarray
        The tables that `found` is from.
    cell : sequence of 6 floats
        Angstrom and degree.
    n_shells : int

    Returns
    -------
    overall : dict
        d_max, d_min and every name of `DEFINITIONS` and `OVERALL_DEFINITIONS`, None for what is not defined.
    shells : list of dict
        d_max, d_min and every name of `DEFINITIONS`, low resolution first; none where there is no reflection.
    """
    intensity1, intensity2 = first["I"][found.rows1], second["I"][found.rows2]
    s = inverse_resolution(found.hkl, cell)
    scale, b = relative_scale(intensity1, intensity2, s) if len(s) else (np.nan, np.nan)
    if not len(s):
        figures = {name: np.full(1, np.nan) for name in DEFINITIONS} | {"n_reflections": [0], "n_in_halves": [0]}
        return {"d_max": None, "d_min": None, **_row(figures, 0), "scale": None, "relative_b": None}, []
    limits = shell_limits(s.min(), s.max(), n_shells)
    amplitude1, amplitude2 = (amplitudes(*pair)[0] for pair in _pairs(found, first, second))
    sums = _sums(found, amplitude1, amplitude2, shell_of(s, limits), n_shells)
    whole = _figures({name: values.sum(keepdims=True) for name, values in sums.items()})
    shells = _figures(sums)
    overall = {"d_max": 1.0 / limits[0], "d_min": 1.0 / limits[-1], **_row(whole, 0)}
    overall |= {"scale": _plain("scale", scale), "relative_b": _plain("relative_b", b)}
    return overall, [
        {"d_max": 1.0 / low, "d_min": 1.0 / high, **_row(shells, i)}
        for i, (low, high) in enumerate(itertools.pairwise(limits))
    ]


def remarks(overall, group, minus):
    """What a person should know before believing the figures: a list of sentences."""
    if overall["n_reflections"] < _FEW:
        return [
            f"The groups {group} and {minus} share {overall['n_reflections']} reflections: there is no difference to speak of."
        ]
    cc, n = overall["cc_difference"], overall["n_in_halves"]
    if cc is not None and n >= _FEW and cc * np.sqrt(n) < _FEW:
        found = f"Differences of {group} and {minus} from half sets correlate by {cc:.3f} over {n} reflections"
        return [f"{found}: no more than chance would have it."]
    return []


def _pairs(found, first, second):
    return [(table["I"][rows], table["sigI"][rows]) for table, rows in ((first, found.rows1), (second, found.rows2))]


def _sums(found, amplitude1, amplitude2, shell, n_shells):
    def total(values):
        return add_up(values, shell, n_shells)

    ratio = found.DI / found.sigDI
    both = np.isfinite(found.half1) & np.isfinite(found.half2)
    x, y = (np.where(both, half - half[both].mean(), 0.0) if both.any() else np.zeros(len(half)) for half in found[6:8])
    return {
        "n": total(np.ones(len(ratio))),
        "ratio": total(np.abs(ratio)),
        "square": total(ratio**2),
        "difference": total(np.abs(found.DF)),
        "amplitude": total(amplitude1 + amplitude2),
        "n_halves": total(both),
        "x": total(x),
        "y": total(y),
        "xx": total(x * x),
        "yy": total(y * y),
        "xy": total(x * y),
    }


def _figures(sums):
    n = sums["n_halves"]
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = sums["xy"] - sums["x"] * sums["y"] / n
        variances = (sums["xx"] - sums["x"] ** 2 / n) * (sums["yy"] - sums["y"] ** 2 / n)
        return {
            "n_reflections": sums["n"],
            "mean_abs_over_sigma": sums["ratio"] / sums["n"],
            "chi_squared": sums["square"] / sums["n"],
            "r_iso": 2.0 * sums["difference"] / sums["amplitude"],
            "n_in_halves": n,
            "cc_difference": np.where(n > 1, covariance / np.sqrt(variances), np.nan),
        }


def _row(figures, i):
    return {name: _plain(name, figures[name][i]) for name in DEFINITIONS}


def _plain(name, value):
    if not np.isfinite(value):
        return None
    return round(value) if name.startswith("n_") else float(value)

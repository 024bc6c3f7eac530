"""Columns of merged data from reflection lists that other programs merged."""

from typing import NamedTuple

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.symmetry import reflection_key

_PARTS = ("", "_half1", "_half2")
_INDICES = ("h", "k", "l")


class _Rows(NamedTuple):
    """Reflections of one column set: indices in the CCP4 asymmetric unit, intensity, uncertainty, measurements."""

    hkl: np.ndarray
    I: np.ndarray
    sigI: np.ndarray
    n: np.ndarray


def merged_columns(lists, group, cell, d_min, anomalous=False):
    """Columns of the merged file from reflection lists, and counts of what was left out.

    Parameters
    ----------
    lists : dict
        Under '', '_half1', '_half2' (may lack any) what has hkl, I, sigI and n as arrays, unique in the Laue group of `group`, or with
        `anomalous` in its point group.
    group : gemmi.SpaceGroup
    cell : sequence of float
        a b c alpha beta gamma.
    d_min : float or None
    anomalous : bool
        Friedel mates stand apart in the lists. I is then their mean, weighted by the measurements.

    Returns
    -------
    columns : dict of ndarray
        As `sfxflow.io.merged.MERGED`: one row for each reflection of the whole list, NaN and 0 where a half set lacks it; with
        `anomalous` also I_plus, I_minus, I_plus_half1 and so on. A centric reflection, which is its own mate, stands under plus.
    left_out : dict
        n_absent and absent_mean_i_over_sigma (of merged reflections that the space group makes absent), n_beyond_d_min.
    """
    parts = (*_PARTS, *(f"_{mate}{part}" for mate in ("plus", "minus") for part in _PARTS)) if anomalous else _PARTS
    values = {}
    for part, contents in lists.items():
        hkl, mate = ccp4_asymmetric_unit(contents.hkl, group)
        rows = _Rows(hkl, contents.I, contents.sigI, contents.n)
        if anomalous:
            usable = np.isfinite(rows.I) & ((rows.sigI > 0) | (part != ""))
            rows, mate = _Rows(*(column[usable] for column in rows)), mate[usable]
            values[f"_plus{part}"] = _Rows(*(column[~mate] for column in rows))
            values[f"_minus{part}"] = _Rows(*(column[mate] for column in rows))
            rows = _mean_of_mates(rows)
        values[part] = rows
    whole = values.get("")
    if whole is None:
        return {name: np.zeros(0, np.int32) for name in _INDICES} | {
            f"{name}{part}": np.zeros(0, kind)
            for part in parts
            for name, kind in zip(("I", "sigI", "n"), "ddi", strict=True)
        }, {}
    absent = np.asarray(group.operations().systematic_absences(whole.hkl), bool)
    beyond = np.zeros(len(absent), bool) if d_min is None else inverse_resolution(whole.hkl, cell) > 1.0 / d_min
    use = np.flatnonzero(~absent & ~beyond & np.isfinite(whole.I) & (whole.sigI > 0))
    key = reflection_key(whole.hkl[use])
    use, key = use[np.argsort(key, kind="stable")], np.sort(key)
    columns = {name: whole.hkl[use, i] for i, name in enumerate(_INDICES)}
    for part in parts:
        for name, column in zip(("I", "sigI", "n"), _at(key, values.get(part)), strict=True):
            columns[f"{name}{part}"] = column
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = whole.I / whole.sigI
    return columns, {
        "n_absent": int(absent.sum()),
        "absent_mean_i_over_sigma": float(np.nanmean(ratio[absent])) if absent.any() else float("nan"),
        "n_beyond_d_min": int(beyond.sum()),
    }


def _mean_of_mates(rows):
    """Each reflection once: the mean of its mates, weighted by their measurements, and its uncertainty."""
    _, first, owner = np.unique(reflection_key(rows.hkl), return_index=True, return_inverse=True)
    n = np.bincount(owner, rows.n)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(owner, rows.n * rows.I) / n
        sigma = np.sqrt(np.bincount(owner, (rows.n * rows.sigI) ** 2)) / n
    return _Rows(rows.hkl[first], mean, sigma, n.astype(np.int32))


def _at(key, rows):
    """I, sigI and n of the reflections with these keys; NaN and 0 for those that `rows`, or None, does not have."""
    if rows is None or not len(rows.n):
        return np.full(len(key), np.nan), np.full(len(key), np.nan), np.zeros(len(key), np.int32)
    own = reflection_key(rows.hkl)
    by_key = np.argsort(own)
    row = by_key[np.minimum(np.searchsorted(own[by_key], key), len(own) - 1)]
    there = own[row] == key
    return (
        np.where(there, rows.I[row], np.nan),
        np.where(there, rows.sigI[row], np.nan),
        np.where(there, rows.n[row], 0).astype(np.int32),
    )

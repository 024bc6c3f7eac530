"""Columns of merged data from reflection lists that other programs merged."""

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.symmetry import reflection_key

_PARTS = ("", "_half1", "_half2")
_COLUMNS = ("h", "k", "l", *(f"{name}{part}" for part in _PARTS for name in ("I", "sigI", "n")))


def merged_columns(lists, group, cell, d_min):
    """Columns of the merged file from reflection lists, and counts of what was left out.

    Parameters
    ----------
    lists : dict
        Under '', '_half1', '_half2' (may lack any) what has hkl, I, sigI and n as arrays, unique in the Laue group of `group`.
    group : gemmi.SpaceGroup
    cell : sequence of float
        a b c alpha beta gamma.
    d_min : float or None

    Returns
    -------
    columns : dict of ndarray
        As `sfxflow.io.merged.MERGED`: one row for each reflection of the whole list, NaN and 0 where a half set lacks it.
    left_out : dict
        n_absent and absent_mean_i_over_sigma (of merged reflections that the space group makes absent), n_beyond_d_min.
    """
    keys, values = {}, {}
    for name, contents in lists.items():
        hkl, _ = ccp4_asymmetric_unit(contents.hkl, group)
        keys[name] = reflection_key(hkl)
        values[name] = hkl, contents
    hkl, whole = values.get("", (np.zeros((0, 3), np.int32), None))
    if whole is None:
        return {name: np.zeros(0, np.int32 if name[0] in "hkln" else np.float64) for name in _COLUMNS}, {}
    absent = np.asarray(group.operations().systematic_absences(hkl), bool)
    beyond = np.zeros(len(hkl), bool) if d_min is None else inverse_resolution(hkl, cell) > 1.0 / d_min
    use = ~absent & ~beyond & np.isfinite(whole.I) & (whole.sigI > 0)
    order = np.flatnonzero(use)[np.argsort(keys[""][use], kind="stable")]
    columns = {name: hkl[order, i] for i, name in enumerate("hkl")}
    for name in _PARTS:
        if name not in keys:
            columns |= {f"I{name}": np.full(len(order), np.nan), f"sigI{name}": np.full(len(order), np.nan)}
            columns[f"n{name}"] = np.zeros(len(order), np.int32)
            continue
        contents = values[name][1]
        by_key = np.argsort(keys[name])
        place = np.minimum(np.searchsorted(keys[name][by_key], keys[""][order]), len(by_key) - 1)
        row = by_key[place]
        there = keys[name][row] == keys[""][order]
        for column in ("I", "sigI"):
            columns[f"{column}{name}"] = np.where(there, getattr(contents, column)[row], np.nan)
        columns[f"n{name}"] = np.where(there, contents.n[row], 0).astype(np.int32)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = whole.I / whole.sigI
    return columns, {
        "n_absent": int(absent.sum()),
        "absent_mean_i_over_sigma": float(np.nanmean(ratio[absent])) if absent.any() else float("nan"),
        "n_beyond_d_min": int(beyond.sum()),
    }

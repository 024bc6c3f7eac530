"""Half sets that were scaled apart, in place of those that share the scales of all data."""

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.symmetry import reflection_key

#: Names of the two half sets in column names.
NAMES = ("half1", "half2")


def put_apart(whole, halves, cell):
    """Replace the half sets' columns of all data by what was merged of each half set alone, on the scale of all data.

    Parameters
    ----------
    whole : Merged
        Changed in place: `reflections` and the tables of `groups`, and `summary`.
    halves : sequence of two Merged
        Each of one half set's crystals, with scales, curve and weights of their own.
    cell : sequence of 6 floats
    """
    for name, half in zip(NAMES, halves, strict=True):
        gauge = _gauge(whole.crystals, half.crystals)
        _put(whole.reflections, half.reflections, name, gauge, cell)
        for group, table in whole.groups.items():
            _put(table, half.groups[group], name, gauge, cell)
        if half.summary["fallback"]:
            whole.summary[f"fallback_{name}"] = half.summary["fallback"]
    whole.summary["independent_halves"] = True


def _gauge(whole, half):
    """Mean ln scale and B by which the crystals of a half set lie above the same crystals in all data."""
    both = (np.asarray(whole["status"]) == "merged") & (np.asarray(half["status"]) == "merged")
    if not both.any():
        return 0.0, 0.0
    return float(np.mean(np.log(half["scale"][both] / whole["scale"][both]))), float(
        np.mean((half["B"] - whole["B"])[both])
    )


def _put(table, own, name, gauge, cell):
    hkl = np.stack([own[axis] for axis in "hkl"], axis=1)
    keys = [reflection_key(np.stack([t[axis] for axis in "hkl"], axis=1)) for t in (table, own)]
    _, here, there = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    q = inverse_resolution(hkl, cell) if len(hkl) else np.empty(0)
    factor = np.exp(gauge[0] - 0.5 * gauge[1] * q**2)
    for column in [column for column in table if column.endswith(f"_{name}")]:
        source = column[: -len(name) - 1]
        counts = source.startswith("n")
        values = np.zeros(len(table[column]), table[column].dtype) if counts else np.full(len(table[column]), np.nan)
        values[here] = (own[source] if counts else own[source] * factor)[there]
        table[column] = values

"""All figures of merit of a dataset together: one row a shell and the whole, NaN-free and ready for JSON."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from sfxflow.statistics.definitions import DEFINITIONS, OVERALL_DEFINITIONS
from sfxflow.statistics.tables import (
    Crystal,
    Reflections,
    anomalous_table,
    pair_table,
    single_table,
    wilson_and_l_test,
)

#: Names that the figures of a pair of lists get, for half sets and for a reference.
_HALF_NAMES = {"n_pairs": "n_pairs", "r_split": "r_split", "cc": "cc_half", "cc_star": "cc_star"}
_REFERENCE_NAMES = {
    "n_pairs": "n_reference",
    "cc": "reference_cc",
    "r1_i": "reference_r1_i",
    "r1_f": "reference_r1_f",
    "r2": "reference_r2",
}
#: Of merged Bijvoet mates without half sets only these are known.
_WITHOUT_HALVES = {"n_bijvoet_pairs": "n_bijvoet_pairs", "r_ano": "r_ano"}

#: Fewer common reflections than this make no figure of agreement.
_FEW = 3
#: A reference is of another crystal if a cell length differs by more than this part, or an angle by so many degrees, or if it does not
#: correlate with the data: by less than this, or than so many standard deviations of chance, over enough reflections.
_CELL_LENGTH, _CELL_ANGLE = 0.05, 3.0
_LOW_CC, _DEVIATIONS, _ENOUGH = 0.2, 3.0, 20


class Dataset(NamedTuple):
    """Lists to judge; None for what there is not.

    Attributes
    ----------
    crystal : Crystal
        In whose point group data and halves are unique.
    data : Reflections
        The whole data, merged.
    halves : tuple of two Reflections
    bijvoet_crystal : Crystal
        With the point group without Friedel's law.
    bijvoet_halves : tuple of two Reflections
        Half sets with Bijvoet mates apart; the whole data twice where the half sets do not keep them apart.
    bijvoet_are_halves : bool
    reference : Reflections
        As `tables.matched_reference` gives it.
    reference_cell : tuple of 6 floats
        Of the reference, where it is known.
    reference_operations : ndarray of int, shape (m, 3, 3)
        Point group of the reference.
    """

    crystal: Crystal
    data: Reflections | None = None
    halves: tuple | None = None
    bijvoet_crystal: Crystal | None = None
    bijvoet_halves: tuple | None = None
    bijvoet_are_halves: bool = False
    reference: Reflections | None = None
    reference_cell: tuple | None = None
    reference_operations: np.ndarray | None = None


def tables(dataset, s_min=None, s_max=None, n_shells=10):
    """Tables that the lists give.

    Parameters
    ----------
    dataset : Dataset
    s_min, s_max : float or None
        Range of s = 1/d, 1/angstrom; None: each table's own, as compare_hkl and check_hkl take it.
    n_shells : int

    Returns
    -------
    dict
        'data', 'halves', 'bijvoet', 'reference' to `tables.Table`, as far as there are lists.
    """
    ranged = {"s_min": s_min, "s_max": s_max, "n_shells": n_shells}
    made = {}
    if dataset.data is not None:
        made["data"] = single_table(dataset.data, dataset.crystal, **ranged)
    if dataset.halves is not None:
        made["halves"] = pair_table(*dataset.halves, dataset.crystal, **ranged)
    if dataset.bijvoet_halves is not None:
        made["bijvoet"] = anomalous_table(*dataset.bijvoet_halves, dataset.bijvoet_crystal, **ranged)
    if dataset.reference is not None:
        made["reference"] = pair_table(dataset.data, dataset.reference, dataset.crystal, **ranged)
    return made


def figures(dataset, s_min=None, s_max=None, n_shells=10):
    """Figures overall and by shell, all in the same shells.

    Parameters
    ----------
    dataset : Dataset
        With data or halves.
    s_min, s_max : float or None
        Range of s = 1/d, 1/angstrom; None: that of the merged data (of the common reflections of the halves without them).
    n_shells : int

    Returns
    -------
    overall : dict
        d_max, d_min and every name of `DEFINITIONS` and `OVERALL_DEFINITIONS`; None for what is not known or not defined.
    shells : list of dict
        d_max, d_min and every name of `DEFINITIONS`, low resolution first.
    """
    made = tables(dataset, *_common_range(dataset, s_min, s_max), n_shells)
    by_shell, whole = {}, {}
    for group, table in made.items():
        names = {"halves": _HALF_NAMES, "reference": _REFERENCE_NAMES}.get(group)
        if group == "bijvoet" and not dataset.bijvoet_are_halves:
            names = _WITHOUT_HALVES
        for theirs, ours in (names or {name: name for name in table.shells}).items():
            by_shell[ours], whole[ours] = table.shells[theirs], table.overall[theirs]
    if dataset.data is not None:
        whole |= wilson_and_l_test(dataset.data, dataset.crystal, s_min, s_max)
    limits = next(iter(made.values())).limits
    shells = [
        {
            "d_max": _resolution(low),
            "d_min": _resolution(high),
            **{name: _plain(name, by_shell[name][i]) if name in by_shell else None for name in DEFINITIONS},
        }
        for i, (low, high) in enumerate(itertools.pairwise(limits))
    ]
    overall = {"d_max": _resolution(limits[0]), "d_min": _resolution(limits[-1])}
    overall |= {name: _plain(name, whole.get(name, math.nan)) for name in (*DEFINITIONS, *OVERALL_DEFINITIONS)}
    return overall, shells


def remarks(dataset, overall):
    """What a person should know before believing the figures: a list of sentences."""
    found = []
    if dataset.data is not None and not overall["n_reflections"]:
        found.append("There are no merged reflections in this range of resolution: no figure is defined.")
    elif dataset.halves is not None and overall["n_pairs"] < _FEW:
        found.append(
            f"The half sets share {overall['n_pairs']} reflections: too few for Rsplit, CC1/2 and CC* to mean anything."
        )
    if dataset.reference is not None and overall["n_reference"] < _FEW:
        found.append(f"Data and reference share {overall['n_reference']} reflections: too few to compare.")
    if dataset.reference is not None:
        found += _another_crystal(dataset, overall)
    return found


def _another_crystal(dataset, overall):
    """Sentences on a reference whose cell, point group or intensities do not fit the data."""
    own = dataset.crystal
    if dataset.reference_cell is not None:
        lengths = np.abs(np.divide(dataset.reference_cell[:3], own.parameters[:3]) - 1.0)
        angles = np.abs(np.subtract(dataset.reference_cell[3:], own.parameters[3:]))
        if lengths.max() > _CELL_LENGTH or angles.max() > _CELL_ANGLE:
            cells = [" ".join(f"{value:.4g}" for value in cell) for cell in (dataset.reference_cell, own.parameters)]
            yield f"The reference has the cell {cells[0]}, the data have {cells[1]}: it is of another crystal."
    if dataset.reference_operations is not None:
        ours, theirs = (
            {tuple((sign * rotation).ravel().tolist()) for rotation in operations for sign in (1, -1)}
            for operations in (own.operations, dataset.reference_operations)
        )
        if not (ours <= theirs or theirs <= ours):
            yield "The reference is merged in a point group that does not fit that of the data: it is of another crystal."
    cc, n = overall["reference_cc"], overall["n_reference"]
    if n >= _ENOUGH and cc is not None and cc < max(_LOW_CC, _DEVIATIONS / np.sqrt(n)):
        yield (
            f"Data and reference correlate by {cc:.3f} over {n} reflections: the reference is of another crystal, or indexed in another "
            "way, or the data hold nothing."
        )


def _common_range(dataset, s_min, s_max):
    if s_min is not None and s_max is not None:
        return s_min, s_max
    if dataset.data is not None:
        limits = single_table(dataset.data, dataset.crystal, s_min, s_max, n_shells=1).limits
    else:
        limits = pair_table(*dataset.halves, dataset.crystal, s_min, s_max, n_shells=1).limits
    return tuple(float(limit) if np.isfinite(limit) else None for limit in limits)


def _resolution(s):
    return float(1.0 / s) if s > 0 else None


def _plain(name, value):
    """A number for JSON: None for what is not defined, a whole number for a count."""
    if not math.isfinite(value):
        return None
    return round(value) if name.startswith("n_") or "_n_" in name else float(value)

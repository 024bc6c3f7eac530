"""Several merges of the same crystals side by side: each on its own reflections, and all on those that all of them have.

A merger that keeps few, well measured reflections looks better than one that keeps all. Only on the same reflections do figures of
merit tell which one measures better; how many these are of the possible ones tells what that is worth.
"""

import itertools
from functools import reduce
from typing import NamedTuple

import numpy as np

from sfxflow.ambiguity.operators import reindexed
from sfxflow.cell import inverse_resolution
from sfxflow.point_group import asymmetric
from sfxflow.statistics.summary import Dataset, figures
from sfxflow.statistics.tables import Reflections, matched_reference, pair_table
from sfxflow.symmetry import reflection_key

#: Names in `statistics.definitions` of the figures that are compared.
COMPARED = (
    "n_reflections",
    "n_possible",
    "completeness",
    "n_measurements",
    "multiplicity",
    "i_over_sigma",
    "n_pairs",
    "r_split",
    "cc_half",
    "cc_star",
    "n_reference",
    "reference_cc",
    "reference_r1_i",
)

#: Another way to index is taken only if its correlation is higher by so many standard deviations of chance, over enough reflections.
_DEVIATIONS, _ENOUGH = 5.0, 20


class Merge(NamedTuple):
    """What one engine and merger made of a dataset.

    Attributes
    ----------
    data : Reflections
    halves : tuple of two Reflections
    """

    data: Reflections
    halves: tuple


class Comparison(NamedTuple):
    """Merges side by side.

    Attributes
    ----------
    limits : list of (d_max, d_min)
        Of the shells, angstrom, the same for all; low resolution first.
    own, common : list of (overall, shells)
        For each merge a dict of `COMPARED` and a list of such dicts, one a shell: on its own reflections, and on those that all
        have. `common` is None for a merge without reflections.
    pairs : list of dict
        first, second (numbers of merges), and n, cc, r1_i over the reflections of both; n_common, cc_common, r1_i_common over those
        of all. R1 is the sum of |I1 - k I2| over the sum of I1, with scale and B factor k fitted.
    n_common, n_common_pairs : int
        Reflections that all have, and those that all have in both half sets.
    without_reflections, without_halves : list of int
        Merges that are left out when the reflections that all have are looked for.
    """

    limits: list
    own: list
    common: list
    pairs: list
    n_common: int
    n_common_pairs: int
    without_reflections: list
    without_halves: list


def compare(merges, crystal, reference=None, s_min=None, s_max=None, n_shells=10):
    """Figures of merit of several merges in the same shells, on all reflections of each and on those in common.

    Parameters
    ----------
    merges : list of Merge
        All in the point group of `crystal` and indexed in the same way (`way_to_index`).
    crystal : Crystal
    reference : (Reflections, ndarray of int of shape (m, 3, 3)), optional
        Intensities to compare with, and the point group that they are merged in.
    s_min, s_max : float, optional
        Range of s = 1/d, 1/angstrom; by default that of all merges together.
    n_shells : int

    Returns
    -------
    Comparison
    """
    s_min, s_max = _range(merges, crystal, s_min, s_max)
    keys = [_keys(merge.data, crystal, s_min, s_max) for merge in merges]
    half_keys = [
        reduce(np.intersect1d, (_keys(half, crystal, s_min, s_max) for half in merge.halves)) for merge in merges
    ]
    in_common, in_common_halves = (_in_all([found for found in each if len(found)]) for each in (keys, half_keys))
    restricted = [
        Merge(
            _restricted(merge.data, in_common, crystal),
            tuple(_restricted(half, in_common_halves, crystal) for half in merge.halves),
        )
        for merge in merges
    ]

    def judged(merge):
        return _judged(merge, crystal, reference, s_min, s_max, n_shells)

    own = [judged(merge) for merge in merges]
    common = [judged(merge) if len(found) else None for merge, found in zip(restricted, keys, strict=True)]
    pairs = []
    for first, second in itertools.combinations(range(len(merges)), 2):
        row = {"first": first, "second": second}
        for lists, ending in ((merges, ""), (restricted, "_common")):
            table = pair_table(lists[first].data, lists[second].data, crystal, s_min, s_max, n_shells=1).overall
            row |= {"n" + ending: round(table["n_pairs"])}
            row |= {name + ending: _or_none(table[name]) for name in ("cc", "r1_i")}
        pairs.append(row)
    limits = [(shell["d_max"], shell["d_min"]) for shell in own[0][1]]
    return Comparison(
        limits,
        own,
        common,
        pairs,
        len(in_common),
        len(in_common_halves),
        [number for number, found in enumerate(keys) if not len(found)],
        [number for number, found in enumerate(half_keys) if not len(found) and len(keys[number])],
    )


def way_to_index(data, anchor, crystal, operators):
    """Number of the operator that indexes `data` as `anchor` is.

    Parameters
    ----------
    data : Reflections
    anchor : Reflections or (Reflections, ndarray)
        Another merge, or a reference with the point group that it is merged in.
    crystal : Crystal
    operators : ndarray, shape (n_modes, 3, 3)
        `ambiguity.operators.ambiguity_operators`; the identity first.

    Returns
    -------
    int
        0 unless another one correlates with the anchor better than by chance.
    """
    found = []
    for operator in operators:
        turned = turned_by(data, operator)
        other = anchor if isinstance(anchor, Reflections) else matched_reference(turned, *anchor, crystal)
        table = pair_table(turned, other, crystal, n_shells=1).overall
        found.append((table["cc"], table["n_pairs"]))
    correlations = np.nan_to_num([cc for cc, _ in found], nan=-1.0)
    best = int(np.argmax(correlations))
    n = min(n for _, n in found)
    better = n >= _ENOUGH and correlations[best] > max(correlations[0], 0.0) + _DEVIATIONS / np.sqrt(max(n, 1))
    return best if better else 0


def turned_by(reflections, operator):
    """The list with its reflections indexed in another way."""
    return reflections._replace(hkl=reindexed(reflections.hkl, operator).astype(np.int32))


def _range(merges, crystal, s_min, s_max):
    s = np.concatenate([_s(merge.data, crystal)[_finite(merge.data)] for merge in merges])
    if not len(s):
        return (0.0 if s_min is None else s_min), (1.0 if s_max is None else s_max)
    return (float(s.min()) if s_min is None else s_min), (float(s.max()) if s_max is None else s_max)


def _s(reflections, crystal):
    """1/d of the indices in the asymmetric unit: equivalents may differ in the last bit, which decides at the limits."""
    return inverse_resolution(asymmetric(reflections.hkl, crystal.operations), crystal.parameters)


def _finite(reflections):
    return np.isfinite(reflections.I) & np.isfinite(reflections.sigI)


def _all_keys(reflections, crystal):
    return reflection_key(asymmetric(reflections.hkl, crystal.operations))


def _keys(reflections, crystal, s_min, s_max):
    """Keys of the reflections with finite values within the range, sorted."""
    s = _s(reflections, crystal)
    return np.unique(_all_keys(reflections, crystal)[_finite(reflections) & (s >= s_min) & (s <= s_max)])


def _in_all(keys):
    return reduce(np.intersect1d, keys) if keys else np.zeros(0, np.int64)


def _restricted(reflections, keys, crystal):
    return reflections.take(np.isin(_all_keys(reflections, crystal), keys))


def _judged(merge, crystal, reference, s_min, s_max, n_shells):
    matched = None if reference is None else matched_reference(merge.data, *reference, crystal)
    overall, shells = figures(Dataset(crystal, merge.data, merge.halves, reference=matched), s_min, s_max, n_shells)
    names = ("d_max", "d_min", *COMPARED)
    return {name: overall[name] for name in names}, [{name: shell[name] for name in names} for shell in shells]


def _or_none(value):
    return float(value) if np.isfinite(value) else None

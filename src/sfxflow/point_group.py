"""Point groups by CrystFEL's names ('4/mmm', '2/m_uab', '321_H'), and its choice among equivalent reflections.

A point group is an array of rotations that make equivalent reflections, h' = h @ rotation, as in `sfxflow.symmetry`.
"""

import functools

import gemmi
import numba
import numpy as np

from sfxflow.errors import InputError
from sfxflow.symmetry import reflection_key, rotations

#: CrystFEL's name of a point group to a space group in the same setting (unique axis c where there is one).
_SPACE_GROUPS = {
    "-1": "P -1", "1": "P 1",
    "2/m": "P 1 1 2/m", "2": "P 1 1 2", "m": "P 1 1 m",
    "mmm": "P m m m", "222": "P 2 2 2", "mm2": "P m m 2",
    "4/m": "P 4/m", "4": "P 4", "-4": "P -4", "4/mmm": "P 4/m m m", "422": "P 4 2 2",
    "-42m": "P -4 2 m", "-4m2": "P -4 m 2", "4mm": "P 4 m m",
    "3_R": "R 3:R", "-3_R": "R -3:R", "32_R": "R 3 2:R", "3m_R": "R 3 m:R", "-3m_R": "R -3 m:R",
    "3_H": "P 3", "-3_H": "P -3", "321_H": "P 3 2 1", "312_H": "P 3 1 2", "3m1_H": "P 3 m 1", "31m_H": "P 3 1 m",
    "-3m1_H": "P -3 m 1", "-31m_H": "P -3 1 m",
    "6/m": "P 6/m", "6": "P 6", "-6": "P -6", "6/mmm": "P 6/m m m", "622": "P 6 2 2",
    "-62m": "P -6 2 m", "-6m2": "P -6 m 2", "6mm": "P 6 m m",
    "23": "P 2 3", "m-3": "P m -3", "432": "P 4 3 2", "-43m": "P -4 3 m", "m-3m": "P m -3 m",
}  # fmt: skip

#: Where c goes when the unique axis is a or b: a cyclic permutation, new index i is old index _AXES[i].
_AXES = {"a": (2, 0, 1), "b": (1, 2, 0), "c": (0, 1, 2)}

#: Groups that have no usual unique axis: their names are written with it.
_MONOCLINIC = ("2/m", "2", "m")

#: Centring letter to its translations, obverse setting for H.
CENTERING_VECTORS = {
    "P": (), "R": (),
    "A": ((0, 0.5, 0.5),), "B": ((0.5, 0, 0.5),), "C": ((0.5, 0.5, 0),), "I": ((0.5, 0.5, 0.5),),
    "F": ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)),
    "H": ((2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3)),
}  # fmt: skip


def point_group(name):
    """Rotations of the point group that CrystFEL calls `name`.

    Parameters
    ----------
    name : str
        Such as '4/mmm', '2/m_uab', '321_H'. Without '_ua' the unique axis is c.

    Returns
    -------
    ndarray of int64, shape (n, 3, 3)
        The identity first; h' = h @ rotation.

    Raises
    ------
    InputError
        There is no such point group.
    """
    base, _, suffix = name.strip().partition("_ua")
    if base not in _SPACE_GROUPS or (suffix and (suffix not in _AXES or "_" in base)) or name.endswith("_ua"):
        raise InputError(
            f"{name!r} is not a point group in CrystFEL's writing (expected for example 4/mmm, 422, mmm, 2/m_uab, 321_H)"
        )
    operations = rotations(gemmi.SpaceGroup(_SPACE_GROUPS[base]), friedel=False)
    axes = list(_AXES[suffix or "c"])
    return np.ascontiguousarray(operations[:, axes][:, :, axes])


def point_group_name(group, friedel=True):
    """CrystFEL's name of the point group of a space group, in the space group's own setting.

    Parameters
    ----------
    group : gemmi.SpaceGroup
    friedel : bool
        The Laue group: Friedel pairs are equivalent.

    Raises
    ------
    InputError
        CrystFEL has no name for it.
    """
    wanted = _as_set(rotations(group, friedel))
    found = _names_by_operations().get(wanted)
    if found is None:
        raise InputError(
            f"space group {group.xhm()}: CrystFEL has no name for its point group; use the standard setting"
        )
    return found


def space_group_of(name, centering="P"):
    """The space group without screw axes and glide planes that has CrystFEL's point group `name` and a centring.

    Raises
    ------
    InputError
        No such point group, or gemmi has no space group for the combination.
    """
    wanted = _as_set(point_group(name))
    for group in gemmi.spacegroup_table():
        # Symmorphic in this origin: every operation of the primitive part is without translation.
        symmorphic = all(op.tran == [0, 0, 0] for op in group.operations().sym_ops)
        if symmorphic and centering_of(group) == centering and _as_set(rotations(group, friedel=False)) == wanted:
            return group
    raise InputError(f"point group {name} with centring {centering}: there is no such space group in a usual setting")


def centering_of(group):
    """CrystFEL's centring letter of a space group: H for a rhombohedral one on hexagonal axes."""
    letter = group.hm[0]
    return "H" if letter == "R" and group.ext != "R" else letter


def is_centrosymmetric(operations):
    """Whether the inversion is among the rotations."""
    return any(np.array_equal(rotation, -np.eye(3)) for rotation in operations)


def asymmetric(hkl, operations):
    """Of all equivalents of each reflection, the one that CrystFEL chooses: no negative index if possible, then largest h, k, l.

    Parameters
    ----------
    hkl : array_like of int, shape (n, 3)
    operations : ndarray of int, shape (m, 3, 3)
        As from `point_group`.

    Returns
    -------
    ndarray of int32, shape (n, 3)
    """
    best = np.asarray(hkl, dtype=np.int64).reshape(-1, 3).copy()
    best_rank = _rank(best)
    for rotation in operations[1:]:
        other = np.asarray(hkl, dtype=np.int64).reshape(-1, 3) @ rotation
        rank = _rank(other)
        better = rank > best_rank
        best[better] = other[better]
        best_rank[better] = rank[better]
    return best.astype(np.int32)


def order(hkl):
    """Indices that sort reflections as CrystFEL's lists are: by h, then k, then l."""
    return np.argsort(reflection_key(np.asarray(hkl).reshape(-1, 3)[:, ::-1]), kind="stable")


def is_centric(hkl, operations):
    """Whether each reflection is equivalent to its Friedel mate by `operations`."""
    hkl = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
    return np.any([np.all(hkl @ rotation == -hkl, axis=1) for rotation in operations], axis=0)


def epsilon(hkl, operations):
    """By how many of the rotations each reflection is mapped onto itself: ndarray of int, shape (n,)."""
    hkl = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
    return np.sum([np.all(hkl @ rotation == hkl, axis=1) for rotation in operations], axis=0)


def is_absent(hkl, centering):
    """Whether each reflection is absent because of the centring (not of screw axes or glide planes)."""
    hkl = np.asarray(hkl).reshape(-1, 3)
    absent = np.zeros(len(hkl), dtype=bool)
    for vector in CENTERING_VECTORS[centering]:
        phase = hkl @ np.asarray(vector)
        absent |= np.abs(phase - np.rint(phase)) > 0.1
    return absent


def possible_reflections(reciprocal_metric, limits, operations, centering):
    """One reflection of each set of equivalents that the centring allows, in a range of resolution.

    Parameters
    ----------
    reciprocal_metric : ndarray, shape (3, 3)
        Metric tensor of the reciprocal lattice, 1/angstrom^2.
    limits : (float, float)
        Lowest and highest s = 1/d, 1/angstrom; a little more than the range comes back at both ends.
    operations : ndarray of int, shape (m, 3, 3)
    centering : str

    Returns
    -------
    ndarray of int32, shape (n, 3)
        As `asymmetric` chooses, without (0, 0, 0).
    """
    metric = np.ascontiguousarray(reciprocal_metric, dtype=np.float64)
    lengths = np.sqrt(np.diag(np.linalg.inv(metric)))
    low, high = limits[0] * (1 - 1e-9), limits[1] * (1 + 1e-9)
    largest = np.floor(high * lengths).astype(np.int64)
    operations = np.ascontiguousarray(operations, dtype=np.int64)
    count = _enumerate(metric, low**2, high**2, largest, operations, np.empty((0, 3), dtype=np.int32))
    hkl = np.empty((count, 3), dtype=np.int32)
    _enumerate(metric, low**2, high**2, largest, operations, hkl)
    return hkl[~is_absent(hkl, centering)]


@numba.njit(cache=True)
def _enumerate(metric, low, high, largest, operations, hkl):
    """Fill `hkl` with the chosen equivalents, or only count them where it is empty."""
    count = 0
    for h in range(-largest[0], largest[0] + 1):
        for k in range(-largest[1], largest[1] + 1):
            for l in range(-largest[2], largest[2] + 1):
                square = metric[0, 0] * h * h + metric[1, 1] * k * k + metric[2, 2] * l * l
                square += 2.0 * (metric[0, 1] * h * k + metric[0, 2] * h * l + metric[1, 2] * k * l)
                if square < low or square > high or (h == 0 and k == 0 and l == 0):
                    continue
                if not _is_chosen(h, k, l, operations):
                    continue
                if len(hkl):
                    hkl[count, 0], hkl[count, 1], hkl[count, 2] = h, k, l
                count += 1
    return count


@numba.njit(cache=True)
def _is_chosen(h, k, l, operations):
    positive = h >= 0 and k >= 0 and l >= 0
    for i in range(len(operations)):
        r = operations[i]
        h2 = h * r[0, 0] + k * r[1, 0] + l * r[2, 0]
        k2 = h * r[0, 1] + k * r[1, 1] + l * r[2, 1]
        l2 = h * r[0, 2] + k * r[1, 2] + l * r[2, 2]
        other_positive = h2 >= 0 and k2 >= 0 and l2 >= 0
        if other_positive != positive:
            if other_positive:
                return False
            continue
        if h2 > h or (h2 == h and (k2 > k or (k2 == k and l2 > l))):
            return False
    return True


def _rank(hkl):
    """Sortable integer: no negative index first, then h, k, l."""
    return reflection_key(hkl[:, ::-1]) + (np.all(hkl >= 0, axis=1).astype(np.int64) << 40)


def _as_set(operations):
    return frozenset(tuple(rotation.ravel().tolist()) for rotation in operations)


@functools.cache
def _names_by_operations():
    names = {}
    for base in _SPACE_GROUPS:
        if base not in _MONOCLINIC:
            names.setdefault(_as_set(point_group(base)), base)
    for base in (name for name in _SPACE_GROUPS if "_" not in name):
        for axis in "cba":
            names.setdefault(_as_set(point_group(f"{base}_ua{axis}")), f"{base}_ua{axis}")
    return names

"""Space groups, point groups and the asymmetric unit, on arrays; the tables are gemmi's."""

import gemmi
import numpy as np

from sfxflow.errors import InputError


def space_group(name):
    """The space group called `name`, with or without spaces ('P43212', 'P 43 21 2'), or by number.

    Raises
    ------
    InputError
        There is no such space group.
    """
    found = gemmi.find_spacegroup_by_name(str(name)) or _by_number(name)
    if found is None:
        raise InputError(f"space_group: {name!r} is not a space group (expected for example P43212 or 96)")
    return found


def _by_number(name):
    text = str(name).strip()
    return gemmi.find_spacegroup_by_number(int(text)) if text.isdigit() and 1 <= int(text) <= 230 else None


def rotations(group, friedel=True):
    """Rotation parts that make equivalent reflections: h' = h @ rotation.

    Parameters
    ----------
    group : gemmi.SpaceGroup
    friedel : bool
        Add the inversion (Laue group), so that Friedel pairs are equivalent.

    Returns
    -------
    ndarray of int64, shape (n, 3, 3)
        The identity first.
    """
    operations = [np.array(op.rot) // gemmi.Op.DEN for op in group.operations().sym_ops]
    unique = []
    for rotation in operations + ([-r for r in operations] if friedel else []):
        if not any(np.array_equal(rotation, other) for other in unique):
            unique.append(rotation)
    return np.array(unique, dtype=np.int64)


def to_asu(hkl, group, friedel=True):
    """Move reflections into one asymmetric unit: the equivalent that is largest in (l, k, h).

    Parameters
    ----------
    hkl : array_like of int, shape (n, 3)
    group : gemmi.SpaceGroup
    friedel : bool
        Friedel pairs are equivalent.

    Returns
    -------
    ndarray of int32, shape (n, 3)

    Notes
    -----
    The choice is this package's own and serves to group equivalents; files use the CCP4 asymmetric unit (`to_ccp4_asu`).
    """
    hkl = np.asarray(hkl, dtype=np.int64)
    best = hkl.copy()
    best_key = reflection_key(hkl)
    for rotation in rotations(group, friedel)[1:]:
        other = hkl @ rotation
        key = reflection_key(other)
        better = key > best_key
        best[better] = other[better]
        best_key[better] = key[better]
    return best.astype(np.int32)


def reflection_key(hkl):
    """One sortable integer for each reflection, ordered by l, then k, then h; |index| < 1024."""
    hkl = np.asarray(hkl, dtype=np.int64)
    return ((hkl[:, 2] + 1024) << 22) | ((hkl[:, 1] + 1024) << 11) | (hkl[:, 0] + 1024)


def reflection_from_key(key):
    """The inverse of `reflection_key`: ndarray of int32, shape (n, 3)."""
    key = np.asarray(key, dtype=np.int64)
    return np.stack([(key & 2047) - 1024, ((key >> 11) & 2047) - 1024, (key >> 22) - 1024], axis=1).astype(np.int32)

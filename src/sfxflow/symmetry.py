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


#: Lattice type to the point group with all of its rotations.
_LATTICE_ROTATIONS = {"triclinic": "1", "orthorhombic": "222", "tetragonal": "422", "hexagonal": "622", "cubic": "432"}


def lattice_group(cell):
    """The space group without screw axes that has all rotations of a cell's lattice: P422 for a primitive tetragonal one.

    Parameters
    ----------
    cell : sfxflow.cell.Cell

    Returns
    -------
    gemmi.SpaceGroup
        The crystal's own may have fewer rotations: metric symmetry is not symmetry of the intensities.
    """
    if cell.centering in "HR":
        return space_group(f"R32:{cell.centering}")
    if cell.lattice_type == "monoclinic":
        return space_group(cell.centering + {"a": "211", "c": "112"}.get(cell.unique_axis, "121"))
    return space_group(cell.centering + _LATTICE_ROTATIONS[cell.lattice_type])


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
    The choice is this package's own and serves to group equivalents; files use the CCP4 asymmetric unit.
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


def free_flags(hkl, group, fraction):
    """Free-R flags that depend on the reflection alone: 0 is free, 1 to 1 / fraction - 1 are not (CCP4's convention).

    Parameters
    ----------
    hkl : array_like of int, shape (n, 3)
    group : gemmi.SpaceGroup
        Equivalents in its Laue group get the same flag.
    fraction : float
        Of free reflections, above 0 and not above 0.5.

    Returns
    -------
    ndarray of int32, shape (n,)
    """
    bits = reflection_key(to_asu(hkl, group)).astype(np.uint64)
    # Finaliser of the SplitMix64 generator (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195): neighbours become unrelated.
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    uniform = (bits >> np.uint64(11)) * 2.0**-53
    last = max(round(1.0 / fraction) - 1, 1)
    return np.minimum(uniform / fraction, last).astype(np.int32)

"""The ways to index a crystal: symmetry of the lattice that is not symmetry of the crystal."""

import numpy as np

from sfxflow.cell import real_matrix
from sfxflow.indexing.lattice import PRIMITIVE, lattice_operators, reduce_basis
from sfxflow.point_group import centering_of
from sfxflow.symmetry import rotations

_SAME = 1e-6


def ambiguity_operators(parameters, group, tolerance=0.005):
    """Operators that turn an indexing into another one of the same lattice but not of an equivalent crystal.

    Parameters
    ----------
    parameters : sequence of 6 floats
        Conventional cell, angstrom and degree.
    group : gemmi.SpaceGroup
    tolerance : float
        Relative difference up to which cell lengths count as equal; for angles the same in radian.

    Returns
    -------
    ndarray, shape (n_modes, 3, 3)
        The identity first; h' = h @ operator. Two operators are the same way to index if they differ by a rotation of the Laue group
        that comes after them: of each such set the one with the smallest elements stands here. Elements may be fractions in centred
        cells that are nearly of higher symmetry; reflections that the centring allows still get whole numbers.
    """
    conventional = real_matrix(parameters)
    reduced = reduce_basis(PRIMITIVE[centering_of(group)] @ conventional)
    from_reduced = conventional @ np.linalg.inv(reduced)
    # a length that differs by a fraction t changes its square by 2 t
    changes = from_reduced @ lattice_operators(reduced, 2.0 * tolerance) @ np.linalg.inv(from_reduced)
    candidates = sorted(np.round(np.transpose(changes, (0, 2, 1)), 6), key=_simplicity)
    laue = rotations(group)
    proper = laue[np.linalg.det(laue) > 0]
    chosen = [np.eye(3)]
    for candidate in candidates:
        if not any(same_way(candidate, other, proper) for other in chosen):
            chosen.append(candidate)
    return np.array(chosen)


def _simplicity(operator):
    """Sorts: diagonal ones first, then exchanges of axes, then others; of equals those with the larger trace."""
    return (
        np.abs(operator).sum(),
        np.count_nonzero(operator - np.diag(np.diag(operator))),
        -np.trace(operator),
    ) + tuple(-operator.ravel())


def same_way(first, second, proper):
    """Whether two operators give equivalent indices: first = second @ rotation with one of the `proper` rotations."""
    return bool(np.any(np.all(np.abs(second @ proper - first) < _SAME, axis=(1, 2))))


def reindexed(hkl, operator):
    """Indices in another way to index.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    operator : ndarray, shape (3, 3)

    Returns
    -------
    ndarray of int64, shape (n, 3)
    """
    return np.rint(np.asarray(hkl) @ operator).astype(np.int64)


def reindexed_each(hkl, operators, mode):
    """Indices of observations that are each to be indexed in a way of their own.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    operators : ndarray, shape (n_modes, 3, 3)
    mode : ndarray of int, shape (n,)
        Number of the operator of each.

    Returns
    -------
    ndarray of int32, shape (n, 3)
    """
    return np.rint(np.einsum("ni,nij->nj", hkl, operators[mode])).astype(np.int32)


def reindexed_reciprocal(reciprocal, operator):
    """Reciprocal matrices that give the same scattering vectors with the new indices.

    Parameters
    ----------
    reciprocal : ndarray, shape (..., 3, 3)
        Columns a*, b*, c*: q = reciprocal @ hkl.
    operator : ndarray, shape (..., 3, 3)

    Returns
    -------
    ndarray, shape (..., 3, 3)
    """
    return reciprocal @ np.linalg.inv(np.swapaxes(operator, -1, -2))


def described(operator):
    """An operator in the field's writing, for example 'k,h,-l'."""
    parts = []
    for column in np.asarray(operator).T:
        text = ""
        for factor, letter in zip(column, "hkl", strict=True):
            if abs(factor) > _SAME:
                number = "" if abs(abs(factor) - 1) < _SAME else f"{abs(factor):.4g}"
                sign = "-" if factor < 0 else ("+" if text else "")
                text += f"{sign}{number}{letter}"
        parts.append(text or "0")
    return ",".join(parts)


def composition(operators, group):
    """Which way to index results when one is followed by another.

    Parameters
    ----------
    operators : ndarray, shape (n_modes, 3, 3)
    group : gemmi.SpaceGroup

    Returns
    -------
    ndarray of int64, shape (n_modes, n_modes)
        Number of the operator that operators[i] @ operators[j] is equivalent to; -1 in columns j whose operator does not map the Laue
        group onto itself: all crystals can't be turned by it together.
    """
    laue = rotations(group)
    proper = laue[np.linalg.det(laue) > 0]
    table = np.full((len(operators), len(operators)), -1)
    for j, second in enumerate(operators):
        inverse = np.linalg.inv(second)
        if not all(np.any(np.all(np.abs(proper - inverse @ r @ second) < _SAME, axis=(1, 2))) for r in proper):
            continue
        for i, first in enumerate(operators):
            same = [same_way(first @ second, other, proper) for other in operators]
            table[i, j] = same.index(True) if any(same) else -1
    return table


def in_assigned_modes(crystals, reflections, operators, mode, left_out):
    """Tables of crystals and reflections with every crystal indexed in its mode.

    Parameters
    ----------
    crystals : dict of ndarray
        With `reciprocal`; other columns stay as they are.
    reflections : dict of ndarray
        With `crystal` (row of `crystals`), h, k, l.
    operators : ndarray, shape (n_modes, 3, 3)
    mode : ndarray of int, shape (n_crystals,)
    left_out : ndarray of bool, shape (n_crystals,)
        Crystals without any reflections in the result.

    Returns
    -------
    crystals, reflections : dict of ndarray
        Scattering vectors are what they were: q = reciprocal @ hkl.
    """
    owner = np.asarray(reflections["crystal"], np.int64)
    if left_out.any():
        kept = ~left_out[owner]
        reflections = {name: values[kept] for name, values in reflections.items()}
        owner = owner[kept]
    if not mode.any():
        return crystals, reflections
    hkl = np.stack([np.asarray(reflections[letter]) for letter in "hkl"], axis=1)
    renamed = dict(zip("hkl", reindexed_each(hkl, operators, mode[owner]).T, strict=True))
    turned = reindexed_reciprocal(crystals["reciprocal"], operators[mode])
    return crystals | {"reciprocal": turned}, reflections | renamed

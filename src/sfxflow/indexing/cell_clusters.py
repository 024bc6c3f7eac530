"""Cells on which many frames agree: the densest neighbourhood among the reduced cells of single frames.

A reduced cell is not a continuous function of the lattice: where two vectors are about equally long, or an angle is about 90 degrees,
errors decide which of several bases is found. Neighbours are therefore looked for by the sorted lengths of short lattice vectors, which
do not depend on the choice, and each neighbour's basis is then changed into the one nearest to that in the middle (compare Andrews &
Bernstein 2014, J. Appl. Cryst. 47, 346, doi:10.1107/S1600576713031002).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from sfxflow.cell import parameters_of

#: Cells belong together up to these deviations: relative length, and angle in degree.
LENGTH_TOLERANCE = 0.02
ANGLE_TOLERANCE = 1.5

_COMBINATIONS = np.array([c for c in itertools.product((-1, 0, 1), repeat=3) if next((x for x in c if x), -1) > 0])
_ROWS = np.array([c for c in itertools.product((-1, 0, 1), repeat=3) if any(c)])


@dataclass(frozen=True)
class Cluster:
    """Frames that agree on a cell.

    Attributes
    ----------
    members : ndarray of int, shape (n,)
        Positions among the cells that were clustered.
    bases : ndarray, shape (n, 3, 3)
        Rows of each member's primitive cell in one common setting, angstrom.
    basis : ndarray, shape (3, 3)
        Rows of the cell in the middle, in any orientation.
    """

    members: np.ndarray
    bases: np.ndarray
    basis: np.ndarray


def short_lengths(bases):
    """Sorted lengths of the 13 shortest combinations (coefficients -1, 0, 1) of reduced bases.

    Parameters
    ----------
    bases : ndarray, shape (n, 3, 3)

    Returns
    -------
    ndarray, shape (n, 13)
    """
    return np.sort(np.linalg.norm(_COMBINATIONS @ np.asarray(bases), axis=2), axis=1)


def nearest_setting(basis, reference, length_tolerance=LENGTH_TOLERANCE, angle_tolerance=ANGLE_TOLERANCE):
    """The basis of the lattice of `basis` whose lengths and angles come nearest to those of `reference`.

    Parameters
    ----------
    basis, reference : ndarray, shape (3, 3)
        Rows of reduced cells, angstrom.
    length_tolerance, angle_tolerance : float
        Largest relative deviation of a length, and deviation of an angle in degree.

    Returns
    -------
    ndarray, shape (3, 3), or None
        None where no basis comes as near as the tolerances ask for.
    """
    expected = basis_parameters(reference)
    vectors = _ROWS @ basis
    lengths = np.linalg.norm(vectors, axis=1)
    fitting = [vectors[np.abs(lengths / length - 1.0) < length_tolerance] for length in expected[:3]]
    best, smallest = None, np.inf
    for a, b, c in itertools.product(*fitting):
        setting = np.array([a, b, c])
        if np.linalg.det(setting) < 0.5 * abs(np.linalg.det(basis)):
            continue
        parameters = basis_parameters(setting)
        angles = np.abs(parameters[3:] - expected[3:])
        if angles.max() > angle_tolerance:
            continue
        distance = np.sum((parameters[:3] / expected[:3] - 1.0) ** 2) + np.sum(np.radians(angles) ** 2)
        if distance < smallest:
            best, smallest = setting, distance
    return best


def basis_parameters(basis):
    """Lengths (angstrom) and angles (degree) of the rows of `basis`."""
    return parameters_of(np.linalg.inv(basis))


def median_basis(bases):
    """Rows of a cell with the median lengths and angles of several, in any orientation."""
    # Medians of single parameters may contradict each other by less than their errors; of the metric they can't.
    metric = np.median(bases @ np.swapaxes(bases, 1, 2), axis=0)
    return np.linalg.cholesky(metric)


def densest_cluster(bases):
    """The largest set of cells that agree.

    Parameters
    ----------
    bases : ndarray, shape (n, 3, 3)
        Rows of reduced cells, angstrom.

    Returns
    -------
    Cluster
        Empty where there are no cells; of one member where no two agree.
    """
    bases = np.asarray(bases, dtype=float).reshape(-1, 3, 3)
    if not len(bases):
        return Cluster(np.empty(0, int), bases, np.eye(3))
    logs = np.log(short_lengths(bases))
    near = np.array([np.all(np.abs(logs - log) < LENGTH_TOLERANCE, axis=1) for log in logs])
    middle = bases[int(np.argmax(near.sum(axis=1)))]
    for _ in range(3):
        close = np.all(np.abs(logs - np.log(short_lengths(middle[None]))) < 1.5 * LENGTH_TOLERANCE, axis=1)
        settings = {i: nearest_setting(bases[i], middle) for i in np.flatnonzero(close)}
        members = np.array([i for i, setting in settings.items() if setting is not None], dtype=int)
        if not len(members):
            break
        aligned = np.array([settings[i] for i in members])
        middle = median_basis(aligned)
    if not len(members):
        members = np.array([int(np.argmax(near.sum(axis=1)))])
        aligned = bases[members]
    return Cluster(members, aligned, middle)

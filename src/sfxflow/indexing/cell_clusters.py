"""Cells on which many frames agree: the densest neighbourhood among the reduced cells of single frames.

A reduced cell is not a continuous function of the lattice: where two vectors are about equally long, or an angle is about 90 degrees,
errors decide which of several bases is found. Neighbours are therefore looked for by the sorted lengths of short lattice vectors, which
do not depend on the choice, and each neighbour's basis is then changed into the one nearest to that in the middle (compare Andrews &
Bernstein 2014, J. Appl. Cryst. 47, 346, doi:10.1107/S1600576713031002).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from sfxflow.cell import parameters_of

#: Cells belong together up to these deviations: relative length, and angle in degree.
LENGTH_TOLERANCE = 0.02
ANGLE_TOLERANCE = 1.5

#: Vectors among which the shortest are looked for, one of each pair v and -v, and how many of them are compared.
_COMBINATIONS = np.array([c for c in itertools.product(range(-2, 3), repeat=3) if next((x for x in c if x), -1) > 0])
_N_SHORTEST = 9
_ROWS = np.array([c for c in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(c)])


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
    """Lengths that do not depend on which basis of a lattice is given: of its 9 shortest vectors, and the cube root of its volume.

    Parameters
    ----------
    bases : ndarray, shape (n, 3, 3)
        Rows of reduced bases, angstrom.

    Returns
    -------
    ndarray, shape (n, 10)
        Angstrom.
    """
    bases = np.asarray(bases, dtype=float)
    shortest = np.sort(np.linalg.norm(_COMBINATIONS @ bases, axis=2), axis=1)[:, :_N_SHORTEST]
    return np.hstack([shortest, np.cbrt(np.abs(np.linalg.det(bases)))[:, None]])


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
    chosen = np.empty((3, 3))
    expected = basis_parameters(reference)
    angles = np.radians(np.array([expected[3:] - angle_tolerance, expected[3:], expected[3:] + angle_tolerance]))
    cosines = np.cos(np.clip(angles, 0.0, np.pi))
    found = _nearest_setting(_ROWS @ basis, expected[:3], cosines, length_tolerance, chosen)
    return chosen if found else None


@njit(cache=True)
def _nearest_setting(vectors, expected, cosines, length_tolerance, chosen):
    """Set `chosen` to the right-handed triple of vectors nearest to the expected lengths and angles; False where none is near.

    `cosines`: of the smallest, the expected and the largest alpha, beta and gamma, shape (3, 3).
    """
    n = vectors.shape[0]
    lengths = np.empty(n)
    for i in range(n):
        lengths[i] = math.sqrt(vectors[i, 0] ** 2 + vectors[i, 1] ** 2 + vectors[i, 2] ** 2)
    smallest = np.inf
    for i in range(n):
        off_a = abs(lengths[i] / expected[0] - 1.0)
        if off_a > length_tolerance:
            continue
        for j in range(n):
            off_b = abs(lengths[j] / expected[1] - 1.0)
            if off_b > length_tolerance:
                continue
            gamma = _dot(vectors[i], vectors[j]) / (lengths[i] * lengths[j])
            if gamma > cosines[0, 2] or gamma < cosines[2, 2]:
                continue
            for k in range(n):
                off_c = abs(lengths[k] / expected[2] - 1.0)
                if off_c > length_tolerance:
                    continue
                alpha = _dot(vectors[j], vectors[k]) / (lengths[j] * lengths[k])
                beta = _dot(vectors[i], vectors[k]) / (lengths[i] * lengths[k])
                if alpha > cosines[0, 0] or alpha < cosines[2, 0] or beta > cosines[0, 1] or beta < cosines[2, 1]:
                    continue
                distance = off_a**2 + off_b**2 + off_c**2
                distance += (alpha - cosines[1, 0]) ** 2 + (beta - cosines[1, 1]) ** 2 + (gamma - cosines[1, 2]) ** 2
                # A left-handed triple, or three vectors in a plane, spans another lattice.
                if distance < smallest and _triple_product(vectors[i], vectors[j], vectors[k]) > 0.0:
                    smallest = distance
                    chosen[0], chosen[1], chosen[2] = vectors[i], vectors[j], vectors[k]
    return smallest < np.inf


@njit(cache=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True)
def _triple_product(a, b, c):
    return a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])


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

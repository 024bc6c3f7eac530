"""Unit cells: parameters, matrices, volume, resolution."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cell:
    """A unit cell as CrystFEL's .cell files describe it.

    Attributes
    ----------
    a, b, c : float
        Angstrom.
    alpha, beta, gamma : float
        Degree.
    lattice_type : str
        triclinic, monoclinic, orthorhombic, tetragonal, rhombohedral, hexagonal or cubic.
    centering : str
        P, A, B, C, I, F, R or H.
    unique_axis : str
        a, b, c, or * where the lattice type has none.
    """

    a: float
    b: float
    c: float
    alpha: float = 90.0
    beta: float = 90.0
    gamma: float = 90.0
    lattice_type: str = "triclinic"
    centering: str = "P"
    unique_axis: str = "*"

    @property
    def parameters(self):
        """(a, b, c, alpha, beta, gamma) in angstrom and degree."""
        return (self.a, self.b, self.c, self.alpha, self.beta, self.gamma)

    @property
    def volume(self):
        """Cubic angstrom."""
        return abs(np.linalg.det(real_matrix(self.parameters)))


def real_matrix(parameters):
    """Rows a, b, c in a Cartesian frame with a along x and b in the xy plane.

    Parameters
    ----------
    parameters : sequence of 6 floats
        Angstrom and degree.

    Returns
    -------
    ndarray, shape (3, 3)
        Angstrom.
    """
    a, b, c, alpha, beta, gamma = parameters
    ca, cb, cg = np.cos(np.radians([alpha, beta, gamma]))
    sg = np.sin(np.radians(gamma))
    cx, cy = cb, (ca - cb * cg) / sg
    return np.array([[a, 0.0, 0.0], [b * cg, b * sg, 0.0], [c * cx, c * cy, c * np.sqrt(1.0 - cx**2 - cy**2)]])


def reciprocal_matrix(parameters):
    """Columns a*, b*, c* in the frame of `real_matrix`, 1/angstrom: q = reciprocal @ (h, k, l)."""
    return np.linalg.inv(real_matrix(parameters))


def parameters_of(reciprocal):
    """Cell parameters (angstrom, degree) of a matrix whose columns are a*, b*, c* (1/angstrom)."""
    # Plain numbers: for nine of them an array takes ten times as long, and every lattice is asked several times.
    axes = np.linalg.inv(reciprocal).tolist()
    lengths = [math.sqrt(x * x + y * y + z * z) for x, y, z in axes]
    angles = []
    for i, j in ((1, 2), (0, 2), (0, 1)):
        cosine = sum(x * y for x, y in zip(axes[i], axes[j], strict=True)) / (lengths[i] * lengths[j])
        angles.append(math.degrees(math.acos(min(max(cosine, -1.0), 1.0))))
    return np.array(lengths + angles)


def inverse_resolution(hkl, parameters):
    """s = 1/d of reflections, the same bits for the same indices wherever they stand in an array.

    Limits of resolution shells are taken from reflections themselves, so that the last bit decides on which side one falls;
    a matrix product does not promise that bit.

    Parameters
    ----------
    hkl : array_like of int, shape (n, 3)
    parameters : sequence of 6 floats
        Angstrom and degree.

    Returns
    -------
    ndarray of float64, shape (n,)
        1/angstrom.
    """
    h, k, l = np.asarray(hkl, dtype=np.float64).reshape(-1, 3).T
    g = reciprocal_metric(parameters)
    square = g[0, 0] * h * h + g[1, 1] * k * k + g[2, 2] * l * l
    square += 2.0 * (g[0, 1] * h * k + g[0, 2] * h * l + g[1, 2] * k * l)
    return np.sqrt(square)


def reciprocal_metric(parameters):
    """Metric tensor of the reciprocal lattice, 1/angstrom^2: ndarray, shape (3, 3)."""
    matrix = reciprocal_matrix(parameters)
    return matrix.T @ matrix

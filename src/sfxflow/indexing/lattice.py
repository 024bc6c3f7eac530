"""Reduced cells, lattice symmetry and sub-lattices: what indexing must know of a cell before it sees a peak."""

import itertools
from dataclasses import dataclass

import numpy as np

from sfxflow.cell import real_matrix

#: Rows of a primitive basis in terms of the conventional axes, by centring symbol (R: primitive rhombohedral axes; H: obverse).
PRIMITIVE = {
    "P": np.eye(3),
    "R": np.eye(3),
    "A": np.array([[1, 0, 0], [0, 0.5, 0.5], [0, -0.5, 0.5]]),
    "B": np.array([[0.5, 0, 0.5], [0, 1, 0], [-0.5, 0, 0.5]]),
    "C": np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "H": np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3.0,
}

#: Deviation of the metric tensor up to which an operation may be mistaken for one of the symmetry: 3 % in length, or 3.4 degrees.
VARIANT_TOLERANCE = 0.06


@dataclass(frozen=True)
class Lattice:
    """A target cell, prepared for indexing.

    Attributes
    ----------
    parameters : tuple
        Conventional cell, angstrom and degree.
    conventional : ndarray, shape (3, 3)
        Rows a, b, c, angstrom.
    reduced : ndarray, shape (3, 3)
        Rows of the reduced primitive cell, shortest first, right-handed, angstrom.
    from_reduced : ndarray, shape (3, 3)
        conventional = from_reduced @ reduced; indices transform alike, hkl_conventional = from_reduced @ hkl_reduced.
    to_reduced : ndarray, shape (3, 3)
        Its inverse.
    two_fold : tuple of bool
        For each reduced axis: a proper symmetry operation of the lattice turns it round.
    operators : ndarray of int, shape (n, 3, 3)
        Proper rotations that map the lattice onto itself, or nearly so, acting on rows of the reduced basis.
    variants : ndarray of int, shape (m, 3, 3)
        Changes of the reduced basis that nearly are symmetry operations but not quite (beta = 90.6 degrees, a = 1.01 b): they turn an
        indexed lattice into another one that explains the peaks at low angles as well. Most cells have none.
    """

    parameters: tuple
    conventional: np.ndarray
    reduced: np.ndarray
    from_reduced: np.ndarray
    to_reduced: np.ndarray
    two_fold: tuple
    operators: np.ndarray
    variants: np.ndarray


def prepare_lattice(parameters, centering="P"):
    """The `Lattice` of a conventional cell.

    Parameters
    ----------
    parameters : sequence of 6 floats
        Angstrom and degree.
    centering : str
        One of P, A, B, C, I, F, R, H.
    """
    conventional = real_matrix(parameters)
    reduced = reduce_basis(PRIMITIVE[centering] @ conventional)
    # What only nearly is a symmetry operation (beta = 90.3 degrees) gives another lattice, which has to be tried.
    exact = lattice_operators(reduced, tolerance=1e-4)
    two_fold = tuple(any(np.array_equal(op[i], -np.eye(3, dtype=int)[i]) for op in exact) for i in range(3))
    from_reduced = np.rint(conventional @ np.linalg.inv(reduced))
    return Lattice(
        parameters=tuple(parameters),
        conventional=conventional,
        reduced=reduced,
        from_reduced=from_reduced,
        to_reduced=np.linalg.inv(from_reduced),
        two_fold=two_fold,
        operators=lattice_operators(reduced),
        variants=_variants(exact, lattice_operators(reduced, tolerance=VARIANT_TOLERANCE)),
    )


def _variants(exact, near):
    """One of the operations `near` for each set that the operations `exact` turn into each other, without that of `exact` itself."""
    seen = {tuple(op.ravel()) for op in exact}
    variants = []
    for op in near:
        if tuple(op.ravel()) not in seen:
            variants.append(op)
            seen |= {tuple((symmetry @ op).ravel()) for symmetry in exact}
    return np.array(variants, dtype=int).reshape(-1, 3, 3)


def reduce_basis(basis):
    """Shortest right-handed basis of the lattice that the rows of `basis` span, sorted by length (Minkowski reduction).

    Parameters
    ----------
    basis : ndarray, shape (3, 3)

    Notes
    -----
    Adds to the longest vector the combination of the two others that shortens it most, until nothing changes
    (Semaev 2001, Lect. Notes Comput. Sci. 2146, 181, doi:10.1007/3-540-44670-2_13).
    """
    basis = np.array(basis, dtype=float)
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    for _ in range(100):
        basis = basis[np.argsort(np.linalg.norm(basis, axis=1), kind="stable")]
        basis[1] -= np.rint(basis[0] @ basis[1] / (basis[0] @ basis[0])) * basis[0]
        nearest = np.rint(np.linalg.lstsq(basis[:2].T, basis[2], rcond=None)[0])
        candidates = basis[2] - (nearest + steps) @ basis[:2]
        best = candidates[np.argmin(np.linalg.norm(candidates, axis=1))]
        lengths = np.linalg.norm(basis, axis=1)
        shorter = np.linalg.norm(best) < lengths[2] * (1 - 1e-9)
        if shorter:
            basis[2] = best
        elif np.all(np.diff(lengths) >= -1e-9 * lengths[2]):
            break
    return basis if np.linalg.det(basis) > 0 else -basis


def lattice_operators(basis, tolerance=0.01):
    """Proper rotations that map the lattice onto itself, as integer matrices on the rows of a reduced basis.

    Parameters
    ----------
    basis : ndarray, shape (3, 3)
        Rows of a reduced basis.
    tolerance : float
        Largest deviation of the metric tensor, relative to the product of the two lengths.

    Returns
    -------
    ndarray of int, shape (n, 3, 3)
    """
    metric = basis @ basis.T
    lengths = np.sqrt(np.diag(metric))
    allowed = tolerance * np.outer(lengths, lengths)
    rows = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    norms = np.einsum("ij,jk,ik->i", rows, metric, rows)
    fitting = [rows[np.abs(norms - metric[i, i]) < allowed[i, i]] for i in range(3)]
    found = []
    for op in itertools.product(*fitting):
        op = np.array(op)
        if round(np.linalg.det(op)) == 1 and np.all(np.abs(op @ metric @ op.T - metric) < allowed):
            found.append(op)
    return np.array(found)


def conventional_reciprocal(reduced_reciprocal, lattice):
    """Columns a*, b*, c* of the conventional cell from those of the reduced one."""
    return reduced_reciprocal @ lattice.to_reduced


def reduced_reciprocal(reciprocal, lattice):
    """Columns a*, b*, c* of the reduced cell from those of the conventional one."""
    return reciprocal @ lattice.from_reduced


def sublattice_tests():
    """Linear forms and moduli that tell whether indices lie on a sub-lattice of index 2 or 3.

    Returns
    -------
    forms : ndarray of int, shape (20, 3)
    moduli : ndarray of int, shape (20,)
        hkl lies on sub-lattice i if (forms[i] @ hkl) % moduli[i] == 0: 7 of index 2 and 13 of index 3.
    """
    forms, moduli = [], []
    for modulus in (2, 3):
        seen = set()
        for form in itertools.product(range(modulus), repeat=3):
            multiples = {tuple((m * x) % modulus for x in form) for m in range(1, modulus)}
            if any(form) and not (multiples & seen):
                seen.add(form)
                forms.append(form)
                moduli.append(modulus)
    return np.array(forms), np.array(moduli)


def sublattice_basis(form, modulus):
    """Rows that span the integer vectors h with (form . h) divisible by `modulus` (2 or 3), ndarray of int, shape (3, 3)."""
    axis = int(np.flatnonzero(np.asarray(form) % modulus)[0])
    basis = np.eye(3, dtype=int)
    for other in range(3):
        # 1 and 2 are their own inverses modulo 3.
        basis[other, axis] -= form[other] * form[axis] % modulus
    basis[axis] = 0
    basis[axis, axis] = modulus
    return basis


def half_sphere(spacing):
    """Directions that cover the half sphere z >= 0 evenly (Fibonacci lattice).

    Parameters
    ----------
    spacing : float
        Distance between neighbours, radian.

    Returns
    -------
    ndarray, shape (n, 3)
        Unit vectors.
    """
    n = max(16, int(np.ceil(2 * np.pi / (0.866 * spacing**2))))
    index = np.arange(n) + 0.5
    z = 1.0 - index / n
    azimuth = np.pi * (1.0 + np.sqrt(5.0)) * index
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)

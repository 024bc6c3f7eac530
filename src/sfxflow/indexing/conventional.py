"""From a reduced cell to the conventional one: lattice symmetry, centring, and the choice of axes.

The rotations that map the lattice onto itself within a tolerance (Le Page 1982, J. Appl. Cryst. 15, 255,
doi:10.1107/S0021889882011959) say which of the 14 lattices it is; the conventional axes are the shortest lattice vectors along its
symmetry axes (International Tables for Crystallography A, chapter 3.1).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from sfxflow.cell import Cell, parameters_of
from sfxflow.indexing.lattice import PRIMITIVE, lattice_operators, reduce_basis

#: Order of the group of proper rotations to the lattice type.
_TYPES = {
    1: "triclinic",
    2: "monoclinic",
    4: "orthorhombic",
    6: "rhombohedral",
    8: "tetragonal",
    12: "hexagonal",
    24: "cubic",
}
_ROWS = np.array([c for c in itertools.product(range(-3, 4), repeat=3) if any(c)])


@dataclass(frozen=True)
class Conventional:
    """A lattice in its conventional setting.

    Attributes
    ----------
    cell : sfxflow.cell.Cell
        Lengths and angles averaged over the symmetry.
    axes : ndarray of int, shape (3, 3)
        Rows a, b, c in terms of the reduced basis.
    deviation : tuple of float
        Largest relative deviation of a length, and deviation of an angle (degree), from what the symmetry asks for.
    """

    cell: Cell
    axes: np.ndarray
    deviation: tuple


def conventional_cell(basis, tolerance=0.01):
    """The conventional cell of the highest symmetry that a lattice has within a tolerance.

    Parameters
    ----------
    basis : ndarray, shape (3, 3)
        Rows of a reduced primitive cell, angstrom.
    tolerance : float
        Largest deviation of the metric tensor, relative to the product of the two lengths: 0.01 is 0.5 % or 0.6 degrees.

    Returns
    -------
    Conventional
    """
    return next(possible_cells(basis, tolerance))


def possible_cells(basis, tolerance=0.01):
    """Conventional cells of the symmetries that a lattice has within a tolerance, from the highest to none; see `conventional_cell`."""
    basis = np.asarray(basis, dtype=float)
    for operators in _groups(basis, tolerance):
        found = _with_operators(basis, operators)
        if found is not None:
            yield found


def cell_in_group(basis, lattice, tolerance=0.02):
    """The cell of a lattice in the setting of a space group, whose lattice may have less symmetry than the metric.

    Parameters
    ----------
    basis : ndarray, shape (3, 3)
        Rows of a reduced primitive cell, angstrom.
    lattice : tuple of str
        Lattice type, centring and unique axis (`sfxflow.io.cell_file.lattice_of`).
    tolerance : float
        As in `conventional_cell`.

    Returns
    -------
    sfxflow.cell.Cell or None
        The one that deviates least; None if the lattice can't belong to the group.
    """
    kind, centering, axis = lattice
    basis = np.asarray(basis, dtype=float)
    best, smallest = None, np.inf
    for operators in _subgroups(lattice_operators(basis, tolerance)):
        found = _with_operators(basis, operators)
        if found is None or (found.cell.lattice_type, found.cell.centering in "HR") != _hexagonal_words(
            kind, centering
        ):
            continue
        cell = _in_setting(found.axes, basis, operators, kind, centering, axis)
        if cell is not None and sum(found.deviation) < smallest - 1e-9:
            best, smallest = cell, sum(found.deviation)
    return best


def _hexagonal_words(kind, centering):
    """Lattice type, and whether it is rhombohedral, in the words of `_with_operators`."""
    return ("hexagonal" if kind == "rhombohedral" else kind), centering in "HR"


def _subgroups(operators):
    """All groups that one or two of the operations generate: every group of rotations of a lattice is among them."""
    numbers = {tuple(op.ravel()): i for i, op in enumerate(operators)}
    products = [[numbers.get(tuple((a @ b).ravel())) for b in operators] for a in operators]
    identity = numbers[tuple(np.eye(3, dtype=int).ravel())]
    seen = set()
    for pair in itertools.combinations_with_replacement(range(len(operators)), 2):
        group, new = {identity, *pair}, True
        while new:
            new = {products[a][b] for a in group for b in group} - group
            # Operations that fit only nearly may have products that do not fit.
            new = set() if None in new else new
            group |= new
        closed = all(products[a][b] in group for a in group for b in group)
        if closed and len(group) in _TYPES and frozenset(group) not in seen:
            seen.add(frozenset(group))
            yield operators[sorted(group)]


def _in_setting(axes, basis, operators, kind, centering, axis):
    """The cell with its axes renamed for a centring and a unique axis; None if no renaming gives them."""
    metric = basis @ basis.T
    exact = np.linalg.cholesky(np.mean([op @ metric @ op.T for op in operators], axis=0))
    if kind == "rhombohedral":
        settings = [PRIMITIVE["H"] @ axes]
    elif kind == "monoclinic":
        order = {"b": [0, 1, 2], "c": [2, 0, 1], "a": [1, 2, 0]}[axis]
        settings = [(change @ axes)[order] for change in _PLANE_CHANGES]
    else:
        settings = [axes, *(axes[list(order)] * sign for order, sign in _ORDERS)] if kind == "orthorhombic" else [axes]
    best = None
    for setting in settings:
        found = "R" if kind == "rhombohedral" else _centering(setting)
        parameters = parameters_of(np.linalg.inv(setting @ exact))
        # beta is not acute, and not so large that shorter axes would do.
        usual = min(parameters[3:]) > 90.0 - 1e-6 and max(parameters[3:]) < 145.0
        if found == centering and (usual or kind != "monoclinic"):
            cell = Cell(*(float(x) for x in np.round(parameters, 9)), kind, centering, axis)
            key = cell.a + cell.b + cell.c
            if best is None or key < best[0] - 1e-9:
                best = key, cell
    return None if best is None else best[1]


#: Changes of a and c (b unique) that keep handedness and volume.
_PLANE_CHANGES = [
    np.array([[p, 0, q], [0, p * s - q * r, 0], [r, 0, s]])
    for p, q, r, s in itertools.product((-1, 0, 1), repeat=4)
    if abs(p * s - q * r) == 1
]
#: Other orders of orthorhombic axes, with the sign that keeps the handedness.
_ORDERS = [((1, 2, 0), 1), ((2, 0, 1), 1), ((1, 0, 2), -1), ((0, 2, 1), -1), ((2, 1, 0), -1)]


def _groups(basis, tolerance):
    """Groups of operations, the largest first: operations that fit less and less well are left out until a group remains."""
    metric = basis @ basis.T
    lengths = np.sqrt(np.diag(metric))
    operators = lattice_operators(basis, tolerance)
    misfit = np.array([np.abs((op @ metric @ op.T - metric) / np.outer(lengths, lengths)).max() for op in operators])
    for limit in np.unique(np.round(misfit, 12))[::-1]:
        chosen = operators[misfit <= limit + 1e-11]
        if len(chosen) in _TYPES and _is_group(chosen):
            yield chosen
    yield np.eye(3, dtype=int)[None]


def _is_group(operators):
    known = {tuple(op.ravel()) for op in operators}
    return all(tuple((a @ b).ravel()) in known for a in operators for b in operators)


def _order(operator):
    power, n = operator, 1
    while not np.array_equal(power, np.eye(3, dtype=int)):
        power, n = power @ operator, n + 1
    return n


def _along(operator):
    """Shortest integer row vector that a rotation leaves as it is."""
    fixed = _ROWS[np.all(_ROWS @ operator == _ROWS, axis=1)]
    return fixed[np.argmin(np.abs(fixed).sum(axis=1))]


def _with_operators(basis, operators):
    """`Conventional` of the lattice with the symmetry `operators`; None if its axes can't be found."""
    kind = _TYPES[len(operators)]
    # The nearest metric that the operations leave as it is.
    metric = basis @ basis.T
    symmetric = np.mean([op @ metric @ op.T for op in operators], axis=0)
    exact = np.linalg.cholesky(symmetric)
    axes_of = {n: _unique([_along(op) for op in operators if _order(op) == n]) for n in (2, 3, 4, 6)}
    axes = _AXES[kind](exact, axes_of)
    if axes is None:
        return None
    if np.linalg.det(axes) < 0:
        axes = -axes
    if kind == "rhombohedral":
        axes = _obverse(axes)
    centering = _centering(axes)
    if centering is None:
        return None
    lattice, unique = ("hexagonal", "c") if kind in ("hexagonal", "rhombohedral") else (kind, _UNIQUE.get(kind, "*"))
    parameters = parameters_of(np.linalg.inv(axes @ exact))
    measured = parameters_of(np.linalg.inv(axes @ basis))
    deviation = (
        float(np.abs(measured[:3] / parameters[:3] - 1.0).max()),
        float(np.abs(measured[3:] - parameters[3:]).max()),
    )
    # Without the last bits' noise: 90 and 120 degrees are meant.
    cell = Cell(
        *(float(x) for x in np.round(parameters, 9)), lattice_type=lattice, centering=centering, unique_axis=unique
    )
    return Conventional(cell=cell, axes=axes, deviation=deviation)


_UNIQUE = {"monoclinic": "b", "tetragonal": "c", "hexagonal": "c"}


def _unique(vectors):
    """Vectors that differ from each other and from each other's negative."""
    found = []
    for v in vectors:
        if not any(np.array_equal(v, w) or np.array_equal(v, -w) for w in found):
            found.append(v)
    return found


def _length(vector, exact):
    return float(np.linalg.norm(vector @ exact))


def _triclinic(exact, axes_of):
    """The reduced cell with all angles acute or all obtuse."""
    reduced = reduce_basis(exact)
    axes = np.rint(reduced @ np.linalg.inv(exact)).astype(int)
    best = None
    for signs in itertools.product((1, -1), repeat=3):
        candidate = axes * np.array(signs)[:, None]
        metric = candidate @ exact @ exact.T @ candidate.T
        off = np.array([metric[1, 2], metric[0, 2], metric[0, 1]])
        if np.linalg.det(candidate) > 0 and (np.all(off > 0) or np.all(off <= 1e-9 * np.abs(metric).max())):
            best = candidate
    return axes if best is None else best


def _monoclinic(exact, axes_of):
    """b along the two-fold axis, a and c the shortest across it, beta not acute; C centred, or I where that gives the smaller beta."""
    b = axes_of[2][0]
    metric = exact @ exact.T
    plane = [v for v in _ROWS[np.abs(_ROWS @ metric @ b) < 1e-6 * np.abs(metric).max()] if np.gcd.reduce(v) == 1]
    plane = sorted(plane, key=lambda v: _length(v, exact))[:16]
    best = None
    for a, c in itertools.permutations(plane, 2):
        cosine = (a @ metric @ c) / (_length(a, exact) * _length(c, exact))
        axes = np.array([a, b if np.linalg.det(np.array([a, b, c])) > 0 else -b, c])
        centering = _centering(axes) if 1e-12 >= cosine > -0.8 else None
        if centering not in ("P", "C", "I"):
            continue
        # Of two primitive settings the one with a < c, of C and I the C one unless its beta is above 120 degrees.
        unusual = 1.0 if centering == "I" else 0.0 if cosine > -0.5 else 2.0
        key = (unusual, round(_length(a, exact) + _length(c, exact), 6), _length(a, exact) > _length(c, exact))
        if best is None or key < best[0]:
            best = key, axes
    return None if best is None else best[1]


def _orthorhombic(exact, axes_of):
    if len(axes_of[2]) != 3:
        return None
    axes = np.array(sorted(axes_of[2], key=lambda v: _length(v, exact)))
    if _centering(axes) in ("A", "B"):
        axes = axes[{"A": [1, 2, 0], "B": [0, 2, 1]}[_centering(axes)]]
    return axes


def _tetragonal(exact, axes_of):
    if len(axes_of[4]) != 1:
        return None
    return _about(axes_of[4][0], axes_of[2], exact, 90.0)


def _hexagonal(exact, axes_of):
    main = axes_of[6] or axes_of[3]
    return _about(main[0], axes_of[2], exact, 120.0) if len(main) == 1 else None


def _cubic(exact, axes_of):
    return np.array(axes_of[4]) if len(axes_of[4]) == 3 else None


def _about(main, two_fold, exact, angle):
    """Main axis, and the two shortest two-fold axes across it that make `angle` degrees."""
    metric = exact @ exact.T
    across = [v for v in two_fold if abs(v @ metric @ main) < 1e-6 * _length(v, exact) * _length(main, exact)]
    across = sorted(across, key=lambda v: _length(v, exact))
    for a, b in itertools.permutations([*across, *(-v for v in across)], 2):
        lengths = np.array([_length(across[0], exact), _length(a, exact), _length(b, exact)])
        cosine = (a @ metric @ b) / (lengths[1] * lengths[2])
        if np.ptp(lengths) < 1e-6 and abs(cosine - np.cos(np.radians(angle))) < 1e-6:
            return np.array([a, b, main])
    return None


_AXES = {
    "triclinic": _triclinic,
    "monoclinic": _monoclinic,
    "orthorhombic": _orthorhombic,
    "tetragonal": _tetragonal,
    "rhombohedral": _hexagonal,
    "hexagonal": _hexagonal,
    "cubic": _cubic,
}


def _centering(axes):
    """Centring symbol of the lattice of all integer rows with respect to the `axes`; None for none that has one."""
    for symbol, primitive in PRIMITIVE.items():
        if symbol == "R":
            continue
        rows = primitive @ axes
        if np.allclose(rows, np.rint(rows), atol=1e-9) and abs(abs(np.linalg.det(rows)) - 1.0) < 1e-9:
            return symbol
    return None


def _obverse(axes):
    """Hexagonal axes of a rhombohedral lattice in the obverse setting."""
    return axes if _centering(axes) is not None else np.array([-axes[0], -axes[1], axes[2]])

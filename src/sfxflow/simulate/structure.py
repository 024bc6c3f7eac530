"""Structure factors of a made-up protein: random atoms in a unit cell, summed by gemmi.

The intensity statistics of random atoms are those of a real acentric crystal (Wilson), which is what scaling and merging see.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
from scipy.spatial import cKDTree

#: Atoms of a thousand, hydrogen left out, about as in an average protein.
_COMPOSITION = {"C": 632, "N": 173, "O": 185, "S": 10}
_CUBIC_ANGSTROM_PER_ATOM = 32.0
_SHORTEST_DISTANCE = 1.4


@dataclass(frozen=True)
class StructureFactors:
    """Squared structure factors, once merged and once for the whole sphere.

    Attributes
    ----------
    unique : ndarray of int32, shape (m, 3)
        One of each set of reflections that the Laue group makes equivalent; without systematic absences.
    unique_intensity : ndarray of float64, shape (m,)
        F squared, electrons squared.
    hkl : ndarray of int32, shape (n, 3)
        All reflections, Friedel mates too.
    intensity : ndarray of float64, shape (n,)
    """

    unique: np.ndarray
    unique_intensity: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray


def random_structure(cell, space_group, rng, b_factor=20.0, n_atoms=None):
    """A crystal of random atoms, no two closer than 1.4 angstrom, symmetry mates included.

    Parameters
    ----------
    cell : sequence of 6 floats
        Angstrom and degree.
    space_group : gemmi.SpaceGroup
    rng : numpy.random.Generator
    b_factor : float
        Mean of the atoms' B, square angstrom (gamma distribution).
    n_atoms : int, optional
        Atoms in the asymmetric unit; by default as many as a protein with half its volume solvent has, at most 3000.

    Returns
    -------
    gemmi.Structure
    """
    unit_cell = gemmi.UnitCell(*cell)
    operations = space_group.operations()
    if n_atoms is None:
        per_asymmetric_unit = unit_cell.volume / len(operations)
        n_atoms = int(np.clip(per_asymmetric_unit / _CUBIC_ANGSTROM_PER_ATOM, 20, 3000))
    positions = _apart(unit_cell, operations, rng.random((3 * n_atoms, 3)))[:n_atoms]
    elements = rng.choice(list(_COMPOSITION), size=n_atoms, p=np.array(list(_COMPOSITION.values())) / 1000.0)
    temperature_factors = np.clip(rng.gamma(9.0, b_factor / 9.0, n_atoms), 0.3 * b_factor, 3.0 * b_factor)

    residue = gemmi.Residue()
    residue.name = "UNL"
    for number, (position, element, b) in enumerate(zip(positions, elements, temperature_factors, strict=False)):
        atom = gemmi.Atom()
        atom.name = f"X{number}"
        atom.element = gemmi.Element(str(element))
        atom.pos = unit_cell.orthogonalize(gemmi.Fractional(*position))
        atom.b_iso = float(b)
        residue.add_atom(atom)
    chain = gemmi.Chain("A")
    chain.add_residue(residue)
    model = gemmi.Model(1)
    model.add_chain(chain)
    structure = gemmi.Structure()
    structure.cell = unit_cell
    structure.spacegroup_hm = space_group.xhm()
    structure.add_model(model)
    structure.setup_cell_images()
    return structure


def _apart(unit_cell, operations, fractional):
    """The candidates that are not too close to an earlier one, nor to a symmetry mate of their own."""
    to_cartesian = np.array(unit_cell.orth.mat.tolist())
    n = len(fractional)
    mates, owner = [], []
    for op in operations:
        rotated = fractional @ (np.array(op.rot) / op.DEN).T + np.array(op.tran) / op.DEN
        mates.append(rotated - np.floor(rotated))
        owner.append(np.arange(n))
    mates, owner = np.concatenate(mates), np.concatenate(owner)
    # Mates just outside the cell on any side matter to candidates near its faces.
    shifts = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    margin = 2.0 * _SHORTEST_DISTANCE * np.linalg.norm(np.array(unit_cell.frac.mat.tolist()), axis=1)
    shifted = (mates[None] + shifts[:, None]).reshape(-1, 3)
    near = np.all((shifted > -margin) & (shifted < 1.0 + margin), axis=1)
    shifted, owner = shifted[near], np.tile(owner, len(shifts))[near]
    tree = cKDTree(shifted @ to_cartesian.T)
    rejected = np.zeros(n, dtype=bool)
    for i, close in enumerate(tree.query_ball_point(fractional @ to_cartesian.T, _SHORTEST_DISTANCE)):
        others = owner[close]
        # Each candidate finds itself once (the identity); a second time is a mate of its own.
        rejected[i] = np.count_nonzero(others == i) > 1 or np.any(others[~rejected[others]] < i)
    return fractional[~rejected]


def structure_factors(structure, space_group, d_min):
    """Squared structure factors of `structure` up to `d_min`, through an electron density map.

    Parameters
    ----------
    structure : gemmi.Structure
    space_group : gemmi.SpaceGroup
    d_min : float
        Angstrom.

    Returns
    -------
    StructureFactors
    """
    density = gemmi.DensityCalculatorX()
    density.d_min = d_min
    density.rate = 1.5
    density.set_refmac_compatible_blur(structure[0])
    density.set_grid_cell_and_spacegroup(structure)
    density.put_model_density_on_grid(structure[0])
    transformed = gemmi.transform_map_to_f_phi(density.grid, half_l=True)
    asymmetric_unit = transformed.prepare_asu_data(dmin=d_min, unblur=density.blur)
    unique = np.array(asymmetric_unit.miller_array, dtype=np.int32)
    intensity = np.abs(np.array(asymmetric_unit.value_array)).astype(np.float64) ** 2
    operations = space_group.operations()
    present = ~np.array([operations.is_systematically_absent([int(i) for i in hkl]) for hkl in unique], dtype=bool)
    present &= np.any(unique != 0, axis=1)
    unique, intensity = unique[present], intensity[present]
    hkl, owner = _whole_sphere(unique, operations)
    return StructureFactors(unique, intensity, hkl, intensity[owner])


def _whole_sphere(unique, operations):
    """All reflections equivalent to `unique`, each once, and the row of `unique` that each comes from."""
    copies = []
    for op in operations.sym_ops:
        equivalent = unique @ (np.array(op.rot) // op.DEN)
        copies += [equivalent, -equivalent]
    copies = np.concatenate(copies)
    owner = np.tile(np.arange(len(unique)), 2 * len(operations.sym_ops))
    # One whole number a reflection sorts faster than three: indices of any cell here stay far below 1024.
    key = ((copies[:, 0] + 1024).astype(np.int64) * 2048 + copies[:, 1] + 1024) * 2048 + copies[:, 2] + 1024
    _, first = np.unique(key, return_index=True)
    return copies[first].astype(np.int32), owner[first]

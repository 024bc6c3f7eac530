"""Structure factors of a made-up protein: random atoms in a unit cell, summed by gemmi.

The intensity statistics of random atoms are those of a real acentric crystal (Wilson), which is what scaling and merging see.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
from scipy.spatial import cKDTree

from sfxflow.errors import InputError

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
    plus, minus : ndarray of float64, shape (m,)
        F squared of `unique` and of its Friedel mate, electrons squared; the same without anomalous scattering.
    hkl : ndarray of int32, shape (n, 3)
        All reflections, Friedel mates too.
    intensity : ndarray of float64, shape (n,)
    """

    unique: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray

    @property
    def unique_intensity(self):
        """Mean F squared of `unique` and its Friedel mate, ndarray of float64, shape (m,)."""
        return 0.5 * (self.plus + self.minus)


def random_structure(cell, space_group, rng, b_factor=20.0, n_atoms=None, heavy_element="Se", heavy_atoms=0):
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
    heavy_element : str
    heavy_atoms : int
        So many of the atoms are of `heavy_element`.

    Returns
    -------
    gemmi.Structure

    Raises
    ------
    InputError
        More heavy atoms than atoms.
    """
    unit_cell = gemmi.UnitCell(*cell)
    operations = space_group.operations()
    if n_atoms is None:
        per_asymmetric_unit = unit_cell.volume / len(operations)
        n_atoms = int(np.clip(per_asymmetric_unit / _CUBIC_ANGSTROM_PER_ATOM, 20, 3000))
    positions = _apart(unit_cell, operations, rng.random((3 * n_atoms, 3)))[:n_atoms]
    elements = rng.choice(list(_COMPOSITION), size=n_atoms, p=np.array(list(_COMPOSITION.values())) / 1000.0)
    if heavy_atoms > len(positions):
        raise InputError(f"heavy_atoms: {heavy_atoms} are more than the {len(positions)} atoms of the asymmetric unit")
    elements = [heavy_element] * heavy_atoms + list(elements[heavy_atoms:])
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


def displaced(structure, fraction, distance, rng):
    """The structure with some of its atoms moved.

    Parameters
    ----------
    structure : gemmi.Structure
    fraction : float
        Part of the atoms that move.
    distance : float
        Root mean square distance that they move, angstrom; normal in each direction.
    rng : numpy.random.Generator

    Returns
    -------
    gemmi.Structure
        A new one.
    """
    moved = structure.clone()
    atoms = list(moved[0][0][0])
    chosen = rng.choice(len(atoms), max(1, round(fraction * len(atoms))), replace=False)
    shifts = distance / np.sqrt(3.0) * rng.standard_normal((len(chosen), 3))
    for number, shift in zip(chosen, shifts, strict=True):
        atoms[number].pos += gemmi.Position(*shift)
    moved.setup_cell_images()
    return moved


def structure_factors(structure, space_group, d_min, heavy_element="Se", f_double_prime=0.0):
    """Squared structure factors of `structure` up to `d_min`, through an electron density map.

    Parameters
    ----------
    structure : gemmi.Structure
    space_group : gemmi.SpaceGroup
    d_min : float
        Angstrom.
    heavy_element : str
        The element that scatters anomalously.
    f_double_prime : float
        Its f'', electrons; 0: Friedel mates are equal.

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
    amplitude = np.array(asymmetric_unit.value_array)
    operations = space_group.operations()
    present = ~np.array([operations.is_systematically_absent([int(i) for i in hkl]) for hkl in unique], dtype=bool)
    present &= np.any(unique != 0, axis=1)
    unique, amplitude = unique[present], amplitude[present]
    plus = minus = np.abs(amplitude).astype(np.float64) ** 2
    if f_double_prime:
        # F(-h) is the conjugate of F(h) with f'' of the other sign.
        imaginary = 1j * f_double_prime * _unit_scatterers(structure, operations, heavy_element, unique)
        plus, minus = np.abs(amplitude + imaginary) ** 2, np.abs(amplitude - imaginary) ** 2
    hkl, owner, is_mate = _whole_sphere(unique, operations)
    return StructureFactors(unique, plus, minus, hkl, np.where(is_mate, minus[owner], plus[owner]))


def _unit_scatterers(structure, operations, element, hkl):
    """Structure factors of the cell's atoms of `element`, each scattering like one electron at rest at its place, with its B."""
    cell = structure.cell
    atoms = [atom for atom in structure[0][0][0] if atom.element.name == element]
    fractional = np.array([cell.fractionalize(atom.pos).tolist() for atom in atoms]).reshape(-1, 3)
    b_factors = np.array([atom.b_iso for atom in atoms])
    s_squared = np.array([cell.calculate_1_d2(row.tolist()) for row in hkl]) / 4.0
    falling = np.exp(-s_squared[:, None] * b_factors)
    total = np.zeros(len(hkl), dtype=np.complex128)
    for op in operations:
        images = fractional @ (np.array(op.rot) / op.DEN).T + np.array(op.tran) / op.DEN
        total += np.sum(falling * np.exp(2j * np.pi * (hkl @ images.T)), axis=1)
    return total


def _whole_sphere(unique, operations):
    """All reflections equivalent to `unique`, each once, the row of `unique` that each comes from, and whether as its Friedel mate."""
    copies = []
    for op in operations.sym_ops:
        equivalent = unique @ (np.array(op.rot) // op.DEN)
        copies += [equivalent, -equivalent]
    copies = np.concatenate(copies)
    owner = np.tile(np.arange(len(unique)), 2 * len(operations.sym_ops))
    is_mate = np.tile(np.repeat([False, True], len(unique)), len(operations.sym_ops))
    # One whole number a reflection sorts faster than three: indices of any cell here stay far below 1024.
    key = ((copies[:, 0] + 1024).astype(np.int64) * 2048 + copies[:, 1] + 1024) * 2048 + copies[:, 2] + 1024
    _, first = np.unique(key, return_index=True)
    return copies[first].astype(np.int32), owner[first], is_mate[first]

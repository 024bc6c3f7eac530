"""The crystal forms of a dataset: cells on which frames agree, and which then index the frames that they came from.

The densest cluster of the cells of single frames gives a conventional cell; all frames are indexed with it as any run is, with the tests
against sub-lattices and super-lattices. A cell that indexes most of its own cluster is a crystal form. Its frames are put aside, and
the rest is looked through for another form.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from sfxflow.cell import Cell, real_matrix
from sfxflow.indexing.cell_clusters import basis_parameters, densest_cluster
from sfxflow.indexing.conventional import possible_cells
from sfxflow.indexing.frame import index_frame
from sfxflow.indexing.lattice import PRIMITIVE, reduce_basis
from sfxflow.indexing.refine import refine_lattice

#: Symmetry that a lattice has within this is taken for a start: metric, relative, which is 0.8 % in length or an angle of 90.46 degrees.
FIRST_TOLERANCE = 0.016
#: What a symmetry allows no strain in: components of the strain tensor (along x = a; z = c, or b* in the plane of a and b: y) that its
#: rotations turn into each other. Differences of diagonal components count where several of them are named.
_CONSTRAINTS = {
    "triclinic": (),
    "monoclinic": (("xy",), ("yz",)),
    "orthorhombic": (("xy",), ("yz",), ("xz",)),
    "tetragonal": (("xx", "yy"), ("xy",), ("xz", "yz")),
    "hexagonal": (("xx", "yy", "xy"), ("xz", "yz")),
    "cubic": (("xx", "yy", "zz"), ("xy", "xz", "yz")),
}
#: Errors scatter about a symmetry that holds: the median of their size is 1.1, 1.8 or 2.3 times 1.48 median absolute deviations of it
#: (half-normal, Rayleigh and Maxwell distributions), as there are one, two or three ways to miss it. Where it is more, all frames miss it
#: alike.
_BROKEN_RATIO = {1: 2.0, 2: 2.7, 3: 3.4}
_WHOLE_RATIO = {1: 1.1, 2: 1.8, 3: 2.3}
#: Of n frames the ratio is uncertain by about 2 / sqrt(n) of itself: where a symmetry holds, it is hardly ever 7 / sqrt(n) of itself higher.
_RATIO_SPREAD = 7.0
#: ... and by more than this (relative length, or radian: 0.11 degrees), which errors of the geometry may do.
_BROKEN_SIZE = 0.002
#: With fewer frames nothing is said about a small deviation from symmetry.
LEAST_FRAMES_FOR_SYMMETRY = 12
#: Lattice vectors among which conventional axes are looked for, and how many of the right length are tried for each.
_ROWS = np.array([row for row in itertools.product(range(-2, 3), repeat=3) if any(row)])
_NEAR_AXES = 16
#: Clusters that are tried before the search for more forms is given up.
_MOST_CLUSTERS = 8


@dataclass(frozen=True)
class Checked:
    """A frame that was indexed with a cell, or not.

    Attributes
    ----------
    reason : str
        Why it was not indexed; empty if it was.
    basis : ndarray, shape (3, 3), or None
        Rows of the reduced primitive cell, refined without any symmetry, angstrom.
    """

    reason: str
    basis: np.ndarray | None


@dataclass(frozen=True)
class Form:
    """A crystal form, or a cluster that is none.

    Attributes
    ----------
    cell : sfxflow.cell.Cell
        Conventional cell.
    members : ndarray of int, shape (n,)
        Frames whose own cells agree.
    indexed : ndarray of int, shape (m,)
        Frames that this cell indexes, of those that no form before had.
    member_share : float
        Share of `members` that it indexes.
    reasons : dict
        Why other members are not indexed, with their numbers.
    accepted : bool
    parameters : ndarray, shape (m, 6)
        Conventional cells of the indexed frames, each refined without symmetry, angstrom and degree.
    pseudo : float or None
        Where the lattice nearly has higher symmetry: by how much (relative length, or radian) it misses it.
    basis : ndarray, shape (3, 3), or None
        Rows of the reduced primitive cell, of accepted forms.
    """

    cell: Cell
    members: np.ndarray
    indexed: np.ndarray
    member_share: float
    reasons: dict
    accepted: bool
    parameters: np.ndarray = field(default_factory=lambda: np.empty((0, 6)))
    pseudo: float | None = None
    basis: np.ndarray | None = None


def check_frame(peaks, target, to_panel, wavelength, pixel_size, settings):
    """Index a frame with a cell, and refine the lattice that is accepted without symmetry.

    Parameters
    ----------
    peaks, target, to_panel, wavelength, pixel_size, settings
        As in `sfxflow.indexing.frame.index_frame`.

    Returns
    -------
    Checked
    """
    accepted, reason = index_frame(peaks, target, to_panel, wavelength, pixel_size, settings)
    if not accepted:
        return Checked(reason or "too few peaks", None)
    refined = accepted[0].refined
    free = replace(target.cell, lattice_type="triclinic", unique_axis="*")
    refined = refine_lattice(
        refined.reciprocal,
        free,
        peaks,
        to_panel,
        wavelength,
        start_sigma=refined.profile_sigma,
        pixel_size=pixel_size,
    )
    if not np.all(np.isfinite(refined.reciprocal)):
        return Checked("refinement failed", None)
    return Checked("", reduce_basis(PRIMITIVE[target.cell.centering] @ np.linalg.inv(refined.reciprocal)))


def find_forms(bases, index, *, min_frames, min_share):
    """The crystal forms among the frames of a dataset.

    Parameters
    ----------
    bases : sequence of ndarray, shape (3, 3), or None
        Reduced cell of each frame, None where none was found.
    index : callable
        index(cell, frames) gives a list of `Checked`, one for each of `frames` (positions in `bases`).
    min_frames : int
        Fewest frames that must agree on a cell.
    min_share : float
        Share of them that the cell must index.

    Returns
    -------
    list of Form
        Accepted ones first, those with more indexed frames before those with fewer.
    """
    forms = []
    to_cluster = np.array([i for i, basis in enumerate(bases) if basis is not None], dtype=int)
    to_index = np.arange(len(bases))
    for _ in range(_MOST_CLUSTERS):
        cluster = densest_cluster(np.array([bases[i] for i in to_cluster]))
        if len(cluster.members) < min_frames:
            break
        members = to_cluster[cluster.members]
        form = _tested(cluster.basis, members, to_index, index, min_share)
        forms.append(form)
        used = np.union1d(members, form.indexed) if form.accepted else members
        to_cluster = np.setdiff1d(to_cluster, used)
        if form.accepted:
            to_index = np.setdiff1d(to_index, form.indexed)
    # What remains of the frames of a form, with a multiple of its cell for instance, is not a form of its own.
    forms = [form for form in forms if not form.accepted or len(form.indexed) >= min_frames]
    return sorted(forms, key=lambda form: (not form.accepted, -len(form.indexed)))


def _tested(basis, members, frames, index, min_share):
    """The form that the cell in the middle of a cluster gives."""
    cell = next(possible_cells(basis, FIRST_TOLERANCE)).cell
    indexed, share, reasons, found = _indexed(cell, members, frames, index)
    accepted = share >= min_share
    if not accepted or not len(found):
        return Form(cell, members, indexed, share, reasons, False)
    cluster = densest_cluster(found)
    symmetry, pseudo = _symmetry(cluster)
    if symmetry.cell.lattice_type != cell.lattice_type or symmetry.cell.centering != cell.centering:
        indexed, share, reasons, found = _indexed(symmetry.cell, members, frames, index)
        accepted = share >= min_share
        cluster = densest_cluster(found) if len(found) else cluster
    axes = _axes_of(symmetry.cell, cluster.basis)
    own = np.array([basis_parameters(axes @ setting) for setting in cluster.bases])
    return Form(symmetry.cell, members, indexed, share, reasons, accepted, own, pseudo, cluster.basis)


def _axes_of(cell, basis):
    """Rows a, b, c of a conventional cell in terms of a reduced basis of its lattice: those whose lengths and angles are nearest to the cell's."""
    metric = real_matrix(cell.parameters) @ real_matrix(cell.parameters).T
    size = np.sqrt(np.diag(metric))
    vectors = _ROWS @ basis
    off = np.abs(np.linalg.norm(vectors, axis=1)[:, None] / size - 1.0)
    near = [_ROWS[np.argsort(off[:, axis])[:_NEAR_AXES]] for axis in range(3)]
    triples = np.array([rows for rows in itertools.product(*near) if np.linalg.det(rows) > 0.5])
    settings = triples @ basis
    misfit = (settings @ np.swapaxes(settings, 1, 2) - metric) / np.outer(size, size)
    return triples[np.argmin(np.abs(misfit).max(axis=(1, 2)))]


def _indexed(cell, members, frames, index):
    checked = index(cell, frames)
    indexed = np.array([i for i, result in zip(frames, checked, strict=True) if result.basis is not None], dtype=int)
    reasons = Counter(r.reason for i, r in zip(frames, checked, strict=True) if r.basis is None and i in members)
    found = np.array([result.basis for result in checked if result.basis is not None]).reshape(-1, 3, 3)
    return indexed, float(np.isin(members, indexed).mean()), dict(reasons), found


def _symmetry(cluster):
    """The highest symmetry that the frames' cells do not contradict, and by how much a higher one is missed.

    Where a symmetry holds only nearly, all frames miss it by about as much, though an operation of it may have turned a beta of 90.3
    into one of 89.7 degrees; where it holds, they scatter about it. The sizes of the deviations tell, whatever the operation.
    """
    missed = None
    for candidate in possible_cells(cluster.basis, FIRST_TOLERANCE):
        strains = np.array([_strain(candidate.axes @ basis, candidate.cell) for basis in cluster.bases])
        sizes = [_common_size(strains, components) for components in _CONSTRAINTS[candidate.cell.lattice_type]]
        if not any(sizes) or len(strains) < LEAST_FRAMES_FOR_SYMMETRY:
            return candidate, missed
        missed = max(sizes) if missed is None else missed
    raise AssertionError("a triclinic lattice has no symmetry to miss")


def _strain(setting, cell):
    """Strain tensor, shape (3, 3), that makes the cell `setting` (rows) out of a conventional one."""
    inverse = np.linalg.inv(real_matrix(cell.parameters))
    return 0.5 * (inverse @ (setting @ setting.T) @ inverse.T - np.eye(3))


def _common_size(strains, components):
    """By how much (relative length, or radian) all frames are strained in these components; 0 if they only scatter about none."""
    values = np.stack([strains[:, "xyz".index(name[0]), "xyz".index(name[1])] for name in components], axis=1)
    along = np.array([name[0] == name[1] for name in components])
    if along.any():
        values[:, along] -= values[:, along].mean(axis=1, keepdims=True)
    # A shear stands twice in the tensor, and is half of the change of the angle.
    sizes = np.sqrt((np.where(along, 2.0, 4.0) * values**2).sum(axis=1))
    middle = float(np.median(sizes))
    spread = 1.48 * float(np.median(np.abs(sizes - middle)))
    ways = len(components) - bool(along.any())
    ratio = max(_BROKEN_RATIO[ways], _WHOLE_RATIO[ways] * (1.0 + _RATIO_SPREAD / np.sqrt(len(sizes))))
    return middle if middle > max(_BROKEN_SIZE, ratio * spread) else 0.0

"""Indexing of one frame: lattice after lattice, each refined, tested and taken out of the peaks before the next is looked for."""

from dataclasses import dataclass

import numpy as np

from sfxflow.cell import parameters_of
from sfxflow.geometry import lab_positions, scattering_vectors
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.indexing.lattice import Lattice, prepare_lattice, sublattice_tests
from sfxflow.indexing.refine import RefinedLattice, refine_lattice, sigma_of_q
from sfxflow.indexing.search import log10_binomial_tail, nearest_rotation

#: More peaks than this make the search slower, not better: only the strongest take part in it. All take part in the refinement.
MOST_PEAKS = 400
#: Two lattices whose orientations differ by less (degree, up to the lattice's symmetry) are one split crystal.
SPLIT_ANGLE = 5.0
#: Share of a lattice's peaks that must lie off each of its sub-lattices. A true primitive lattice has 1/2 and 2/3 of them off those of
#: index 2 and 3, a supercell of the true one only what chance peaks give it, some per cent (docs/indexing.md).
OFF_SUBLATTICE = 0.08
#: Spread of refined cells about the target (relative, and degree) when it is decided which of two nearly symmetrical lattices a crystal
#: has: crystals vary by 0.1 to 0.2 %, single lattices are known to 0.2 to 0.5 %.
VARIANT_LENGTH = 0.003
VARIANT_ANGLE = 0.2
#: Peaks within so many widths of a prediction belong to the lattice.
REMOVED_SIGMAS = 4.0
#: ... and all those this near in index space.
REMOVED_INDEX = 0.25
#: log10 of the likelihood ratio (true pairs among chance ones, against chance alone) that a refined lattice must reach, in all and for
#: each of its peaks. Simulated right lattices have 2.4 or more a peak, wide mosaicity and many false peaks included; wrong cells, whose
#: fits are broad, 1.0 or less in 95 % (docs/indexing.md).
LEAST_RATIO = 15.0
LEAST_RATIO_PER_PEAK = 1.2
#: log10 of the chance at which peaks between the lattice points are no accident: the cell is a part of a larger one.
SUPERLATTICE_LOG10_P = -4.0
SUPERLATTICE_TOLERANCE = 0.1
#: ... and they are at least this many for each peak of the lattice: a true larger cell has one (index 2) or two (index 3).
SUPERLATTICE_SHARE = 0.25

_FORMS, _MODULI = sublattice_tests()


@dataclass(frozen=True)
class Target:
    """The cell that frames are indexed with.

    Attributes
    ----------
    cell : sfxflow.cell.Cell
    lattice : Lattice
    """

    cell: object
    lattice: Lattice


@dataclass(frozen=True)
class FramePeaks:
    """The peaks of one frame in the forms that indexing and refinement need.

    Attributes
    ----------
    panel : ndarray of int, shape (n,)
    position : ndarray, shape (n, 2)
        Along fs and ss from the panel's corner, pixel.
    q : ndarray, shape (n, 3)
        Scattering vectors, 1/angstrom.
    intensity : ndarray, shape (n,)
    distance : float
        Mean distance from the sample, metre.
    """

    panel: np.ndarray
    position: np.ndarray
    q: np.ndarray
    intensity: np.ndarray
    distance: float

    def __len__(self):
        return len(self.panel)

    def subset(self, chosen):
        """The peaks that `chosen` (bool, shape (n,)) selects."""
        return FramePeaks(
            self.panel[chosen], self.position[chosen], self.q[chosen], self.intensity[chosen], self.distance
        )


@dataclass(frozen=True)
class IndexedLattice:
    """A lattice that was accepted.

    Attributes
    ----------
    refined : RefinedLattice
    log10_p : float
        Significance.
    members : ndarray of bool, shape (n,)
        Peaks of the frame that belong to it.
    """

    refined: RefinedLattice
    log10_p: float
    members: np.ndarray


def prepare_target(cell):
    """The `Target` of a `sfxflow.cell.Cell`."""
    return Target(cell=cell, lattice=prepare_lattice(cell.parameters, cell.centering))


def frame_peaks(arrays, panel, fs, ss, intensity, wavelength, clen):
    """Peaks of a frame as `FramePeaks`.

    Parameters
    ----------
    arrays : sfxflow.geometry.PanelArrays
    panel : ndarray of int, shape (n,)
    fs, ss : ndarray, shape (n,)
        Slab coordinates, pixel, corner-based.
    intensity : ndarray, shape (n,)
    wavelength : float
        Angstrom.
    clen : float
        Metre.
    """
    xyz = lab_positions(arrays, panel, fs, ss, clen)
    bounds = arrays.bounds[panel]
    return FramePeaks(
        panel=panel.astype(np.int64),
        position=np.stack([fs - bounds[:, 2], ss - bounds[:, 0]], axis=1).astype(np.float64),
        q=scattering_vectors(xyz, wavelength),
        intensity=np.asarray(intensity, dtype=np.float64),
        distance=float(np.linalg.norm(xyz, axis=1).mean()) if len(xyz) else 1.0,
    )


def panel_inverses(arrays, clen):
    """Inverse of (fs, ss, origin) of each panel, 1/metre, shape (p, 3, 3): maps a ray to (fs, ss, 1) / t on the panel's plane."""
    origin = arrays.origin + np.array([0.0, 0.0, clen])
    return np.linalg.inv(np.stack([arrays.fs, arrays.ss, origin], axis=2))


def index_frame(peaks, target, to_panel, wavelength, pixel_size, settings, profile=None):
    """Index one frame with a known cell.

    Parameters
    ----------
    peaks : FramePeaks
    target : Target
    to_panel : ndarray, shape (p, 3, 3)
        `panel_inverses`.
    wavelength, pixel_size : float
        Angstrom, metre.
    settings : sfxflow.settings.Indexing
    profile : sfxflow.indexing.refine.Profile, optional

    Returns
    -------
    accepted : list of IndexedLattice
    reason : str
        Why the last lattice that was looked at was refused; empty where nothing was left to look for.
    """
    accepted, reason = [], ""
    left = np.ones(len(peaks), dtype=bool)
    while len(accepted) < settings.max_lattices:
        candidates = np.flatnonzero(left)
        if len(candidates) < settings.min_peaks:
            break
        if len(candidates) > MOST_PEAKS:
            candidates = candidates[np.argsort(-peaks.intensity[candidates], kind="stable")[:MOST_PEAKS]]
        weight = strength_weights(peaks.intensity[candidates])
        reduced, log10_p, tolerance = index_lattice(peaks.q[candidates], weight, target.lattice, settings.max_log10_p)
        if reduced is None or log10_p >= settings.max_log10_p:
            reason = "no significant lattice"
            break
        refined = refined_from_search(reduced, tolerance, peaks, target, to_panel, wavelength, pixel_size, profile)
        members = left & lattice_members(refined, peaks.q, target.lattice, wavelength, profile)
        reason = refusal(refined, members, peaks, target, settings)
        if reason:
            break
        if any(
            misorientation(refined.reciprocal, other.refined.reciprocal, target.lattice) < SPLIT_ANGLE
            for other in accepted
        ):
            reason = "split crystal"
            left &= ~members
            if members.sum() < settings.min_peaks:
                break
            continue
        accepted.append(IndexedLattice(refined=refined, log10_p=log10_p, members=members))
        left &= ~members
        reason = ""
    return accepted, reason


def strength_weights(intensity):
    """Weights from 0.75 to 1.25 by rank of the intensity: strong peaks are more often real."""
    rank = np.argsort(np.argsort(intensity, kind="stable"), kind="stable")
    return 0.75 + 0.5 * (rank + 0.5) / max(len(intensity), 1)


def refined_from_search(reduced, tolerance, peaks, target, to_panel, wavelength, pixel_size, profile=None):
    """Refine a reduced cell from the search; its first widths follow from the radius at which it stands out.

    Of a lattice that nearly has more symmetry the search can't tell the variants apart: each is refined, the most likely one is given.
    """
    size = abs(np.linalg.det(reduced)) ** (1.0 / 3.0)
    refined = [
        refine_lattice(
            conventional_reciprocal(reduced @ np.linalg.inv(variant), target.lattice),
            target.cell,
            peaks,
            to_panel,
            wavelength,
            start_sigma=0.5 * tolerance * size,
            pixel_size=pixel_size,
            profile=profile,
        )
        for variant in (np.eye(3), *target.lattice.variants)
    ]
    if len(refined) == 1:
        return refined[0]
    return max(refined, key=lambda variant: variant.log10_ratio + _log10_of_cell(variant.reciprocal, target.cell))


def _log10_of_cell(reciprocal, cell):
    """log10 of how likely a crystal's cell is, given the target, whatever the common scale of both (the camera length)."""
    found, expected = parameters_of(reciprocal), np.array(cell.parameters)
    stretch = found[:3] / expected[:3] - 1.0
    deviations = np.append((stretch - stretch.mean()) / VARIANT_LENGTH, (found[3:] - expected[3:]) / VARIANT_ANGLE)
    return -0.5 * np.log10(np.e) * (deviations**2).sum()


def conventional_reciprocal(reduced_reciprocal, lattice):
    """Columns a*, b*, c* of the conventional cell from those of the reduced one."""
    return np.linalg.inv(lattice.from_reduced @ np.linalg.inv(reduced_reciprocal))


def reduced_reciprocal(reciprocal, lattice):
    """Columns a*, b*, c* of the reduced cell from those of the conventional one."""
    return np.linalg.inv(np.linalg.inv(lattice.from_reduced) @ np.linalg.inv(reciprocal))


def index_deviations(reciprocal, q):
    """Largest deviation of the three indices of each peak from whole numbers."""
    indices = q @ np.linalg.inv(reciprocal).T
    return np.abs(indices - np.rint(indices)).max(axis=1)


def lattice_members(refined, q, lattice, wavelength, profile=None):
    """Peaks that belong to a lattice: near in index space, or within some widths in position and excitation error."""
    if profile is None:
        width = refined.profile_sigma
    else:
        lengths = np.linalg.norm(q, axis=1)
        width = refined.profile_sigma * sigma_of_q(
            lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength
        )
    near = refined.distance < REMOVED_SIGMAS * refined.position_sigma
    near &= np.abs(refined.excitation_error) < REMOVED_SIGMAS * width
    return near | (index_deviations(reduced_reciprocal(refined.reciprocal, lattice), q) < REMOVED_INDEX)


def refusal(refined, members, peaks, target, settings):
    """Why a refined lattice is not believed; empty if it is."""
    true_pairs = refined.inlier > 0.5
    if true_pairs.sum() < settings.min_peaks:
        return "too few peaks explained"
    if not np.all(np.isfinite(refined.reciprocal)):
        return "refinement failed"
    if refined.log10_ratio < max(LEAST_RATIO, LEAST_RATIO_PER_PEAK * true_pairs.sum()):
        return "poor fit"
    difference = cell_difference(unrestrained_cell(refined, peaks.q), target.cell.parameters)
    if difference[0] > settings.cell_tolerance or difference[1] > settings.angle_tolerance:
        return "cell differs"
    # Primitive indices: conventional ones of a centred cell would always lie on a sub-lattice.
    primitive = refined.hkl[true_pairs] @ np.rint(np.linalg.inv(target.lattice.from_reduced.T) * 6).astype(int) // 6
    on_sublattice = (primitive @ _FORMS.T) % _MODULI == 0
    if np.any(1.0 - on_sublattice.mean(axis=0) < OFF_SUBLATTICE):
        return "sub-lattice"
    if superlattice_log10_p(refined, members, peaks.q, target.lattice) < SUPERLATTICE_LOG10_P:
        return "super-lattice"
    return ""


def superlattice_log10_p(refined, members, q, lattice):
    """log10 of the chance that as many of the other peaks lie half or a third of the way between lattice points.

    If the true cell is a multiple of the target, the target explains a part of the peaks perfectly, and the others lie on the finer
    lattice. The smallest chance over the 7 lattices of index 2 and the 13 of index 3 is given, multiplied by their number.
    """
    others = q[~members]
    if len(others) < 3:
        return 0.0
    indices = others @ np.linalg.inv(reduced_reciprocal(refined.reciprocal, lattice)).T
    smallest = 0.0
    for form, modulus in zip(_FORMS, _MODULI, strict=True):
        near = np.zeros(len(others), dtype=bool)
        for multiple in range(1, modulus):
            away = indices - multiple * form / modulus
            near |= np.linalg.norm(away - np.rint(away), axis=1) < SUPERLATTICE_TOLERANCE
        if near.sum() < SUPERLATTICE_SHARE * members.sum():
            continue
        chance = (modulus - 1) * 4.0 / 3.0 * np.pi * SUPERLATTICE_TOLERANCE**3
        smallest = min(smallest, log10_binomial_tail(int(near.sum()), len(others), chance))
    return smallest + np.log10(len(_FORMS))


def unrestrained_cell(refined, q):
    """Cell (angstrom, degree) by linear least squares on the true pairs, without symmetry or restraint.

    A weak ridge keeps directions that the peaks do not determine where the refined lattice has them.
    """
    h = refined.hkl.astype(float)
    weighted = h * refined.inlier[:, None]
    ridge = 1e-3 * np.trace(weighted.T @ h) / 3.0
    left = weighted.T @ h + ridge * np.eye(3)
    right = q.T @ weighted + ridge * refined.reciprocal
    return parameters_of(right @ np.linalg.inv(left))


def cell_difference(first, second):
    """Largest relative difference of the lengths and largest difference of the angles (degree)."""
    first, second = np.asarray(first), np.asarray(second)
    return np.abs(first[:3] / second[:3] - 1.0).max(), np.abs(first[3:] - second[3:]).max()


def misorientation(first, second, lattice):
    """Smallest angle (degree) between two orientations of one lattice, over its symmetry."""
    to_reduced = lattice.from_reduced
    first = np.linalg.inv(to_reduced) @ np.linalg.inv(first)
    second = np.linalg.inv(to_reduced) @ np.linalg.inv(second)
    smallest = 180.0
    for operator in lattice.operators:
        rotation = nearest_rotation(np.ascontiguousarray(np.linalg.inv(operator @ first) @ second))
        cosine = np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0)
        smallest = min(smallest, float(np.degrees(np.arccos(cosine))))
    return smallest

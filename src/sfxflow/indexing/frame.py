"""Indexing of one frame: lattice after lattice, each refined, tested and taken out of the peaks before the next is looked for."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from sfxflow.cell import parameters_of
from sfxflow.geometry import lab_positions, scattering_vectors
from sfxflow.indexing.acceptance import Evidence, evidence_of, refusal
from sfxflow.indexing.known_cell import CASCADE, THOROUGH_CASCADE, index_lattice
from sfxflow.indexing.lattice import Lattice, conventional_reciprocal, prepare_lattice, reduced_reciprocal
from sfxflow.indexing.refine import RefinedLattice, refine_lattice, sigma_of_q
from sfxflow.indexing.search import nearest_rotation
from sfxflow.small_matrices import inverse3

#: More peaks than this make the search slower, not better: only the strongest take part in it. All take part in the refinement.
MOST_PEAKS = 400
#: log10 of the chance of a random fit that a lattice must be below where the run's own peaks say nothing of it.
DEFAULT_LOG10_P = -15.5
#: So many refused lattices are followed by a search for a more significant one.
MOST_REFUSED = 3
#: Two lattices whose orientations differ by less (degree, up to the lattice's symmetry) are one split crystal.
SPLIT_ANGLE = 5.0
#: Spread of refined cells about the target (relative, and degree) when it is decided which of two nearly symmetrical lattices a crystal
#: has: crystals vary by 0.1 to 0.2 %, single lattices are known to 0.2 to 0.5 %.
VARIANT_LENGTH = 0.003
VARIANT_ANGLE = 0.2
#: Peaks within so many widths of a prediction belong to the lattice.
REMOVED_SIGMAS = 4.0
#: ... and all those as near in index space as so many times what its true pairs are (root mean square), within these bounds: crystals of
#: wide mosaicity must not be found again, and the peaks of other lattices must stay.
REMOVED_SPREADS = 3.0
LEAST_REMOVED_INDEX, MOST_REMOVED_INDEX = 0.1, 0.25


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
    """A lattice that passed the tests of a lattice alone.

    Attributes
    ----------
    refined : RefinedLattice
    log10_p : float
        Significance.
    members : ndarray of bool, shape (n,)
        Peaks of the frame that belong to it.
    evidence : sfxflow.indexing.acceptance.Evidence
        For and against multiples and parts of the cell.
    """

    refined: RefinedLattice
    log10_p: float
    members: np.ndarray
    evidence: Evidence


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
    panel = panel.astype(np.int64)
    position, distance = _on_panels(
        arrays.bounds, panel, np.asarray(fs, dtype=np.float64), np.asarray(ss, dtype=np.float64), xyz
    )
    return FramePeaks(
        panel=panel,
        position=position,
        q=scattering_vectors(xyz, wavelength),
        intensity=np.asarray(intensity, dtype=np.float64),
        distance=distance,
    )


@njit(cache=True)
def _on_panels(bounds, panel, fs, ss, xyz):
    """Positions from the panels' corners, and the mean distance from the sample."""
    position, total = np.empty((panel.size, 2)), 0.0
    for i in range(panel.size):
        position[i, 0], position[i, 1] = fs[i] - bounds[panel[i], 2], ss[i] - bounds[panel[i], 0]
        total += np.sqrt(xyz[i, 0] ** 2 + xyz[i, 1] ** 2 + xyz[i, 2] ** 2)
    return position, total / panel.size if panel.size else 1.0


def panel_inverses(arrays, clen):
    """Inverse of (fs, ss, origin) of each panel, 1/metre, shape (p, 3, 3): maps a ray to (fs, ss, 1) / t on the panel's plane."""
    origin = arrays.origin + np.array([0.0, 0.0, clen])
    return np.linalg.inv(np.stack([arrays.fs, arrays.ss, origin], axis=2))


def index_frame(peaks, target, to_panel, wavelength, pixel_size, settings, profile=None):
    """Index one frame with a known cell, for itself.

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
    candidates, reason = index_candidates(peaks, target, to_panel, wavelength, pixel_size, settings, profile)
    for i, candidate in enumerate(candidates):
        if candidate.evidence.doubt:
            return candidates[:i], candidate.evidence.doubt
    return candidates, reason


def index_candidates(peaks, target, to_panel, wavelength, pixel_size, settings, profile=None):
    """As `index_frame`, but lattices that may belong to a multiple or a part of the cell are among the result: the run judges them
    (`sfxflow.indexing.acceptance.judge_run`)."""
    accepted, reason = [], ""
    left = np.ones(len(peaks), dtype=bool)
    cut = DEFAULT_LOG10_P if settings.max_log10_p is None else settings.max_log10_p
    below, n_refused = cut, 0
    while len(accepted) < settings.max_lattices and n_refused <= MOST_REFUSED:
        candidates = np.flatnonzero(left)
        if len(candidates) < settings.min_peaks:
            break
        candidates = candidates[searched_peaks(peaks.intensity[candidates])]
        weight = strength_weights(peaks.intensity[candidates])
        reduced, log10_p, tolerance = index_lattice(
            peaks.q[candidates], weight, target.lattice, below, cascade=CASCADE if accepted else THOROUGH_CASCADE
        )
        if reduced is None or log10_p >= below:
            reason = reason or "no significant lattice"
            break
        refined = refined_from_search(reduced, tolerance, peaks, target, to_panel, wavelength, pixel_size, profile)
        members = left & lattice_members(refined, peaks.q, target.lattice, wavelength, profile)
        reason = refusal(refined, peaks, target, settings, wavelength, pixel_size)
        if reason:
            # A chance fit must not hide a better lattice that the rest of the search would find.
            below, n_refused = log10_p, n_refused + 1
            continue
        below, n_refused = cut, 0
        left &= ~members
        if any(
            misorientation(refined.reciprocal, other.refined.reciprocal, target.lattice) < SPLIT_ANGLE
            for other in accepted
        ):
            reason = "split crystal"
            if members.sum() < settings.min_peaks:
                break
            continue
        evidence = evidence_of(refined, members, peaks.q, target.lattice)
        accepted.append(IndexedLattice(refined=refined, log10_p=log10_p, members=members, evidence=evidence))
    return accepted, reason


def searched_peaks(intensity):
    """Positions of the peaks that take part in the search: all, or the `MOST_PEAKS` strongest."""
    if len(intensity) <= MOST_PEAKS:
        return np.arange(len(intensity))
    return np.argsort(-intensity, kind="stable")[:MOST_PEAKS]


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
            conventional_reciprocal(reduced @ inverse3(variant), target.lattice),
            target.cell,
            peaks,
            to_panel,
            wavelength,
            start_sigma=0.5 * tolerance * size,
            pixel_size=pixel_size,
            profile=profile,
        )
        for variant in (np.eye(3), *target.lattice.variants.astype(float))
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


def index_deviations(reciprocal, q):
    """Largest deviation of the three indices of each peak from whole numbers."""
    indices = q @ inverse3(reciprocal).T
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
    deviations = index_deviations(reduced_reciprocal(refined.reciprocal, lattice), q)
    spread = np.sqrt((refined.inlier * deviations**2).sum() / max(refined.inlier.sum(), 1e-9))
    return near | (deviations < np.clip(REMOVED_SPREADS * spread, LEAST_REMOVED_INDEX, MOST_REMOVED_INDEX))


def misorientation(first, second, lattice):
    """Smallest angle (degree) between two orientations of one lattice, over its symmetry."""
    first = reduced_reciprocal(first, lattice)
    second = np.linalg.inv(reduced_reciprocal(second, lattice))
    smallest = 180.0
    for operator in lattice.operators:
        # The operators are a group: each stands here for its inverse.
        rotation = nearest_rotation(first @ operator @ second)
        cosine = np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0)
        smallest = min(smallest, float(np.degrees(np.arccos(cosine))))
    return smallest

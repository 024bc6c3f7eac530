"""The crystals of a dataset against one geometry: each refined, their normal equations and residual maps summed."""

from dataclasses import dataclass, replace

import numpy as np

from sfxflow.cell import parameters_of, reciprocal_matrix
from sfxflow.geometry_refinement.groups import panel_centres
from sfxflow.geometry_refinement.normal import add_crystal, panel_gradients, turn_gradients
from sfxflow.indexing.frame import frame_peaks, panel_inverses
from sfxflow.indexing.lattice import PRIMITIVE
from sfxflow.indexing.mixture import lattice_gradient
from sfxflow.indexing.refine import free_parameters, refine_lattice, sigma_of_q, variance_shares
from sfxflow.indexing.residuals import chance_density, pair_residuals, radial_directions, turn_to_radial
from sfxflow.indexing.search import nearest_rotation

#: Residual maps have so many bins along each side of a panel.
BINS = 4
#: Pairs that are more probable than this count as matched peaks.
MATCHED = 0.5


@dataclass(frozen=True)
class PeakList:
    """The peaks of a frame, wherever the panels are.

    Attributes
    ----------
    panel : ndarray of int, shape (n,)
    fs, ss, intensity : ndarray, shape (n,)
        Slab coordinates, pixel, corner-based.
    wavelength, clen : float
        Angstrom, metre.
    """

    panel: np.ndarray
    fs: np.ndarray
    ss: np.ndarray
    intensity: np.ndarray
    wavelength: float
    clen: float


@dataclass(frozen=True)
class Crystal:
    """A lattice and the peaks of its frame.

    Attributes
    ----------
    peaks : PeakList
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c*, 1/angstrom.
    """

    peaks: PeakList
    reciprocal: np.ndarray


def placed_peaks(peaks, arrays, clen):
    """A `PeakList` as `sfxflow.indexing.frame.FramePeaks` of a geometry."""
    return frame_peaks(arrays, peaks.panel, peaks.fs, peaks.ss, peaks.intensity, peaks.wavelength, clen)


@dataclass
class Sums:
    """Sums over crystals.

    Attributes
    ----------
    normal, right : ndarray, shape (6 p, 6 p) and (6 p,)
        Normal equations of the panels' motions.
    maps : ndarray, shape (p, BINS, BINS, 4)
        By panel, along ss, along fs: sum of the probabilities, of the displacements along x and y (pixel, observed minus predicted)
        and of their squares.
    n_peaks, n_matched, n_chance : ndarray, shape (p,)
        Peaks on each panel, those that a crystal explains, and as many as it would explain of random ones.
    reciprocal, offsets, position_sigma, profile_sigma : dict
        Of each refined crystal by its number.
    """

    normal: np.ndarray
    right: np.ndarray
    maps: np.ndarray
    n_peaks: np.ndarray
    n_matched: np.ndarray
    n_chance: np.ndarray
    reciprocal: dict
    offsets: dict
    position_sigma: dict
    profile_sigma: dict

    @classmethod
    def empty(cls, n_panels):
        """Sums over nothing."""
        size = 6 * n_panels
        return cls(
            np.zeros((size, size)),
            np.zeros(size),
            np.zeros((n_panels, BINS, BINS, 4)),
            np.zeros(n_panels),
            np.zeros(n_panels),
            np.zeros(n_panels),
            {},
            {},
            {},
            {},
        )

    def add(self, other):
        """Add other sums."""
        for name in ("normal", "right", "maps", "n_peaks", "n_matched", "n_chance"):
            getattr(self, name)[...] += getattr(other, name)
        for name in ("reciprocal", "offsets", "position_sigma", "profile_sigma"):
            getattr(self, name).update(getattr(other, name))


@dataclass(frozen=True)
class Setting:
    """What all crystals of one pass share.

    Attributes
    ----------
    arrays : sfxflow.geometry.PanelArrays
    stretch : float
        Added to each frame's camera length, metre.
    cell : sfxflow.cell.Cell
        Target: its lattice type decides what is refined.
    profile : sfxflow.indexing.refine.Profile
        Widths of the excitation errors, and the priors of a crystal's offsets.
    cell_sigma : float
        Relative standard deviation of the crystals' cells about the target.
    pixel_size : float
    """

    arrays: object
    stretch: float
    cell: object
    profile: object
    cell_sigma: float
    pixel_size: float


def summed(crystals, numbers, setting):
    """`Sums` over the crystals with the given numbers.

    Parameters
    ----------
    crystals : sequence of Crystal
        Their reciprocal matrices are where the refinement starts.
    numbers : iterable of int
    setting : Setting

    Returns
    -------
    Sums
    """
    sums = Sums.empty(len(setting.arrays.bounds))
    cell_type = free_parameters(setting.cell.lattice_type, setting.cell.unique_axis)
    inverses = {}
    for number in numbers:
        crystal = crystals[number]
        clen = crystal.peaks.clen + setting.stretch
        if clen not in inverses:
            inverses = {clen: panel_inverses(setting.arrays, clen)}
        _add(sums, number, crystal, setting, cell_type, inverses[clen], clen)
    return sums


def _add(sums, number, crystal, setting, free, to_panel, clen):
    profile, cell = setting.profile, setting.cell
    length = crystal.peaks.wavelength
    peaks = placed_peaks(crystal.peaks, setting.arrays, clen)
    np.add.at(sums.n_peaks, peaks.panel, 1)
    refined = refine_lattice(
        crystal.reciprocal,
        replace(
            cell, **dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), _own_cell(crystal, free, cell), strict=True))
        ),
        peaks,
        to_panel,
        length,
        start_sigma=profile.radius,
        pixel_size=setting.pixel_size,
        profile=profile,
    )
    matched = refined.inlier > MATCHED
    if matched.sum() < 4 or not np.all(np.isfinite(refined.reciprocal)):
        return
    k = 1.0 / length
    lengths = np.linalg.norm(peaks.q, axis=1)
    widths = (profile.radius, profile.mosaicity, profile.bandwidth, length)
    excitation = refined.profile_sigma * sigma_of_q(lengths, *widths)
    shares = variance_shares(lengths, *widths)
    radial = radial_directions(peaks.q, peaks.panel, to_panel)
    from_panel = np.linalg.inv(to_panel)
    n = len(peaks)
    hkl = refined.hkl.astype(float)
    residuals, jacobian, gradient = np.empty((n, 3)), np.empty((n, 3, 6)), np.empty((n, 2, 6))
    depth = np.ascontiguousarray(from_panel[:, 2, 2])
    pair_residuals(
        refined.reciprocal, refined.offsets, hkl, shares, peaks.panel, peaks.position, to_panel, depth, k, residuals, jacobian
    )  # fmt: skip
    centres = panel_centres(setting.arrays) + (0.0, 0.0, clen)
    panel_gradients(peaks.panel, peaks.position, residuals, to_panel, from_panel, centres, gradient)
    _add_to_maps(sums, setting, peaks, residuals, refined.inlier)
    np.add.at(sums.n_matched, peaks.panel[matched], 1)
    np.add.at(sums.n_chance, peaks.panel, chance_matches(refined, peaks, to_panel, k, cell, excitation))
    turn_to_radial(radial, residuals, jacobian)
    turn_gradients(radial, gradient)
    scale_to_sphere(residuals, jacobian, refined.offsets[2])

    spread = profile.mosaicity * lengths * peaks.distance / (k * setting.pixel_size)
    position = refined.position_sigma**2
    variance = np.stack([np.full(n, position), position + spread**2, excitation**2], axis=1)
    parameters = parameters_of(refined.reciprocal)
    rotation = nearest_rotation(refined.reciprocal @ np.linalg.inv(reciprocal_matrix(parameters)))
    lattice = np.empty((3 + free.shape[1], 3, 3))
    lattice_gradient(refined.reciprocal, rotation, parameters, free, lattice)
    weight, pull = own_priors(parameters, refined.offsets, setting, free)
    if not add_crystal(
        hkl, refined.inlier, residuals, jacobian, variance, lattice, gradient, peaks.panel, weight, pull, sums.normal, sums.right
    ):  # fmt: skip
        return
    sums.reciprocal[number] = refined.reciprocal
    sums.offsets[number] = refined.offsets
    sums.position_sigma[number] = refined.position_sigma
    sums.profile_sigma[number] = refined.profile_sigma


def scale_to_sphere(residuals, jacobian, excess):
    """Turn excitation errors, in place, to those in units of an Ewald sphere that does not change with the excess.

    A longer camera with a larger cell and more excess shows the same pattern, but all its lengths in reciprocal space, the excitation
    errors too, are smaller. Left like that they would ask for ever longer cameras.
    """
    jacobian[:, 2] *= 1.0 + excess
    jacobian[:, 2, 5] += residuals[:, 2]
    residuals[:, 2] *= 1.0 + excess


def chance_matches(refined, peaks, to_panel, k, cell, excitation):
    """Probability that a random peak in the place of each one would be matched: the volume of residuals that are believed, in units of
    the volume of a reciprocal cell.

    Parameters
    ----------
    refined : sfxflow.indexing.refine.RefinedLattice
    peaks : sfxflow.indexing.frame.FramePeaks
    to_panel : ndarray, shape (p, 3, 3)
    k : float
        1 / wavelength, 1/angstrom.
    cell : sfxflow.cell.Cell
    excitation : ndarray, shape (n,)
        Widths of the excitation errors, 1/angstrom.

    Returns
    -------
    ndarray, shape (n,)
    """
    primitive = refined.reciprocal @ np.linalg.inv(PRIMITIVE[cell.centering])
    density = chance_density(peaks.panel, peaks.position, to_panel, k, primitive)
    share = np.clip(refined.inlier.mean(), 0.02, 0.98)
    widths = refined.position_sigma**2 * excitation
    # Where the Gaussian of the true pairs is as high as the even density of the chance ones.
    odds = share / (1.0 - share) / ((2.0 * np.pi) ** 1.5 * widths * density)
    radius = np.sqrt(2.0 * np.log(np.maximum(odds, 1.0)))
    return np.minimum(4.0 / 3.0 * np.pi * radius**3 * widths * density, 1.0)


def _own_cell(crystal, free, cell):
    """The crystal's cell with the symmetry of its lattice type: free parameters averaged, fixed ones as in the target."""
    own, target = parameters_of(crystal.reciprocal), np.array(cell.parameters)
    fixed = free.sum(axis=1) == 0
    averaged = free @ np.linalg.lstsq(free, own, rcond=None)[0]
    return np.where(fixed, target, averaged).tolist()


def own_priors(parameters, offsets, setting, free):
    """1 / variance of a crystal's own parameters, and that times (mean - value): rotations, cell parameters, offsets."""
    target = np.array(setting.cell.parameters)
    # An angle of one degree is to the angles what 2 % are to the lengths.
    sigma = np.concatenate([target[:3] * setting.cell_sigma, np.full(3, 50.0 * setting.cell_sigma)])
    cell_weight = (free / sigma[:, None]) ** 2
    cell_pull = cell_weight * (target - parameters)[:, None]
    mean, spread = np.array(setting.profile.offsets), np.array(setting.profile.offset_sigmas)
    weight = np.concatenate([np.full(3, 1e-6), cell_weight.sum(axis=0), 1.0 / spread**2])
    pull = np.concatenate([np.zeros(3), cell_pull.sum(axis=0), (mean - offsets) / spread**2])
    return weight, pull


def _add_to_maps(sums, setting, peaks, residuals, inlier):
    arrays = setting.arrays
    size = arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]]
    cell = np.clip((peaks.position / size[peaks.panel] * BINS).astype(int), 0, BINS - 1)
    fs, ss = arrays.fs[peaks.panel, :2], arrays.ss[peaks.panel, :2]
    moved = -(residuals[:, :1] * fs + residuals[:, 1:2] * ss) / setting.pixel_size
    where = (peaks.panel, cell[:, 1], cell[:, 0])
    weight = np.where(inlier > MATCHED, inlier, 0.0)
    for column, values in enumerate((np.ones(len(peaks)), moved[:, 0], moved[:, 1], (moved**2).sum(axis=1))):
        np.add.at(sums.maps[..., column], where, weight * values)

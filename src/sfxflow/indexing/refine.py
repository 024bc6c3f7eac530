"""Prediction refinement: orientation, cell and offsets of one lattice against its peaks, with false peaks among them.

Every peak is paired with its nearest reciprocal-lattice point; its residuals are the distance from the predicted position (pixel) and
the excitation error of the point (1/angstrom). A pair is either a true one, with Gaussian residuals, or a chance one, with residuals
spread evenly over a cell of the reciprocal lattice. Expectation maximisation (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39, 1)
estimates which is which, the widths of the true ones, and the lattice.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sfxflow.cell import parameters_of, real_matrix, reciprocal_matrix
from sfxflow.indexing.lattice import PRIMITIVE
from sfxflow.indexing.mixture import estimate
from sfxflow.indexing.residuals import chance_density, radial_directions
from sfxflow.indexing.search import nearest_rotation
from sfxflow.small_matrices import inverse3

#: Standard deviations of the priors: cell length (relative), cell angle (degree).
CELL_LENGTH_PRIOR = 0.02
CELL_ANGLE_PRIOR = 1.0
#: Standard deviations of a crystal's shift (pixel) and excess before anything is pooled: centres are known to half a pixel, camera
#: lengths to one per cent.
FIRST_SHIFT_SIGMA = 0.5
FIRST_EXCESS_SIGMA = 0.01
#: The width of one crystal's excitation errors is drawn to the pooled one as if so many more peaks had been seen.
POOLED_WIDTH_WEIGHT = 10.0


@dataclass(frozen=True)
class Profile:
    """Widths of the excitation error, pooled over crystals: sigma(q)^2 = R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2.

    Attributes
    ----------
    radius : float
        R0, 1/angstrom.
    mosaicity : float
        eta, radian.
    bandwidth : float
        Relative sigma of the photon energy.
    offsets : tuple of 3 floats
        Mean shift of the pattern along x and y, metre, and mean excess (`RefinedLattice`).
    offset_sigmas : tuple of 3 floats
        Standard deviation of one crystal's offsets from them.
    """

    radius: float
    mosaicity: float
    bandwidth: float
    offsets: tuple
    offset_sigmas: tuple


@dataclass(frozen=True)
class RefinedLattice:
    """A lattice after refinement.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the conventional cell, 1/angstrom.
    offsets : ndarray, shape (3,)
        Shift of the pattern along x and y, metre, and excess: the camera length is too long by this fraction. The cell is that for
        the camera length as given: with an excess of 1 % it is 1 % larger than the crystal's own, positions at low angles hardly
        change, and the Ewald sphere that fits this cell is 1 % smaller than 1 / wavelength.
    hkl : ndarray of int, shape (n, 3)
        Nearest reflection of each peak among those that the centring allows.
    inlier : ndarray, shape (n,)
        Probability that the pair is a true one.
    distance : ndarray, shape (n,)
        From the predicted position, pixel.
    excitation_error : ndarray, shape (n,)
        From the Ewald sphere that the excess gives, 1/angstrom.
    position_sigma : float
        Pixel, in each direction.
    profile_sigma : float
        Width of the excitation errors, 1/angstrom, or factor on the pooled widths where those were given.
    log10_ratio : float
        log10 of the likelihood of all peaks under the mixture over that under chance alone.
    """

    reciprocal: np.ndarray
    offsets: np.ndarray
    hkl: np.ndarray
    inlier: np.ndarray
    distance: np.ndarray
    excitation_error: np.ndarray
    position_sigma: float
    profile_sigma: float
    log10_ratio: float


def free_parameters(lattice_type, unique_axis="c"):
    """How the six cell parameters depend on the free ones of a lattice type.

    Parameters
    ----------
    lattice_type : str
        triclinic, monoclinic, orthorhombic, tetragonal, rhombohedral, hexagonal or cubic.
    unique_axis : str
        a, b or c, for monoclinic, tetragonal and hexagonal lattices.

    Returns
    -------
    ndarray, shape (6, n)
        Columns add to (a, b, c, alpha, beta, gamma); angles that the type fixes have no column.
    """
    unit = np.eye(6)
    a, b, c, alpha, beta, gamma = unit
    axis = "abc".index(unique_axis) if unique_axis in "abc" else 2
    columns = {
        "triclinic": list(unit),
        "monoclinic": [a, b, c, unit[3 + (axis if unique_axis in "abc" else 1)]],
        "orthorhombic": [a, b, c],
        "tetragonal": [(a + b + c) - unit[axis], unit[axis]],
        "hexagonal": [(a + b + c) - unit[axis], unit[axis]],
        "rhombohedral": [a + b + c, alpha + beta + gamma],
        "cubic": [a + b + c],
    }
    return np.array(columns[lattice_type]).T


class _Prior(NamedTuple):
    """What refinement needs of a target cell."""

    parameters: np.ndarray
    weight: np.ndarray
    free: np.ndarray
    real: np.ndarray
    primitive: np.ndarray
    primitive_reciprocal: np.ndarray


@lru_cache(maxsize=16)
def _prior(cell):
    parameters = np.asarray(cell.parameters, dtype=float)
    primitive = PRIMITIVE[cell.centering]
    return _Prior(
        parameters=parameters,
        weight=np.append(1.0 / (CELL_LENGTH_PRIOR * parameters[:3]) ** 2, np.full(3, 1.0 / CELL_ANGLE_PRIOR**2)),
        free=free_parameters(cell.lattice_type, cell.unique_axis),
        real=real_matrix(parameters),
        primitive=primitive,
        primitive_reciprocal=reciprocal_matrix(parameters) @ inverse3(primitive),
    )


def refine_lattice(
    reciprocal,
    cell,
    peaks,
    to_panel,
    wavelength,
    *,
    start_sigma,
    pixel_size,
    profile=None,
    iterations=25,
):
    """Refine a lattice against the peaks of its frame.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the conventional cell as indexed, 1/angstrom.
    cell : sfxflow.cell.Cell
        Target cell: its lattice type decides what is refined, its centring which reflections there are, its parameters are the prior.
    peaks : FramePeaks
        Positions, panels and scattering vectors.
    to_panel : ndarray, shape (p, 3, 3)
        As in `pair_residuals`, for the frame's camera length.
    wavelength : float
        Angstrom.
    start_sigma : float
        First guess of the error of a scattering vector, 1/angstrom.
    pixel_size : float
        Metre; scale of the prior on the shift where `profile` is None.
    profile : Profile, optional
        Pooled widths and shift, from a first round over many crystals.
    iterations : int

    Returns
    -------
    RefinedLattice
    """
    k = 1.0 / wavelength
    prior = _prior(cell)
    rotation = nearest_rotation(reciprocal @ prior.real)
    q = peaks.q
    lengths = np.sqrt(np.einsum("ij,ij->i", q, q))
    if profile is None:
        relative_width, width_weight, profile_sigma = np.ones(len(q)), 0.0, start_sigma
        shares, mosaicity = np.zeros((len(q), 2)), 0.0
        offsets = np.zeros(3)
        offset_sigmas = np.array([FIRST_SHIFT_SIGMA * pixel_size, FIRST_SHIFT_SIGMA * pixel_size, FIRST_EXCESS_SIGMA])
    else:
        relative_width = sigma_of_q(lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength)
        shares = variance_shares(lengths, profile.radius, profile.mosaicity, profile.bandwidth, wavelength)
        width_weight, profile_sigma, mosaicity = POOLED_WIDTH_WEIGHT, 1.0, profile.mosaicity
        offsets, offset_sigmas = np.array(profile.offsets), np.array(profile.offset_sigmas)
    # One pixel at the mean distance of the peaks, in 1/angstrom.
    pixel_angle = pixel_size / peaks.distance
    # Mosaic blocks are turned against each other: which of them reflect shows as a spread across the radial direction.
    spread = mosaicity * lengths / (k * pixel_angle)
    radial = radial_directions(q, peaks.panel, to_panel)
    density = chance_density(peaks.panel, peaks.position, to_panel, k, prior.primitive_reciprocal)
    found, offsets, hkl, inlier, residuals, position_sigma, profile_sigma, log_ratio = estimate(
        prior.parameters, prior.free, rotation, offsets, offset_sigmas, prior.weight, q, prior.primitive, shares, radial, spread, peaks.panel,
        peaks.position, to_panel, k, relative_width, width_weight, density, max(0.3, start_sigma / (k * pixel_angle)),
        profile_sigma, iterations,
    )  # fmt: skip
    return RefinedLattice(
        reciprocal=found,
        offsets=offsets,
        hkl=hkl.astype(np.int64),
        inlier=inlier,
        distance=np.hypot(residuals[:, 0], residuals[:, 1]),
        excitation_error=residuals[:, 2].copy(),
        position_sigma=position_sigma,
        profile_sigma=profile_sigma,
        log10_ratio=log_ratio / math.log(10.0),
    )


def sigma_of_q(q, radius, mosaicity, bandwidth, wavelength):
    """Width of the excitation error at |q|: sqrt(R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2), 1/angstrom."""
    return np.sqrt(radius**2 + (mosaicity * q) ** 2 + (0.5 * bandwidth * wavelength * q**2) ** 2)


def variance_shares(q, radius, mosaicity, bandwidth, wavelength):
    """Shares of mosaicity and bandwidth in sigma(q)^2, shape (n, 2)."""
    terms = np.stack([(mosaicity * q) ** 2, (0.5 * bandwidth * wavelength * q**2) ** 2], axis=1)
    return terms / np.maximum(radius**2 + terms.sum(axis=1), 1e-300)[:, None]


def cell_of(refined):
    """Cell parameters (angstrom, degree) of a refined lattice."""
    return parameters_of(refined.reciprocal)

"""What a shot meets: crystals with their orientation, cell and size, and the pulse with its photon energy and spectrum."""

from dataclasses import dataclass

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Lattice:
    """One crystal in the beam.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* in the laboratory, 1/angstrom.
    scale : float
        G: photons of a full reflection for one squared electron.
    b_factor : float
        B in square angstrom: intensities fall by exp(-2 B (sin(theta)/lambda)^2) = exp(-B / (2 d^2)).
    profile_radius : float
        R0, 1/angstrom.
    mosaicity : float
        eta, radian; 0 for the sphere, whose lattice points are alike at every q.
    block_tilts : ndarray, shape (n, 3, 3)
        Rotations of the mosaic blocks against the crystal; only the identity for the other models.
    form : int
        0, or 1 for the second crystal form.
    mode : int
        Number of the twin law by which the lattice is indexed if its axes are laid as near to the laboratory's as its symmetry lets
        them (`sfxflow.simulate.ambiguity`); 0 is the right indexing, which `reciprocal` has.
    """

    reciprocal: np.ndarray
    scale: float
    b_factor: float
    profile_radius: float
    mosaicity: float
    block_tilts: np.ndarray
    form: int = 0
    mode: int = 0


@dataclass(frozen=True)
class FrameTruth:
    """What made a frame.

    Attributes
    ----------
    index : int
        Number of the frame in the experiment.
    kind : str
        'blank', 'single' or 'multi'.
    photon_energy : float
        eV, mean of the pulse.
    wavelengths, weights : ndarray, shape (k,)
        Spectrum: angstrom, and parts of the pulse, which sum to one.
    background : float
        Mean background, photon per pixel.
    lattices : tuple of Lattice
    state : int
        1 if the crystal is in its second state, else 0.
    laser_on : bool
    delay : float
        Of the laser pulse, picosecond; NaN where the laser is off.
    shift : tuple of float
        Of the pattern along x and y because of the beam's drift, metre.
    clen : float
        Camera length of the frame, metre; NaN: that of the experiment.
    rings : sfxflow.simulate.rings.FrameRings or None
    """

    index: int
    kind: str
    photon_energy: float
    wavelengths: np.ndarray
    weights: np.ndarray
    background: float
    lattices: tuple
    state: int = 0
    laser_on: bool = False
    delay: float = np.nan
    shift: tuple = (0.0, 0.0)
    clen: float = np.nan
    rings: object = None


def standard_reciprocal(parameters):
    """Columns a*, b*, c* of a cell with a along x and b in the xy plane, 1/angstrom (gemmi's fractionalisation matrix)."""
    return np.array(gemmi.UnitCell(*parameters).frac.mat.tolist()).T


def jittered_cell(parameters, group, spread, rng):
    """A cell near `parameters` that keeps the lattice's symmetry (`group` is a gemmi.SpaceGroup).

    Lengths change together and along the unique axis on its own, each with relative standard deviation `spread`; angles stay.
    """
    lengths = np.array(parameters[:3]) * (1.0 + spread * rng.standard_normal())
    system = "rhombohedral" if group.ext == "R" else group.crystal_system_str()
    of_system = {"tetragonal": (2,), "hexagonal": (2,), "trigonal": (2,), "rhombohedral": (), "cubic": ()}
    independent = of_system.get(system, (0, 1, 2))
    for axis in independent:
        lengths[axis] *= 1.0 + spread * rng.standard_normal()
    return (*lengths, *parameters[3:])


def random_rotation(rng):
    """Rotation matrix, uniform over all orientations."""
    quaternion = rng.standard_normal(4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def block_tilts(n_blocks, mosaicity, rng):
    """Small rotations of mosaic blocks: each component of the rotation vector has standard deviation `mosaicity`, radian."""
    return Rotation.from_rotvec(mosaicity * rng.standard_normal((n_blocks, 3))).as_matrix()


def spectrum(shape, bandwidth, n_points, rng):
    """Relative photon energies of a pulse and their weights.

    Parameters
    ----------
    shape : str
        'gaussian', 'tophat' or 'sase' (a few narrow spikes under a Gaussian, others in every pulse).
    bandwidth : float
        Relative standard deviation of the photon energy (of the envelope for 'sase').
    n_points : int
    rng : numpy.random.Generator

    Returns
    -------
    relative : ndarray, shape (n_points,)
        Photon energy over the nominal one.
    weights : ndarray, shape (n_points,)
        Sum one.
    """
    if bandwidth == 0.0:
        return np.ones(1), np.ones(1)
    half_width = np.sqrt(3.0) if shape == "tophat" else 3.2
    x = np.linspace(-half_width, half_width, n_points)
    if shape == "tophat":
        weights = np.ones(n_points)
        weights[[0, -1]] = 0.5
    else:
        weights = np.exp(-0.5 * x**2)
    if shape == "sase":
        centres = rng.standard_normal(rng.integers(8, 21))
        strengths = rng.exponential(size=len(centres))
        # A spike is as wide as two points of the grid, so that none falls between two of them.
        spikes = np.exp(-0.5 * ((x[:, None] - centres) / (2.0 * (x[1] - x[0]))) ** 2) @ strengths
        weights = weights * spikes
    return 1.0 + bandwidth * x, weights / weights.sum()


def draw_lattice(cell, group, settings, mean_intensity, rng):
    """One random crystal.

    Parameters
    ----------
    cell : sequence of 6 floats
    group : gemmi.SpaceGroup
    settings : Experiment
        Its section 'crystals'.
    mean_intensity : float
        Mean squared structure factor, to which `settings.photons` refers.
    rng : numpy.random.Generator
    """
    parameters = jittered_cell(cell, group, settings.cell_spread, rng)
    reciprocal = random_rotation(rng) @ standard_reciprocal(parameters)
    scale = settings.photons / mean_intensity * np.exp(settings.scale_spread * rng.standard_normal())
    b_factor = settings.b_spread * np.clip(rng.standard_normal(), -2.5, 2.5)
    profile_radius = settings.profile_radius * np.exp(settings.profile_spread * rng.standard_normal())
    mosaicity = settings.mosaicity * np.exp(settings.profile_spread * rng.standard_normal())
    if settings.profile_model == "sphere":
        mosaicity = 0.0
    blocks = settings.profile_model == "mosaic_blocks"
    tilts = block_tilts(settings.n_blocks, mosaicity, rng) if blocks else np.eye(3)[None]
    return Lattice(reciprocal, float(scale), float(b_factor), float(profile_radius), float(mosaicity), tilts)

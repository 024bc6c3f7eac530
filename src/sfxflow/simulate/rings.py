"""Powder rings of hexagonal ice and of salt: a smooth part, and sharp spots where single grains diffract.

The rings' places and strengths follow from the crystal structures: a ring's photons go with the sum of F squared over its reflections, over sin(theta),
which is what a powder puts into a whole cone (Warren, X-ray Diffraction, 1990, section 4.2, without polarisation).
"""

from dataclasses import dataclass

import gemmi
import numpy as np

#: Cell, atoms (element, x, y, z) and a common B of each powder. Ice Ih: P6(3)/mmc, oxygen in 4f; salt: NaCl.
_ICE_Z = 0.0625
_POWDERS = {
    "ice": (
        (4.511, 4.511, 7.346, 90.0, 90.0, 120.0),
        [
            ("O", x, y, z)
            for x, y, z in (
                (1 / 3, 2 / 3, _ICE_Z),
                (2 / 3, 1 / 3, _ICE_Z + 0.5),
                (2 / 3, 1 / 3, -_ICE_Z),
                (1 / 3, 2 / 3, 0.5 - _ICE_Z),
            )
        ],
        2.0,
    ),
    "salt": (
        (5.640, 5.640, 5.640, 90.0, 90.0, 90.0),
        [
            (element, x + 0.5 * (element == "Cl"), y, z)
            for element in ("Na", "Cl")
            for x, y, z in ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
        ],
        1.2,
    ),
}
#: Relative width of a ring's smooth part, and of the places of its spots (strain within and between grains).
_SMOOTH_WIDTH, _SPOT_WIDTH = 0.006, 0.001


@dataclass(frozen=True)
class FrameRings:
    """Rings on a frame.

    Attributes
    ----------
    kind : str
        'ice' or 'salt'.
    strength : float
        Relative to the settings' photons.
    azimuth : float
        Of the texture, radian.
    inverse_d : ndarray, shape (n,)
        Of each sharp spot, 1/angstrom.
    spot_azimuth : ndarray, shape (n,)
        Radian from +x to +y.
    photons : ndarray, shape (n,)
        Expected photons of each spot before polarisation.
    """

    kind: str
    strength: float
    azimuth: float
    inverse_d: np.ndarray
    spot_azimuth: np.ndarray
    photons: np.ndarray


def powder_lines(kind, d_min):
    """Rings of a powder to a resolution.

    Parameters
    ----------
    kind : str
        'ice' or 'salt'.
    d_min : float
        Angstrom.

    Returns
    -------
    inverse_d : ndarray, shape (n,)
        1/angstrom, rising.
    strength : ndarray, shape (n,)
        Photons in the whole ring over those of the strongest.
    """
    parameters, atoms, b_factor = _POWDERS[kind]
    cell = gemmi.UnitCell(*parameters)
    largest = np.ceil(np.array(parameters[:3]) / d_min).astype(int) + 1
    hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in largest), indexing="ij"), axis=-1).reshape(-1, 3)
    inverse_d = np.sqrt([cell.calculate_1_d2(row.tolist()) for row in hkl])
    kept = (inverse_d > 1e-9) & (inverse_d <= 1.0 / d_min)
    hkl, inverse_d = hkl[kept], inverse_d[kept]
    amplitude = np.zeros(len(hkl), dtype=complex)
    for element, *place in atoms:
        table = gemmi.Element(element).it92
        scattering = np.array([table.calculate_sf(value) for value in inverse_d**2 / 4.0])
        amplitude += scattering * np.exp(2j * np.pi * (hkl @ np.array(place)))
    intensity = np.abs(amplitude) ** 2 * np.exp(-b_factor * inverse_d**2 / 2.0)
    rings, member = np.unique(inverse_d.round(6), return_inverse=True)
    strength = np.bincount(member, intensity) / rings
    present = strength > 1e-3 * strength.max()
    return rings[present], strength[present] / strength.max()


def draw_rings(settings, lines, rng):
    """Rings of a frame, None on most.

    Parameters
    ----------
    settings : Experiment
        Its section of rings.
    lines : dict
        `powder_lines` of 'ice' and 'salt'.
    rng : numpy.random.Generator

    Returns
    -------
    FrameRings or None
    """
    chance = rng.random()
    if chance >= settings.ice_fraction + settings.salt_fraction:
        return None
    kind = "ice" if chance < settings.ice_fraction else "salt"
    inverse_d, strength = lines[kind]
    n = rng.poisson(settings.ring_spots)
    ring = rng.choice(len(inverse_d), n, p=strength / strength.sum())
    azimuth = 2.0 * np.pi * rng.random()
    return FrameRings(
        kind=kind,
        strength=float(np.exp(0.5 * rng.standard_normal())),
        azimuth=azimuth,
        inverse_d=inverse_d[ring] * (1.0 + _SPOT_WIDTH * rng.standard_normal(n)),
        spot_azimuth=_textured(azimuth, settings.ring_texture, n, rng),
        photons=settings.ring_photons * rng.exponential(size=n),
    )


def _textured(azimuth, texture, n, rng):
    """`n` azimuths with density 1 + texture cos 2 (phi - azimuth), by rejection."""
    found = np.zeros(0)
    while len(found) < n:
        phi = 2.0 * np.pi * rng.random(2 * n + 8)
        kept = rng.random(len(phi)) * (1.0 + texture) < 1.0 + texture * np.cos(2.0 * (phi - azimuth))
        found = np.concatenate([found, phi[kept]])
    return found[:n]


@dataclass(frozen=True)
class RingShape:
    """Smooth part of a powder's rings on a detector.

    Attributes
    ----------
    pixels : ndarray of int64, shape (n,)
        Flat numbers of the pixels that it reaches.
    mean : ndarray of float32, shape (n,)
        Relative to the strongest ring's crest, before polarisation falls on it.
    along_x, along_y : ndarray of float32, shape (n,)
        `mean` times the cosine and sine of twice the azimuth.
    """

    pixels: np.ndarray
    mean: np.ndarray
    along_x: np.ndarray
    along_y: np.ndarray

    def expected(self, azimuth, texture):
        """`mean` with the texture's direction, ndarray of float32, shape (n,)."""
        return self.mean + texture * (np.cos(2 * azimuth) * self.along_x + np.sin(2 * azimuth) * self.along_y)


def ring_shape(direction, polarised, wavelength, lines):
    """Smooth part of rings on every pixel that they reach.

    Parameters
    ----------
    direction : ndarray, shape (ss, fs, 3)
        Unit vectors of the pixels, zero outside panels (`sfxflow.simulate.detector.pixel_directions`).
    polarised : ndarray, shape (ss, fs)
        Polarisation factor.
    wavelength : float
        Angstrom.
    lines : tuple
        From `powder_lines`.

    Returns
    -------
    RingShape
    """
    q = np.sqrt(np.maximum(2.0 - 2.0 * np.clip(direction[..., 2], -1.0, 1.0), 0.0)) / wavelength
    grid = np.linspace(0.0, float(q.max()) + 0.01, 8192)
    profile = np.zeros_like(grid)
    for inverse_d, strength in zip(*lines, strict=True):
        # A ring's photons are spread over its circumference and its width, both of which grow with 1/d.
        height = strength * (lines[0][0] / inverse_d) ** 2
        profile += height * np.exp(-0.5 * ((grid - inverse_d) / (_SMOOTH_WIDTH * inverse_d)) ** 2)
    profile /= profile.max()
    value = (np.interp(q, grid, profile) * polarised).astype(np.float32)
    value[np.all(direction == 0.0, axis=-1)] = 0.0
    pixels = np.flatnonzero(value > 1e-3)
    mean = value.ravel()[pixels]
    azimuth = 2.0 * np.arctan2(direction[..., 1], direction[..., 0]).ravel()[pixels]
    return RingShape(pixels, mean, mean * np.cos(azimuth), mean * np.sin(azimuth))


def spot_directions(rings, wavelength):
    """Unit vectors towards the sharp spots, and the photons of each; spots beyond backscattering are left out.

    Returns
    -------
    direction : ndarray of float64, shape (n, 3)
    photons : ndarray of float64, shape (n,)
    """
    sine = rings.inverse_d * wavelength / 2.0
    possible = sine < 1.0
    two_theta = 2.0 * np.arcsin(sine[possible])
    phi = rings.spot_azimuth[possible]
    sideways = np.sin(two_theta)
    direction = np.stack([sideways * np.cos(phi), sideways * np.sin(phi), np.cos(two_theta)], axis=1)
    return direction, rings.photons[possible]

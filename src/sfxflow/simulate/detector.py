"""The simulated detector: its panels, its bad pixels, the background that falls on it, and where a ray meets it."""

from dataclasses import dataclass

import numpy as np

from sfxflow.geometry import Detector, Mask, Panel
from sfxflow.units import wavelength


@dataclass(frozen=True)
class Planes:
    """The panels as planes that rays are traced to.

    Attributes
    ----------
    corner : ndarray, shape (n, 3)
        Outer corner of the first pixel, camera length included, metre.
    fs, ss : ndarray, shape (n, 3)
        Metre per pixel.
    normal : ndarray, shape (n, 3)
        fs x ss.
    along_fs, along_ss : ndarray, shape (n, 3)
        A point's distance from the corner times these gives its pixels along fs and ss (1/metre).
    size : ndarray of int64, shape (n, 2)
        Pixels along fs and ss.
    place : ndarray of int64, shape (n, 2)
        First column and row in the slab.
    """

    corner: np.ndarray
    fs: np.ndarray
    ss: np.ndarray
    normal: np.ndarray
    along_fs: np.ndarray
    along_ss: np.ndarray
    size: np.ndarray
    place: np.ndarray


def make_detector(settings, rng):
    """Panels in rows and columns around the beam.

    Stacked panels lie one below the other in the slab, every second column mounted upside down, each with small rotations of its
    own; otherwise all modules are one panel, and the gaps between them pixels.

    Parameters
    ----------
    settings : Experiment
        Its section 'detector'.
    rng : numpy.random.Generator

    Returns
    -------
    sfxflow.geometry.Detector
    """
    pitch_fs, pitch_ss = settings.panel_fs + settings.gap, settings.panel_ss + settings.gap
    width = settings.panel_columns * pitch_fs - settings.gap
    height = settings.panel_rows * pitch_ss - settings.gap
    # The beam does not hit the middle, as in life.
    left, bottom = -0.5 * width + 2.3, -0.5 * height - 1.7
    if not settings.stacked:
        panels = (_panel(settings, "p0", 0, (left, bottom), np.eye(3), (height, width)),)
        return _assembled(settings, panels)
    panels = []
    for number in range(settings.panel_rows * settings.panel_columns):
        row, column = divmod(number, settings.panel_columns)
        corner = np.array([left + column * pitch_fs, bottom + row * pitch_ss])
        upside_down = column % 2 == 1
        if upside_down:
            corner += (settings.panel_fs, settings.panel_ss)
        turn = _turn(
            np.pi * upside_down + settings.panel_rotation * rng.standard_normal(), rng, settings.panel_rotation
        )
        size = (settings.panel_ss, settings.panel_fs)
        panels.append(_panel(settings, f"p{number}", number * settings.panel_ss, corner, turn, size))
    return _assembled(settings, tuple(panels))


def _turn(about_z, rng, tilt):
    """Rotation by `about_z` in the detector plane after a tilt of about a third of `tilt` out of it, radian."""
    about_x, about_y = tilt / 3.0 * rng.standard_normal(2)
    cx, sx, cy, sy, cz, sz = (f(a) for a in (about_x, about_y, about_z) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def _panel(settings, name, slab_ss, corner, turn, size):
    pixel = settings.pixel_size
    flags = {"negative": (("lessthan", 0.0),), "largest": (("equal", float(settings.largest_value)),)}
    flags = flags.get(settings.bad_pixels, ())
    in_file = (Mask(data=MASK_PATH, bad_bits=1),) if settings.bad_pixels == "mask" else ()
    return Panel(
        name=name,
        data=DATA_PATH,
        dims=("%", "ss", "fs"),
        min_fs=0,
        max_fs=size[1] - 1,
        min_ss=slab_ss,
        max_ss=slab_ss + size[0] - 1,
        origin=(corner[0] * pixel, corner[1] * pixel, 0.0),
        fs=tuple(pixel * turn[:, 0]),
        ss=tuple(pixel * turn[:, 1]),
        slab_fs=0,
        slab_ss=slab_ss,
        adu_per_photon=settings.adu_per_photon,
        max_adu=settings.saturation * settings.adu_per_photon,
        flags=flags,
        masks=in_file,
    )


def _assembled(settings, panels):
    full_width = {"tophat": np.sqrt(12.0)}.get(settings.spectrum, 2.0 * np.sqrt(2.0 * np.log(2.0)))
    return Detector(
        panels=panels,
        photon_energy=ENERGY_PATH,
        clen=settings.clen,
        bandwidth=settings.bandwidth * full_width,
        rigid_groups={"rigid_group_all": tuple(p.name for p in panels), "rigid_group_collection_modules": ("all",)},
    )


#: Where a CXI file of the simulator holds its frames, mask and photon energies.
DATA_PATH = "/entry_1/data_1/data"
MASK_PATH = "/entry_1/data_1/mask"
ENERGY_PATH = "/entry_1/instrument_1/source_1/photon_energy_eV"


def planes(detector):
    """Panels of `detector` as `Planes`; its camera length must be a number."""
    corner = np.array([p.origin for p in detector.panels])
    corner[:, 2] += detector.clen
    fs, ss = np.array([p.fs for p in detector.panels]), np.array([p.ss for p in detector.panels])
    normal = np.cross(fs, ss)
    # Rows of the inverse of (fs, ss, normal): what measures along fs and along ss.
    inverse = np.linalg.inv(np.stack([fs, ss, normal], axis=2))
    return Planes(
        corner=corner,
        fs=fs,
        ss=ss,
        normal=normal,
        along_fs=np.ascontiguousarray(inverse[:, 0]),
        along_ss=np.ascontiguousarray(inverse[:, 1]),
        size=np.array([(p.n_fs, p.n_ss) for p in detector.panels], dtype=np.int64),
        place=np.array([(p.slab_fs, p.slab_ss) for p in detector.panels], dtype=np.int64),
    )


def pixel_directions(detector):
    """Unit vectors from the sample to the centre of every pixel of the slab, and the pixels' solid angles.

    Returns
    -------
    direction : ndarray of float32, shape (ss, fs, 3)
        Zero where the slab has no panel.
    solid_angle : ndarray of float32, shape (ss, fs)
        Relative to a pixel in the middle.
    """
    direction = np.zeros((*detector.shape, 3), dtype=np.float32)
    solid_angle = np.zeros(detector.shape, dtype=np.float32)
    for panel in detector.panels:
        columns, rows = np.arange(panel.n_fs) + 0.5, np.arange(panel.n_ss) + 0.5
        points = (
            np.array(panel.origin)
            + (0.0, 0.0, detector.clen)
            + columns[None, :, None] * np.array(panel.fs)
            + rows[:, None, None] * np.array(panel.ss)
        )
        length = np.linalg.norm(points, axis=2)
        normal = np.cross(panel.fs, panel.ss)
        where = np.s_[panel.slab_ss : panel.slab_ss + panel.n_ss, panel.slab_fs : panel.slab_fs + panel.n_fs]
        direction[where] = points / length[..., None]
        seen = np.abs(points @ (normal / np.linalg.norm(normal))) / length**3
        solid_angle[where] = seen * detector.clen**2
    return direction, solid_angle


def polarisation(direction, fraction):
    """Polarisation factor of rays along unit vectors `direction`; the beam's field lies along x with `fraction`.

    The part polarised along x scatters with 1 - x^2, the part along y with 1 - y^2: the field's component along the ray is lost.
    """
    x, y = direction[..., 0], direction[..., 1]
    return fraction * (1.0 - x * x) + (1.0 - fraction) * (1.0 - y * y)


def background_shape(detector, photon_energy, water, polarised_fraction):
    """Expected background relative to its mean over the panels: air near the beam, a water ring, a flat rest.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
    photon_energy : float
        eV.
    water : float
        Part of the water ring, 0 to 1.
    polarised_fraction : float

    Returns
    -------
    ndarray of float32, shape (ss, fs)
    """
    direction, solid_angle = pixel_directions(detector)
    cosine = np.clip(direction[..., 2], -1.0, 1.0)
    q = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0)) / wavelength(photon_energy)
    air = np.exp(-q / 0.12)
    # Liquid water's first maximum is at 1/d = 0.31 / angstrom, with a shoulder of the second at 0.45.
    ring = np.exp(-0.5 * ((q - 0.31) / 0.045) ** 2) + 0.35 * np.exp(-0.5 * ((q - 0.46) / 0.06) ** 2)
    shape = (air + 0.25) * (1.0 - water) + ring * water
    shape = shape * polarisation(direction, polarised_fraction) * solid_angle
    return (shape / shape[solid_angle > 0].mean()).astype(np.float32)


@dataclass(frozen=True)
class BadPixels:
    """Pixels that say nothing of the sample.

    Attributes
    ----------
    shadow : ndarray of bool, shape (ss, fs)
        Gaps and the beam stop: no photon arrives.
    dead, hot : ndarray of bool, shape (ss, fs)
    known : ndarray of bool, shape (ss, fs)
        What the mask, or the value in the frame, tells: all but a fifth of the hot pixels.
    """

    shadow: np.ndarray
    dead: np.ndarray
    hot: np.ndarray
    known: np.ndarray


def make_bad_pixels(settings, detector, rng):
    """Gaps, beam stop, and random dead and hot pixels of `detector`."""
    shape = detector.shape
    shadow = np.zeros(shape, dtype=bool)
    if not settings.stacked:
        rows, columns = np.indices(shape, sparse=True)
        shadow |= rows % (settings.panel_ss + settings.gap) >= settings.panel_ss
        shadow |= columns % (settings.panel_fs + settings.gap) >= settings.panel_fs
    direction, _ = pixel_directions(detector)
    sideways = np.hypot(direction[..., 0], direction[..., 1])
    shadow |= sideways < settings.beamstop * settings.pixel_size / settings.clen
    dead = rng.random(shape) < settings.dead_fraction
    hot = (rng.random(shape) < settings.hot_fraction) & ~dead
    known = shadow | dead | (hot & (rng.random(shape) < 0.8))
    return BadPixels(shadow, dead, hot, known)

"""The detector: panels, where their pixels are in the laboratory and in the frame's array.

A frame is held as ONE two-dimensional array, the slab, whatever the file's own dimensions are; `Panel.slab_ss`, `Panel.slab_fs`
say where a panel lies in it. Positions on the detector (fs, ss) are slab coordinates, corner-based (units.py).
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit


@dataclass(frozen=True)
class Mask:
    """A mask array of the geometry: where it is and which bits make a pixel good or bad (crystfel_geometry(5))."""

    data: str
    file: str | None = None
    good_bits: int = 0
    bad_bits: int = 0


@dataclass(frozen=True)
class Panel:
    """One flat array of pixels.

    Attributes
    ----------
    name : str
    data : str
        HDF5 path of the dataset; '%' stands for an event's name.
    dims : tuple
        One entry for each dimension of the dataset: 'ss', 'fs', '%' (event) or a fixed index.
    min_fs, max_fs, min_ss, max_ss : int
        The panel's part of the dataset, both ends included.
    origin : tuple of float
        Outer corner of the first pixel, metre; z is the panel's coffset, to which a frame's camera length is added.
    fs, ss : tuple of float
        Steps in the laboratory for one pixel along fs and ss, metre.
    slab_fs, slab_ss : int
        First column and row of the panel in the slab.
    adu_per_photon, adu_per_ev : float or None
        Gain, where the geometry has it.
    max_adu : float
        Values above are saturated.
    flags : tuple of (str, float)
        ('lessthan' | 'morethan' | 'equal', value): such pixels are bad.
    masks : tuple of Mask
    mask_edge_pixels : int
        Rows and columns at the panel's edges that are bad.
    no_index : bool
        The whole panel is bad.
    """

    name: str
    data: str
    dims: tuple
    min_fs: int
    max_fs: int
    min_ss: int
    max_ss: int
    origin: tuple
    fs: tuple
    ss: tuple
    slab_fs: int
    slab_ss: int
    adu_per_photon: float | None = None
    adu_per_ev: float | None = None
    max_adu: float = np.inf
    flags: tuple = ()
    masks: tuple = ()
    mask_edge_pixels: int = 0
    no_index: bool = False

    @property
    def n_fs(self):
        """Number of pixels along fs."""
        return self.max_fs - self.min_fs + 1

    @property
    def n_ss(self):
        """Number of pixels along ss."""
        return self.max_ss - self.min_ss + 1


@dataclass(frozen=True)
class Region:
    """A bad region: in fs, ss of one panel's data (ends included, panel named) or in x, y of the laboratory (pixel units)."""

    name: str
    low: tuple
    high: tuple
    panel: str | None = None
    in_xy: bool = True


@dataclass(frozen=True)
class Detector:
    """All panels, and the beam as far as the geometry describes it.

    Attributes
    ----------
    panels : tuple of Panel
    photon_energy, clen : float or str
        eV and metre, or the HDF5 path of a value per frame (the unit scales stand beside).
    photon_energy_scale, clen_scale : float
        Factor from the file's unit to eV and metre, where a path is given.
    photon_energy_is_wavelength : bool
        The path holds a wavelength in angstrom times the scale.
    bandwidth : float
        Relative full width of the spectrum as the geometry states it; 0 where it does not.
    bad_regions : tuple of Region
    rigid_groups : dict
        Names of panels by group, and of groups by collection, as written.
    peak_list : str or None
    """

    panels: tuple
    photon_energy: float | str
    clen: float | str
    photon_energy_scale: float = 1.0
    clen_scale: float = 1.0
    photon_energy_is_wavelength: bool = False
    bandwidth: float = 0.0
    bad_regions: tuple = ()
    rigid_groups: dict = field(default_factory=dict)
    peak_list: str | None = None

    @property
    def shape(self):
        """(rows, columns) of the slab."""
        return (
            max(p.slab_ss + p.n_ss for p in self.panels),
            max(p.slab_fs + p.n_fs for p in self.panels),
        )


def with_gain(detector, adu_per_photon):
    """The detector with this gain for the panels that state none."""
    return replace(
        detector,
        panels=tuple(
            panel if panel.adu_per_photon or panel.adu_per_ev else replace(panel, adu_per_photon=adu_per_photon)
            for panel in detector.panels
        ),
    )


def states_gain(detector):
    """Whether every panel states its gain."""
    return all(panel.adu_per_photon or panel.adu_per_ev for panel in detector.panels)


@dataclass(frozen=True)
class PanelArrays:
    """The panels as plain arrays, for numba kernels.

    Attributes
    ----------
    bounds : ndarray of int32, shape (n, 4)
        First and one past the last row, first and one past the last column in the slab.
    origin, fs, ss : ndarray of float64, shape (n, 3)
        As in `Panel`, metre; z of origin without the camera length.
    """

    bounds: np.ndarray
    origin: np.ndarray
    fs: np.ndarray
    ss: np.ndarray


def panel_arrays(detector):
    """Panels of `detector` as `PanelArrays`."""
    panels = detector.panels
    return PanelArrays(
        bounds=np.array(
            [[p.slab_ss, p.slab_ss + p.n_ss, p.slab_fs, p.slab_fs + p.n_fs] for p in panels],
            dtype=np.int32,
        ),
        origin=np.array([p.origin for p in panels], dtype=np.float64),
        fs=np.array([p.fs for p in panels], dtype=np.float64),
        ss=np.array([p.ss for p in panels], dtype=np.float64),
    )


def panel_of(bounds, fs, ss):
    """Number of the panel at each slab position, -1 where there is none.

    Parameters
    ----------
    bounds : ndarray, shape (n, 4)
        As in `PanelArrays`.
    fs, ss : ndarray, shape (m,)
        Pixel, corner-based.
    """
    fs, ss = np.asarray(fs)[:, None], np.asarray(ss)[:, None]
    inside = (ss >= bounds[:, 0]) & (ss < bounds[:, 1]) & (fs >= bounds[:, 2]) & (fs < bounds[:, 3])
    return np.where(inside.any(axis=1), inside.argmax(axis=1), -1)


def lab_positions(arrays, panel, fs, ss, clen):
    """Laboratory positions of points on the detector.

    Parameters
    ----------
    arrays : PanelArrays
    panel : ndarray of int, shape (m,)
    fs, ss : ndarray, shape (m,)
        Slab coordinates, pixel, corner-based.
    clen : float
        Camera length, metre.

    Returns
    -------
    ndarray, shape (m, 3)
        Metre.

    Raises
    ------
    IndexError
        There is no such panel.
    """
    panel = np.asarray(panel, dtype=np.int64)
    if panel.max(initial=-1) >= len(arrays.bounds):
        raise IndexError(f"panel {panel.max()} of {len(arrays.bounds)}")
    return _lab_positions(
        arrays.bounds,
        arrays.origin,
        arrays.fs,
        arrays.ss,
        panel,
        np.asarray(fs, dtype=np.float64),
        np.asarray(ss, dtype=np.float64),
        float(clen),
    )


@njit(cache=True)
def _lab_positions(bounds, origin, along_fs, along_ss, panel, fs, ss, clen):
    xyz = np.empty((panel.size, 3))
    for i in range(panel.size):
        p = panel[i]
        for r in range(3):
            xyz[i, r] = origin[p, r] + (fs[i] - bounds[p, 2]) * along_fs[p, r] + (ss[i] - bounds[p, 0]) * along_ss[p, r]
        xyz[i, 2] += clen
    return xyz


def scattering_vectors(xyz, wavelength):
    """Scattering vectors q = (x/|x| - z) / wavelength of laboratory positions.

    Parameters
    ----------
    xyz : ndarray, shape (m, 3)
        Metre, from the sample.
    wavelength : float
        Angstrom.

    Returns
    -------
    ndarray, shape (m, 3)
        1/angstrom.
    """
    return _scattering_vectors(np.asarray(xyz, dtype=np.float64), float(wavelength))


@njit(cache=True)
def _scattering_vectors(xyz, wavelength):
    q = np.empty(xyz.shape)
    for i in range(xyz.shape[0]):
        distance = np.sqrt(xyz[i, 0] ** 2 + xyz[i, 1] ** 2 + xyz[i, 2] ** 2)
        for r in range(3):
            q[i, r] = (xyz[i, r] / distance - (1.0 if r == 2 else 0.0)) / wavelength
    return q


def polarisation_factor(xyz, fraction, angle=0.0):
    """Polarisation factor at laboratory positions.

    Parameters
    ----------
    xyz : ndarray, shape (m, 3)
        From the sample, any unit.
    fraction : float
        Fraction of the intensity that is polarised along the main direction: 0.5 is an unpolarised beam, 1 complete polarisation.
    angle : float
        Main direction of the electric field, radian from +x towards +y.

    Notes
    -----
    P = f (1 - (u.e)^2) + (1 - f) (1 - (u.n)^2), u the direction of the scattered ray, e that of the field, n that
    perpendicular to it and to the beam (Kahn et al. 1982, J. Appl. Cryst. 15, 330, doi:10.1107/S0021889882012060).
    """
    return _polarisation_factor(np.asarray(xyz, dtype=np.float64), float(fraction), np.cos(angle), np.sin(angle))


@njit(cache=True)
def _polarisation_factor(xyz, fraction, cosine, sine):
    factor = np.empty(xyz.shape[0])
    for i in range(xyz.shape[0]):
        x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        distance2 = x * x + y * y + z * z
        along, across = x * cosine + y * sine, y * cosine - x * sine
        factor[i] = 1.0 - (fraction * along * along + (1.0 - fraction) * across * across) / distance2
    return factor


def placed_in_slab(panels):
    """The panels with their places in the slab filled in.

    Panels that share a dataset and its fixed indices keep their places relative to each other, as in the file; such blocks are
    stacked along ss: datasets in the order of their first panel, then by fixed index. One two-dimensional dataset is therefore its
    own slab.

    Parameters
    ----------
    panels : iterable of Panel

    Returns
    -------
    tuple of Panel
    """
    panels = tuple(panels)
    datasets = list(dict.fromkeys(p.data for p in panels))
    blocks = sorted({_block(p) for p in panels}, key=lambda block: (datasets.index(block[0]), block[1]))
    first_row, next_row = {}, 0
    for block in blocks:
        first_row[block] = next_row
        next_row += max(p.max_ss + 1 for p in panels if _block(p) == block)
    return tuple(replace(p, slab_fs=p.min_fs, slab_ss=first_row[_block(p)] + p.min_ss) for p in panels)


def _block(panel):
    """What panels have in common that lie in one two-dimensional part of a dataset."""
    return panel.data, tuple(d for d in panel.dims if isinstance(d, int))


def overlapping_panels(panels, tolerated=0.1):
    """Pairs of panels that claim the same pixels of a dataset, or lie on each other in the laboratory.

    Parameters
    ----------
    panels : sequence of Panel
        Placed in the slab.
    tolerated : float
        Fraction of a panel that may be hidden by another in the laboratory: refined geometries overlap by a few pixels.

    Returns
    -------
    list of (str, str, str)
        Names of the two panels and 'data' or 'laboratory'.
    """
    pairs = []
    bounds = np.array([[p.slab_ss, p.slab_ss + p.n_ss, p.slab_fs, p.slab_fs + p.n_fs] for p in panels])
    origin = np.array([p.origin for p in panels])
    edges = np.array([[np.multiply(p.fs, p.n_fs), np.multiply(p.ss, p.n_ss)] for p in panels])
    centre = origin + edges.sum(axis=1) / 2
    radius = np.linalg.norm(edges.sum(axis=1), axis=1) / 2 + np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1) / 2
    for i in range(len(panels)):
        b = bounds[i]
        rest = bounds[i + 1 :]
        same_pixels = (rest[:, 0] < b[1]) & (rest[:, 1] > b[0]) & (rest[:, 2] < b[3]) & (rest[:, 3] > b[2])
        near = np.linalg.norm(centre[i + 1 :] - centre[i], axis=1) < radius[i + 1 :] + radius[i]
        for j in np.flatnonzero(same_pixels | near) + i + 1:
            if same_pixels[j - i - 1]:
                pairs.append((panels[i].name, panels[j].name, "data"))
            elif max(_hidden(origin, edges, i, j), _hidden(origin, edges, j, i)) > tolerated:
                pairs.append((panels[i].name, panels[j].name, "laboratory"))
    return pairs


def _hidden(origin, edges, i, j, n=20):
    """Fraction of panel i that panel j covers; panels more than a pixel or so apart along the beam do not count."""
    steps = (np.arange(n) + 0.5) / n
    points = origin[i] + steps[:, None, None] * edges[i, 0] + steps[None, :, None] * edges[i, 1]
    along, *_ = np.linalg.lstsq(edges[j].T, (points.reshape(-1, 3) - origin[j]).T, rcond=None)
    off_plane = np.linalg.norm(points.reshape(-1, 3) - origin[j] - along.T @ edges[j], axis=1)
    inside = ((along > 0) & (along < 1)).all(axis=0) & (off_plane < 1e-4)
    return inside.mean()

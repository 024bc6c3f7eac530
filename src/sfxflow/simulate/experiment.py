"""A simulated experiment: everything that can be set, and what follows from it."""

from dataclasses import dataclass
from functools import cached_property

import gemmi
import numpy as np

from sfxflow.errors import InputError
from sfxflow.settings import setting
from sfxflow.simulate import ambiguity, detector, geometry_errors, images, rings, structure
from sfxflow.units import wavelength

_LARGEST = {"int16": 32767, "uint16": 65535, "int32": 2147483647, "uint32": 4294967295, "float32": np.inf}


@dataclass(frozen=True)
class Experiment:
    """Settings of a simulated experiment; `sfxflow.simulate.presets.preset` checks them. Everything random comes from `seed`."""

    name: str = setting("custom", "name of the sample, and of the .cell file")
    seed: int = setting(0, "seed of everything random", low=0)

    a: float = setting(79.1, "cell length, angstrom", low=5, high=1000)
    b: float = setting(79.1, "cell length, angstrom", low=5, high=1000)
    c: float = setting(37.9, "cell length, angstrom", low=5, high=1000)
    alpha: float = setting(90.0, "cell angle, degree", low=30, high=150)
    beta: float = setting(90.0, "cell angle, degree", low=30, high=150)
    gamma: float = setting(90.0, "cell angle, degree", low=30, high=150)
    space_group: str = setting("P43212", "space group")
    d_min: float = setting(2.2, "highest resolution to which the crystals scatter, angstrom", low=0.8, high=20)
    b_factor: float = setting(20.0, "mean B of the atoms, square angstrom", low=2, high=200)

    photon_energy: float = setting(9500.0, "mean photon energy, eV", low=1000, high=100000)
    energy_jitter: float = setting(
        0.001, "relative standard deviation of the photon energy from pulse to pulse", low=0, high=0.05
    )
    bandwidth: float = setting(
        0.0005, "relative standard deviation of the photon energy within a pulse", low=0, high=0.05
    )
    spectrum: str = setting("gaussian", "shape of a pulse's spectrum", choices=("gaussian", "tophat", "sase"))
    polarised_fraction: float = setting(0.99, "part of the beam that is polarised along x", low=0, high=1)

    profile_model: str = setting(
        "gaussian",
        "reciprocal lattice points: Gaussian in the excitation error, a sphere, or blocks, each a sphere, tilted at random",
        choices=("gaussian", "sphere", "mosaic_blocks"),
    )
    profile_radius: float = setting(
        5e-4, "median R0 (Gaussian: sigma; sphere, blocks: radius), 1/angstrom", low=1e-5, high=0.02
    )
    mosaicity: float = setting(5e-4, "median eta, radian; a sphere has none", low=0, high=0.05)
    profile_spread: float = setting(0.25, "standard deviation of ln R0 and ln eta over crystals", low=0, high=1)
    n_blocks: int = setting(40, "mosaic blocks of a crystal", low=1, high=1000)
    photons: float = setting(300.0, "photons of a full reflection of mean F squared, median over crystals", low=0)
    scale_spread: float = setting(0.6, "standard deviation of ln G over crystals", low=0, high=3)
    b_spread: float = setting(4.0, "standard deviation of B over crystals, square angstrom", low=0, high=50)
    cell_spread: float = setting(
        0.0015, "relative standard deviation of the cell lengths over crystals", low=0, high=0.05
    )
    blank_fraction: float = setting(0.2, "part of the frames without a crystal", low=0, high=1)
    multi_fraction: float = setting(0.1, "part of the hits with more than one lattice", low=0, high=1)
    max_lattices: int = setting(2, "most lattices on a frame", low=1, high=20)

    background: float = setting(0.4, "mean background, photon per pixel", low=0, high=1000)
    background_spread: float = setting(0.25, "standard deviation of its logarithm over frames", low=0, high=2)
    water: float = setting(0.5, "part of the water ring in the background", low=0, high=1)
    ice_fraction: float = setting(0.0, "part of the frames with rings of hexagonal ice", low=0, high=1)
    salt_fraction: float = setting(0.0, "part of the frames with rings of salt", low=0, high=1)
    ring_spots: float = setting(60.0, "mean number of sharp spots on the rings of a frame", low=0, high=10000)
    ring_photons: float = setting(300.0, "mean photons of such a spot", low=0)
    ring_background: float = setting(
        0.6, "smooth part: photon per pixel on the crest of the strongest ring, median over frames", low=0, high=1000
    )
    ring_texture: float = setting(
        0.5, "how unevenly the rings go around the beam: 1 + texture cos(2 azimuth)", low=0, high=1
    )

    panel_rows: int = setting(4, "rows of panels", low=1, high=64)
    panel_columns: int = setting(2, "columns of panels", low=1, high=64)
    panel_ss: int = setting(256, "pixels of a panel along ss", low=8, high=8192)
    panel_fs: int = setting(512, "pixels of a panel along fs", low=8, high=8192)
    gap: int = setting(8, "pixels between panels", low=0, high=1000)
    stacked: bool = setting(
        True, "panels lie one below the other in the frame; otherwise as they stand, with the gaps as pixels"
    )
    panel_rotation: float = setting(
        0.002, "standard deviation of the panels' rotations, radian (a third of it out of plane)", low=0
    )
    pixel_size: float = setting(1e-4, "metre", low=1e-6, high=1e-2)
    clen: float = setting(0.107, "distance of the detector, metre", low=1e-3, high=10)
    psf: float = setting(0.65, "standard deviation of a spot of one ray, pixel", low=0.05, high=5)
    beamstop: float = setting(20.0, "radius of the beam stop's shadow, pixel", low=0)
    dead_fraction: float = setting(2e-4, "part of the pixels that are dead", low=0, high=0.5)
    hot_fraction: float = setting(3e-5, "part of the pixels that are hot", low=0, high=0.5)
    bad_pixels: str = setting(
        "mask",
        "how known bad pixels are told: by a mask, or by their value in the frame (-1, the largest that the type has, NaN)",
        choices=("mask", "negative", "largest", "nan"),
    )
    dtype: str = setting("int16", "type of the pixels", choices=tuple(_LARGEST))
    adu_per_photon: float = setting(1.0, "value of one photon", low=1e-6)
    read_noise: float = setting(0.0, "standard deviation of a pixel without light, photon", low=0)
    saturation: float = setting(30000.0, "photons at which a pixel is full", low=1)

    laser_fraction: float = setting(0.0, "part of the frames with the laser on", low=0, high=1)
    laser_atoms: float = setting(0.05, "part of the atoms that the laser moves", low=0, high=1)
    laser_shift: float = setting(0.5, "root mean square distance that it moves them, angstrom", low=0, high=20)
    delay_low: float = setting(
        0.0, "lowest delay of a frame with the laser on, picosecond; the atoms have moved where the delay is 0 or more"
    )
    delay_high: float = setting(10.0, "highest delay, picosecond; all delays are equally likely")
    heavy_atoms: int = setting(0, "atoms of the asymmetric unit that scatter anomalously", low=0, high=1000)
    heavy_element: str = setting("Se", "their element")
    f_double_prime: float = setting(3.8, "their f'', electrons", low=0, high=30)
    second_fraction: float = setting(0.0, "part of the lattices that are of a second crystal form", low=0, high=1)
    second_a: float = setting(48.0, "its cell length, angstrom", low=5, high=1000)
    second_b: float = setting(60.0, "its cell length, angstrom", low=5, high=1000)
    second_c: float = setting(77.0, "its cell length, angstrom", low=5, high=1000)
    second_alpha: float = setting(90.0, "its cell angle, degree", low=30, high=150)
    second_beta: float = setting(90.0, "its cell angle, degree", low=30, high=150)
    second_gamma: float = setting(90.0, "its cell angle, degree", low=30, high=150)
    second_space_group: str = setting("P212121", "its space group")

    drift_x: float = setting(0.0, "drift of the pattern along x, from end to end, pixel", low=-200, high=200)
    drift_y: float = setting(0.0, "the same along y, pixel", low=-200, high=200)
    drift_clen: float = setting(0.0, "drift of the camera length, from end to end, relative", low=-0.5, high=0.5)
    drift_frames: int = setting(1000, "frames from one end of the drift to the other", low=1)

    geometry_shift_x: float = setting(0.0, "error of the written geometry: all panels lie too far along x, pixel")
    geometry_shift_y: float = setting(0.0, "the same along y, pixel")
    geometry_clen_error: float = setting(0.0, "error of the written camera length, relative", low=-0.5, high=0.5)
    geometry_panel_error: float = setting(
        0.0, "standard deviation of the error of each panel's place in x and in y, mean zero, pixel", low=0, high=100
    )
    geometry_panel_rotation: float = setting(
        0.0, "standard deviation of the error of each panel's rotation in its plane, mean zero, radian", low=0, high=0.5
    )

    @property
    def cell_parameters(self):
        """(a, b, c, alpha, beta, gamma) in angstrom and degree."""
        return (self.a, self.b, self.c, self.alpha, self.beta, self.gamma)

    @property
    def second_cell_parameters(self):
        """The same of the second crystal form."""
        return (
            self.second_a, self.second_b, self.second_c, self.second_alpha, self.second_beta, self.second_gamma,
        )  # fmt: skip

    @cached_property
    def gemmi_group(self):
        """The space group (gemmi.SpaceGroup); InputError if there is none of that name."""
        return _group_called(self.space_group, "space_group")

    @cached_property
    def second_gemmi_group(self):
        """The same of the second crystal form."""
        return _group_called(self.second_space_group, "second_space_group")

    @property
    def forms(self):
        """(cell parameters, gemmi.SpaceGroup) of each crystal form."""
        first = (self.cell_parameters, self.gemmi_group)
        return (first, (self.second_cell_parameters, self.second_gemmi_group)) if self.second_fraction else (first,)

    @cached_property
    def twin_laws(self):
        """Ways to index each crystal form (sfxflow.simulate.ambiguity.twin_laws)."""
        return tuple(ambiguity.twin_laws(cell, group) for cell, group in self.forms)

    @property
    def largest_value(self):
        """Largest value that a pixel can hold."""
        return _LARGEST[self.dtype]

    def rng(self, purpose, index=0):
        """A random generator of its own for each purpose and frame, so that no frame depends on another."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_PURPOSES.index(purpose), index)))

    @cached_property
    def detector(self):
        """The detector (sfxflow.geometry.Detector), exactly as it is in the simulation."""
        return detector.make_detector(self, self.rng("detector"))

    @cached_property
    def stated_detector(self):
        """The detector as its files describe it (sfxflow.simulate.geometry_errors)."""
        return geometry_errors.stated_detector(self.detector, self, self.rng("geometry errors"))

    @cached_property
    def planes(self):
        """The detector for ray tracing (sfxflow.simulate.detector.Planes)."""
        return detector.planes(self.detector)

    @cached_property
    def bad_pixels_map(self):
        """Bad pixels (sfxflow.simulate.detector.BadPixels)."""
        return detector.make_bad_pixels(self, self.detector, self.rng("bad pixels"))

    @cached_property
    def background_shape(self):
        """Expected background over its mean, ndarray of float32, shape (ss, fs)."""
        return detector.background_shape(self.detector, self.photon_energy, self.water, self.polarised_fraction)

    @cached_property
    def background_levels(self):
        """The background sorted into levels (sfxflow.simulate.images.background_levels)."""
        return images.background_levels(self.background_shape)

    @cached_property
    def powder_lines(self):
        """Rings of each powder to the detector's corner (sfxflow.simulate.rings.powder_lines)."""
        return {kind: rings.powder_lines(kind, self.outer_resolution) for kind in ("ice", "salt")}

    @cached_property
    def ring_shapes(self):
        """Smooth part of each powder's rings (sfxflow.simulate.rings.RingShape)."""
        direction, _ = detector.pixel_directions(self.detector)
        polarised = detector.polarisation(direction, self.polarised_fraction)
        at = wavelength(self.photon_energy)
        return {kind: rings.ring_shape(direction, polarised, at, lines) for kind, lines in self.powder_lines.items()}

    @cached_property
    def structure(self):
        """The crystal's atoms (gemmi.Structure)."""
        return structure.random_structure(
            self.cell_parameters,
            self.gemmi_group,
            self.rng("structure"),
            self.b_factor,
            heavy_element=self.heavy_element,
            heavy_atoms=self.heavy_atoms,
        )

    def _factors(self, atoms, group):
        f_double_prime = self.f_double_prime if self.heavy_atoms else 0.0
        return structure.structure_factors(atoms, group, self.d_min, self.heavy_element, f_double_prime)

    @cached_property
    def structure_factors(self):
        """The crystal's squared structure factors (sfxflow.simulate.structure.StructureFactors)."""
        return self._factors(self.structure, self.gemmi_group)

    @cached_property
    def laser_structure_factors(self):
        """Those of the second state."""
        atoms = structure.displaced(self.structure, self.laser_atoms, self.laser_shift, self.rng("laser structure"))
        return self._factors(atoms, self.gemmi_group)

    @cached_property
    def second_structure_factors(self):
        """Those of the second crystal form, which has no second state and no heavy atoms."""
        atoms = structure.random_structure(
            self.second_cell_parameters, self.second_gemmi_group, self.rng("second structure"), self.b_factor
        )
        return structure.structure_factors(atoms, self.second_gemmi_group, self.d_min)

    def factors_of(self, state, form):
        """Squared structure factors of a crystal form in a state."""
        if form:
            return self.second_structure_factors
        return self.laser_structure_factors if state else self.structure_factors

    @property
    def n_spectrum_points(self):
        """Points of a pulse's spectrum: neighbours excite every reflection nearly alike."""
        shift = self.bandwidth * wavelength(self.photon_energy) / (2.0 * self.d_min**2)
        lowest = {"gaussian": 9, "tophat": 9, "sase": 41}[self.spectrum]
        return int(np.clip(2 * np.ceil(6.4 * shift / self.profile_radius / 2.0) + 1, lowest, 81))

    @property
    def outer_resolution(self):
        """d in angstrom at the detector's farthest corner."""
        largest = 0.0
        for p in self.detector.panels:
            for fs, ss in ((0, 0), (p.n_fs, 0), (0, p.n_ss), (p.n_fs, p.n_ss)):
                x, y, z = np.array(p.origin) + fs * np.array(p.fs) + ss * np.array(p.ss)
                two_theta = np.arctan2(np.hypot(x, y), z + self.clen)
                largest = max(largest, 2.0 * np.sin(two_theta / 2.0) / wavelength(self.photon_energy))
        return 1.0 / largest


_PURPOSES = (
    "structure",
    "detector",
    "bad pixels",
    "frame",
    "noise",
    "spots",
    "geometry errors",
    "laser",
    "laser structure",
    "form",
    "second structure",
    "rings",
    "ring noise",
)


def _group_called(name, setting_name):
    group = gemmi.find_spacegroup_by_name(name)
    if group is None:
        raise InputError(f"{setting_name}: {name!r} is not a space group (expected for example P43212)")
    return group

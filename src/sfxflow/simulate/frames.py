"""Frames with known truth: the interface of the simulator."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sfxflow.simulate import ambiguity, crystals, images, rings, spots
from sfxflow.simulate.detector import polarisation
from sfxflow.units import wavelength

#: Pixels that the background noise of a spot's intensity in `simulate_spots` comes from: a circle of radius 3.
_PEAK_PIXELS = 29


class Spots(NamedTuple):
    """Reflections of a frame.

    Attributes
    ----------
    fs, ss : ndarray of float64, shape (n,)
        Slab coordinates, pixel, corner-based: the mean over the spot.
    panel : ndarray of int64, shape (n,)
    hkl : ndarray of int32, shape (n, 3)
    photons : ndarray of float64, shape (n,)
        Expected photons: G exp(-B/(2 d^2)) F^2 polarisation partiality.
    intensity, sigma : ndarray of float64, shape (n,)
        The same with Poisson noise of the spot and of the background under it, and its standard uncertainty.
    partiality, polarisation : ndarray of float64, shape (n,)
    excitation_error : ndarray of float64, shape (n,)
        1/lambda - |q + z/lambda| at the mean wavelength, 1/angstrom.
    lattice : ndarray of int64, shape (n,)
        Number of the lattice on the frame.
    """

    fs: np.ndarray
    ss: np.ndarray
    panel: np.ndarray
    hkl: np.ndarray
    photons: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    partiality: np.ndarray
    polarisation: np.ndarray
    excitation_error: np.ndarray
    lattice: np.ndarray


def frame_truth(experiment, index):
    """Draw what makes frame `index`: pulse, background, crystals.

    Returns
    -------
    sfxflow.simulate.crystals.FrameTruth
    """
    rng = experiment.rng("frame", index)
    relative, weights = crystals.spectrum(experiment.spectrum, experiment.bandwidth, experiment.n_spectrum_points, rng)
    energies = experiment.photon_energy * (1.0 + experiment.energy_jitter * rng.standard_normal()) * relative
    background = experiment.background * np.exp(experiment.background_spread * rng.standard_normal())
    kind, n_lattices = _kind(experiment, rng)
    laser_on, delay, state = _laser(experiment, index)
    forms = _forms(experiment, index, n_lattices)
    shift, clen = _drift(experiment, index)
    return crystals.FrameTruth(
        index=index,
        kind=kind,
        photon_energy=float(weights @ energies),
        wavelengths=wavelength(energies),
        weights=weights,
        background=float(background),
        lattices=tuple(_lattice(experiment, form, rng) for form in forms),
        state=state,
        laser_on=laser_on,
        delay=delay,
        shift=shift,
        clen=clen,
        rings=_rings(experiment, index),
    )


def _lattice(experiment, form, rng):
    """A random crystal of a form."""
    cell, group = experiment.forms[form]
    mean_intensity = experiment.factors_of(0, form).intensity.mean()
    lattice = crystals.draw_lattice(cell, group, experiment, mean_intensity, rng)
    mode = ambiguity.indexed_as(lattice.reciprocal, cell, group, experiment.twin_laws[form])
    return replace(lattice, form=form, mode=mode)


def _laser(experiment, index):
    """Whether the laser is on, its delay in picosecond (NaN where it is off), and the crystals' state."""
    is_on, delay = experiment.rng("laser", index).random(2)
    if is_on >= experiment.laser_fraction:
        return False, float("nan"), 0
    delay = experiment.delay_low + delay * (experiment.delay_high - experiment.delay_low)
    return True, float(delay), int(delay >= 0.0)


def _forms(experiment, index, n_lattices):
    """The crystal form of each lattice."""
    if not experiment.second_fraction:
        return [0] * n_lattices
    is_second = experiment.rng("form", index).random(n_lattices) < experiment.second_fraction
    return is_second.astype(int).tolist()


def _rings(experiment, index):
    """Rings of the frame, None where there are none."""
    if not experiment.ice_fraction + experiment.salt_fraction:
        return None
    return rings.draw_rings(experiment, experiment.powder_lines, experiment.rng("rings", index))


def _drift(experiment, index):
    """Shift of the pattern along x and y, and the camera length, metre."""
    part = 0.5 * np.cos(np.pi * index / experiment.drift_frames)
    shift = (part * experiment.drift_x * experiment.pixel_size, part * experiment.drift_y * experiment.pixel_size)
    return shift, experiment.clen * (1.0 + part * experiment.drift_clen)


def _planes(experiment, truth):
    """The panels as the beam meets them at that frame."""
    if truth.shift == (0.0, 0.0) and truth.clen == experiment.clen:
        return experiment.planes
    moved = experiment.planes.corner + (-truth.shift[0], -truth.shift[1], truth.clen - experiment.clen)
    return replace(experiment.planes, corner=moved)


def _kind(experiment, rng):
    """'blank', 'single' or 'multi', and the number of lattices."""
    blank, multi = rng.random(2)
    if blank < experiment.blank_fraction:
        return "blank", 0
    if multi < experiment.multi_fraction and experiment.max_lattices > 1:
        return "multi", int(rng.integers(2, experiment.max_lattices + 1))
    return "single", 1


def _traced(experiment, truth, lattice):
    """Rays of one lattice, and expected photons and polarisation of each reflection."""
    factors = experiment.factors_of(truth.state, lattice.form)
    rays = spots.trace(
        factors.hkl,
        lattice,
        truth.wavelengths,
        truth.weights,
        wavelength(truth.photon_energy),
        _planes(experiment, truth),
        experiment.profile_model,
    )
    q = factors.hkl[rays.row] @ lattice.reciprocal.T
    half_resolution_squared = np.einsum("ij,ij->i", q, q) / 4.0
    polarised = polarisation(rays.direction, experiment.polarised_fraction)
    full = (
        lattice.scale
        * np.exp(-2.0 * lattice.b_factor * half_resolution_squared)
        * factors.intensity[rays.row]
        * polarised
    )
    return rays, full, polarised


def simulate_spots(experiment, index):
    """Reflections of a frame without an image, for indexing, refinement and merging of thousands of crystals.

    Parameters
    ----------
    experiment : sfxflow.simulate.experiment.Experiment
    index : int

    Returns
    -------
    Spots
    """
    truth = frame_truth(experiment, index)
    rng = experiment.rng("spots", index)
    columns = [[] for _ in Spots._fields]
    for number, lattice in enumerate(truth.lattices):
        rays, full, polarised = _traced(experiment, truth, lattice)
        photons = full * rays.partiality
        under = _PEAK_PIXELS * truth.background
        intensity = rng.poisson(photons + under) - under
        sigma = np.sqrt(np.maximum(intensity, 0.0) + under + 1.0)
        values = Spots(
            fs=rays.fs,
            ss=rays.ss,
            panel=rays.panel,
            hkl=experiment.factors_of(truth.state, lattice.form).hkl[rays.row],
            photons=photons,
            intensity=intensity,
            sigma=sigma,
            partiality=rays.partiality,
            polarisation=polarised,
            excitation_error=rays.excitation_error,
            lattice=np.full(len(photons), number),
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    if not truth.lattices:
        whole = {"panel": np.int64, "hkl": np.int32, "lattice": np.int64}
        shapes = {"hkl": (0, 3)}
        return Spots(*(np.zeros(shapes.get(name, 0), whole.get(name, np.float64)) for name in Spots._fields))
    return Spots(*(np.concatenate(column) for column in columns))


def expected_photons(experiment, truth):
    """Expected photons of all reflections in every pixel, without background and noise.

    Returns
    -------
    image : ndarray of float32, shape (ss, fs)
    lit : ndarray of int64
        Flat numbers of the pixels that are not zero.
    """
    image = np.zeros(experiment.detector.shape, dtype=np.float32)
    lit = []
    planes = experiment.planes
    per_ray = (2 * images.rays_reach(experiment.psf) + 1) ** 2
    for lattice in truth.lattices:
        rays, full, _ = _traced(experiment, truth, lattice)
        touched = np.empty(min(len(rays.ray_spot) * per_ray, image.size), dtype=np.int64)
        photons = full[rays.ray_spot] * rays.ray_partiality
        n = images.draw_rays(
            image, touched, rays.ray_panel, rays.ray_fs, rays.ray_ss, photons, experiment.psf, planes.size, planes.place
        )
        lit.append(touched[:n])
    return image, np.concatenate(lit) if lit else np.zeros(0, dtype=np.int64)


def ring_photons(experiment, truth):
    """Expected photons of a frame's powder rings.

    Returns
    -------
    pixels : ndarray of int64, shape (n,)
        Flat numbers of the pixels that they reach.
    expected : ndarray of float32, shape (n,)
    """
    shape = experiment.ring_shapes[truth.rings.kind]
    image = np.zeros(experiment.detector.shape, dtype=np.float32)
    level = truth.rings.strength * experiment.ring_background
    image.ravel()[shape.pixels] = level * shape.expected(truth.rings.azimuth, experiment.ring_texture)
    direction, photons = rings.spot_directions(truth.rings, wavelength(truth.photon_energy))
    photons = photons * polarisation(direction, experiment.polarised_fraction)
    planes = _planes(experiment, truth)
    panels = (planes.corner, planes.normal, planes.along_fs, planes.along_ss, planes.size)
    met = [(*spots.meet(*ray, *panels), light) for ray, light in zip(direction, photons, strict=True)]
    met = np.array([found for found in met if found[0] >= 0]).reshape(-1, 4)
    panel = met[:, 0].astype(np.int64)
    fs, ss = met[:, 1] + planes.place[panel, 0], met[:, 2] + planes.place[panel, 1]
    touched = np.empty(len(met) * (2 * images.rays_reach(experiment.psf) + 1) ** 2, dtype=np.int64)
    images.draw_rays(image, touched, panel, fs, ss, met[:, 3], experiment.psf, planes.size, planes.place)
    pixels = np.flatnonzero(image)
    return pixels, image.ravel()[pixels]


def simulate_frame(experiment, index):
    """One frame as the detector writes it, and what made it.

    Parameters
    ----------
    experiment : sfxflow.simulate.experiment.Experiment
        From `sfxflow.simulate.presets.preset`.
    index : int
        Number of the frame: the same experiment and number give the same frame, in whatever order they are asked for.

    Returns
    -------
    image : ndarray of `experiment.dtype`, shape (ss, fs)
    truth : sfxflow.simulate.crystals.FrameTruth
    """
    truth = frame_truth(experiment, index)
    rng = experiment.rng("noise", index)
    level, mean = experiment.background_levels
    photons = np.empty(level.shape, dtype=np.int32)
    bits = rng.integers(0, 2**32, size=level.size, dtype=np.uint32)
    images.poisson_background(level.ravel(), mean * truth.background, bits, photons.ravel())
    expected, lit = expected_photons(experiment, truth)
    # Poisson numbers of background and spots add up to a Poisson number of their sum.
    photons.ravel()[lit] += rng.poisson(expected.ravel()[lit]).astype(np.int32)
    if truth.rings:
        pixels, expected = ring_photons(experiment, truth)
        photons.ravel()[pixels] += experiment.rng("ring noise", index).poisson(expected).astype(np.int32)
    return images.read_out(photons, experiment, rng), truth


def simulate_many(experiment, n_frames, threads=1, finish=None):
    """Frames 0 to `n_frames` in order, made by several threads.

    Parameters
    ----------
    experiment : sfxflow.simulate.experiment.Experiment
    n_frames : int
    threads : int
    finish : function of an image, optional
        Runs in the threads; its result stands in place of the image.

    Yields
    ------
    image or result of `finish`, truth
    """

    def make(index):
        image, truth = simulate_frame(experiment, index)
        return (finish(image) if finish else image), truth

    # What all frames share is made once, before threads ask for it.
    shared = ["structure_factors", "twin_laws", "planes", "background_levels", "bad_pixels_map"]
    shared += ["laser_structure_factors"] if experiment.laser_fraction else []
    shared += ["powder_lines", "ring_shapes"] if experiment.ice_fraction + experiment.salt_fraction else []
    shared += ["second_structure_factors"] if experiment.second_fraction else []
    for name in shared:
        getattr(experiment, name)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        try:
            for index in range(n_frames):
                waiting.append(pool.submit(make, index))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

"""Simulated observations with known truth, for the tests and figures of merging: no images, and no code of the merging in common.

A lysozyme-like tetragonal crystal (P 43 21 2) in random orientations. Each lattice point is a distribution along the normal of
the Ewald sphere: of a Gaussian, of a sphere, or of a block with sharp faces, broadened by mosaic spread and by bandwidth.
What the merging is told (orientation, widths, photon energy) differs from what was simulated.
"""

from dataclasses import dataclass, field

import numpy as np
from stills import (
    N_PEAK,
    N_RING,
    above_background,
    background_level,
    polarisation_factor,
    random_rotation,
    wilson_intensities,
)

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)
SPACE_GROUP = "P43212"


@dataclass
class Simulated:
    """Columns as in `sfxflow.reflections`, and the truth.

    Attributes
    ----------
    crystals, reflections : dict of ndarray
    hkl : ndarray of int, shape (n, 3)
        Unique reflections (0 <= k <= h, 0 <= l).
    intensity : ndarray, shape (n,)
        Their true intensities.
    scale : ndarray
        True scale of each crystal.
    partiality : ndarray
        True partiality of each observation, relative to the height at q = 0 of a crystal of median width.
    """

    crystals: dict
    reflections: dict
    hkl: np.ndarray
    intensity: np.ndarray
    scale: np.ndarray
    partiality: np.ndarray
    truth: dict = field(default_factory=dict)
    cell: tuple = CELL


def true_intensities(d_min, rng, wilson_b=20.0, mean=800.0):
    """Wilson-distributed intensities, dict of (h, k, l) with h >= k >= 0, l >= 0; screw axes leave absences."""
    a, c = CELL[0], CELL[2]
    h, k, l = np.meshgrid(np.arange(int(a / d_min) + 1), np.arange(int(a / d_min) + 1), np.arange(int(c / d_min) + 1))
    hkl = np.stack([h.ravel(), k.ravel(), l.ravel()], axis=1)
    hkl = hkl[(hkl[:, 0] >= hkl[:, 1]) & (hkl.sum(axis=1) > 0)]
    absent = (hkl[:, 0] == 0) & (hkl[:, 1] == 0) & (hkl[:, 2] % 4 != 0)
    absent |= (hkl[:, 1] == 0) & (hkl[:, 2] == 0) & (hkl[:, 0] % 2 != 0)
    hkl = hkl[~absent]
    s = np.sqrt((hkl[:, 0] ** 2 + hkl[:, 1] ** 2) / a**2 + hkl[:, 2] ** 2 / c**2)
    hkl, s = hkl[s < 1 / d_min], s[s < 1 / d_min]
    centric = (hkl[:, 2] == 0) | (hkl[:, 1] == 0) | (hkl[:, 0] == hkl[:, 1])
    return hkl, mean * wilson_intensities(s, centric, rng, wilson_b)


def line_profile(kind, u):
    """Density along the normal of the Ewald sphere, of unit area and unit standard deviation (block: of its central lobe)."""
    if kind == "gaussian":
        return np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    if kind == "sphere":
        radius = np.sqrt(5.0)
        return np.clip(1 - (u / radius) ** 2, 0, None) * 0.75 / radius
    if kind == "block":
        zero = 3.02  # first zero of the sinc^2 whose central lobe has unit standard deviation
        return np.where(np.abs(u) < zero, np.sinc(u / zero) ** 2, 0.0) / (0.9028 * zero)
    raise ValueError(kind)


def simulate(
    n_crystals,
    seed=1,
    d_min=2.0,
    profile="gaussian",
    radius=1.4e-4,
    radius_spread=0.25,
    mosaicity=1.5e-4,
    bandwidth=6e-4,
    misorientation=1.5e-4,
    energy_error=2e-4,
    scale_spread=0.6,
    b_spread=3.0,
    gain=1.0,
    background=0.3,
    anomalous=0.0,
    photon_energy=9500.0,
    window=3.5,
    state_difference=0.0,
):
    """Simulate `n_crystals` stills.

    Lengths in 1/angstrom, misorientation (standard deviation about each axis) and mosaicity in radian, energy error and
    bandwidth relative, background in photons a pixel; observations lie within `window` sigma(q) of the (wrong) Ewald sphere.
    Crystals of odd number are in a second state, whose intensities differ by `state_difference` (relative, standard deviation).
    """
    rng = np.random.default_rng(seed)
    hkl, intensity = true_intensities(d_min, rng)
    a, c = CELL[0], CELL[2]
    n_max = int(a / d_min) + 1
    table = np.full((n_max + 1, n_max + 1, int(c / d_min) + 2), -1)
    table[hkl[:, 0], hkl[:, 1], hkl[:, 2]] = np.arange(len(hkl))
    grid = np.stack(
        np.meshgrid(*[np.arange(-m, m + 1) for m in (n_max, n_max, int(c / d_min) + 1)], indexing="ij"), axis=-1
    ).reshape(-1, 3)
    reciprocal = np.diag([1 / a, 1 / a, 1 / c])
    length = np.linalg.norm(grid @ reciprocal, axis=1)
    grid = grid[(length < 1 / d_min) & (length > 0.025)]
    folded = np.abs(grid)
    index = table[np.maximum(folded[:, 0], folded[:, 1]), np.minimum(folded[:, 0], folded[:, 1]), folded[:, 2]]
    grid, index = grid[index >= 0], index[index >= 0]
    squared = np.sum((grid @ reciprocal) ** 2, axis=1)
    far = window * np.sqrt(radius**2 + (mosaicity / d_min) ** 2 + (bandwidth * 1.3 / d_min**2) ** 2)
    difference = anomalous * rng.normal(size=len(hkl))
    changed = np.maximum(1 + state_difference * np.random.default_rng(seed + 1000).normal(size=len(hkl)), 0)
    wavelength = 12398.41984 / photon_energy
    k_true = 1 / wavelength
    crystals = {name: [] for name in ("reciprocal", "profile_radius", "mosaicity", "bandwidth", "photon_energy")}
    parts, scales, partialities, widths = [], [], [], []
    for number in range(n_crystals):
        told = random_rotation(rng) @ reciprocal
        angle = rng.normal(0, misorientation, 3)
        cross = np.array([[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]])
        true = (np.eye(3) + cross + cross @ cross / 2) @ told
        k_told = k_true
        k_here = k_true * (1 + rng.normal(0, energy_error))
        own_radius = radius * np.exp(rng.normal(0, radius_spread))
        scale = np.exp(rng.normal(0, scale_spread))
        b = rng.normal(0, b_spread)
        # only lattice points near the sphere: |q|^2 + 2 k q_z is about 2 k times the distance
        close = np.flatnonzero(np.abs(squared + 2 * k_told * (grid @ told[2])) < 2 * k_told * 2 * far)
        q, q_length = grid[close] @ told.T, np.sqrt(squared[close])
        told_width = np.sqrt(radius**2 + (mosaicity * q_length) ** 2 + (bandwidth * q_length**2 / (2 * k_told)) ** 2)
        excitation = k_told - np.linalg.norm(q + [0, 0, k_told], axis=1)
        near = close[np.abs(excitation) < window * told_width]
        excitation = excitation[np.abs(excitation) < window * told_width]
        own_rows, q, q_length = index[near], grid[near] @ true.T, np.sqrt(squared[near])
        error = k_here - np.linalg.norm(q + [0, 0, k_here], axis=1)
        width = np.sqrt(own_radius**2 + (mosaicity * q_length) ** 2 + (bandwidth * q_length**2 / (2 * k_here)) ** 2)
        partiality = np.sqrt(2 * np.pi) * radius * line_profile(profile, error / width) / width
        polarisation = polarisation_factor(q, k_here)
        sign = _friedel_sign(grid[near])
        true_i = intensity[own_rows] * (1 + sign * difference[own_rows])
        if number % 2:
            true_i = true_i * changed[own_rows]
        expected = scale * np.exp(-b * q_length**2 / 2) * partiality * true_i * polarisation
        level = background_level(q_length, background)
        counts = rng.poisson(np.clip(expected, 0, None) + N_PEAK * level)
        observed, variance = above_background(counts, rng.poisson(N_RING * level))
        parts.append(
            {
                "crystal": np.full(len(near), number, np.uint32),
                "hkl": grid[near],
                "I": (gain * observed).astype(np.float32),
                "sigI": (gain * np.sqrt(variance)).astype(np.float32),
                "excitation_error": excitation.astype(np.float32),
                "polarisation": polarisation.astype(np.float32),
            }
        )
        crystals["reciprocal"].append(told)
        crystals["profile_radius"].append(radius)
        crystals["mosaicity"].append(mosaicity)
        crystals["bandwidth"].append(bandwidth)
        crystals["photon_energy"].append(photon_energy)
        scales.append(scale)
        partialities.append(partiality)
        widths.append(own_radius)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for axis, name in enumerate("hkl"):
        joined[name] = joined["hkl"][:, axis].astype(np.int16)
    del joined["hkl"]
    columns = {name: np.array(values) for name, values in crystals.items()}
    return Simulated(
        columns,
        joined,
        hkl,
        intensity,
        np.array(scales),
        np.concatenate(partialities),
        {"radius": np.array(widths), "difference": difference, "second_state": intensity * (changed - 1)},
    )


def noisy_reflections(simulated, every, noise, seed):
    """Reflections of which one crystal in `every` has its intensities multiplied by log-normal noise of standard deviation `noise`."""
    noisy = simulated.reflections["crystal"] % every == 0
    factor = np.where(noisy, np.exp(np.random.default_rng(seed).normal(0, noise, len(noisy))), 1.0)
    return simulated.reflections | {name: simulated.reflections[name] * factor for name in ("I", "sigI")}


def _friedel_sign(hkl):
    """+1 or -1 for reflections of 4/mmm: which of the two classes under the rotations of 422; 0 for centric ones."""
    h, k, l = np.asarray(hkl).T
    swapped = np.abs(h) < np.abs(k)
    return np.sign(h) * np.sign(k) * np.sign(l) * np.where(np.abs(h) == np.abs(k), 0, np.where(swapped, -1, 1))


def folded(hkl):
    """Equivalents with 0 <= k <= h and 0 <= l."""
    hkl = np.abs(np.asarray(hkl))
    hkl[:, :2] = np.sort(hkl[:, :2], axis=1)[:, ::-1]
    return hkl


def true_on_scale(hkl, merged, sigma, truth):
    """True intensities, on the scale and with the B of the merged ones (from those above 20 sigma)."""
    key = {tuple(row): value for row, value in zip(truth.hkl.tolist(), truth.intensity, strict=True)}
    hkl = folded(hkl)
    true = np.array([key[tuple(row)] for row in hkl.tolist()])
    s2 = (hkl[:, 0] ** 2 + hkl[:, 1] ** 2) / CELL[0] ** 2 + hkl[:, 2] ** 2 / CELL[2] ** 2
    strong = (merged > 20 * sigma) & (true > 0)
    slope, offset = np.polyfit(s2[strong], np.log(merged[strong] / true[strong]), 1)
    return true * np.exp(offset + slope * s2)


def agreement(hkl, merged, truth):
    """R1 on intensities and correlation with the truth, after fitting scale and B as compare_hkl does.

    Returns
    -------
    r1, cc : float
    """
    key = {tuple(row): value for row, value in zip(truth.hkl.tolist(), truth.intensity, strict=True)}
    folded = np.abs(np.asarray(hkl))
    folded[:, :2] = np.sort(folded[:, :2], axis=1)[:, ::-1]
    true = np.array([key.get(tuple(row), np.nan) for row in folded.tolist()])
    s2 = ((folded[:, 0] ** 2 + folded[:, 1] ** 2) / CELL[0] ** 2 + folded[:, 2] ** 2 / CELL[2] ** 2) / 4
    good = np.isfinite(true) & np.isfinite(merged)
    both = good & (true > 0) & (merged > 0)
    slope, offset = np.polyfit(s2[both], np.log(merged[both] / true[both]), 1)
    scaled = true[good] * np.exp(offset + slope * s2[good])
    return np.abs(merged[good] - scaled).sum() / merged[good].sum(), np.corrcoef(merged[good], scaled)[0, 1]

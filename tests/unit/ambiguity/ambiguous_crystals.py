"""Simulated observations of crystals that can be indexed in several ways, each crystal in a random one; no images.

Wilson-distributed intensities on a list of the reflections' own making; stills with partiality (Gaussian lattice points), counting
noise, and errors of orientation, width and photon energy that the tables don't know of.
"""

from dataclasses import dataclass

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

from sfxflow.cell import reciprocal_matrix
from sfxflow.symmetry import reflection_key, space_group, to_asu

#: Name to cell, space group and the ways to index, as operators h' = h @ operator written down by hand.
CASES = {
    "P63": ((62.8, 62.8, 111.0, 90.0, 90.0, 120.0), "P63", ["h,k,l", "k,h,-l"]),
    "P43": ((79.1, 79.1, 37.9, 90.0, 90.0, 90.0), "P43", ["h,k,l", "k,h,-l"]),
    "P3": ((62.8, 62.8, 111.0, 90.0, 90.0, 120.0), "P3", ["h,k,l", "-h,-k,l", "k,h,-l", "-k,-h,-l"]),
    "P21": ((51.0, 42.0, 66.0, 90.0, 90.05, 90.0), "P21", ["h,k,l", "h,-k,-l"]),
    "P43212": ((79.1, 79.1, 37.9, 90.0, 90.0, 90.0), "P43212", ["h,k,l"]),
}


def operator_of(text):
    """Matrix of 'k,h,-l': h' = h @ matrix."""
    matrix = np.zeros((3, 3))
    for column, term in enumerate(text.split(",")):
        matrix["hkl".index(term[-1]), column] = -1 if term.startswith("-") else 1
    return matrix


@dataclass
class Simulated:
    """Tables as in `sfxflow.reflections`, and the truth.

    Attributes
    ----------
    crystals, reflections : dict of ndarray
    cell : tuple
    group : gemmi.SpaceGroup
    operators : ndarray, shape (n_modes, 3, 3)
        Indices of crystal c are true indices @ operators[mode[c]].
    mode : ndarray of int, shape (n_crystals,)
    hkl : ndarray, shape (n, 3)
        Unique reflections.
    intensity : ndarray, shape (n,)
    """

    crystals: dict
    reflections: dict
    cell: tuple
    group: object
    operators: np.ndarray
    mode: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray

    def right(self, operators, mode):
        """Fraction of the crystals that are consistent with each other, up to one operator for all.

        Parameters
        ----------
        operators : ndarray, shape (n_modes, 3, 3)
        mode : ndarray of int
            Each crystal's indices @ operators[mode] is what was found.
        """
        probe = np.array([[1, 2, 5], [3, -1, 4]])
        names = {}
        for true in range(len(self.operators)):
            for found in range(len(operators)):
                # a chiral pair of general reflections tells every coset
                moved = to_asu(np.rint(probe @ self.operators[true] @ operators[found]).astype(int), self.group)
                names[true, found] = tuple(moved.ravel())
        found = [names[t, f] for t, f in zip(self.mode.tolist(), np.asarray(mode).tolist(), strict=True)]
        return max(found.count(name) for name in set(found)) / len(found)


def simulate(
    case,
    n_crystals,
    n_observations,
    seed=1,
    d_min=3.0,
    radius=4e-4,
    mosaicity=3e-4,
    width_spread=0.25,
    misorientation=2e-4,
    energy_error=3e-4,
    scale_spread=0.6,
    b_spread=3.0,
    mean_photons=300.0,
    background=0.3,
    photon_energy=9500.0,
    window=3.5,
):
    """Stills of a case of `CASES`, of each `n_observations` taken at random from those within `window` sigma(q) of the sphere."""
    rng = np.random.default_rng(seed)
    cell, name, texts = CASES[case]
    group = space_group(name)
    operators = np.array([operator_of(text) for text in texts])
    reciprocal = reciprocal_matrix(cell)
    grid, index, hkl, intensity = _reflections(cell, group, d_min, rng)
    squared = np.sum((grid @ reciprocal.T) ** 2, axis=1)
    k = photon_energy / 12398.41984
    far = 2.0 * window * np.sqrt(radius**2 + (mosaicity / d_min) ** 2)
    mode = rng.integers(0, len(operators), n_crystals)
    names = ("I", "sigI", "excitation_error", "polarisation")
    told, rows, columns = [], [], {name: [] for name in names}
    for c in range(n_crystals):
        own = random_rotation(rng) @ reciprocal
        near = np.flatnonzero(np.abs(squared + 2 * k * (grid @ own[2])) < 2 * k * far)
        q, length = grid[near] @ own.T, np.sqrt(squared[near])
        excitation = k - np.linalg.norm(q + [0, 0, k], axis=1)
        sigma_q = np.hypot(radius, mosaicity * length)
        chosen = np.flatnonzero(np.abs(excitation) < window * sigma_q)
        chosen = rng.permutation(chosen)[:n_observations]
        near, q, length, excitation, sigma_q = (
            near[chosen],
            q[chosen],
            length[chosen],
            excitation[chosen],
            sigma_q[chosen],
        )
        turned = q + np.cross(rng.normal(0, misorientation, 3), q)
        k_here = k * (1 + rng.normal(0, energy_error))
        error = k_here - np.linalg.norm(turned + [0, 0, k_here], axis=1)
        width = sigma_q * np.exp(rng.normal(0, width_spread))
        polarisation = polarisation_factor(q, k)
        scale = np.exp(rng.normal(0, scale_spread) - rng.normal(0, b_spread) * length**2 / 2)
        expected = scale * radius / width * np.exp(-0.5 * (error / width) ** 2) * intensity[index[near]] * polarisation
        level = background_level(length, background)
        ring = rng.poisson(N_RING * level)
        counted, variance = above_background(rng.poisson(expected * mean_photons + N_PEAK * level), ring)
        for name, values in zip(names, (counted, np.sqrt(variance), excitation, polarisation), strict=True):
            columns[name].append(values.astype(np.float32))
        rows.append(np.rint(grid[near] @ operators[mode[c]]).astype(np.int16))
        # the same scattering vectors with the indices as told
        told.append(own @ np.linalg.inv(operators[mode[c]].T))
    joined = np.concatenate(rows)
    reflections = {"crystal": np.repeat(np.arange(n_crystals, dtype=np.uint32), [len(part) for part in rows])}
    reflections |= {letter: joined[:, axis] for axis, letter in enumerate("hkl")}
    reflections |= {name: np.concatenate(parts) for name, parts in columns.items()}
    crystals = {
        "reciprocal": np.array(told),
        "profile_radius": np.full(n_crystals, radius),
        "mosaicity": np.full(n_crystals, mosaicity),
        "bandwidth": np.zeros(n_crystals),
        "photon_energy": np.full(n_crystals, photon_energy),
    }
    return Simulated(crystals, reflections, cell, group, operators, mode, hkl, intensity)


def _reflections(cell, group, d_min, rng):
    """All lattice points to `d_min`, the number of the unique reflection of each, the unique ones, and true intensities (mean about 1)."""
    most = [int(length / d_min) + 1 for length in cell[:3]]
    grid = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(grid @ reciprocal_matrix(cell).T, axis=1)
    grid = grid[(length < 1 / d_min) & (length > 0.03)]
    grid = grid[~group.operations().systematic_absences(grid)]
    _, first, index = np.unique(reflection_key(to_asu(grid, group)), return_index=True, return_inverse=True)
    hkl = to_asu(grid[first], group)
    s = np.linalg.norm(hkl @ reciprocal_matrix(cell).T, axis=1)
    operations = group.operations()
    centric = np.array([operations.is_reflection_centric(row) for row in hkl.tolist()])
    return grid, index, hkl, wilson_intensities(s, centric, rng)

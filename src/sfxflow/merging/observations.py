"""Observations as compact columns, crystal after crystal, and the numbering of the unique reflections."""

import zlib
from dataclasses import dataclass

import gemmi
import numpy as np

from sfxflow.cell import reciprocal_matrix
from sfxflow.errors import InputError
from sfxflow.symmetry import reflection_from_key, reflection_key, to_asu
from sfxflow.units import wavelength

#: Columns of an observation: 21 bytes. `reflection` holds the number of the unique reflection, and `MINUS` for Friedel mates of it.
COLUMNS = {
    "reflection": "u4",
    "excitation": "f4",
    "intensity": "f4",
    "sigma": "f4",
    "polarisation": "u2",
    "azimuth": "u2",
    "weight": "u1",
}
MINUS = np.uint32(1 << 31)
#: A polarisation factor of 1 is stored as this number.
POLARISATION_UNIT = 60000
#: A full turn of the azimuth is 2^16, a full robust weight 250.
FULL_TURN = 65536
FULL_WEIGHT = 250

#: Below this polarisation factor the correction itself is too uncertain.
_LOWEST_POLARISATION = 0.05
#: Observations that are so much above their uncertainty tell the gain: there counting noise is nearly all of it.
_STRONG = 15.0
_FEWEST_STRONG = 3
#: Absent reflections are there if they have this part of the mean I/sigma of the others, and this many standard deviations of it.
_ABSENT_PART, _ABSENT_DEVIATIONS = 0.3, 5.0


@dataclass(frozen=True)
class Block:
    """Observations of consecutive crystals.

    Attributes
    ----------
    first_crystal : int
        Number of the block's first crystal in the dataset.
    offsets : ndarray of int64, shape (n_crystals + 1,)
        Crystal i of the block owns rows offsets[i] to offsets[i + 1] of the columns.
    columns : dict of ndarray
        `COLUMNS`; intensity and sigma in detector units, divided by the polarisation factor; excitation in 1/angstrom.
    """

    first_crystal: int
    offsets: np.ndarray
    columns: dict


class ReflectionNumbers:
    """Numbers the unique reflections (Laue group) in the order in which they turn up.

    Parameters
    ----------
    group : gemmi.SpaceGroup
    """

    def __init__(self, group):
        self.group = group
        self._operations = group.operations()
        self._keys = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)

    def __len__(self):
        return len(self._keys)

    def number(self, hkl):
        """Number of each reflection's unique equivalent, and whether it is the Friedel mate of it.

        Parameters
        ----------
        hkl : ndarray of int, shape (n, 3)

        Returns
        -------
        numbers : ndarray of int64, shape (n,)
            -1 for reflections that the space group makes absent.
        minus : ndarray of bool, shape (n,)
        """
        unique, inverse = np.unique(reflection_key(hkl), return_inverse=True)
        own = reflection_from_key(unique)
        laue = to_asu(own, self.group)
        minus = np.any(to_asu(own, self.group, friedel=False) != to_asu(laue, self.group, friedel=False), axis=1)
        key = reflection_key(laue)
        self._add(np.setdiff1d(key, self._keys))
        numbers = self._numbers[np.searchsorted(self._keys, key)] if len(key) else np.empty(0, np.int64)
        numbers = np.where(self._operations.systematic_absences(laue), -1, numbers) if len(key) else numbers
        return numbers[inverse], minus[inverse]

    def _add(self, keys):
        position = np.searchsorted(self._keys, keys)
        numbers = np.arange(len(self._keys), len(self._keys) + len(keys))
        self._numbers = np.insert(self._numbers, position, numbers)
        self._keys = np.insert(self._keys, position, keys)

    def reflections(self):
        """Unique reflections in the order of their numbers: ndarray of int32, shape (n, 3)."""
        keys = np.empty(len(self._keys), np.int64)
        keys[self._numbers] = self._keys
        return reflection_from_key(keys)


class Collector:
    """Turns tables of crystals and reflections into blocks, and keeps what is needed of the crystals.

    Parameters
    ----------
    cell : sequence of 6 floats
        The dataset's cell, angstrom and degree.
    group : gemmi.SpaceGroup
    d_min : float or None
        Reflections of smaller d (by the dataset's cell) are left out.
    max_excitation : float
        Observations farther off the Ewald sphere, in sigma(q), are left out.

    Attributes
    ----------
    numbers : ReflectionNumbers
    n_read, n_observations, n_absent, n_unusable : int
        Given; kept; of absent reflections; not finite or without an uncertainty.
    largest_d : float
        Of all reflections given, angstrom.
    """

    def __init__(self, cell, group, d_min=None, max_excitation=3.5):
        self.numbers = ReflectionNumbers(group)
        self.cell = cell
        self.max_excitation = max_excitation
        self.n_read = self.n_observations = self.n_absent = self.n_unusable = 0
        self.largest_d = 0.0
        self._reciprocal = reciprocal_matrix(cell)
        self._q_max = np.inf if d_min is None else 1.0 / d_min
        self._shapes, self._hashes, self._counts = [], [], []
        self._gains = []
        self._absent = np.zeros(2)
        self._present = np.zeros(2)

    def add(self, crystals, reflections, first_crystal):
        """One block of the crystals and reflections of a table.

        Parameters
        ----------
        crystals : dict of ndarray
            reciprocal, profile_radius, mosaicity, bandwidth, photon_energy.
        reflections : dict of ndarray
            crystal (row of `crystals`, not decreasing), h, k, l, I, sigI, excitation_error, polarisation.
        first_crystal : int
            Number of the first crystal in the dataset.

        Returns
        -------
        Block
        """
        n_crystals = len(crystals["photon_energy"])
        length = wavelength(np.asarray(crystals["photon_energy"], float))
        bandwidth = np.nan_to_num(np.asarray(crystals["bandwidth"], float))
        shape = np.stack(
            [
                np.asarray(crystals["profile_radius"], float) ** 2,
                np.nan_to_num(np.asarray(crystals["mosaicity"], float)) ** 2,
                (bandwidth * length / 2) ** 2,
                length,
            ],
            axis=1,
        )
        shape[~(shape[:, 0] > 0), 0] = np.nan
        columns, owner = self._columns(crystals, reflections, shape)
        counts = np.bincount(owner, minlength=n_crystals)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        self._shapes.append(shape)
        self._hashes.append(half_of(crystals["reciprocal"]))
        self._counts.append(counts)
        self.n_observations += len(owner)
        return Block(first_crystal, offsets, columns)

    def _columns(self, crystals, reflections, shape):
        owner = np.asarray(reflections["crystal"], np.int64)
        order = np.argsort(owner, kind="stable") if np.any(np.diff(owner) < 0) else slice(None)
        owner = owner[order]
        hkl = np.stack([np.asarray(reflections[name], np.int64)[order] for name in "hkl"], axis=1)
        intensity, sigma, excitation, polarisation = (
            np.asarray(reflections[name], float)[order] for name in ("I", "sigI", "excitation_error", "polarisation")
        )
        if np.any(np.abs(hkl) >= 1024):
            raise InputError("reflections: a Miller index beyond 1023; indices up to 1023 can be merged")
        usable = np.isfinite(intensity) & np.isfinite(excitation) & (sigma > 0) & np.isfinite(sigma)
        usable &= polarisation > _LOWEST_POLARISATION
        usable &= np.isfinite(shape[owner]).all(axis=1)
        self.n_unusable += int(np.sum(~usable))
        q = np.linalg.norm(hkl @ self._reciprocal.T, axis=1)
        self.n_read += len(q)
        if np.any(q > 0):
            self.largest_d = max(self.largest_d, float(1 / q[q > 0].min()))
        width = np.sqrt(shape[owner, 0] + shape[owner, 1] * q**2 + shape[owner, 2] * q**4)
        keep = usable & (q > 0) & (q <= self._q_max) & (np.abs(excitation) <= self.max_excitation * width)
        owner, hkl, intensity, sigma, excitation, polarisation = (
            values[keep] for values in (owner, hkl, intensity, sigma, excitation, polarisation)
        )
        number, minus = self.numbers.number(hkl)
        present = number >= 0
        absent = ~present
        self.n_absent += int(absent.sum())
        self._absent += [np.sum(intensity[absent] / sigma[absent]), absent.sum()]
        owner, hkl, intensity, sigma, excitation, polarisation, number, minus = (
            values[present] for values in (owner, hkl, intensity, sigma, excitation, polarisation, number, minus)
        )
        self._present += [np.sum(intensity / sigma), len(owner)]
        strong = intensity > _STRONG * sigma
        number_strong = np.bincount(owner[strong], minlength=len(shape))
        above = np.bincount(owner[strong], sigma[strong] ** 2, len(shape))
        below = np.bincount(owner[strong], intensity[strong], len(shape))
        known = number_strong >= _FEWEST_STRONG
        self._gains.append(np.where(known, above / np.where(known, below, 1.0), np.nan))
        matrix = np.asarray(crystals["reciprocal"], float)[owner]
        across = np.einsum("nij,nj->ni", matrix[:, :2], hkl)
        azimuth = np.arctan2(across[:, 1], across[:, 0]) / (2 * np.pi)
        columns = {
            "reflection": number.astype(np.uint32) | np.where(minus, MINUS, np.uint32(0)),
            "excitation": excitation.astype(np.float32),
            "intensity": (intensity / polarisation).astype(np.float32),
            "sigma": (sigma / polarisation).astype(np.float32),
            "polarisation": np.minimum(np.rint(polarisation * POLARISATION_UNIT), 65535).astype(np.uint16),
            "azimuth": (np.rint(azimuth * FULL_TURN).astype(np.int64) % FULL_TURN).astype(np.uint16),
            "weight": np.full(len(owner), FULL_WEIGHT, np.uint8),
        }
        return columns, owner

    @property
    def shape(self):
        """R0^2, eta^2, (bandwidth lambda / 2)^2, lambda and gain of each crystal: ndarray of shape (n_crystals, 5)."""
        shape = np.concatenate([np.empty((0, 4)), *self._shapes])
        return np.concatenate([shape, self.gain[:, None]], axis=1)

    @property
    def half(self):
        """Half set (0 or 1) of each crystal."""
        return np.concatenate([np.empty(0, np.uint8), *self._hashes])

    @property
    def counts(self):
        """Observations kept of each crystal."""
        return np.concatenate([np.empty(0, np.int64), *self._counts])

    @property
    def gain(self):
        """Detector units a photon for each crystal, from the variances of its strong observations.

        A crystal with fewer than three of these has the median of the others; without any, gains are 0 and variances as given.
        """
        gain = np.concatenate([np.empty(0), *self._gains])
        known = np.isfinite(gain)
        return np.where(known, gain, np.median(gain[known]) if known.any() else 0.0)

    @property
    def absent_mean(self):
        """Mean I/sigma of the observations of absent reflections (about 0 where the space group is right), NaN if none."""
        return float(self._absent[0] / self._absent[1]) if self._absent[1] else np.nan

    @property
    def present_mean(self):
        """Mean I/sigma of the other observations, NaN if none."""
        return float(self._present[0] / self._present[1]) if self._present[1] else np.nan

    @property
    def absences_are_there(self):
        """Whether reflections that the space group makes absent are measured as if they were not."""
        mean = self.absent_mean
        return bool(mean > _ABSENT_PART * self.present_mean and mean * np.sqrt(self._absent[1]) > _ABSENT_DEVIATIONS)


def half_of(reciprocal):
    """Half set of each crystal, 0 or 1, by a checksum of its orientation matrix: the same wherever the crystal is stored."""
    return np.array([zlib.crc32(np.ascontiguousarray(m, dtype="<f8").tobytes()) >> 7 & 1 for m in reciprocal], np.uint8)


def ccp4_asymmetric_unit(hkl, group):
    """Equivalents in the CCP4 asymmetric unit.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    group : gemmi.SpaceGroup

    Returns
    -------
    hkl : ndarray of int32, shape (n, 3)
    mate : ndarray of bool, shape (n,)
        The equivalent is one of the Friedel mate, and not of the reflection (a centric reflection is its own mate).
    """
    unit, operations = gemmi.ReciprocalAsu(group), group.operations()
    placed = np.array([unit.to_asu(row, operations)[0] for row in np.asarray(hkl).tolist()], np.int32).reshape(-1, 3)
    mate = to_asu(placed, group, friedel=False) != to_asu(hkl, group, friedel=False)
    return placed, mate.any(axis=1)

"""Observations of all crystals as columns, with the unique reflection that each of them is in every way to index."""

from dataclasses import dataclass

import numpy as np

from sfxflow.ambiguity.operators import reindexed
from sfxflow.cell import inverse_resolution
from sfxflow.errors import InputError
from sfxflow.merging.observations import ReflectionNumbers
from sfxflow.units import wavelength

_LOWEST_POLARISATION = 0.05
_N_SHELLS = 20
#: Intensities beyond so many times the mean at their resolution, and so many times the noise, are cut off: Wilson's distribution has
#: none of e^-20.
_IMPOSSIBLE, _NOISE = 20.0, 5.0
#: A way to index may give the sum of two indices, which has to stay below the 1024 of `symmetry.reflection_key`.
_LARGEST_INDEX = 512
#: Observations so much above their uncertainty tell the detector's gain: their variance is counting noise.
_STRONG = 15.0
#: A partiality is wrong by about this fraction of itself at the Ewald sphere, and by more far from it. Between 0.07 and 0.15 as many simulated
#: crystals come out right, at 0.3 and more fewer (docs/ambiguity.md).
PARTIALITY_ERROR = 0.15


@dataclass(frozen=True)
class Observations:
    """Columns; observations lie crystal after crystal.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n_crystals + 1,)
        Crystal c owns rows offsets[c] to offsets[c + 1].
    row : ndarray of int64, shape (n,)
        Of the table of reflections that was given.
    number : ndarray of int32, shape (n, n_modes)
        Unique reflection in each way to index.
    intensity : ndarray of float64, shape (n,)
        Divided by the polarisation factor.
    background : ndarray of float64, shape (n,)
        Variance without the reflection's own photons.
    gain : ndarray of float64, shape (n,)
        Variance of the reflection's own photons, over their number's expectation, in the units of `intensity`.
    factor : ndarray of float64, shape (n,)
        Expected intensity of a reflection whose merged intensity is 1: scale times partiality.
    error : ndarray of float64, shape (n,)
        Relative uncertainty of `factor`.
    hkl : ndarray of int32, shape (n_reflections, 3)
        The unique reflections.
    prior : ndarray of float64, shape (n_reflections,)
        Mean intensity at their resolution.
    n_unusable : int
        Rows that are not finite, without an uncertainty, or absent in one of the ways.
    """

    offsets: np.ndarray
    row: np.ndarray
    number: np.ndarray
    intensity: np.ndarray
    background: np.ndarray
    gain: np.ndarray
    factor: np.ndarray
    error: np.ndarray
    hkl: np.ndarray
    prior: np.ndarray
    n_unusable: int

    @property
    def n_crystals(self):
        """Crystals, those without observations included."""
        return len(self.offsets) - 1

    @property
    def crystal(self):
        """Crystal of each observation: ndarray of int64, shape (n,)."""
        return np.repeat(np.arange(self.n_crystals), np.diff(self.offsets))


def observations_of(crystals, reflections, cell, group, operators, d_min=None, max_excitation=3.5):
    """Columns of tables of crystals and reflections.

    Parameters
    ----------
    crystals : dict of ndarray
        profile_radius, mosaicity, bandwidth, photon_energy.
    reflections : dict of ndarray
        crystal (row of `crystals`, not decreasing), h, k, l, I, sigI, excitation_error, polarisation.
    cell : sequence of 6 floats
        Angstrom and degree.
    group : gemmi.SpaceGroup
    operators : ndarray, shape (n_modes, 3, 3)
        As from `ambiguity_operators`.
    d_min : float, optional
        Reflections of smaller d are left out, angstrom.
    max_excitation : float
        Observations farther off the Ewald sphere are left out, sigma(q).

    Returns
    -------
    Observations
        Factors are those of the widths as given and of a scale from the mean intensity (`first_factors`).

    Raises
    ------
    InputError
        A Miller index is too large.
    """
    owner = np.asarray(reflections["crystal"], np.int64)
    hkl = np.stack([np.asarray(reflections[letter], np.int64) for letter in "hkl"], axis=1)
    intensity, sigma, excitation, polarisation = (
        np.asarray(reflections[name], float) for name in ("I", "sigI", "excitation_error", "polarisation")
    )
    if np.any(np.abs(hkl) >= _LARGEST_INDEX):
        raise InputError(
            "reflections: a Miller index beyond 511; indices up to 511 can be compared in all ways to index"
        )
    q = inverse_resolution(hkl, cell)
    width = width_of(crystals, owner, q)
    usable = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0) & np.isfinite(excitation) & np.isfinite(width)
    usable &= polarisation > _LOWEST_POLARISATION
    with np.errstate(invalid="ignore"):
        use = usable & (q > 0) & (np.abs(excitation) <= max_excitation * width)
    if d_min is not None:
        use &= q <= 1.0 / d_min
    row = np.flatnonzero(use)
    numbers = ReflectionNumbers(group)
    number = np.stack([numbers.number(reindexed(hkl[row], operator))[0] for operator in operators], axis=1)
    present = np.all(number >= 0, axis=1)
    n_unusable = int(np.sum(~usable) + np.sum(~present))
    row, number = row[present], number[present].astype(np.int32)
    owner, polarisation = owner[row], polarisation[row]
    unique = numbers.reflections()
    variance = sigma[row] ** 2
    gain = _gains(owner, intensity[row], variance, len(crystals["photon_energy"]))[owner] / polarisation
    observed = intensity[row] / polarisation
    variance /= polarisation**2
    background = np.maximum(variance - gain * np.maximum(observed, 0.0), 0.1 * variance)
    x = excitation[row] / width[row]
    height = np.exp(-0.5 * x**2) * np.median(width[row]) / width[row] if len(row) else np.empty(0)
    noise = np.sqrt(background)
    factor, prior, observed = first_factors(owner, height, observed, noise, q[row], inverse_resolution(unique, cell))
    return Observations(
        offsets=np.searchsorted(owner, np.arange(len(crystals["photon_energy"]) + 1)),
        row=row,
        number=number,
        intensity=observed,
        background=background,
        gain=gain,
        factor=factor,
        error=PARTIALITY_ERROR * (1.0 + x**2),
        hkl=unique,
        prior=prior,
        n_unusable=n_unusable,
    )


def width_of(crystals, owner, q):
    """Width sigma(q) of the excitation error of each observation, 1/angstrom; NaN where the crystal has none.

    Parameters
    ----------
    crystals : dict of ndarray
        profile_radius, mosaicity, bandwidth, photon_energy.
    owner : ndarray of int, shape (n,)
        Row of `crystals`.
    q : ndarray, shape (n,)
        1/d.
    """
    bandwidth = np.nan_to_num(np.asarray(crystals["bandwidth"], float))
    length = wavelength(np.asarray(crystals["photon_energy"], float))
    radius = np.asarray(crystals["profile_radius"], float)
    squares = np.stack(
        [
            np.where(radius > 0, radius, np.nan) ** 2,
            np.nan_to_num(np.asarray(crystals["mosaicity"], float)) ** 2,
            (bandwidth * length / 2) ** 2,
        ]
    )[:, owner]
    return np.sqrt(squares[0] + squares[1] * q**2 + squares[2] * q**4)


def _gains(owner, intensity, variance, n_crystals):
    """Detector units a photon of each crystal, from its strong observations; the median of the others where it has none."""
    strong = intensity > _STRONG * np.sqrt(variance)
    above = np.bincount(owner[strong], variance[strong], n_crystals)
    below = np.bincount(owner[strong], intensity[strong], n_crystals)
    known = below > 0
    gain = np.divide(above, below, where=known, out=np.zeros(n_crystals))
    return np.where(known, gain, np.median(gain[known]) if known.any() else 0.0)


def first_factors(owner, height, observed, noise, q, q_unique):
    """Scale of each crystal from its mean intensity, and the mean intensity at each reflection's resolution.

    Parameters
    ----------
    owner : ndarray of int, shape (n,)
        Crystal; not decreasing.
    height, observed, noise, q : ndarray, shape (n,)
        Partiality, intensity, its uncertainty without the reflection's own photons, and 1/d.
    q_unique : ndarray, shape (n_reflections,)

    Returns
    -------
    factor : ndarray, shape (n,)
        Scale times partiality; the median scale is 1.
    prior : ndarray, shape (n_reflections,)
    observed : ndarray, shape (n,)
        Intensities cut off where they are impossible at their resolution.
    """
    n_crystals = int(owner.max()) + 1 if len(owner) else 0
    if not n_crystals:
        return np.empty(0), np.ones(len(q_unique)), observed
    mean = np.ones(len(q))
    scale = _median_scale(owner, height, observed, n_crystals)
    # at first the mean is not known at each resolution
    most = 10.0 * _IMPOSSIBLE
    for _ in range(3):
        capped = np.minimum(observed, most * scale[owner] * height * mean + _NOISE * noise)
        # roots, so that a few strong reflections don't make the scale
        expected = np.sqrt(height * mean)
        above = np.bincount(owner, expected * np.sqrt(np.maximum(capped, 0.0)), n_crystals)
        below = np.bincount(owner, expected**2, n_crystals)
        good = (above > 0) & (below > 0)
        scale = np.divide(above, below, where=good, out=np.full(n_crystals, np.nan)) ** 2
        scale = np.where(good, scale / np.nanmedian(scale), 1.0) if good.any() else np.ones(n_crystals)
        mean = mean_by_resolution(scale[owner] * height, capped, q, q)
        most = _IMPOSSIBLE
    factor = scale[owner] * height
    return factor, mean_by_resolution(factor, capped, q, q_unique), capped


def _median_scale(owner, height, observed, n_crystals):
    """Scale of each crystal as the median of what its better recorded half says; the median of all where that is not positive."""
    scale = np.full(n_crystals, np.nan)
    ratio = np.divide(observed, height, where=height > 0, out=np.zeros(len(height)))
    limits = np.searchsorted(owner, np.arange(n_crystals + 1))
    for c in range(n_crystals):
        own = slice(limits[c], limits[c + 1])
        if limits[c] < limits[c + 1]:
            scale[c] = np.median(ratio[own][height[own] >= np.median(height[own])])
    known = scale > 0
    return np.where(known, scale, np.median(scale[known]) if known.any() else np.inf)


def mean_by_resolution(factor, observed, q, wanted):
    """Mean intensity at 1/d = `wanted`, from observations of the expectation factor * intensity at 1/d = `q`.

    Parameters
    ----------
    factor, observed, q : ndarray, shape (n,)
    wanted : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (m,)
        1 where no shell has a positive mean.
    """
    if not len(q):
        return np.ones(len(wanted))
    edges = np.linspace(0.0, max(q.max(), wanted.max(initial=0.0)) ** 2 * 1.0001, _N_SHELLS + 1)
    shell = np.minimum((q**2 / edges[1]).astype(int), _N_SHELLS - 1)
    above = np.bincount(shell, factor * observed, _N_SHELLS)
    below = np.bincount(shell, factor**2, _N_SHELLS)
    there = (above > 0) & (below > 0)
    if not there.any():
        return np.ones(len(wanted))
    centre = (edges[1:] + edges[:-1]) / 2
    return np.exp(np.interp(wanted**2, centre[there], np.log(above[there] / below[there])))

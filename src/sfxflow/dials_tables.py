"""From DIALS' view of crystals and reflections to the tables of `sfxflow.reflections`, and back. Arrays only."""

import numpy as np

from sfxflow.geometry import panel_arrays, polarisation_factor

#: Factors from a vector in dxtbx's laboratory to one in that of units.py, and back: +z against the beam there, x the other way.
TO_LAB = np.array([-1.0, 1.0, -1.0])
#: A distribution that is even between -w and w has the standard deviation w / sqrt(3).
_EVEN = np.sqrt(3.0)


def rays(hkl, reciprocal, wavelength):
    """Scattered rays of reflections and their excitation errors.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    reciprocal : ndarray, shape (n, 3, 3)
        Columns a*, b*, c* of each reflection's crystal, 1/angstrom.
    wavelength : ndarray, shape (n,)
        Angstrom.

    Returns
    -------
    direction : ndarray, shape (n, 3)
        q + k z, not normalised, 1/angstrom.
    excitation_error : ndarray, shape (n,)
        k - |q + k z|, 1/angstrom (`sfxflow.reflections.REFLECTIONS`).
    """
    k = 1.0 / np.asarray(wavelength, dtype=np.float64)
    direction = np.einsum("nij,nj->ni", reciprocal, np.asarray(hkl, dtype=np.float64))
    direction[:, 2] += k
    return direction, k - np.linalg.norm(direction, axis=1)


def widths_of_mosaic_model(domain_size, half_mosaicity):
    """R0 and eta (columns profile_radius, mosaicity) that stand for the mosaic model of DIALS' stills indexer.

    There a reflection is recorded where its excitation error is below 1/(2 D) + q eta/2, with domain size D and full mosaicity eta
    (Sauter et al. 2014, Acta Cryst. D70, 3299, doi:10.1107/S1399004714024134); here a width is a standard deviation, taken as that of
    an even distribution between these limits.

    Parameters
    ----------
    domain_size, half_mosaicity : ndarray
        Angstrom, radian.

    Returns
    -------
    profile_radius, mosaicity : ndarray
        1/angstrom, radian.
    """
    return 0.5 / np.asarray(domain_size) / _EVEN, np.asarray(half_mosaicity) / _EVEN


def mosaic_model_of_widths(profile_radius, mosaicity):
    """The inverse of `widths_of_mosaic_model`: domain size (angstrom) and half mosaicity (radian)."""
    return 0.5 / (np.asarray(profile_radius) * _EVEN), np.asarray(mosaicity) * _EVEN


def gaussian_partiality(excitation_error, inverse_d, wavelength, widths):
    """How much of a reflection is recorded, by a Gaussian of its excitation error; 1 on the Ewald sphere.

    Parameters
    ----------
    excitation_error, inverse_d : ndarray, shape (n,)
        1/angstrom.
    wavelength : ndarray, shape (n,)
        Angstrom.
    widths : (ndarray, ndarray, ndarray), each of shape (n,)
        R0, eta and bandwidth of each reflection's crystal (`sfxflow.reflections.CRYSTALS`).
    """
    radius, mosaicity, bandwidth = widths
    variance = radius**2 + (mosaicity * inverse_d) ** 2 + (0.5 * bandwidth * wavelength * inverse_d**2) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, np.exp(-0.5 * excitation_error**2 / variance), 1.0)


def slab_positions(detector, panel, fast, slow):
    """fs, ss in the slab of positions on panels, pixel."""
    bounds = panel_arrays(detector).bounds[panel]
    return fast + bounds[:, 2], slow + bounds[:, 0]


def panel_positions(detector, panel, fs, ss):
    """The inverse of `slab_positions`: fast, slow on each panel, pixel."""
    bounds = panel_arrays(detector).bounds[panel]
    return fs - bounds[:, 2], ss - bounds[:, 0]


def reflection_rows(columns, chosen, crystal, reciprocal, wavelength, detector, polarisation, gain=1.0):
    """Rows of the reflections table.

    Parameters
    ----------
    columns : dict
        Of a reflection table of DIALS.
    chosen : ndarray of int, shape (n,)
        Its rows that are wanted.
    crystal : ndarray of int, shape (n,)
        Row of the crystals table.
    reciprocal : ndarray, shape (n_crystals, 3, 3)
    wavelength : ndarray, shape (n_crystals,)
        Angstrom.
    detector : sfxflow.geometry.Detector
        Panels in the same order.
    polarisation : (float, float)
        Fraction and angle (radian), as `sfxflow.geometry.polarisation_factor` takes them.
    gain : float
        Detector units a photon, where DIALS took them for photons when it estimated the variances.

    Returns
    -------
    dict of ndarray
        Columns of `sfxflow.reflections.REFLECTIONS`. DIALS does not keep the highest pixel: `peak` is NaN, as is `background` where the
        table has none.
    """
    hkl = columns["miller_index"][chosen]
    direction, excitation_error = rays(hkl, reciprocal[crystal], wavelength[crystal])
    panel = columns["panel"][chosen].astype(np.int64)
    position = columns["xyzcal.px"][chosen]
    fs, ss = slab_positions(detector, panel, position[:, 0], position[:, 1])
    missing = np.full(len(chosen), np.nan)
    background = columns["background.mean"][chosen] if "background.mean" in columns else missing
    return {
        "crystal": crystal.astype(np.uint32),
        "h": hkl[:, 0],
        "k": hkl[:, 1],
        "l": hkl[:, 2],
        "I": columns["intensity.sum.value"][chosen],
        "sigI": np.sqrt(gain * columns["intensity.sum.variance"][chosen]),
        "excitation_error": excitation_error,
        "polarisation": polarisation_factor(direction, *polarisation),
        "fs": fs,
        "ss": ss,
        "panel": panel.astype(np.uint16),
        "peak": missing,
        "background": background,
    }

"""Summation of predicted reflections: a disc for the peak, a ring around it for the background."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import njit

from sfxflow.buffers import doubled
from sfxflow.errors import InputError
from sfxflow.integration.background import MODES, fit_background
from sfxflow.integration.pixels import announce, peak_offsets, surface_of, take_pixels

#: Fewest pixels of the peak and of the background.
MIN_PIXELS = 4
#: The surroundings of a reflection are asked for so many reflections ahead.
_AHEAD = 3


class Outcome(IntEnum):
    """What became of a predicted reflection."""

    integrated = 0
    saturated = 1
    incomplete = 2
    inseparable = 3
    no_background = 4


class Integrated(NamedTuple):
    """Intensities of the reflections of one frame; arrays of shape (n,).

    Attributes
    ----------
    I, sigI : ndarray of float64
        Sum above the background and its standard uncertainty, detector unit; NaN where `ok` is False.
    peak : ndarray of float64
        Largest value in the peak region, detector unit; NaN if there is none.
    background : ndarray of float64
        Background of a pixel at the reflection, detector unit.
    ok : ndarray of bool
        False for reflections that can't be integrated.
    outcome : ndarray of uint8
        `Outcome`: why.
    """

    I: np.ndarray
    sigI: np.ndarray
    peak: np.ndarray
    background: np.ndarray
    ok: np.ndarray
    outcome: np.ndarray


class Surroundings(NamedTuple):
    """The backgrounds of the reflections of one frame.

    Attributes
    ----------
    plane : ndarray of float64, shape (n, 3)
        Level at the reflection, and slopes along fs and ss a pixel.
    covariance : ndarray of float64, shape (n, 3, 3)
        Of the plane, for pixels of variance 1.
    variance : ndarray of float64, shape (n,)
        Of a background pixel.
    peak_pixels : ndarray of float64, shape (n, m)
        Values of the pixels within the peak radius, which are at `peak_offsets`; NaN for those that are bad or another reflection's.
    """

    plane: np.ndarray
    covariance: np.ndarray
    variance: np.ndarray
    peak_pixels: np.ndarray


def integrate_rings(data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu=np.inf, background="flat"):
    """Integrate all predicted reflections of one frame, those of all its lattices together.

    Parameters
    ----------
    data : ndarray, shape (n_ss, n_fs)
        Frame: any integer type, or floating point with NaN in gaps.
    good : ndarray of bool, shape (n_ss, n_fs), or sfxflow.integration.pixels.Surface
        True where a pixel can be used.
    valid_range : tuple of float
        Lowest and highest value of a usable pixel; others, and NaN, are bad.
    bounds : ndarray of int, shape (n_panels, 4)
        As in `sfxflow.geometry.PanelArrays`.
    fs, ss : ndarray, shape (n,)
        Predicted positions, slab coordinates in pixels, corner-based.
    panel : ndarray of int, shape (n,)
    radii : tuple of float
        Radius of the peak region, inner and outer radius of the background ring, pixel.
    gain : float
        Detector units a photon; 0 if there is no counting noise.
    max_adu : float or ndarray of float, shape (n_panels,)
        Reflections with a higher value in the peak region are saturated, and not ok (`peak` tells them from others).
    background : str
        flat, plane, or auto: a plane where its slopes are significant.

    Returns
    -------
    Integrated
        Not ok are reflections with a bad pixel, or one off the panel, in their peak region; saturated ones; those with fewer than 4
        pixels of peak or background, or with no noise at all in it (gain 0); and two so close together (less than half the peak radius) that nothing can tell them apart.

    Raises
    ------
    InputError
        The mask has another shape than the frame.

    Notes
    -----
    Pixels whose centre is within the first radius of the predicted, sub-pixel position belong to the peak; a pixel within reach of two
    reflections belongs to the nearer. The background is the mean of the ring without any reflection's peak pixels, clipped at 4 standard
    deviations (upwards with the skewness of Poisson noise, so that few photons are not cut) from a start at the median, or a plane
    through these pixels, clipped at 4 standard deviations from itself.

    sigma^2 = gain max(I, 0) + n_peak v (1 + n_peak / n_background), with v = max(variance of the ring, gain background, gain^2 / n_background).
    The sum over the peak region scatters by the counting noise of the reflection's own photons, gain I, and by that of the background and of
    the electronics in each of its pixels, n_peak v. What is subtracted, n_peak times the mean of n_background pixels, scatters by
    n_peak^2 v / n_background (Leslie 2006, Acta Cryst. D62, 48, doi:10.1107/S0907444905039107, without its profile); of a plane, by v c^T C c
    with the sums c of 1, x, y over the peak's pixels and the plane's covariance C. The ring's variance knows
    noise that counting statistics don't; the latter keeps it up where few photons happen to lie evenly, and the last is one
    photon in an empty ring. As I itself enters, a low measurement is also believed more than a high one: over many weak measurements
    I / sigma is biased by about -gain / (2 sigma).
    """
    return rings_and_surroundings(
        data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu, background, False
    )[0]


def rings_and_surroundings(
    data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu, background, mask_saturated
):
    """`integrate_rings` with the backgrounds, for what is fitted on top of them.

    Parameters
    ----------
    mask_saturated : bool
        Values above max_adu are bad pixels and do not make their reflection a saturated one.

    Returns
    -------
    Integrated, Surroundings
    """
    data = np.ascontiguousarray(data)
    good, is_whole = surface_of(good)
    if good.shape != data.shape:
        raise InputError(f"the mask has shape {good.shape}, the frame {data.shape} (ss, fs)")
    fs = np.asarray(fs, dtype=np.float64)
    ss = np.asarray(ss, dtype=np.float64)
    inner, middle, outer = (float(radius) for radius in radii)
    results, outcome, plane, covariance, variance, peak_pixels = _integrate(
        data,
        good,
        is_whole,
        float(valid_range[0]),
        float(valid_range[1]),
        np.asarray(bounds, dtype=np.int64),
        fs,
        ss,
        np.asarray(panel, dtype=np.int64),
        np.argsort(ss, kind="stable"),
        inner,
        middle,
        outer,
        float(gain),
        np.ascontiguousarray(np.broadcast_to(np.asarray(max_adu, dtype=np.float64), len(bounds))),
        MODES[background],
        bool(mask_saturated),
    )
    surroundings = Surroundings(plane, covariance, variance, peak_pixels)
    return Integrated(*results, outcome == Outcome.integrated, outcome), surroundings


@njit(cache=True, nogil=True)
def neighbours_of(position, first, fs, ss, panel, order, inner, reach, found):
    """Reflections whose peak region comes within `reach` of the one at `position` in the list sorted by ss.

    Parameters
    ----------
    position : int
    first : int
        Where in the list to begin: what this gave for an earlier position, or 0.
    fs, ss, panel : ndarray, shape (n,)
    order : ndarray of int, shape (n,)
        Reflections sorted by ss.
    inner, reach : float
        Peak radius, and radius around this reflection, pixel.
    found : ndarray of int64
        Filled; a longer one comes back where it was too short.

    Returns
    -------
    found, n_found, first, nearest : ndarray, int, int, float
    """
    i = order[position]
    while ss[order[first]] < ss[i] - inner - reach:
        first += 1
    n_found, nearest = 0, np.inf
    at = first
    while at < order.size and ss[order[at]] <= ss[i] + inner + reach:
        j = order[at]
        at += 1
        if j == i or panel[j] != panel[i] or abs(fs[j] - fs[i]) > inner + reach:
            continue
        distance = np.hypot(fs[j] - fs[i], ss[j] - ss[i])
        if distance > inner + reach:
            continue
        nearest = min(nearest, distance)
        if n_found == found.size:
            found = doubled(found)
        found[n_found] = j
        n_found += 1
    return found, n_found, first, nearest


@njit(cache=True, nogil=True)
def _integrate(
    data,
    good,
    is_whole,
    lowest,
    highest,
    bounds,
    fs,
    ss,
    panel,
    order,
    inner,
    middle,
    outer,
    gain,
    max_adu,
    mode,
    mask_saturated,
):
    n = fs.size
    results = np.full((4, n), np.nan)
    outcome = np.full(n, np.uint8(Outcome.no_background), dtype=np.uint8)
    planes, covariances, variances = np.zeros((n, 3)), np.zeros((n, 3, 3)), np.full(n, np.nan)
    peak_pixels = np.empty((n, int((2 * inner + 2) ** 2)))
    neighbours = np.empty(16, dtype=np.int64)
    most = int((2 * outer + 2) ** 2) + 1
    ring, ring_x, ring_y, scratch = np.empty(most), np.empty(most), np.empty(most), np.empty(most)
    offset_x, offset_y = np.empty(peak_pixels.shape[1]), np.empty(peak_pixels.shape[1])
    radii = (inner, middle, outer)
    frame = data.reshape(-1)
    first = 0
    for position in range(n):
        i = order[position]
        neighbours, n_neighbours, first, nearest = neighbours_of(
            position, first, fs, ss, panel, order, inner, outer, neighbours
        )
        if position + _AHEAD < n:
            j = order[position + _AHEAD]
            announce(frame, data.shape, fs[j], ss[j], outer)
        limit = max_adu[panel[i]]
        top = min(highest, limit) if mask_saturated else highest
        pixels = peak_pixels[i]
        n_ring, n_within, n_bad = take_pixels(
            frame,
            good,
            is_whole,
            bounds[panel[i]],
            lowest,
            top,
            fs,
            ss,
            i,
            neighbours[:n_neighbours],
            radii,
            ring,
            ring_x,
            ring_y,
            pixels,
        )
        peak_offsets(fs[i], ss[i], inner, offset_x, offset_y)
        total, peak_x, peak_y, n_peak, maximum = 0.0, 0.0, 0.0, 0, -np.inf
        for k in range(n_within):
            if not np.isnan(pixels[k]):
                total += pixels[k]
                peak_x += offset_x[k]
                peak_y += offset_y[k]
                n_peak += 1
                maximum = max(maximum, pixels[k])
        if n_peak > 0:
            results[2, i] = maximum
        if n_ring < MIN_PIXELS:
            continue
        plane, covariance = planes[i], covariances[i]
        variance, n_background = fit_background(ring, ring_x, ring_y, n_ring, gain, mode, scratch, plane, covariance)
        results[3, i] = plane[0]
        # Where the whole ring is empty its rate is still not zero: as if it held one photon.
        variance = max(variance, gain * plane[0], gain * gain / max(n_background, 1))
        if n_background < MIN_PIXELS or variance <= 0.0:
            continue
        variances[i] = variance
        if maximum > limit:
            outcome[i] = Outcome.saturated
        elif nearest < 0.5 * inner:
            outcome[i] = Outcome.inseparable
        elif n_bad > 0 or n_peak < MIN_PIXELS:
            outcome[i] = Outcome.incomplete
        else:
            outcome[i] = Outcome.integrated
            intensity = total - n_peak * plane[0] - peak_x * plane[1] - peak_y * plane[2]
            results[0, i] = intensity
            spread = n_peak + quadratic_form(covariance, float(n_peak), peak_x, peak_y)
            results[1, i] = np.sqrt(gain * max(intensity, 0.0) + variance * spread)
    return results, outcome, planes, covariances, variances, peak_pixels


@njit(cache=True, nogil=True)
def quadratic_form(matrix, a, b, c):
    """v^T M v for v = (a, b, c) and a symmetric matrix."""
    diagonal = a * a * matrix[0, 0] + b * b * matrix[1, 1] + c * c * matrix[2, 2]
    return diagonal + 2.0 * (a * b * matrix[0, 1] + a * c * matrix[0, 2] + b * c * matrix[1, 2])

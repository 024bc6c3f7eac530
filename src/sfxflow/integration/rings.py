"""Summation of predicted reflections: a disc for the peak, a ring around it for the background."""

from typing import NamedTuple

import numpy as np
from numba import njit

from sfxflow.buffers import doubled
from sfxflow.errors import InputError

#: Fewest pixels of the peak and of the background.
_MIN_PIXELS = 4

#: Background pixels farther than so many standard deviations off don't count.
_CLIP_AT = 4.0
_CLIP_CYCLES = 3


class Integrated(NamedTuple):
    """Intensities of the reflections of one frame; arrays of shape (n,).

    Attributes
    ----------
    I, sigI : ndarray of float64
        Sum above the background and its standard uncertainty, detector unit; NaN where `ok` is False.
    peak : ndarray of float64
        Largest value in the peak region, detector unit; NaN if there is none.
    background : ndarray of float64
        Mean background of a pixel, detector unit.
    ok : ndarray of bool
        False for reflections that can't be integrated.
    """

    I: np.ndarray
    sigI: np.ndarray
    peak: np.ndarray
    background: np.ndarray
    ok: np.ndarray


def integrate_rings(data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu=np.inf):
    """Integrate all predicted reflections of one frame, those of all its lattices together.

    Parameters
    ----------
    data : ndarray, shape (n_ss, n_fs)
        Frame: any integer type, or floating point with NaN in gaps.
    good : ndarray of bool, shape (n_ss, n_fs)
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
    deviations (upwards with the skewness of Poisson noise, so that few photons are not cut) from a start at the median.

    sigma^2 = gain max(I, 0) + n_peak v (1 + n_peak / n_background), with v = max(variance of the ring, gain background, gain^2 / n_background).
    The sum over the peak region scatters by the counting noise of the reflection's own photons, gain I, and by that of the background and of
    the electronics in each of its pixels, n_peak v. What is subtracted, n_peak times the mean of n_background pixels, scatters by
    n_peak^2 v / n_background (Leslie 2006, Acta Cryst. D62, 48, doi:10.1107/S0907444905039107, without its profile). The ring's variance knows
    noise that counting statistics don't; the latter keeps it up where few photons happen to lie evenly, and the last is one
    photon in an empty ring. As I itself enters, a low measurement is also believed more than a high one: over many weak measurements
    I / sigma is biased by about -gain / (2 sigma).
    """
    data = np.ascontiguousarray(data)
    good = np.ascontiguousarray(good, dtype=bool)
    if good.shape != data.shape:
        raise InputError(f"the mask has shape {good.shape}, the frame {data.shape} (ss, fs)")
    fs = np.asarray(fs, dtype=np.float64)
    ss = np.asarray(ss, dtype=np.float64)
    panel = np.asarray(panel, dtype=np.int64)
    inner, middle, outer = (float(radius) for radius in radii)
    results, ok = _integrate(
        data,
        good,
        float(valid_range[0]),
        float(valid_range[1]),
        np.asarray(bounds, dtype=np.int64),
        fs,
        ss,
        panel,
        np.argsort(ss, kind="stable"),
        inner,
        middle,
        outer,
        float(gain),
        np.ascontiguousarray(np.broadcast_to(np.asarray(max_adu, dtype=np.float64), len(bounds))),
    )
    return Integrated(*results, ok)


@njit(cache=True)
def _integrate(data, good, lowest, highest, bounds, fs, ss, panel, order, inner, middle, outer, gain, max_adu):
    n = fs.size
    results = np.full((4, n), np.nan)
    ok = np.zeros(n, dtype=np.bool_)
    neighbours = np.empty(16, dtype=np.int64)
    ring = np.empty(int((2 * outer + 2) ** 2), dtype=np.float64)
    first = 0
    for position in range(n):
        i = order[position]
        # Reflections are sorted by ss: those whose peak region can reach this one's ring are near in the list.
        while ss[order[first]] < ss[i] - inner - outer:
            first += 1
        n_neighbours = 0
        separable = True
        at = first
        while at < n and ss[order[at]] <= ss[i] + inner + outer:
            j = order[at]
            at += 1
            if j == i or panel[j] != panel[i]:
                continue
            distance = np.hypot(fs[j] - fs[i], ss[j] - ss[i])
            if distance > inner + outer:
                continue
            if distance < 0.5 * inner:
                separable = False
            if n_neighbours == neighbours.size:
                neighbours = doubled(neighbours)
            neighbours[n_neighbours] = j
            n_neighbours += 1

        first_row, end_row, first_column, end_column = bounds[panel[i]]
        total, n_peak, maximum, whole, n_ring = 0.0, 0, -np.inf, True, 0
        for row in range(int(np.floor(ss[i] - outer)), int(np.floor(ss[i] + outer)) + 1):
            for column in range(int(np.floor(fs[i] - outer)), int(np.floor(fs[i] + outer)) + 1):
                squared = (row + 0.5 - ss[i]) ** 2 + (column + 0.5 - fs[i]) ** 2
                in_peak = squared <= inner * inner
                if not in_peak and (squared < middle * middle or squared > outer * outer):
                    continue
                taken = False
                for k in range(n_neighbours):
                    j = neighbours[k]
                    other = (row + 0.5 - ss[j]) ** 2 + (column + 0.5 - fs[j]) ** 2
                    if other <= inner * inner and (not in_peak or other < squared):
                        taken = True
                        break
                if taken:
                    continue
                value = np.nan
                if first_row <= row < end_row and first_column <= column < end_column and good[row, column]:
                    value = np.float64(data[row, column])
                usable = value >= lowest and value <= highest
                if in_peak:
                    if usable:
                        total += value
                        n_peak += 1
                        maximum = max(maximum, value)
                    else:
                        whole = False
                elif usable:
                    ring[n_ring] = value
                    n_ring += 1
        if n_peak > 0:
            results[2, i] = maximum
        if n_ring < _MIN_PIXELS:
            continue
        background, variance, n_background = _clipped_mean(ring, n_ring, gain)
        results[3, i] = background
        if (
            not whole
            or not separable
            or n_peak < _MIN_PIXELS
            or n_background < _MIN_PIXELS
            or maximum > max_adu[panel[i]]
        ):
            continue
        # Where the whole ring is empty its rate is still not zero: as if it held one photon.
        variance = max(variance, gain * background, gain * gain / n_background)
        if variance <= 0.0:
            continue
        intensity = total - n_peak * background
        results[0, i] = intensity
        results[1, i] = np.sqrt(gain * max(intensity, 0.0) + n_peak * variance * (1.0 + n_peak / n_background))
        ok[i] = True
    return results, ok


@njit(cache=True)
def _clipped_mean(values, n, gain):
    """Mean, variance and number of values[:n] without outliers; the values are put in another order."""
    centre = _median(values, n)
    below, n_below = 0.0, 0
    for i in range(n):
        if values[i] <= centre:
            below += (values[i] - centre) ** 2
            n_below += 1
    # Bright outliers don't reach the lower half.
    variance = max(below / n_below, gain * centre)
    n_used = 0
    for _ in range(_CLIP_CYCLES):
        reach = _CLIP_AT * np.sqrt(variance) + 1e-6 * abs(centre)
        low, high = centre - reach, centre + reach + gain * (_CLIP_AT**2 - 1.0) / 6.0
        origin = centre
        total, squares, n_used = 0.0, 0.0, 0
        for i in range(n):
            if values[i] >= low and values[i] <= high:
                total += values[i] - origin
                squares += (values[i] - origin) ** 2
                n_used += 1
        if n_used < 2:
            break
        shift = total / n_used
        centre = origin + shift
        variance = max(squares - n_used * shift * shift, 0.0) / (n_used - 1)
        if n_used == n:
            break
    return centre, variance, n_used


@njit(cache=True)
def _median(values, n):
    """Middle one of values[:n], in place (Hoare's selection)."""
    left, right, middle = 0, n - 1, n // 2
    while left < right:
        pivot = values[middle]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < middle:
            left = i
        if i > middle:
            right = j
    return values[middle]

"""Reflections that were measured, but well recorded in no measurement: the best that can be said of them.

Such a measurement y = g I + noise has a part g recorded that is small and hardly known, so that y / g is of no use, but y does tell
something: a strong reflection gives more, even there. What is recorded there is taken from the measurements of the same kind on
reflections that others know: the mean <g> and the mean square <g^2> in bins of the distance from the Ewald sphere. The estimate is the
linear one of least mean square error (Gauss-Markov), with Wilson's mean and variance as what is known before:

    I = m + p^-1 sum <g> (y - <g> m) / v,    p = 1 / (<I^2> - m^2) + sum <g>^2 / v,    v = noise + (<g^2> - <g>^2) <I^2>,

with the variance 1 / p. Only first and second moments enter, and these are known; the distribution of g is far from normal (mostly
nothing, sometimes much), so that a likelihood with a normal g is wrong by many standard deviations.
"""

import numpy as np
from numba import njit

from sfxflow.merging.kernels import (
    NUMBER_MASK,
    REJECTED,
    background_variance,
    factors,
    moved,
    narrowness_and_base,
    tells,
)
from sfxflow.merging.observations import POLARISATION_UNIT
from sfxflow.merging.scaling import prior_intensity

#: Bins of the distance from the Ewald sphere for each width.
BINS_PER_UNIT = 8
#: The curve's variance counts as so many measurements of strong reflections, its mean as one.
_KEEP = 10.0
#: A bin's variance is at least this part of the curve's.
_LEAST_PART = 0.01
#: An intensity counts at most as so many mean ones in the mean: an outlier is no part of Wilson's distribution.
_LARGEST = 10.0


def usual_intensity(q, merged, recorded, previous, epsilon):
    """Mean intensity at the resolution of each reflection, in which all that were recorded count alike.

    In `scaling.prior_intensity` those better known count more, which are weak ones: it is 2 to 4 % too low with 60 to 250 crystals.

    Parameters
    ----------
    q, merged, previous, epsilon : ndarray, shape (n,)
        As for `scaling.prior_intensity`; `previous` is its mean.
    recorded : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray, shape (n,)
    """
    alike = np.where(recorded, 1e6 / previous**2, 0.0)
    return prior_intensity(q, np.minimum(merged, _LARGEST * previous), alike, previous, epsilon)


@njit(cache=True, nogil=True)
def tails_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, q, mean, variance, curve, spread, numbers, means, sums,
):  # fmt: skip
    """Add what was recorded of known reflections in measurements that were not merged. See `kernels`.

    Parameters
    ----------
    mean, variance : float64, shape (n_reflections,)
        What is known of each reflection; the variance is negative where that is too little.
    means : float64, shape (n_bins,)
        <g>, if known, for the last two sums.
    sums : float64, shape (n_bins, 4)
        Out, added: y m / u and m^2 / u, of which the ratio is <g>, and ((y - <g> m)^2 - noise) <m^2> / u^2 and <m^2>^2 / u^2, of which
        it is the variance of g, u being the expected variance of y and m the intensity if all were recorded; bins of 1 / `BINS_PER_UNIT`
        widths.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        own_state, own_shape = state[c], shape[c]
        narrowing, scale = factors(own_state, numbers)
        for j in range(offsets[c], offsets[c + 1]):
            h = reflection[j] & NUMBER_MASK
            if variance[h] < 0.0 or weight[j] == 0:
                continue
            q2 = q[h] * q[h]
            narrowness, base = narrowness_and_base(q2, own_state, own_shape, numbers, narrowing, scale)
            x = abs(moved(excitation[j], azimuth[j], q[h], q2, own_state, own_shape[3])) * narrowness
            node = int(x * numbers[0])
            if node >= nodes - 1:
                continue
            row = min(int(q2 * numbers[1]), rows - 1)
            part = x * numbers[0] - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
            if tells(height, uncertain, curve[row, 0], numbers):
                continue
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            background = background_variance(intensity[j], sigma[j], gain)
            full = base * mean[h]
            square = full * full + base * base * variance[h]
            expected = background + gain * height * full + uncertain * square + (height * base) ** 2 * variance[h]
            b = int(x * BINS_PER_UNIT)
            g = means[b]
            noise = background + gain * g * full + (g * base) ** 2 * variance[h]
            squared = min((intensity[j] - g * full) ** 2, REJECTED * REJECTED * expected)
            own = sums[b]
            own[0] += intensity[j] * full / expected
            own[1] += full * full / expected
            own[2] += (squared - noise) * square / expected**2
            own[3] += square * square / expected**2


def recorded_parts(tails, curve, n_bins):
    """Mean and variance of what is recorded in measurements that are not merged.

    Parameters
    ----------
    tails : callable
        Gives the sums of `tails_block` over all data for the means that it is called with.
    curve : PartialityCurve
        Where hardly any measurement is, its values stand.
    n_bins : int

    Returns
    -------
    ndarray, shape (n_bins, 2)
    """
    nodes = curve.arrays()["x"]
    centres = (np.arange(n_bins) + 0.5) / BINS_PER_UNIT
    first, first_variance = (
        np.interp(centres, nodes, table.mean(axis=0)) for table in (curve.values, np.maximum(curve.spread, 1e-12))
    )
    sums = tails(first)
    mean = np.maximum((sums[:, 0] + first / first_variance) / (sums[:, 1] + 1.0 / first_variance), 0.0)
    sums = tails(mean)
    keep = _KEEP / first_variance**2
    variance = (sums[:, 2] + keep * first_variance) / (sums[:, 3] + keep)
    return np.stack([mean, np.maximum(variance, _LEAST_PART * first_variance)], axis=1)


@njit(cache=True, nogil=True)
def evidence_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, q, place, usual, mean_square, parts, numbers, n_nodes, sums,
):  # fmt: skip
    """Add a block's measurements of some reflections, of which none is merged. See `kernels`.

    Parameters
    ----------
    place : int64, shape (n_reflections,)
        Row of `sums` of each reflection, -1 for those that are not asked for.
    usual, mean_square : float64, shape (n_reflections,)
        Mean and mean square of the intensities that a reflection may have.
    parts : float64, shape (n_bins, 2)
        From `recorded_parts`.
    n_nodes : int
        Of the curve: nothing is recorded beyond.
    sums : float64, shape (n_asked_for, 2)
        Out, added: <g> (y - <g> m) / v and <g>^2 / v.
    """
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        own_state, own_shape = state[c], shape[c]
        narrowing, scale = factors(own_state, numbers)
        for j in range(offsets[c], offsets[c + 1]):
            h = reflection[j] & NUMBER_MASK
            if place[h] < 0 or weight[j] == 0:
                continue
            q2 = q[h] * q[h]
            narrowness, base = narrowness_and_base(q2, own_state, own_shape, numbers, narrowing, scale)
            x = abs(moved(excitation[j], azimuth[j], q[h], q2, own_state, own_shape[3])) * narrowness
            if int(x * numbers[0]) >= n_nodes - 1:
                continue
            part, uncertain = parts[int(x * BINS_PER_UNIT)]
            g = base * part
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            variance = background_variance(intensity[j], sigma[j], gain) + gain * g * usual[h]
            variance += base * base * uncertain * mean_square[h]
            sums[place[h], 0] += g * (intensity[j] - g * usual[h]) / variance
            sums[place[h], 1] += g * g / variance


def best_estimate(sums, factor, usual, mean_square):
    """Intensities and their standard uncertainties.

    Parameters
    ----------
    sums : ndarray, shape (n, 2)
        From `evidence_block`.
    factor : ndarray, shape (n,)
        On the variances of the measurements.
    usual, mean_square : ndarray, shape (n,)
        As for `evidence_block`.

    Returns
    -------
    intensity, sigma : ndarray, shape (n,)
    """
    precision = 1.0 / (mean_square - usual**2) + sums[:, 1] / factor
    return usual + sums[:, 0] / factor / precision, 1.0 / np.sqrt(precision)


def mean_square_intensity(usual, centric):
    """<I^2> of Wilson's distribution: twice the square of the mean, three times for centric reflections.

    Wilson (1949), Acta Cryst. 2, 318-321, doi:10.1107/S0365110X49000813.
    """
    return np.where(centric, 3.0, 2.0) * usual**2

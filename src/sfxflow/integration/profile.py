"""Profile fitting: intensities from the shape that the spots of a frame have, at the predicted positions.

The shape is a Gaussian, elongated towards or across the beam: sigma_r^2 = a + b q^2 along the radius and sigma_t^2 = c + d q^2 across it, as
the spread of wavelengths and the mosaic spread act. The four numbers are learnt from the strong spots of the frame itself, so that
no frame depends on another.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sfxflow.integration.background import median
from sfxflow.integration.pixels import peak_offsets
from sfxflow.integration.rings import (
    MIN_PIXELS,
    Integrated,
    Outcome,
    quadratic_form,
    rings_and_surroundings,
)

#: Spots that the profile is learnt from have at least this I / sigma; of more, so many of the strongest are taken.
_STRONG = 10.0
_MOST_SPOTS = 200
#: With fewer strong spots a frame has no profile of its own.
_MIN_SPOTS = 6
#: A strong spot's weight does not grow any more above this I / sigma: then the shapes of the spots differ by more than their noise.
_HIGHEST_WEIGHT = 30.0
#: Change of a variance from the beam to the edge that is believed a priori, as the standard deviation against that of one spot's variance.
_PRIOR_SLOPE = 0.5
_CYCLES = 6
#: Variance of the start (a pixel's own 1/12 included), and the least, pixel^2.
_START = 0.65
_LEAST = 0.25

#: Least fraction of the profile on usable pixels.
MIN_FRACTION = 0.7
_FIT_CYCLES = 3
#: Change of the counting noise at the profile's top, as a part of the background's variance, that needs no further cycle.
_NEGLIGIBLE = 0.05


class Profile(NamedTuple):
    """Shape of the spots of a frame.

    Attributes
    ----------
    radial, tangential : tuple of float
        Variance (pixel^2, that of a pixel included) at the beam, and its growth with (q / q_max)^2.
    n_spots : int
        Spots that it was learnt from.
    """

    radial: tuple
    tangential: tuple
    n_spots: int


def radial_axes(arrays, panel, direction):
    """Which way the radius and how far out each reflection lies, for `integrate_profiles`.

    Parameters
    ----------
    arrays : sfxflow.geometry.PanelArrays
    panel : ndarray of int, shape (n,)
    direction : ndarray of float64, shape (n, 3)
        Unit vectors of the rays.

    Returns
    -------
    towards : ndarray of float64, shape (n, 2)
        Unit vectors away from the beam along fs and ss; along fs where a ray goes straight on.
    relative_q2 : ndarray of float64, shape (n,)
        (q / q_max)^2 with the highest q of all.
    """
    towards, relative_q2 = _radial_axes(
        arrays.fs, arrays.ss, np.asarray(panel, dtype=np.int64), np.asarray(direction, dtype=np.float64)
    )
    return towards, relative_q2 / max(relative_q2.max(initial=0.0), 1e-12)


@njit(cache=True, nogil=True)
def _radial_axes(along_fs, along_ss, panel, direction):
    n = panel.size
    towards, q2 = np.empty((n, 2)), np.empty(n)
    for i in range(n):
        fs, ss = along_fs[panel[i]], along_ss[panel[i]]
        x = fs[0] * direction[i, 0] + fs[1] * direction[i, 1]
        y = ss[0] * direction[i, 0] + ss[1] * direction[i, 1]
        length = np.sqrt(x * x + y * y)
        towards[i, 0], towards[i, 1] = (x / length, y / length) if length > 0.0 else (1.0, 0.0)
        # q^2 = 2 (1 - cos 2 theta) / lambda^2
        q2[i] = 1.0 - direction[i, 2]
    return towards, q2


def learn_profile(pixels, fs, ss, strength, radius, towards, relative_q2, plane):
    """Widths of the spots of a frame along and across the radius.

    Parameters
    ----------
    pixels : ndarray of float64, shape (n, m)
        Pixels within `radius` row after row (`sfxflow.integration.rings.Surroundings.peak_pixels`); those that are NaN don't count.
    fs, ss : ndarray of float64, shape (n,)
        Predicted positions of strong spots without bad pixels.
    strength : ndarray of float64, shape (n,)
        Their I / sigma.
    radius : float
        Of the peak region, pixel.
    towards : ndarray of float64, shape (n, 2)
        Unit vectors away from the beam, along fs and ss.
    relative_q2 : ndarray of float64, shape (n,)
        (q / q_max)^2.
    plane : ndarray of float64, shape (n, 3)
        Background (`sfxflow.integration.rings.Surroundings`).

    Returns
    -------
    Profile or None
        None if there are too few spots.

    Notes
    -----
    Each spot's second moments are taken with the current Gaussian as the weight, which keeps the noise of the pixels far out small (adaptive
    moments; Bernstein & Jarvis 2002, Astron. J. 123, 583, doi:10.1086/338085). Under a Gaussian weight of variance w a Gaussian spot of
    variance s has the moment s w / (s + w); the two agree where s = w, and near it s = w + 4 (m - w / 2). These values of all spots give
    a straight line in q^2, whose slope is drawn to zero by a prior, and the line is the next weight.
    """
    if len(fs) < _MIN_SPOTS:
        return None
    order = np.argsort(-strength, kind="stable")[:_MOST_SPOTS]
    weight = np.minimum(strength[order], _HIGHEST_WEIGHT) ** 2
    lines = _learn(
        pixels[order], fs[order], ss[order], weight, radius, towards[order], relative_q2[order], plane[order]
    )
    (a, b), (c, d) = lines.tolist()
    return Profile((a, b), (c, d), len(order))


def _variances(lines, x):
    """Radial and tangential variance at x = (q / q_max)^2, shape (n, 2)."""
    return np.maximum(lines[:, 0] + np.outer(x, lines[:, 1]), _LEAST)


@njit(cache=True, nogil=True)
def gaussians(radial, tangential, per_radial, per_tangential, n, heights):
    """exp(-radial per_radial - tangential per_tangential) of the first `n` entries, into `heights`.

    exp(-t) = (exp(-t / 256))^256, the inner one by its series up to the sixth order: relative error below 1e-10 for t <= 15, and below 1e-6 for
    t <= 60, absolute error below 5e-14. Unlike a call of exp for each pixel this is several at a time.
    """
    for k in range(n):
        # Beyond t = 512 the series fails; so far out the profile is nothing.
        t = max(-(radial[k] * per_radial + tangential[k] * per_tangential) * (1.0 / 256.0), -2.0)
        height = 1.0 + t * (1.0 + t * (0.5 + t * (1 / 6 + t * (1 / 24 + t * (1 / 120 + t * (1 / 720))))))
        for _ in range(8):
            height *= height
        heights[k] = height


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"}, forceinline=True)
def _moments(signal, heights, radial, tangential, n):
    """Sums of signal x height, and of that times the squared distances."""
    total, along, across = 0.0, 0.0, 0.0
    for k in range(n):
        seen = signal[k] * heights[k]
        total += seen
        along += seen * radial[k]
        across += seen * tangential[k]
    return total, along, across


@njit(cache=True, nogil=True)
def _learn(pixels, fs, ss, weight, radius, towards, x, plane):
    """Constant and slope of the radial and of the tangential variance, shape (2, 2)."""
    n = fs.size
    signal, radial, tangential = np.empty(pixels.shape), np.empty(pixels.shape), np.empty(pixels.shape)
    count = np.zeros(n, dtype=np.int64)
    offset_x, offset_y = np.empty(pixels.shape[1]), np.empty(pixels.shape[1])
    for i in range(n):
        k = 0
        for at in range(peak_offsets(fs[i], ss[i], radius, offset_x, offset_y)):
            x_of, y_of = offset_x[at], offset_y[at]
            if np.isnan(pixels[i, at]):
                continue
            radial[i, k] = (x_of * towards[i, 0] + y_of * towards[i, 1]) ** 2
            tangential[i, k] = x_of * x_of + y_of * y_of - radial[i, k]
            signal[i, k] = pixels[i, at] - plane[i, 0] - plane[i, 1] * x_of - plane[i, 2] * y_of
            k += 1
        count[i] = k
    lines = np.zeros((2, 2))
    lines[:, 0] = _START
    widths, observed, heights = np.empty((2, n)), np.empty((2, n)), np.empty(pixels.shape[1])
    for _ in range(_CYCLES):
        for i in range(n):
            for which in range(2):
                widths[which, i] = max(lines[which, 0] + lines[which, 1] * x[i], _LEAST)
            per_radial, per_tangential = 0.5 / widths[0, i], 0.5 / widths[1, i]
            gaussians(radial[i], tangential[i], per_radial, per_tangential, count[i], heights)
            total, along, across = _moments(signal[i], heights, radial[i], tangential[i], count[i])
            # A spot with a neighbour that nobody predicted, or on a wrong place, must not pull the line far.
            for which in range(2):
                width = widths[which, i]
                moment = (along if which == 0 else across) / total if total > 0.0 else 0.5 * width
                observed[which, i] = min(max(width + 4.0 * (moment - 0.5 * width), 0.25 * width), 3.0 * width)
        for which in range(2):
            lines[which, 0], lines[which, 1] = _line(x, observed[which], weight, widths[which])
    return lines


@njit(cache=True, nogil=True)
def _line(x, y, weight, expected):
    """Constant and slope of y(x), robust, the slope drawn to zero."""
    n = x.size
    constant, slope = 0.0, 0.0
    deviation, current, w = np.empty(n), expected.copy(), np.empty(n)
    for _ in range(2):
        for i in range(n):
            deviation[i] = abs(y[i] - current[i])
        spread = 1.4826 * median(deviation.copy(), n) + 1e-9
        total, mean_x, mean_y = 0.0, 0.0, 0.0
        for i in range(n):
            # Huber's weights: full within 2 sigma, then falling off.
            w[i] = weight[i] * min(1.0, 2.0 * spread / max(deviation[i], 1e-12))
            total += w[i]
            mean_x += w[i] * x[i]
            mean_y += w[i] * y[i]
        mean_x, mean_y = mean_x / total, mean_y / total
        # The prior is worth one typical spot.
        across, squares = 0.0, total / n * (spread / (_PRIOR_SLOPE * mean_y)) ** 2
        for i in range(n):
            across += w[i] * (x[i] - mean_x) * (y[i] - mean_y)
            squares += w[i] * (x[i] - mean_x) ** 2
        slope = across / squares
        constant = max(mean_y - slope * mean_x, _LEAST)
        for i in range(n):
            current[i] = max(constant + slope * x[i], _LEAST)
    return constant, slope


def integrate_profiles(
    data,
    good,
    valid_range,
    bounds,
    fs,
    ss,
    panel,
    radii,
    gain,
    max_adu,
    towards,
    relative_q2,
    method="profile",
    background="auto",
    mask_saturated=False,
):
    """Integrate all predicted reflections of one frame with the frame's own profile.

    Parameters
    ----------
    data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu, background
        As in `sfxflow.integration.rings.integrate_rings`.
    towards : ndarray of float64, shape (n, 2)
        Unit vectors away from the beam at each reflection, along fs and ss.
    relative_q2 : ndarray of float64, shape (n,)
        (q / q_max)^2 of each reflection.
    method : str
        profile, or rings: then the profile only says how much of a reflection lies on bad pixels.
    mask_saturated : bool
        Values above max_adu are bad pixels; otherwise they make their reflection a saturated one.

    Returns
    -------
    integrated : sfxflow.integration.rings.Integrated
        With a bad pixel in the peak a reflection is still integrated if at least 70 % of its profile lies on usable ones.
    profile : Profile or None
        None: the frame has too few strong spots, everything is as `integrate_rings` gives it.

    Notes
    -----
    Least squares of I P + background to the pixels of the peak region, I = sum w P (D - b) / sum w P^2 with w = 1 / (v + gain max(I, 0) P) from the
    previous of three cycles (Leslie 2006, Acta Cryst. D62, 48, doi:10.1107/S0907444905039107, section 6; Kabsch 1988, J. Appl.
    Cryst. 21, 916, doi:10.1107/S0021889888007903). For strong spots that is the sum over the region divided by the profile's share of it, whatever
    their shape. sigma^2 = 1 / sum w P^2 + v c^T C c, with c = sum w P (1, x, y) / sum w P^2 and the covariance C of the background.
    A ring sum over the usable share f of the profile is divided by f, its sigma too.
    """
    summed, surroundings = rings_and_surroundings(
        data, good, valid_range, bounds, fs, ss, panel, radii, gain, max_adu, background, mask_saturated
    )
    incomplete = summed.outcome == Outcome.incomplete
    if method == "rings" and not incomplete.any():
        return summed, None
    fs, ss = np.asarray(fs, dtype=np.float64), np.asarray(ss, dtype=np.float64)
    strong = np.flatnonzero(summed.ok & (summed.I > _STRONG * summed.sigI))
    profile = learn_profile(
        surroundings.peak_pixels[strong],
        fs[strong],
        ss[strong],
        summed.I[strong] / summed.sigI[strong],
        float(radii[0]),
        towards[strong],
        relative_q2[strong],
        surroundings.plane[strong],
    )
    if profile is None:
        return summed, None
    widths = _variances(np.array([profile.radial, profile.tangential]), relative_q2)
    outcome = summed.outcome.copy()
    intensity, sigma = summed.I.copy(), summed.sigI.copy()
    wanted = summed.ok | incomplete if method == "profile" else incomplete
    _fit(
        fs,
        ss,
        float(radii[0]),
        float(gain),
        wanted,
        method == "profile",
        np.ascontiguousarray(towards),
        widths,
        *surroundings,
        intensity,
        sigma,
        outcome,
    )
    ok = outcome == Outcome.integrated
    return Integrated(intensity, sigma, summed.peak, summed.background, ok, outcome), profile


@njit(cache=True, nogil=True)
def _fit(
    fs,
    ss,
    inner,
    gain,
    wanted,
    with_profile,
    towards,
    widths,
    planes,
    covariances,
    variances,
    peak_pixels,
    intensity,
    sigma,
    outcome,
):
    """Intensities of the wanted reflections; `intensity`, `sigma` and `outcome` are changed."""
    longest = peak_pixels.shape[1]
    signal, shape, offset_x, offset_y = np.empty(longest), np.empty(longest), np.empty(longest), np.empty(longest)
    radial, tangential = np.empty(longest), np.empty(longest)
    for i in range(fs.size):
        if not wanted[i]:
            continue
        plane, covariance, variance = planes[i], covariances[i], variances[i]
        per_radial, per_tangential = 0.5 / widths[i, 0], 0.5 / widths[i, 1]
        n_within = peak_offsets(fs[i], ss[i], inner, offset_x, offset_y)
        for k in range(n_within):
            radial[k] = (offset_x[k] * towards[i, 0] + offset_y[k] * towards[i, 1]) ** 2
            tangential[k] = offset_x[k] * offset_x[k] + offset_y[k] * offset_y[k] - radial[k]
        gaussians(radial, tangential, per_radial, per_tangential, n_within, shape)
        n, usable_share, whole_share = 0, 0.0, 0.0
        for k in range(n_within):
            height, x, y, value = shape[k], offset_x[k], offset_y[k], peak_pixels[i, k]
            whole_share += height
            if np.isnan(value):
                continue
            usable_share += height
            signal[n] = value - plane[0] - plane[1] * x - plane[2] * y
            shape[n], offset_x[n], offset_y[n] = height, x, y
            n += 1
        if n < MIN_PIXELS or usable_share < MIN_FRACTION * whole_share:
            outcome[i] = Outcome.incomplete
            intensity[i], sigma[i] = np.nan, np.nan
            continue
        outcome[i] = Outcome.integrated
        if not with_profile:
            total, sum_x, sum_y = 0.0, 0.0, 0.0
            for k in range(n):
                total += signal[k]
                sum_x += offset_x[k]
                sum_y += offset_y[k]
            spread = n + quadratic_form(covariance, float(n), sum_x, sum_y)
            scale = whole_share / usable_share
            intensity[i] = scale * total
            sigma[i] = scale * np.sqrt(gain * max(total, 0.0) + variance * spread)
            continue
        norm = 1.0 / (2.0 * np.pi * np.sqrt(widths[i, 0] * widths[i, 1]))
        fitted, information = 0.0, 0.0
        for _ in range(_FIT_CYCLES):
            top_sum, information, sum_1, sum_x, sum_y = _weighted_sums(
                n, norm, gain * max(fitted, 0.0), variance, signal, shape, offset_x, offset_y
            )
            change = top_sum / information - fitted
            fitted += change
            # Weights that hardly change any more: most reflections are weak.
            if gain * abs(change) * norm < _NEGLIGIBLE * variance:
                break
        intensity[i] = fitted
        of_background = quadratic_form(covariance, sum_1 / information, sum_x / information, sum_y / information)
        sigma[i] = np.sqrt(1.0 / information + variance * of_background)


# Only the order of the additions is left to the compiler, which then takes several pixels at once.
@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"}, forceinline=True)
def _weighted_sums(n, norm, photons, variance, signal, shape, offset_x, offset_y):
    """Sums of w P D, w P^2, w P, w P x and w P y, w = 1 / (variance + photons P)."""
    top_sum, information, sum_1, sum_x, sum_y = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        height = norm * shape[k]
        weighted = height / (variance + photons * height)
        top_sum += weighted * signal[k]
        information += weighted * height
        sum_1 += weighted
        sum_x += weighted * offset_x[k]
        sum_y += weighted * offset_y[k]
    return top_sum, information, sum_1, sum_x, sum_y

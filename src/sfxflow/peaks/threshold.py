"""From which value on a pixel is brighter than the background at its distance from the beam."""

from functools import lru_cache

import numpy as np
from numba import njit

#: Values farther than so many standard deviations from a bin's mean don't count for its statistics.
_CLIP_AT = 4.0
_CLIP_CYCLES = 5

#: Weights of a bin's neighbours in its smoothed mean and variance.
_SMOOTHING = np.array([1.0, 2.0, 3.0, 2.0, 1.0])


def as_type(values, dtype, rounding):
    """`values` in the type of a frame: rounded by `rounding` and kept within the limits where that is an integer type.

    For whole numbers v, v > x is the same as v > floor(x), v >= x the same as v >= ceil(x).
    """
    values = np.asarray(values, dtype=np.float64)
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    result = np.empty(values.shape, dtype=dtype)
    lowest, highest = dtype.type(limits.min), dtype.type(limits.max)
    _convert(np.atleast_1d(rounding(values)).ravel(), lowest, highest, np.atleast_1d(result).ravel())
    return result


@njit(cache=True)
def _convert(values, lowest, highest, result):
    """Whole numbers as integers, within the limits of their type."""
    # float(2^63 - 1) is already too large for int64: equal to the limit is beyond it.
    low, high = np.float64(lowest), np.float64(highest)
    for i in range(values.size):
        if values[i] <= low:
            result[i] = lowest
        elif values[i] >= high:
            result[i] = highest
        else:
            result[i] = values[i]


@lru_cache(maxsize=16)
def native_range(lowest, highest, dtype):
    """Lowest and highest valid value in the type of a frame."""
    return as_type(lowest, dtype, np.ceil)[()], as_type(highest, dtype, np.floor)[()]


def bin_statistics(data, prepared, valid_range, good=None, gain=0.0):
    """Mean and variance of the background in each radial bin, from the sampled pixels.

    Parameters
    ----------
    data : ndarray, shape (n_ss, n_fs)
        Frame, C-contiguous.
    prepared : sfxflow.peaks.prepare.Prepared
    valid_range : tuple of float
        Values outside, and NaN, are not used; both ends are valid.
    good : ndarray of bool, shape (n_ss, n_fs), optional
        Pixels that are good in this frame.
    gain : float
        Detector units a photon, as far as it is known. Where there are few photons, a limit without their skewness would take all
        of them for outliers.

    Returns
    -------
    mean, squares, count : ndarray of float64, shape (n_bins,)
        Mean, sum of squared deviations from it, and number of the values that were left after clipping at 4 standard deviations
        (upwards with the skewness of Poisson noise; at most five times).
    """
    good = np.zeros(0, dtype=np.bool_) if good is None else good.ravel()
    low, high = native_range(*valid_range, data.dtype)
    return _clipped_statistics(data.ravel(), prepared.sample, prepared.sample_start, low, high, good, float(gain))


@njit(cache=True)
def _sampled_values(data, sample, lowest, highest, good, as_they_are, values):
    """Values of sampled pixels, NaN for those that can't be used; `as_they_are` is work space of the frame's type."""
    for i in range(sample.size):
        as_they_are[i] = data[sample[i]]
    for i in range(sample.size):
        value = as_they_are[i]
        usable = (value >= lowest) & (value <= highest)
        values[i] = np.float32(value) if usable else np.float32(np.nan)
    if good.size > 0:
        for i in range(sample.size):
            if not good[sample[i]]:
                values[i] = np.nan


# Only the order of the additions is left to the compiler.
@njit(cache=True, fastmath={"reassoc", "nsz"}, forceinline=True)
def _sums_between(values, low, high, origin):
    """Of those of the values that are between `low` and `high`: sum of the deviations from `origin` and of their squares, number, and the
    lowest and highest deviation."""
    total, squares, n_used = np.float32(0.0), np.float32(0.0), np.int32(0)
    lowest, highest = np.float32(0.0), np.float32(0.0)
    for i in range(values.size):
        value = values[i]
        inside = (value > low) & (value < high)
        deviation = value - origin if inside else np.float32(0.0)
        total += deviation
        squares += deviation * deviation
        n_used += np.int32(inside)
        lowest, highest = min(lowest, deviation), max(highest, deviation)
    return np.float64(total), np.float64(squares), n_used, lowest, highest


@njit(cache=True)
def _clipped_statistics(data, sample, start, lowest, highest, good, gain):
    n_bins = start.size - 1
    mean = np.zeros(n_bins)
    squares = np.zeros(n_bins)
    count = np.zeros(n_bins)
    longest = np.diff(start).max()
    as_they_are, sampled = np.empty(longest, dtype=data.dtype), np.empty(longest, dtype=np.float32)
    for b in range(n_bins):
        values = sampled[: start[b + 1] - start[b]]
        _sampled_values(data, sample[start[b] : start[b + 1]], lowest, highest, good, as_they_are, values)
        low, high = np.float32(-np.inf), np.float32(np.inf)
        n_before = -1
        for _ in range(_CLIP_CYCLES):
            # Deviations from one of the values keep the sums small, so that nothing cancels out; equal values have exactly none.
            first = 0
            while first < values.size and not (values[first] > low and values[first] < high):
                first += 1
            if first == values.size:
                break
            origin = values[first]
            total, total_squares, n_used, least, most = _sums_between(values, low, high, origin)
            if n_used == n_before:
                break
            n_before = n_used
            shift = total / n_used
            mean[b] = origin + shift
            squares[b] = max(total_squares - n_used * shift * shift, 0.0)
            count[b] = n_used
            # Half a millionth of the mean keeps equal values inside when the standard deviation is zero.
            reach = _CLIP_AT * np.sqrt(squares[b] / n_used) + 1e-6 * abs(mean[b]) + 1e-30
            before = low, high
            low = np.float32(mean[b] - reach)
            high = np.float32(mean[b] + reach + gain * (_CLIP_AT**2 - 1.0) / 6.0)
            # Nothing that was used is outside and nothing that was outside comes back: the next cycle would find the same.
            if low >= before[0] and high <= before[1] and origin + least > low and origin + most < high:
                break
    return mean, squares, count


def smoothed(mean, squares, count):
    """Mean and variance of each bin together with its neighbours, weights 1 2 3 2 1 times the number of pixels.

    Returns
    -------
    mean, variance : ndarray of float64, shape (n_bins,)
        NaN where no pixel is near.
    """
    return _smoothed(np.asarray(mean, np.float64), np.asarray(squares, np.float64), np.asarray(count, np.float64))


@njit(cache=True)
def _smoothed(mean, squares, count):
    n, half = mean.size, _SMOOTHING.size // 2
    smooth, variance = np.full(n, np.nan), np.full(n, np.nan)
    for b in range(n):
        weight, freedom, total, total_squares = 0.0, 0.0, 0.0, 0.0
        for i in range(max(b - half, 0), min(b + half + 1, n)):
            of_bin = _SMOOTHING[i - b + half]
            weight += of_bin * count[i]
            freedom += of_bin * max(count[i] - 1.0, 0.0)
            total += of_bin * (mean[i] * count[i])
            total_squares += of_bin * squares[i]
        if weight > 0.0:
            smooth[b] = total / weight
        if freedom > 0.0:
            variance[b] = total_squares / freedom
    return smooth, variance


def gain_from_statistics(mean, squares, count):
    """Gain in detector units a photon, from variance against mean over radial bins.

    Parameters
    ----------
    mean, squares, count : ndarray, shape (n_bins,)
        As `bin_statistics` gives them.

    Returns
    -------
    float
        0 where the frame does not say: no photons, or nothing but noise of the electronics.

    Notes
    -----
    Weighted straight line variance = noise^2 + gain mean (Janesick 2007, Photon Transfer, doi:10.1117/3.725073); the variance of a sample's
    variance is (gain^2 variance + 2 variance^2) / n for Poisson noise. Structure along the rings (polarisation, shadows) makes the
    estimate larger, which raises thresholds and uncertainties: the value that the detector's maker gives is to be preferred.
    Where all bins are about equally bright the line has no slope to measure; then it goes through the origin, and the gain
    is not allowed to exceed the standard deviation of a pixel.
    """
    return _gain_from_statistics(
        np.asarray(mean, np.float64), np.asarray(squares, np.float64), np.asarray(count, np.float64)
    )


@njit(cache=True)
def _gain_from_statistics(mean, squares, count):
    use = count >= 8
    mean, squares, count = mean[use], squares[use], count[use]
    n = mean.size
    if n == 0:
        return 0.0
    variance = squares / (count - 1.0)
    typical = np.sum(variance * count) / np.sum(count)
    if typical <= 0.0:
        return 0.0
    model, weight = np.full(n, typical), np.empty(n)
    gain, spread = 0.0, 0.0
    for _ in range(4):
        total, total_mean, total_variance = 0.0, 0.0, 0.0
        for i in range(n):
            weight[i] = count[i] / (gain**2 * model[i] + 2.0 * model[i] ** 2)
            # Bins far off the line (ice rings, shadows) count less.
            weight[i] /= 1.0 + ((variance[i] - model[i]) ** 2 * weight[i]) / 9.0
            total += weight[i]
            total_mean += weight[i] * mean[i]
            total_variance += weight[i] * variance[i]
        centre = total_mean / total
        spread, across, along, squared = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            spread += weight[i] * (mean[i] - centre) ** 2
            across += weight[i] * (mean[i] - centre) * variance[i]
            along += weight[i] * mean[i] * variance[i]
            squared += weight[i] * mean[i] ** 2
        if spread <= 0.0:
            break
        gain = across / spread
        noise = total_variance / total - gain * centre
        if noise < 0.0:
            gain, noise = along / squared, 0.0
        gain = max(gain, 0.0)
        for i in range(n):
            model[i] = max(noise + gain * mean[i], 0.1 * typical)
    if spread * gain**2 > 25.0:
        return gain
    through_origin = np.sum(mean * count * variance) / max(np.sum(mean**2 * count), 1e-300)
    return min(max(through_origin, 0.0), np.sqrt(typical))


def frame_statistics(data, prepared, valid_range=(-np.inf, np.inf), good=None, gain=None):
    """Statistics of the background of one frame, and the gain that goes with them.

    Parameters
    ----------
    data, prepared, valid_range, good
        As in `bin_statistics`.
    gain : float, optional
        Detector units a photon, where it is known.

    Returns
    -------
    statistics : tuple of ndarray
        As `bin_statistics` gives them.
    gain : float
        The given one, or the estimate of `gain_from_statistics`. In a frame that is empty but for single photons that estimate has nothing
        to work on, and the median step above the background stands in. Whole numbers have a gain of 1 at least: a step can't be smaller.
    """
    if gain is not None:
        return bin_statistics(data, prepared, valid_range, good, gain), float(gain)
    smallest = 1.0 if data.dtype.kind in "iu" else 0.0
    statistics = bin_statistics(data, prepared, valid_range, good, smallest)
    mean, squares, count = statistics
    if 2 * np.count_nonzero(squares > 0.0) > np.count_nonzero(count):
        return statistics, max(gain_from_statistics(mean, squares, count), smallest)
    values = data.ravel()[prepared.sample]
    steps = values - np.repeat(mean, np.diff(prepared.sample_start))
    usable = (values >= valid_range[0]) & (values <= valid_range[1]) & (steps > 0.0)
    if good is not None:
        usable &= good.ravel()[prepared.sample]
    step = float(np.median(steps[usable])) if usable.any() else 0.0
    return statistics, max(step, smallest)


def estimate_gain(data, prepared, valid_range=(-np.inf, np.inf), good=None):
    """Gain of one frame in detector units a photon (that of `frame_statistics`, where the parameters are)."""
    return frame_statistics(np.ascontiguousarray(data), prepared, valid_range, good)[1]


def bin_thresholds(mean, variance, gain, settings, bin_width=1.0):
    """Value above which a pixel of each bin is bright.

    Parameters
    ----------
    mean, variance : ndarray, shape (n_bins,)
        Smoothed statistics.
    gain : float
        Detector units a photon.
    settings : sfxflow.settings.Peaks
    bin_width : float
        Pixel.

    Returns
    -------
    ndarray of float64, shape (n_bins,)
        Infinite where there are no statistics, and outside min_res and max_res.

    Notes
    -----
    mean + z sigma + gain (z^2 - 1) / 6: the first two terms of the Cornish-Fisher expansion of a quantile, with the skewness
    gain / sigma of Poisson noise (Cornish & Fisher 1938, Rev. Inst. Int. Stat. 5, 307, doi:10.2307/1400905). With few photons the
    skewness is most of it, and with many it vanishes, so that one z serves all detectors.
    Where the user gives an absolute threshold the rule is that of peakfinder8, max(mean + z sigma, threshold) (Barty et al. 2014,
    J. Appl. Cryst. 47, 1118, doi:10.1107/S1600576714007626).
    """
    return _bin_thresholds(
        mean,
        variance,
        float(gain),
        float(settings.min_snr),
        np.nan if settings.threshold is None else float(settings.threshold),
        float(settings.min_res),
        np.inf if settings.max_res is None else float(settings.max_res),
        float(bin_width),
    )


@njit(cache=True)
def _bin_thresholds(mean, variance, gain, z, absolute, nearest, farthest, bin_width):
    limits = np.full(mean.size, np.inf)
    for b in range(mean.size):
        known = not (np.isnan(mean[b]) or np.isnan(variance[b]))
        if not known or b * bin_width < nearest or b * bin_width > farthest:
            continue
        limit = mean[b] + z * np.sqrt(max(variance[b], gain * mean[b]))
        if np.isnan(absolute):
            limit += gain * max(z * z - 1.0, 0.0) / 6.0
        else:
            limit = max(limit, absolute)
        if np.isfinite(limit):
            limits[b] = limit
    return limits

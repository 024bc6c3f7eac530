"""Bragg spots on one frame: connected bright pixels that stand out of the background around them."""

import numpy as np
from numba import njit

from sfxflow.buffers import doubled, doubled_rows
from sfxflow.errors import InputError
from sfxflow.peaks.prepare import BLOCK
from sfxflow.peaks.threshold import as_type, bin_thresholds, frame_statistics, native_range, smoothed

#: A peak. fs, ss: slab coordinates in pixels, corner-based; intensity, maximum, background: detector units.
PEAK = np.dtype(
    [
        ("fs", "f8"),
        ("ss", "f8"),
        ("intensity", "f8"),
        ("snr", "f8"),
        ("n_pixels", "i4"),
        ("maximum", "f8"),
        ("panel", "i4"),
        ("background", "f8"),
        ("saturated", "?"),
    ]
)

_N_COLUMNS = 8

#: What `Prepared.state` says of a pixel: not bright; bright; bright and part of a region already.
_DIM, _BRIGHT, _TAKEN = 0, 1, 2

#: Values beyond it are not finite in every type of a frame.
_LARGEST = float(np.finfo(np.float32).max)

#: Fewer pixels around a peak than these are no background; then the radial bin's mean and variance stand in.
_MIN_BACKGROUND_PIXELS = 10


def find_peaks(data, prepared, settings, valid_range=(-np.inf, np.inf), good=None, gain=None, max_adu=np.inf):
    """The strongest `settings.max_peaks` peaks of `search_peaks`, which has the parameters."""
    peaks = search_peaks(data, prepared, settings, valid_range, good, gain, max_adu)
    return strongest(peaks, settings.max_peaks)


def strongest(peaks, n):
    """The `n` peaks of the highest intensity, in their order."""
    if len(peaks) <= n:
        return peaks
    return peaks[np.sort(np.argsort(-peaks["intensity"], kind="stable")[:n])]


def search_peaks(data, prepared, settings, valid_range=(-np.inf, np.inf), good=None, gain=None, max_adu=np.inf):
    """All peaks of a frame.

    Parameters
    ----------
    data : ndarray, shape (n_ss, n_fs)
        Frame: any integer type, or floating point with NaN in gaps.
    prepared : sfxflow.peaks.prepare.Prepared
    settings : sfxflow.settings.Peaks
    valid_range : tuple of float
        Lowest and highest value of a usable pixel; others, and NaN, are treated as bad.
    good : ndarray of bool, shape (n_ss, n_fs), optional
        Pixels that are good in this frame, where that differs from what was prepared.
    gain : float, optional
        Detector units a photon; estimated from the frame where it is not given.
    max_adu : float or ndarray of float, shape (n_panels,)
        Peaks with a value above are saturated.

    Returns
    -------
    ndarray of `PEAK`
        In the order of the slab; none is left out for want of space. intensity: sum over the peak's pixels less the local background;
        snr: intensity / standard deviation of the local background's pixels.

    Raises
    ------
    InputError
        The frame has another shape than the geometry, or a type that is not real numbers.

    Notes
    -----
    The rules are those of peakfinder8 (Barty et al. 2014, J. Appl. Cryst. 47, 1118, doi:10.1107/S1600576714007626, as CrystFEL has it); the
    threshold is that of `sfxflow.peaks.threshold.bin_thresholds`, from sampled statistics.
    """
    data, good = _checked(data, prepared, good)
    valid_range = _finite(valid_range)
    statistics, gain = frame_statistics(data, prepared, valid_range, good, gain)
    mean, variance = smoothed(*statistics)
    thresholds = bin_thresholds(mean, variance, gain, settings, prepared.bin_width)
    # The extra bin at the end is that of the bad pixels: nothing exceeds its threshold.
    thresholds = as_type(np.append(thresholds, np.inf), data.dtype, np.floor)
    power, first_bin = prepared.windows.T
    rows = _search(
        data.ravel(),
        prepared.shape[1],
        prepared.bounds,
        prepared.bins,
        prepared.block_window,
        prepared.block_is_whole,
        prepared.state,
        range_minima(thresholds)[power, first_bin],
        thresholds,
        *native_range(*valid_range, data.dtype),
        np.zeros(0, dtype=np.bool_) if good is None else good.ravel(),
        _with_bad_bin(mean),
        _with_bad_bin(variance),
        float(gain),
        float(settings.min_snr),
        settings.min_pix_count,
        settings.max_pix_count,
        2 * settings.local_bg_radius,
    )
    peaks = np.empty(len(rows), dtype=PEAK)
    for column, name in enumerate(PEAK.names[:_N_COLUMNS]):
        peaks[name] = rows[:, column]
    max_adu = np.asarray(max_adu)
    peaks["saturated"] = peaks["maximum"] > (max_adu[peaks["panel"]] if max_adu.ndim else max_adu)
    return peaks if settings.use_saturated else peaks[~peaks["saturated"]]


def _finite(valid_range):
    """`valid_range` without infinities, so that infinite values are bad."""
    return max(float(valid_range[0]), -_LARGEST), min(float(valid_range[1]), _LARGEST)


def _with_bad_bin(values):
    """`values` of the bins, 0 where there is none, and that of the bad pixels' bin at the end."""
    filled = np.zeros(len(values) + 1)
    np.copyto(filled[:-1], values, where=~np.isnan(values))
    return filled


def _checked(data, prepared, good):
    data = np.asarray(data)
    if data.shape != prepared.shape:
        raise InputError(
            f"the frame has shape {data.shape}, but the geometry and its mask have {prepared.shape} (ss, fs)"
        )
    if data.dtype.kind not in "iufb":
        raise InputError(f"the frame's values have the type {data.dtype}; whole or real numbers were expected")
    if data.dtype.kind == "b":
        data = data.view(np.uint8)
    elif data.dtype.itemsize > 8 or data.dtype == np.float16:
        data = data.astype(np.float32)
    elif not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    if good is not None:
        good = np.ascontiguousarray(good, dtype=bool)
        if good.shape != data.shape:
            raise InputError(f"the frame's mask has shape {good.shape}, the frame {data.shape} (ss, fs)")
    return np.ascontiguousarray(data), good


@njit(cache=True)
def range_minima(values):
    """Minima over 1, 2, 4, ... consecutive entries.

    Parameters
    ----------
    values : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (n_levels, n)
        Row k, entry i: minimum of values[i : i + 2^k].
    """
    n = values.size
    n_levels = 1
    while 1 << n_levels <= n:
        n_levels += 1
    table = np.empty((n_levels, n), dtype=values.dtype)
    for i in range(n):
        table[0, i] = values[i]
    for level in range(1, n_levels):
        step = 1 << (level - 1)
        for i in range(n - step):
            table[level, i] = min(table[level - 1, i], table[level - 1, i + step])
        for i in range(n - step, n):
            table[level, i] = table[level - 1, i]
    return table


@njit(cache=True)
def _blocks_with_bright_pixels(data, block_window, limits, top):
    """Blocks with a value above the lowest threshold of their window of bins, and not above `top`.

    The fixed length, the narrow sum and the lack of branches let the compiler make this as fast as memory.
    """
    found = np.empty(block_window.size, dtype=np.uint32)
    n_found = 0
    n_whole = data.size // BLOCK
    for block in range(n_whole):
        limit = limits[block_window[block]]
        values = data[block * BLOCK : (block + 1) * BLOCK]
        count = np.uint16(0)
        for i in range(BLOCK):
            count = np.uint16(count + (np.uint16(values[i] > limit) & np.uint16(values[i] <= top)))
        found[n_found] = block
        n_found += count != 0
    if n_whole < block_window.size:
        found[n_found] = n_whole
        n_found += 1
    return found[:n_found]


@njit(cache=True)
def _bright_pixels(data, bins, block_window, limits, thresholds, top, good):
    """Good pixels above the threshold of their bin, in order; the bin, elsewhere in memory, is looked up only for the few that may be."""
    found = np.empty(4096, dtype=np.int64)
    n_found = 0
    for block in _blocks_with_bright_pixels(data, block_window, limits, top):
        if n_found + BLOCK > found.size:
            found = doubled(found)
        limit = limits[block_window[block]]
        first = np.int64(block) * BLOCK
        for pixel in range(first, min(first + BLOCK, data.size)):
            if data[pixel] > limit and data[pixel] <= top and (good.size == 0 or good[pixel]):
                found[n_found] = pixel
                n_found += 1
    # Without a branch the memory is asked for many bins at a time.
    n_bright = 0
    for i in range(n_found):
        pixel = found[i]
        found[n_bright] = pixel
        n_bright += data[pixel] > thresholds[bins[pixel]]
    return found[:n_bright]


@njit(cache=True)
def _panel_at(bounds, row, column, guess):
    if bounds[guess, 0] <= row < bounds[guess, 1] and bounds[guess, 2] <= column < bounds[guess, 3]:
        return guess
    for panel in range(bounds.shape[0]):
        if bounds[panel, 0] <= row < bounds[panel, 1] and bounds[panel, 2] <= column < bounds[panel, 3]:
            return panel
    return -1


@njit(cache=True)
def _local_background(
    data, width, bounds, bins, block_is_whole, bad_bin, state, least, good, lowest, top, row, column, radius
):
    """Mean, variance, number and largest of the background's pixels within `radius` of a pixel, on its panel.

    Bright pixels, those of all peaks among them, are no background; no pixel up to `least` is one.
    """
    origin = np.float64(0.0)
    total, total_squares, n, largest = 0.0, 0.0, 0, -np.inf
    for r in range(max(row - radius, bounds[0]), min(row + radius + 1, bounds[1])):
        half = radius
        while half * half + (r - row) ** 2 > radius * radius:
            half -= 1
        for c in range(max(column - half, bounds[2]), min(column + half + 1, bounds[3])):
            pixel = r * width + c
            value = data[pixel]
            if not (value >= lowest and value <= top) or (value > least and state[pixel] != _DIM):
                continue
            if not block_is_whole[pixel // BLOCK] and bins[pixel] == bad_bin:
                continue
            if good.size > 0 and not good[pixel]:
                continue
            if n == 0:
                origin = np.float64(value)
            deviation = np.float64(value) - origin
            total += deviation
            total_squares += deviation * deviation
            largest = max(largest, np.float64(value))
            n += 1
    if n == 0:
        return 0.0, 0.0, 0, largest
    shift = total / n
    return origin + shift, max(total_squares / n - shift * shift, 0.0), n, largest


@njit(cache=True)
def _search(
    data,
    width,
    bounds,
    bins,
    block_window,
    block_is_whole,
    state,
    limits,
    thresholds,
    lowest,
    top,
    good,
    mean,
    variance,
    gain,
    min_snr,
    min_pixels,
    max_pixels,
    background_radius,
):
    bright = _bright_pixels(data, bins, block_window, limits, thresholds, top, good)
    for pixel in bright:
        state[pixel] = _BRIGHT
    least = thresholds.min()
    rows = np.empty((256, _N_COLUMNS))
    n_rows = 0
    # All pixels of connected regions, one region after the other; the end serves as the queue.
    pixel_row, pixel_column = np.empty(bright.size, dtype=np.int64), np.empty(bright.size, dtype=np.int64)
    n_pixels = 0
    panel, row = 0, 0
    for seed in bright:
        if state[seed] == _TAKEN:
            continue
        while (row + 1) * width <= seed:
            row += 1
        column = seed - row * width
        panel = _panel_at(bounds, row, column, panel)
        first_row, end_row, first_column, end_column = bounds[panel]
        if row == first_row or row == end_row - 1 or column == first_column or column == end_column - 1:
            continue
        begin = n_pixels
        pixel_row[n_pixels], pixel_column[n_pixels] = row, column
        n_pixels += 1
        state[seed] = _TAKEN
        head = begin
        while head < n_pixels:
            at_row, at_column = pixel_row[head], pixel_column[head]
            head += 1
            for r in range(max(at_row - 1, first_row), min(at_row + 2, end_row)):
                for c in range(max(at_column - 1, first_column), min(at_column + 2, end_column)):
                    if state[r * width + c] == _BRIGHT:
                        state[r * width + c] = _TAKEN
                        pixel_row[n_pixels], pixel_column[n_pixels] = r, c
                        n_pixels += 1
        count = n_pixels - begin
        if count < min_pixels or count > max_pixels:
            continue
        # Centre for the local background: weighted by the height above the radial bin's mean.
        weight, at_row_sum, at_column_sum, maximum = 0.0, 0.0, 0.0, -np.inf
        for i in range(begin, n_pixels):
            pixel = pixel_row[i] * width + pixel_column[i]
            value = np.float64(data[pixel])
            height = abs(value - mean[bins[pixel]])
            weight += height
            at_row_sum += height * pixel_row[i]
            at_column_sum += height * pixel_column[i]
            maximum = max(maximum, value)
        if not weight > 0.0:
            continue
        background, spread, n_background, brightest = _local_background(
            data,
            width,
            bounds[panel],
            bins,
            block_is_whole,
            thresholds.size - 1,
            state,
            least,
            good,
            lowest,
            top,
            np.int64(np.rint(at_row_sum / weight)),
            np.int64(np.rint(at_column_sum / weight)),
            background_radius,
        )
        if n_background < _MIN_BACKGROUND_PIXELS:
            b = bins[seed]
            background, spread, n_background, brightest = mean[b], variance[b], 1, -np.inf
        # Photons scatter about the mean even where the few pixels around the peak happen not to: by Poisson's law, and
        # where they are all empty as if they held one photon.
        spread = max(spread, gain * background, gain * gain / n_background)
        intensity, weight, at_row_sum, at_column_sum = 0.0, 0.0, 0.0, 0.0
        for i in range(begin, n_pixels):
            value = np.float64(data[pixel_row[i] * width + pixel_column[i]])
            intensity += value - background
            weight += value
            at_row_sum += value * pixel_row[i]
            at_column_sum += value * pixel_column[i]
        if intensity < min_snr * np.sqrt(spread) or maximum < brightest or not weight > 0.0:
            continue
        if n_rows == rows.shape[0]:
            rows = doubled_rows(rows)
        rows[n_rows, 0] = at_column_sum / weight + 0.5
        rows[n_rows, 1] = at_row_sum / weight + 0.5
        rows[n_rows, 2] = intensity
        rows[n_rows, 3] = intensity / np.sqrt(spread) if spread > 0.0 else np.inf
        rows[n_rows, 4] = count
        rows[n_rows, 5] = maximum
        rows[n_rows, 6] = panel
        rows[n_rows, 7] = background
        n_rows += 1
    for pixel in bright:
        state[pixel] = _DIM
    return rows[:n_rows]

"""The pixels around a reflection, row after row: those of its peak and those of the ring around it.

A row of pixels crosses the disc of the peak and the ring in runs, whose ends are the roots of a circle's equation. Where nothing is in the
way, neither a panel's edge nor a bad pixel nor another reflection, a run is taken as it is; elsewhere each pixel is asked.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from sfxflow.prefetch import prefetch

#: Rows and columns of the blocks of pixels that are looked at together.
BLOCK = 16


class Surface(NamedTuple):
    """What integration needs to know of the pixels of a frame, whatever their values.

    Attributes
    ----------
    good : ndarray of bool, shape (n_ss, n_fs)
        True where a pixel can be used.
    is_whole : ndarray of bool, shape (ceil(n_ss / BLOCK), ceil(n_fs / BLOCK))
        True where all pixels of a block can be used.
    """

    good: np.ndarray
    is_whole: np.ndarray


def surface_of(good):
    """`Surface` of good pixels; one that is there already is worth keeping, for it takes as long as some hundred reflections."""
    if isinstance(good, Surface):
        return good
    good = np.ascontiguousarray(good, dtype=bool)
    return Surface(good, _whole_blocks(good))


@njit(cache=True, nogil=True)
def _whole_blocks(good):
    n_ss, n_fs = good.shape
    is_whole = np.ones((-(-n_ss // BLOCK), -(-n_fs // BLOCK)), dtype=np.bool_)
    for row in range(n_ss):
        for block in range(is_whole.shape[1]):
            run = good[row, block * BLOCK : min((block + 1) * BLOCK, n_fs)]
            all_good = True
            for i in range(run.size):
                all_good &= run[i]
            is_whole[row // BLOCK, block] &= all_good
    return is_whole


@njit(cache=True, nogil=True)
def _is_free(is_whole, bounds, first_row, last_row, first_column, last_column):
    """True where a rectangle lies on the panel and has no bad pixel."""
    if first_row < bounds[0] or last_row >= bounds[1] or first_column < bounds[2] or last_column >= bounds[3]:
        return False
    free = True
    for row in range(first_row // BLOCK, last_row // BLOCK + 1):
        for column in range(first_column // BLOCK, last_column // BLOCK + 1):
            free &= is_whole[row, column]
    return free


@njit(cache=True, nogil=True)
def _chord(centre, square):
    """First column, and the one after the last, whose distance from `centre` squared is not above `square`; none where that is negative."""
    if square < 0.0:
        return 0, 0
    half = np.sqrt(square)
    return int(np.ceil(centre - half)), int(np.floor(centre + half)) + 1


@njit(cache=True, nogil=True)
def take_pixels(pixels, good, is_whole, bounds, lowest, top, fs, ss, i, neighbours, radii, ring, ring_x, ring_y, peak):
    """Pixels of the peak and of the ring of reflection `i`.

    Parameters
    ----------
    pixels : ndarray, shape (n_ss * n_fs,)
        The frame.
    good, is_whole : ndarray of bool
        `Surface`.
    bounds : ndarray of int, shape (4,)
        Of the reflection's panel.
    lowest, top : float
        Range of usable values; NaN is not in it.
    fs, ss : ndarray of float64
        Reflections of the frame, pixel, corner-based.
    i : int
    neighbours : ndarray of int
        Others that may be in the way. Of the peak's pixels each belongs to the nearest reflection; none within another's peak is of the ring.
    radii : tuple of float
        Peak, inner and outer radius of the ring, pixel.
    ring, ring_x, ring_y : ndarray of float64
        Filled with values of the ring and places from the reflection; one longer than there can be.
    peak : ndarray of float64
        Filled with all pixels within the peak's radius, which are at `peak_offsets`; NaN stands for values that do not count.

    Returns
    -------
    n_ring, n_peak, n_bad : int
        Pixels of the ring and within the peak's radius, and those of the latter that are bad or off the panel.
    """
    inner2, middle2, outer2 = radii[0] ** 2, radii[1] ** 2, radii[2] ** 2
    first_row, last_row = int(np.ceil(ss[i] - 0.5 - radii[2])), int(np.floor(ss[i] - 0.5 + radii[2]))
    first_column, last_column = int(np.ceil(fs[i] - 0.5 - radii[2])), int(np.floor(fs[i] - 0.5 + radii[2]))
    if neighbours.size == 0 and _is_free(is_whole, bounds, first_row, last_row, first_column, last_column):
        return _take_runs(
            pixels,
            good.shape[1],
            first_row,
            last_row,
            lowest,
            top,
            fs[i],
            ss[i],
            inner2,
            middle2,
            outer2,
            ring,
            ring_x,
            ring_y,
            peak,
        )
    n_ring, n_peak, n_bad = 0, 0, 0
    for row in range(first_row, last_row + 1):
        y = row + 0.5 - ss[i]
        from_peak, to_peak = _chord(fs[i] - 0.5, inner2 - y * y)
        for column in range(first_column, last_column + 1):
            x = column + 0.5 - fs[i]
            distance2 = x * x + y * y
            in_peak = from_peak <= column < to_peak
            if not in_peak and (distance2 < middle2 or distance2 > outer2):
                continue
            usable, value = False, np.nan
            if bounds[0] <= row < bounds[1] and bounds[2] <= column < bounds[3] and good[row, column]:
                value = np.float64(pixels[row * good.shape[1] + column])
                usable = (value >= lowest) & (value <= top)
            of_other = _is_of_other(x, y, fs, ss, i, neighbours, inner2, in_peak)
            if in_peak:
                peak[n_peak] = value if usable and not of_other else np.nan
                n_bad += not usable and not of_other
                n_peak += 1
            elif usable and not of_other:
                ring[n_ring], ring_x[n_ring], ring_y[n_ring] = value, x, y
                n_ring += 1
    return n_ring, n_peak, n_bad


@njit(cache=True, nogil=True)
def _take_runs(
    pixels, width, first_row, last_row, lowest, top, fs, ss, inner2, middle2, outer2, ring, ring_x, ring_y, peak
):
    """`take_pixels` where nothing is in the way."""
    centre, x = fs - 0.5, 0.5 - fs
    n_ring, n_peak, n_bad = 0, 0, 0
    for row in range(first_row, last_row + 1):
        y = row + 0.5 - ss
        y2 = y * y
        left, right = _chord(centre, outer2 - y2)
        # Between the two runs of the ring is what is nearer than its inner radius, and the peak.
        from_hole = to_hole = right
        if y2 < middle2:
            half = np.sqrt(middle2 - y2)
            from_hole, to_hole = int(np.floor(centre - half)) + 1, int(np.ceil(centre + half))
        from_peak, to_peak = _chord(centre, inner2 - y2)
        if y2 <= inner2:
            from_hole, to_hole = min(from_hole, from_peak), max(to_hole, to_peak) if y2 < middle2 else to_peak
        start = row * width
        for column in range(left, from_hole):
            value = pixels[start + column]
            ring[n_ring], ring_x[n_ring], ring_y[n_ring] = value, column + x, y
            n_ring += (value >= lowest) & (value <= top)
        for column in range(from_peak, to_peak):
            value = pixels[start + column]
            valid = (value >= lowest) & (value <= top)
            peak[n_peak] = value if valid else np.nan
            n_bad += not valid
            n_peak += 1
        for column in range(to_hole, right):
            value = pixels[start + column]
            ring[n_ring], ring_x[n_ring], ring_y[n_ring] = value, column + x, y
            n_ring += (value >= lowest) & (value <= top)
    return n_ring, n_peak, n_bad


@njit(cache=True, nogil=True)
def _is_of_other(x, y, fs, ss, i, neighbours, inner2, in_peak):
    """True for a pixel that lies in the peak of another reflection, and if it is of this one's peak too, nearer to the other."""
    for j in neighbours:
        distance2 = (y + (ss[i] - ss[j])) ** 2 + (x + (fs[i] - fs[j])) ** 2
        if distance2 <= inner2 and not (in_peak and distance2 >= x * x + y * y):
            return True
    return False


@njit(cache=True, nogil=True)
def peak_offsets(fs, ss, radius, x, y):
    """Places of the pixels within the peak's radius from the reflection, in the order of `take_pixels`; their number."""
    n = 0
    for row in range(int(np.ceil(ss - 0.5 - radius)), int(np.floor(ss - 0.5 + radius)) + 1):
        at_y = row + 0.5 - ss
        first, end = _chord(fs - 0.5, radius**2 - at_y * at_y)
        for column in range(first, end):
            x[n], y[n] = column + 0.5 - fs, at_y
            n += 1
    return n


@njit(cache=True, nogil=True)
def announce(pixels, shape, fs, ss, reach):
    """Have each row of a reflection's surroundings sent from memory; most of the time would go by waiting for them one after the other."""
    left, right = min(max(int(fs - reach), 0), shape[1] - 1), min(max(int(fs + reach), 0), shape[1] - 1)
    for row in range(max(int(ss - reach), 0), min(int(ss + reach) + 1, shape[0])):
        prefetch(pixels, row * shape[1] + left)
        prefetch(pixels, row * shape[1] + right)

"""What the peak search needs to know of a geometry, worked out once and used for every frame."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from sfxflow.errors import InputError

#: Consecutive pixels that are scanned together.
BLOCK = 64

#: Pixels of a radial bin that the statistics are taken from: the standard deviation is then known to 1/sqrt(2 n) = 7 %,
#: and to 3 % after smoothing over neighbouring bins.
SAMPLES_PER_BIN = 96

#: Of one block, no more pixels than these go into the sample of one bin, so that one strong spot can't dominate it.
_SAMPLES_PER_BLOCK_AND_BIN = 2

#: Windows of bins begin at multiples of this: a few thousand thresholds serve all blocks.
_WINDOW_STEP = 4

#: Beyond this scattering angle the radius grows with the angle instead of its tangent.
_TANGENT_UP_TO = np.deg2rad(60.0)


@dataclass(frozen=True)
class Prepared:
    """A geometry and a mask, prepared for the peak search.

    Not to be shared between threads: `state` is written to during a search, and clean again after it.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the slab.
    bounds : ndarray of int32, shape (n_panels, 4)
        As in `sfxflow.geometry.PanelArrays`.
    n_bins : int
    bin_width : float
        Pixel; 1 unless the detector is extremely large.
    bins : ndarray of uint16, shape (n_pixels,)
        Radial bin of each pixel; `n_bins` for bad pixels and between panels.
    windows : ndarray of int64, shape (n_windows, 2)
        Ranges of bins: k and the first of 2^k bins.
    block_window : ndarray of uint16, shape (n_blocks,)
        Number of a window that has the bins of all good pixels of each block of `BLOCK` consecutive pixels; only the bin `n_bins` for a
        block without any.
    block_is_whole : ndarray of bool, shape (n_blocks,)
        True for blocks without bad pixels.
    sample : ndarray of uint32, shape (n_samples,)
        Pixels that the statistics are taken from, bin after bin.
    sample_start : ndarray of int64, shape (n_bins + 1,)
        Where each bin's pixels begin in `sample`.
    state : ndarray of uint8, shape (n_pixels,)
        Work array of the search, zero between searches.
    """

    shape: tuple
    bounds: np.ndarray
    n_bins: int
    bin_width: float
    bins: np.ndarray
    windows: np.ndarray
    block_window: np.ndarray
    block_is_whole: np.ndarray
    sample: np.ndarray
    sample_start: np.ndarray
    state: np.ndarray


def prepare(arrays, good, clen, *, samples_per_bin=SAMPLES_PER_BIN, seed=1):
    """Prepare the search for the frames of one geometry.

    Parameters
    ----------
    arrays : sfxflow.geometry.PanelArrays
    good : ndarray of bool, shape (n_ss, n_fs)
        True where a pixel can be used, in every frame. Pixels that belong to no panel are never used.
    clen : float
        Camera length, metre. A small change from frame to frame needs no new preparation.
    samples_per_bin : int
        Pixels that the statistics of a radial bin are taken from; a number as large as the frame takes all.
    seed : int
        Of the choice of these pixels.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        The mask is smaller than the panels, or no good pixel is left.
    """
    good = np.asarray(good, dtype=bool)
    if good.ndim != 2 or good.shape[0] < arrays.bounds[:, 1].max() or good.shape[1] < arrays.bounds[:, 3].max():
        needed = (int(arrays.bounds[:, 1].max()), int(arrays.bounds[:, 3].max()))
        raise InputError(f"the mask has shape {good.shape}, but the panels need {needed} pixels (ss, fs)")
    bins, n_bins, bin_width = _radial_bins(arrays, good, clen)
    if n_bins == 0:
        raise InputError("no good pixel is left: the mask and the bad regions of the geometry cover every panel")
    low, high, is_whole = _block_ranges(bins, n_bins)
    order = np.random.default_rng(seed).permutation(len(low))
    counts = np.bincount(bins, minlength=n_bins + 1)[:n_bins]
    start = np.concatenate([[0], np.cumsum(np.minimum(counts, samples_per_bin))]).astype(np.int64)
    sample, taken = _choose_sample(bins, n_bins, order, start, samples_per_bin >= counts.max())
    sample, start = _without_gaps(sample, start, taken)
    windows, block_window = _windows(low, high, n_bins)
    return Prepared(
        shape=good.shape,
        bounds=np.ascontiguousarray(arrays.bounds, dtype=np.int32),
        n_bins=n_bins,
        bin_width=bin_width,
        bins=bins,
        windows=windows,
        block_window=block_window,
        block_is_whole=is_whole,
        sample=sample,
        sample_start=start,
        state=np.zeros(bins.size, dtype=np.uint8),
    )


def radius_in_pixels(arrays, panel, clen):
    """Distance from the beam of each pixel centre of `panel`, projected on a plane at `clen`, in pixels of that panel.

    Parameters
    ----------
    arrays : sfxflow.geometry.PanelArrays
    panel : int
    clen : float
        Metre.

    Returns
    -------
    ndarray of float64, shape (n_ss, n_fs)

    Notes
    -----
    clen tan(2 theta) / pixel, so that tilted and displaced panels share bins of scattering angle. Above 2 theta = 60 degrees, where the
    tangent runs away, it goes on as a straight line.
    """
    first_ss, end_ss, first_fs, end_fs = arrays.bounds[panel]
    i_fs = np.arange(end_fs - first_fs)[None, :] + 0.5
    i_ss = np.arange(end_ss - first_ss)[:, None] + 0.5
    origin, fs, ss = arrays.origin[panel], arrays.fs[panel], arrays.ss[panel]
    x, y, z = (origin[k] + i_fs * fs[k] + i_ss * ss[k] for k in range(3))
    across, along = np.hypot(x, y), z + clen
    scale = clen / np.linalg.norm(fs)
    limit = _TANGENT_UP_TO
    if np.all(along > 0.0) and np.all(across <= np.tan(limit) * along):
        return across / along * scale
    two_theta = np.arctan2(across, along)
    beyond = np.tan(limit) + (two_theta - limit) / np.cos(limit) ** 2
    return np.where(two_theta < limit, np.tan(np.minimum(two_theta, limit)), beyond) * scale


def _radial_bins(arrays, good, clen):
    radii = np.full(good.shape, -1.0, dtype=np.float32)
    for panel, (first_ss, end_ss, first_fs, end_fs) in enumerate(arrays.bounds):
        radii[first_ss:end_ss, first_fs:end_fs] = radius_in_pixels(arrays, panel, clen)
    usable = good & (radii >= 0)
    if not usable.any():
        return np.zeros(good.size, dtype=np.uint16), 0, 1.0
    largest = float(radii[usable].max())
    # uint16 has room for 65534 bins; a larger detector gets wider ones.
    width = max(1.0, largest / 65000)
    n_bins = int(np.rint(largest / width)) + 1
    bins = np.where(usable, np.rint(radii / width), n_bins).astype(np.uint16)
    return bins.ravel(), n_bins, width


@njit(cache=True)
def _block_ranges(bins, n_bins):
    """Lowest and highest bin of the good pixels of each block, `n_bins` where there is none, and whether all its pixels are good."""
    n_blocks = (bins.size + BLOCK - 1) // BLOCK
    low = np.empty(n_blocks, dtype=np.int64)
    high = np.empty(n_blocks, dtype=np.int64)
    is_whole = np.empty(n_blocks, dtype=np.bool_)
    for block in range(n_blocks):
        lowest, highest, n_bad = n_bins, -1, 0
        for pixel in range(block * BLOCK, min((block + 1) * BLOCK, bins.size)):
            b = np.int64(bins[pixel])
            if b == n_bins:
                n_bad += 1
            else:
                lowest = min(lowest, b)
                highest = max(highest, b)
        low[block] = lowest
        high[block] = highest if highest >= 0 else n_bins
        is_whole[block] = n_bad == 0
    return low, high, is_whole


def _windows(low, high, n_bins):
    """Windows of 2^k bins that begin at multiples of a step, few enough for uint16, and the one that each range of bins is in."""
    step = _WINDOW_STEP
    while True:
        first = np.where(low < n_bins, low // step * step, n_bins)
        power = np.ceil(np.log2(high - first + 1)).astype(np.int64)
        windows, of_block = np.unique(np.stack([power, first], axis=1), axis=0, return_inverse=True)
        if len(windows) <= np.iinfo(np.uint16).max:
            return windows, of_block.ravel().astype(np.uint16)
        step *= 2


@njit(cache=True)
def _choose_sample(bins, n_bins, order, start, everything):
    """Fill each bin's sample from blocks in random order: all bins share few blocks, so that few cache lines are read."""
    sample = np.empty(start[-1], dtype=np.int64)
    taken = np.zeros(n_bins, dtype=np.int64)
    from_block = np.zeros(n_bins, dtype=np.int64)
    last_block = np.full(n_bins, -1, dtype=np.int64)
    for block in order:
        for pixel in range(block * BLOCK, min((block + 1) * BLOCK, bins.size)):
            b = np.int64(bins[pixel])
            if b == n_bins or start[b] + taken[b] == start[b + 1]:
                continue
            if last_block[b] != block:
                last_block[b] = block
                from_block[b] = 0
            if from_block[b] < _SAMPLES_PER_BLOCK_AND_BIN or everything:
                sample[start[b] + taken[b]] = pixel
                taken[b] += 1
                from_block[b] += 1
    return sample, taken


def _without_gaps(sample, start, taken):
    """Close the gaps that bins leave whose blocks did not suffice."""
    keep = np.concatenate([np.arange(first, first + n) for first, n in zip(start[:-1], taken, strict=True)])
    return sample[keep].astype(np.uint32), np.concatenate([[0], np.cumsum(taken)]).astype(np.int64)

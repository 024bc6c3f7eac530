"""From rays to pixels: point spread, Poisson noise, the detector's response."""

import math

import numpy as np
from numba import njit

_LEVELS = 256


@njit(cache=True, nogil=True)
def draw_rays(image, touched, panel, fs, ss, photons, psf, size, place):
    """Add the expected photons of each ray to `image`, a Gaussian integrated over every pixel.

    Parameters
    ----------
    image : ndarray of float32, shape (ss, fs)
        Changed in place.
    touched : ndarray of int64
        Filled with the flat numbers of the pixels that were zero before; must be long enough (`rays_reach`).
    panel, fs, ss, photons : ndarray, shape (m,)
        Rays, slab coordinates in pixel. A ray lights its own panel only.
    psf : float
        Standard deviation, pixel.
    size, place : ndarray of int64, shape (n, 2)
        As in `sfxflow.simulate.detector.Planes`.

    Returns
    -------
    int
        Number of pixels in `touched`.
    """
    n_touched = 0
    reach = rays_reach(psf)
    along_fs, along_ss = np.zeros(2 * reach + 1), np.zeros(2 * reach + 1)
    narrow = 1.0 / (psf * math.sqrt(2.0))
    for r in range(panel.shape[0]):
        p = panel[r]
        column, row = math.floor(fs[r]) - reach, math.floor(ss[r]) - reach
        below_fs, below_ss = math.erf((column - fs[r]) * narrow), math.erf((row - ss[r]) * narrow)
        for i in range(2 * reach + 1):
            above_fs, above_ss = math.erf((column + i + 1 - fs[r]) * narrow), math.erf((row + i + 1 - ss[r]) * narrow)
            along_fs[i], along_ss[i] = 0.5 * (above_fs - below_fs), 0.5 * (above_ss - below_ss)
            below_fs, below_ss = above_fs, above_ss
        first_i, last_i = max(0, place[p, 1] - row), min(2 * reach + 1, place[p, 1] + size[p, 1] - row)
        first_j, last_j = max(0, place[p, 0] - column), min(2 * reach + 1, place[p, 0] + size[p, 0] - column)
        for i in range(first_i, last_i):
            for j in range(first_j, last_j):
                value = photons[r] * along_ss[i] * along_fs[j]
                if value < 1e-7:
                    continue
                if image[row + i, column + j] == 0.0:
                    touched[n_touched] = (row + i) * image.shape[1] + column + j
                    n_touched += 1
                image[row + i, column + j] += value
    return n_touched


@njit(cache=True, nogil=True)
def rays_reach(psf):
    """Pixels to each side that a ray lights: 4 sigma and the pixel itself."""
    return math.ceil(4.0 * psf)


def background_levels(shape):
    """Sort the pixels of a background into 256 levels of nearly equal expectation.

    Parameters
    ----------
    shape : ndarray of float32, shape (ss, fs)
        Expected background, any scale, not negative.

    Returns
    -------
    level : ndarray of uint8, shape (ss, fs)
    mean : ndarray of float64, shape (256,)
        Mean expectation of each level's pixels: the mean over the detector is kept.
    """
    low, high = float(shape.min()), float(shape.max())
    step = (high - low) / _LEVELS or 1.0
    level = np.minimum((shape - low) / step, _LEVELS - 1).astype(np.uint8)
    counts = np.bincount(level.ravel(), minlength=_LEVELS)
    sums = np.bincount(level.ravel(), weights=shape.ravel(), minlength=_LEVELS)
    return level, sums / np.maximum(counts, 1)


@njit(cache=True, nogil=True)
def poisson_background(level, mean, random_bits, counts):
    """Poisson numbers by inversion of the distribution of each level, found through a table of its 256 first quantiles.

    Parameters
    ----------
    level : ndarray of uint8, shape (n,)
    mean : ndarray of float64, shape (256,)
        Expectation of each level.
    random_bits : ndarray of uint32, shape (n,)
        Uniform over all values.
    counts : ndarray of int32, shape (n,)
        Filled.
    """
    largest = mean.max()
    n_values = int(largest + 12.0 * math.sqrt(largest) + 24.0)
    cumulative = np.zeros((mean.shape[0], n_values), dtype=np.uint64)
    guide = np.zeros((mean.shape[0], 256), dtype=np.int32)
    for i in range(mean.shape[0]):
        probability, total = math.exp(-mean[i]), 0.0
        for n in range(n_values):
            if mean[i] > 500.0:  # exp(-mean) would soon underflow
                probability = math.exp(n * math.log(mean[i]) - mean[i] - math.lgamma(n + 1.0))
            total += probability
            probability *= mean[i] / (n + 1.0)
            cumulative[i, n] = np.uint64(min(total, 1.0) * 4294967296.0)
        cumulative[i, n_values - 1] = np.uint64(4294967296)
        n = 0
        for g in range(256):
            while cumulative[i, n] <= np.uint64(g) * np.uint64(16777216):
                n += 1
            guide[i, g] = n
    for pixel in range(level.shape[0]):
        i = level[pixel]
        bits = np.uint64(random_bits[pixel])
        n = guide[i, bits >> np.uint64(24)]
        while cumulative[i, n] <= bits:
            n += 1
        counts[pixel] = n


def read_out(photons, experiment, rng):
    """What the detector writes for photons that arrived.

    Parameters
    ----------
    photons : ndarray of int32, shape (ss, fs)
        Changed in place.
    experiment : sfxflow.simulate.experiment.Experiment
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of `experiment.dtype`, shape (ss, fs)
    """
    bad = experiment.bad_pixels_map
    photons[bad.shadow | bad.dead] = 0
    photons[bad.hot] += rng.poisson(400, np.count_nonzero(bad.hot)).astype(np.int32)
    np.minimum(photons, int(experiment.saturation), out=photons)
    if experiment.dtype == "float32" or experiment.read_noise or experiment.adu_per_photon != 1.0:
        values = photons.astype(np.float32)
        if experiment.read_noise:
            values += np.float32(experiment.read_noise) * rng.standard_normal(values.shape, dtype=np.float32)
        values *= np.float32(experiment.adu_per_photon)
        if experiment.dtype != "float32":
            limits = np.iinfo(experiment.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
    else:
        values = photons
    image = values.astype(experiment.dtype)
    told = {"negative": -1, "largest": experiment.largest_value, "nan": np.nan}
    if experiment.bad_pixels in told:
        image[bad.known] = told[experiment.bad_pixels]
    return image

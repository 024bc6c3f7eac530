"""Frames of spots with known photons at known places, for tests and benchmarks of integration."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

#: Pixels of a frame along each side; the beam is in the middle.
SIZE = 400
BOUNDS = np.array([[0, SIZE, 0, SIZE]])
EVERYTHING = (-np.inf, np.inf)


class Simulated(NamedTuple):
    """A frame, predicted positions, photons, and what `integrate_profiles` wants to know of the radius."""

    data: np.ndarray
    fs: np.ndarray
    ss: np.ndarray
    photons: np.ndarray
    towards: np.ndarray
    relative_q2: np.ndarray


def add_spot(expected, fs, ss, photons, sigma=0.6):
    """Add a round spot, integrated over each pixel."""
    column, row = int(fs) - 6, int(ss) - 6
    along_fs = np.diff(ndtr((np.arange(column, column + 14) - fs) / sigma))
    along_ss = np.diff(ndtr((np.arange(row, row + 14) - ss) / sigma))
    expected[row : row + 13, column : column + 13] += photons * np.outer(along_ss, along_fs)


def frame_of_spots(rng, level=3.0, photons=None, sigma=0.6, streak=0.0, slope=0.0, misplaced=0.0, spacing=16):
    """Spots on a grid, each somewhere else within its pixel.

    Parameters
    ----------
    rng : numpy.random.Generator
    level : float
        Background, photon per pixel in the middle.
    photons : float, optional
        Of every spot; otherwise from 2 to 20000, every fifth has none.
    sigma : float
        Point spread, pixel.
    streak : float
        Standard deviation of a spot along the radius at the corner, pixel; it grows with the radius.
    slope : float
        Change of the background along fs, photon per pixel and pixel.
    misplaced : float
        Standard deviation of the true places from the predicted ones, pixel.
    spacing : int
        Of the grid, pixel.
    """
    grid = np.arange(12, SIZE - 12, spacing)
    fs, ss = (g.ravel() + rng.uniform(-0.5, 0.5, g.size) for g in np.meshgrid(grid, grid))
    n = len(fs)
    true = np.exp(rng.uniform(np.log(2), np.log(20000), n)) if photons is None else np.full(n, float(photons))
    if photons is None:
        true[rng.random(n) < 0.2] = 0.0
    towards = np.stack([fs, ss], axis=1) - SIZE / 2
    radius = np.linalg.norm(towards, axis=1)
    towards /= radius[:, None]
    relative_q2 = (radius / (SIZE / np.sqrt(2))) ** 2
    expected = np.full((SIZE, SIZE), float(level)) + slope * (np.arange(SIZE) % 100 - 50)
    x, y = (place + misplaced * rng.standard_normal(n) for place in (fs, ss))
    steps = np.linspace(-2.5, 2.5, 15) if streak else np.zeros(1)
    weights = np.exp(-0.5 * steps**2)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        along = step * streak * np.sqrt(relative_q2)
        for i in range(n):
            add_spot(
                expected, x[i] + along[i] * towards[i, 0], y[i] + along[i] * towards[i, 1], weight * true[i], sigma
            )
    return Simulated(rng.poisson(expected).astype(np.int32), fs, ss, true, towards, relative_q2)

"""Background under a reflection: the mean of the pixels around it, or a plane through them, without outliers."""

import numpy as np
from numba import njit

from sfxflow.small_matrices import inverse3

#: Background pixels farther than so many standard deviations off don't count.
CLIP_AT = 4.0
_CLIP_CYCLES = 3

#: The plane needs so many pixels, so that its three parameters are well determined.
_MIN_PLANE_PIXELS = 12
#: Chi squared that two slopes must explain to be real; chance gives more once in 100 reflections (2 degrees of freedom).
_SIGNIFICANT = 9.2

#: What `settings.Integration.background` says, as the kernels know it.
MODES = {"flat": 0, "plane": 1, "auto": 2}


@njit(cache=True, nogil=True)
def fit_background(values, x, y, n, gain, mode, scratch, background, covariance):
    """Background from the pixels of a ring.

    Parameters
    ----------
    values, x, y : ndarray of float64
        Pixels [:n], and where they are relative to the reflection.
    n : int
    gain : float
        Detector units a photon.
    mode : int
        Of `MODES`.
    scratch : ndarray of float64
        At least as long as `values`.
    background : ndarray of float64, shape (3,)
        Gets the level at the reflection and the slopes along x and y.
    covariance : ndarray of float64, shape (3, 3)
        Gets their covariance matrix for pixels of variance 1.

    Returns
    -------
    variance : float
        Of a background pixel.
    n_used : int
        Pixels left after clipping.
    """
    for i in range(n):
        scratch[i] = values[i]
    centre, variance, n_used = clipped_mean(scratch, n, gain)
    for i in range(3):
        background[i] = 0.0
        for j in range(3):
            covariance[i, j] = 0.0
    background[0] = centre
    covariance[0, 0] = 1.0 / max(n_used, 1)
    if mode == 0 or n_used < _MIN_PLANE_PIXELS:
        return variance, n_used
    skewness = gain * (CLIP_AT**2 - 1.0) / 6.0
    plane = np.zeros(3)
    for cycle in range(_CLIP_CYCLES):
        reach = CLIP_AT * np.sqrt(variance) + 1e-6 * abs(centre)
        start = centre if cycle == 0 else 0.0
        normal, right, squares, n_plane = np.zeros((3, 3)), np.zeros(3), 0.0, 0
        for i in range(n):
            old = start + plane[0] + plane[1] * x[i] + plane[2] * y[i]
            if values[i] < old - reach or values[i] > old + reach + skewness:
                continue
            value = values[i] - centre
            normal[0, 1] += x[i]
            normal[0, 2] += y[i]
            normal[1, 1] += x[i] * x[i]
            normal[1, 2] += x[i] * y[i]
            normal[2, 2] += y[i] * y[i]
            right[0] += value
            right[1] += value * x[i]
            right[2] += value * y[i]
            squares += value * value
            n_plane += 1
        normal[0, 0] = n_plane
        for i in range(3):
            for j in range(i):
                normal[i, j] = normal[j, i]
        if n_plane < _MIN_PLANE_PIXELS:
            return variance, n_used
        inverse = inverse3(normal)
        if not inverse[0, 0] < np.inf:
            return variance, n_used
        residual = squares
        for i in range(3):
            plane[i] = inverse[i, 0] * right[0] + inverse[i, 1] * right[1] + inverse[i, 2] * right[2]
            residual -= plane[i] * right[i]
        residual = max(residual, 0.0)
        explained = squares - right[0] * right[0] / n_plane - residual
        new_variance = residual / (n_plane - 3)
        # Poisson noise is known to be there even if the few pixels do not show it.
        if cycle == 0 and mode == 2 and explained < _SIGNIFICANT * max(new_variance, gain * centre):
            return variance, n_used
        plane[0] += centre
        variance = new_variance
        for i in range(3):
            background[i] = plane[i]
            for j in range(3):
                covariance[i, j] = inverse[i, j]
        same = cycle > 0 and n_plane == n_used
        n_used = n_plane
        if same:
            break
    return variance, n_used


@njit(cache=True, nogil=True)
def clipped_mean(values, n, gain):
    """Mean, variance and number of values[:n] without outliers; the values are put in another order."""
    centre = median(values, n)
    below, n_below = 0.0, 0
    for i in range(n):
        if values[i] <= centre:
            below += (values[i] - centre) ** 2
            n_below += 1
    # Bright outliers don't reach the lower half.
    variance = max(below / n_below, gain * centre)
    n_used = 0
    for _ in range(_CLIP_CYCLES):
        reach = CLIP_AT * np.sqrt(variance) + 1e-6 * abs(centre)
        low, high = centre - reach, centre + reach + gain * (CLIP_AT**2 - 1.0) / 6.0
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


@njit(cache=True, nogil=True)
def median(values, n):
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

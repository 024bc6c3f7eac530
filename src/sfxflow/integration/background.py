"""Background under a reflection: the mean of the pixels around it, or a plane through them, without outliers."""

import numpy as np
from numba import njit

#: Background pixels farther than so many standard deviations off don't count.
CLIP_AT = 4.0
_CLIP_CYCLES = 3

#: The plane needs so many pixels, so that its three parameters are well determined.
_MIN_PLANE_PIXELS = 12
#: Chi squared that two slopes must explain to be real; chance gives more once in 100 reflections (2 degrees of freedom).
_SIGNIFICANT = 9.2

#: What `settings.Integration.background` says, as the kernels know it.
MODES = {"flat": 0, "plane": 1, "auto": 2}


@njit(cache=True, nogil=True, forceinline=True)
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
    centre, variance, n_used = clipped_mean(values, n, gain, scratch)
    for i in range(3):
        background[i] = 0.0
        for j in range(3):
            covariance[i, j] = 0.0
    background[0] = centre
    covariance[0, 0] = 1.0 / max(n_used, 1)
    if mode == 0 or n_used < _MIN_PLANE_PIXELS:
        return variance, n_used
    skewness = gain * (CLIP_AT**2 - 1.0) / 6.0
    level, slope_x, slope_y = centre, 0.0, 0.0
    for cycle in range(_CLIP_CYCLES):
        reach = CLIP_AT * np.sqrt(variance) + 1e-6 * abs(centre)
        n_plane, sum_x, sum_y, xx, xy, yy, total, total_x, total_y, squares = _plane_sums(
            values, x, y, n, level, slope_x, slope_y, -reach, reach + skewness, centre
        )
        if n_plane < _MIN_PLANE_PIXELS:
            return variance, n_used
        # Inverse of the normal matrix by its cofactors.
        c00, c01, c02 = xx * yy - xy * xy, sum_y * xy - sum_x * yy, sum_x * xy - sum_y * xx
        c11, c12, c22 = n_plane * yy - sum_y * sum_y, sum_x * sum_y - n_plane * xy, n_plane * xx - sum_x * sum_x
        determinant = n_plane * c00 + sum_x * c01 + sum_y * c02
        if not determinant > 1e-12 * n_plane * xx * yy:
            return variance, n_used
        step = (c00 * total + c01 * total_x + c02 * total_y) / determinant
        along_x = (c01 * total + c11 * total_x + c12 * total_y) / determinant
        along_y = (c02 * total + c12 * total_x + c22 * total_y) / determinant
        residual = max(squares - step * total - along_x * total_x - along_y * total_y, 0.0)
        explained = squares - total * total / n_plane - residual
        new_variance = residual / (n_plane - 3)
        # Poisson noise is known to be there even if the few pixels do not show it.
        if cycle == 0 and mode == 2 and explained < _SIGNIFICANT * max(new_variance, gain * centre):
            return variance, n_used
        level, slope_x, slope_y = centre + step, along_x, along_y
        variance = new_variance
        background[0], background[1], background[2] = level, slope_x, slope_y
        covariance[0, 0], covariance[0, 1], covariance[0, 2] = c00 / determinant, c01 / determinant, c02 / determinant
        covariance[1, 0], covariance[1, 1], covariance[1, 2] = c01 / determinant, c11 / determinant, c12 / determinant
        covariance[2, 0], covariance[2, 1], covariance[2, 2] = c02 / determinant, c12 / determinant, c22 / determinant
        same = cycle > 0 and n_plane == n_used
        n_used = int(n_plane)
        if same:
            break
    return variance, n_used


# In the sums only the order of the additions is left to the compiler, which then takes several pixels at once.
_sums = njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"}, forceinline=True)


@_sums
def _plane_sums(values, x, y, n, level, slope_x, slope_y, low, high, origin):
    """Sums for the normal equations of a plane over the pixels between `low` and `high` from the plane before: 1, x, y, x^2, x y, y^2, then
    the deviations d from `origin` as d, d x, d y, d^2."""
    used, sum_x, sum_y, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    total, total_x, total_y, squares = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        deviation = values[i] - (level + slope_x * x[i] + slope_y * y[i])
        use = 1.0 if (deviation >= low) & (deviation <= high) else 0.0
        value, use_x, use_y = use * (values[i] - origin), use * x[i], use * y[i]
        used += use
        sum_x += use_x
        sum_y += use_y
        xx += use_x * x[i]
        xy += use_x * y[i]
        yy += use_y * y[i]
        total += value
        total_x += value * x[i]
        total_y += value * y[i]
        squares += value * value
    return used, sum_x, sum_y, xx, xy, yy, total, total_x, total_y, squares


@_sums
def _sums_between(values, n, low, high, origin):
    """Sum of the deviations from `origin`, of their squares, and number of those of values[:n] from `low` to `high`."""
    total, squares, n_used = 0.0, 0.0, 0.0
    for i in range(n):
        use = 1.0 if (values[i] >= low) & (values[i] <= high) else 0.0
        deviation = use * (values[i] - origin)
        total += deviation
        squares += deviation * deviation
        n_used += use
    return total, squares, int(n_used)


@njit(cache=True, nogil=True, forceinline=True)
def clipped_mean(values, n, gain, scratch):
    """Mean, variance and number of values[:n] without outliers; `scratch` is at least as long."""
    for i in range(n):
        scratch[i] = values[i]
    centre = median(scratch, n)
    # Bright outliers don't reach the lower half.
    _, below, n_below = _sums_between(values, n, -np.inf, centre, centre)
    variance = max(below / n_below, gain * centre)
    n_used = 0
    for _ in range(_CLIP_CYCLES):
        reach = CLIP_AT * np.sqrt(variance) + 1e-6 * abs(centre)
        low, high = centre - reach, centre + reach + gain * (CLIP_AT**2 - 1.0) / 6.0
        total, squares, n_used = _sums_between(values, n, low, high, centre)
        if n_used < 2:
            break
        shift = total / n_used
        centre = centre + shift
        variance = max(squares - n_used * shift * shift, 0.0) / (n_used - 1)
        if n_used == n:
            break
    return centre, variance, n_used


@njit(cache=True, nogil=True)
def median(values, n):
    """Middle one of values[:n], which are overwritten.

    The values on the wanted one's side of a pivot are kept until it is the pivot itself; counts and copies have no branch that is
    guessed wrong, and equal values (photons) end it early.
    """
    rank = n // 2
    while True:
        pivot = values[n // 2]
        n_below, n_equal = 0, 0
        for i in range(n):
            n_below += values[i] < pivot
            n_equal += values[i] == pivot
        n_kept = 0
        if rank < n_below:
            for i in range(n):
                value = values[i]
                values[n_kept] = value
                n_kept += value < pivot
        elif rank >= n_below + n_equal:
            for i in range(n):
                value = values[i]
                values[n_kept] = value
                n_kept += value > pivot
            rank -= n_below + n_equal
        if n_kept == 0:
            return pivot
        n = n_kept

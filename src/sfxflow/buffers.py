"""Arrays that grow inside numba kernels: real frames overflow every fixed size.

The copies are loops because an assignment to a slice takes seconds to compile.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def doubled(array):
    """A one-dimensional array of twice the size that begins with `array`."""
    larger = np.empty(2 * array.size, array.dtype)
    for i in range(array.size):
        larger[i] = array[i]
    return larger


@njit(cache=True)
def doubled_rows(array):
    """A two-dimensional array of twice as many rows that begins with `array`."""
    larger = np.empty((2 * array.shape[0], array.shape[1]), array.dtype)
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            larger[i, j] = array[i, j]
    return larger

"""Algebra of small matrices inside numba kernels, written out in loops.

numpy.linalg does the same there through LAPACK, but takes seconds to compile in each kernel and more time to call than 3x3 matrices
need.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def determinant3(m):
    """Determinant of a 3x3 matrix."""
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit(cache=True)
def inverse3(m):
    """Inverse of a 3x3 matrix by its adjugate; of a singular one, infinities or NaN."""
    scale = 1.0 / np.float64(determinant3(m)) if determinant3(m) != 0.0 else np.inf
    inverse = np.empty((3, 3))
    for i in range(3):
        i1, i2 = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            j1, j2 = (j + 1) % 3, (j + 2) % 3
            inverse[j, i] = (m[i1, j1] * m[i2, j2] - m[i1, j2] * m[i2, j1]) * scale
    return inverse


@njit(cache=True)
def product3(a, b):
    """Product of two 3x3 matrices."""
    product = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            product[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]
    return product


@njit(cache=True)
def solve_in_place(matrix, right):
    """Solve matrix @ x = right by elimination with pivots; `right` becomes x, `matrix` is used up.

    Parameters
    ----------
    matrix : ndarray of float64, shape (n, n)
    right : ndarray of float64, shape (n, m)

    Returns
    -------
    bool
        False if the matrix is singular; `right` then holds nothing of use.
    """
    n, m = right.shape
    for column in range(n):
        pivot = column
        for i in range(column + 1, n):
            if abs(matrix[i, column]) > abs(matrix[pivot, column]):
                pivot = i
        if not abs(matrix[pivot, column]) > 0.0:
            return False
        if pivot != column:
            for j in range(n):
                matrix[column, j], matrix[pivot, j] = matrix[pivot, j], matrix[column, j]
            for j in range(m):
                right[column, j], right[pivot, j] = right[pivot, j], right[column, j]
        for i in range(n):
            if i == column:
                continue
            factor = matrix[i, column] / matrix[column, column]
            if factor != 0.0:
                for j in range(column, n):
                    matrix[i, j] -= factor * matrix[column, j]
                for j in range(m):
                    right[i, j] -= factor * right[column, j]
    for i in range(n):
        for j in range(m):
            right[i, j] /= matrix[i, i]
    return True

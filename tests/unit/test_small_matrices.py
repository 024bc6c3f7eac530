"""Small matrices in kernels against numpy.linalg."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.small_matrices import determinant3, inverse3, product3, solve_in_place


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_three_by_three(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 3, 3))
    assert determinant3(a) == pytest.approx(np.linalg.det(a), abs=1e-12)
    assert np.allclose(product3(a, b), a @ b, atol=1e-14)
    assert np.allclose(inverse3(a) @ a, np.eye(3), atol=1e-9 * np.linalg.cond(a))


def test_singular_inverse_is_not_finite():
    assert not np.isfinite(inverse3(np.ones((3, 3)))).any()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_solve(n, m, seed):
    rng = np.random.default_rng(seed)
    matrix, solution = rng.normal(size=(n, n)), rng.normal(size=(n, m))
    right = matrix @ solution
    assert solve_in_place(matrix.copy(), right)
    assert np.allclose(right, solution, rtol=0, atol=1e-10 * np.linalg.cond(matrix))


def test_solve_needs_pivots():
    right = np.array([[1.0], [2.0]])
    assert solve_in_place(np.array([[0.0, 1.0], [1.0, 0.0]]), right)
    assert right.ravel().tolist() == [2.0, 1.0]


def test_singular_is_told():
    assert not solve_in_place(np.zeros((3, 3)), np.ones((3, 1)))

"""Unit cells."""

import numpy as np

from sfxflow.cell import inverse_resolution, reciprocal_matrix


def test_inverse_resolution_is_that_of_the_vectors_and_does_not_depend_on_neighbours():
    cell = (31.0, 42.0, 53.0, 81.0, 97.0, 104.0)
    hkl = np.random.default_rng(1).integers(-40, 41, (1001, 3))
    s = inverse_resolution(hkl, cell)
    np.testing.assert_allclose(s, np.linalg.norm(hkl @ reciprocal_matrix(cell).T, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(s[[3, 500, 1000]], [inverse_resolution(hkl[i], cell)[0] for i in (3, 500, 1000)])

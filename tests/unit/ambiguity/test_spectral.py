"""The spectral start against dense matrices, and modes from exact coordinates."""

import numpy as np
import pytest

from sfxflow.ambiguity.spectral import embedding, modes_of, standardised


def dense(columns, value):
    """The matrix of inner products of different crystals in all modes, by way of full vectors."""
    n_modes = columns.number.shape[1]
    full = np.zeros((columns.n_crystals, n_modes, len(columns.hkl)))
    for m in range(n_modes):
        np.add.at(full[:, m], (columns.crystal, columns.number[:, m]), value)
    norm = np.sqrt(np.bincount(columns.crystal, value**2, columns.n_crystals))
    full = (full - full.mean(axis=1, keepdims=True)) / norm[:, None, None]
    flat = full.reshape(-1, full.shape[2])
    matrix = (flat @ flat.T).reshape(columns.n_crystals, n_modes, columns.n_crystals, n_modes)
    matrix[np.arange(columns.n_crystals), :, np.arange(columns.n_crystals)] = 0.0
    return matrix.reshape(len(flat), len(flat))


@pytest.mark.parametrize(("case", "n_modes"), [("P63", 2), ("P3", 4)])
def test_subspace_is_that_of_the_dense_matrix(prepared, case, n_modes):
    _, _, columns = prepared(case, 80, 150)
    value = standardised(columns)
    found = embedding(columns, value).reshape(80 * n_modes, n_modes - 1)
    _, vectors = np.linalg.eigh(dense(columns, value))
    leading = vectors[:, -(n_modes - 1) :]
    cosines = np.linalg.svd(leading.T @ found, compute_uv=False)
    assert cosines.min() > 0.98


def test_a_shuffled_order_of_the_crystals_does_not_matter(prepared):
    simulated, operators, columns = prepared("P63", 300, 60)
    mode = modes_of(embedding(columns, standardised(columns)))
    again = modes_of(embedding(columns, standardised(columns), seed=7))
    assert np.mean(mode == again) > 0.99 or np.mean(mode != again) > 0.99
    assert simulated.right(operators, mode) > 0.9


@pytest.mark.parametrize("n_modes", [2, 4])
def test_modes_of_noisy_corners(n_modes):
    """Coordinates of the modes are corners of a simplex; each crystal has them in an order of its own (of the group)."""
    rng = np.random.default_rng(3)
    corners = np.linalg.svd(np.eye(n_modes) - 1.0 / n_modes)[0][:, : n_modes - 1]
    order = np.arange(n_modes)[:, None] ^ np.arange(n_modes)  # Z2, or Z2 x Z2
    true = rng.integers(0, n_modes, 500)
    coordinates = corners[order[true]] + 0.15 * rng.normal(size=(500, n_modes, n_modes - 1))
    agreed = modes_of(coordinates) ^ true
    assert np.bincount(agreed).max() > 480


def test_standardised_values():
    class One:
        factor = np.array([2.0, 2.0, 0.0, 2.0])
        prior = np.array([5.0])
        number = np.zeros((4, 2), int)
        intensity = np.array([10.0, 30.0, 3.0, 1e6])
        background = np.array([100.0, 0.0, 1.0, 0.0])
        gain = np.array([0.0, 10.0, 1.0, 0.0])
        error = np.array([0.0, 0.0, 0.0, 0.0])

    # (z - 1) / (1 + var z): z = I / 10, var z = (background + gain 10) / 100; nothing from a factor of 0; cut at 3
    np.testing.assert_allclose(standardised(One), [0.0, 1.0, 0.0, 3.0])

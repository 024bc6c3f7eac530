"""Clusters of cells: independent of the choice of the reduced basis, two forms told apart, noise left alone."""

import itertools

import numpy as np
import pytest

from sfxflow.cell import real_matrix
from sfxflow.indexing.cell_clusters import (
    ANGLE_TOLERANCE,
    LENGTH_TOLERANCE,
    basis_parameters,
    densest_cluster,
    median_basis,
    nearest_setting,
    short_lengths,
)
from sfxflow.indexing.lattice import reduce_basis

#: Cells where errors decide which of several bases is the reduced one.
AMBIGUOUS = {
    "a = b": (79.0, 79.0, 38.0, 90.0, 90.0, 90.0),
    "cubic": (103.0, 103.0, 103.0, 90.0, 90.0, 90.0),
    "hexagonal": (62.8, 62.8, 111.0, 90.0, 90.0, 120.0),
    "nearly orthogonal": (42.0, 51.0, 66.0, 90.0, 90.3, 90.0),
    "60 degrees": (70.0, 70.0, 70.0, 60.0, 60.0, 60.0),
    "triclinic": (38.0, 46.0, 55.0, 82.0, 77.0, 69.0),
}


def observed(parameters, n, seed, error=0.002):
    """Reduced cells of crystals in random orientations, with relative errors."""
    rng = np.random.default_rng(seed)
    true = real_matrix(parameters)
    return np.array(
        [
            reduce_basis(
                true @ np.linalg.qr(rng.standard_normal((3, 3)))[0] @ (np.eye(3) + error * rng.standard_normal((3, 3)))
            )
            for _ in range(n)
        ]
    )


def random_cells(n, seed):
    rng = np.random.default_rng(seed)
    cells = []
    while len(cells) < n:
        cells.append(reduce_basis(rng.uniform(-100, 100, (3, 3))))
    return np.array(cells)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_one_lattice_is_one_cluster(name):
    bases = observed(AMBIGUOUS[name], 40, seed=1)
    cluster = densest_cluster(bases)
    assert len(cluster.members) == 40
    expected = basis_parameters(reduce_basis(real_matrix(AMBIGUOUS[name])))
    setting = nearest_setting(cluster.basis, reduce_basis(real_matrix(AMBIGUOUS[name])))
    np.testing.assert_allclose(basis_parameters(setting)[:3], expected[:3], rtol=0.003)
    np.testing.assert_allclose(basis_parameters(setting)[3:], expected[3:], atol=0.3)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_members_are_in_one_setting(name):
    bases = observed(AMBIGUOUS[name], 40, seed=2)
    cluster = densest_cluster(bases)
    parameters = np.array([basis_parameters(basis) for basis in cluster.bases])
    assert np.ptp(parameters[:, :3] / parameters[0, :3], axis=0).max() < 0.03
    assert np.ptp(parameters[:, 3:], axis=0).max() < 2.0
    for member, basis in zip(cluster.members, cluster.bases, strict=True):
        change = basis @ np.linalg.inv(bases[member])
        np.testing.assert_allclose(change, np.rint(change), atol=1e-9)
        assert np.linalg.det(change) == pytest.approx(1.0)


def test_the_larger_of_two_forms_and_noise():
    first, second = observed((79.0, 79.0, 38.0, 90, 90, 90), 30, 3), observed((42, 51, 66, 90, 104.5, 90), 12, 4)
    bases = np.concatenate([random_cells(60, 5), second, first])
    cluster = densest_cluster(bases)
    np.testing.assert_array_equal(cluster.members, np.arange(72, 102))
    rest = np.delete(bases, cluster.members, axis=0)
    np.testing.assert_array_equal(densest_cluster(rest).members, np.arange(60, 72))


def test_noise_has_no_cluster():
    assert len(densest_cluster(random_cells(200, 6)).members) < 5


def test_no_cells_and_one_cell():
    assert len(densest_cluster(np.empty((0, 3, 3))).members) == 0
    one = observed(AMBIGUOUS["triclinic"], 1, 7)
    np.testing.assert_array_equal(densest_cluster(one).members, [0])


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_short_lengths_change_as_little_as_the_lattice(name):
    """Bases of nearly the same lattice, however different, have nearly the same lengths."""
    lengths = short_lengths(observed(AMBIGUOUS[name], 50, 8, error=1e-4))
    assert np.ptp(np.log(lengths), axis=0).max() < 3e-3


def test_nearest_setting_against_all_triples():
    basis = observed(AMBIGUOUS["nearly orthogonal"], 1, 3, error=0.004)[0]
    reference = reduce_basis(real_matrix(AMBIGUOUS["nearly orthogonal"]))
    expected = basis_parameters(reference)
    rows = np.array([c for c in itertools.product((-1, 0, 1), repeat=3) if any(c)]) @ basis
    best, smallest = None, np.inf
    for triple in itertools.permutations(rows, 3):
        setting = np.array(triple)
        lengths = np.linalg.norm(setting, axis=1)
        if np.abs(lengths / expected[:3] - 1).max() > LENGTH_TOLERANCE or np.linalg.det(setting) < 1.0:
            continue
        parameters = basis_parameters(setting)
        angles = np.abs(parameters[3:] - expected[3:])
        cosines = np.cos(np.radians(parameters[3:])) - np.cos(np.radians(expected[3:]))
        distance = ((parameters[:3] / expected[:3] - 1) ** 2).sum() + (cosines**2).sum()
        if angles.max() < ANGLE_TOLERANCE and distance < smallest:
            best, smallest = setting, distance
    np.testing.assert_allclose(nearest_setting(basis, reference), best, rtol=1e-9)


def test_nearest_setting_of_another_lattice_is_none():
    basis = observed(AMBIGUOUS["triclinic"], 1, 1)[0]
    assert nearest_setting(basis, reduce_basis(real_matrix(AMBIGUOUS["hexagonal"]))) is None


def test_median_basis_is_not_moved_by_outliers():
    bases = observed((38.0, 46.0, 55.0, 82.0, 77.0, 69.0), 31, 10)
    reference = reduce_basis(real_matrix((38.0, 46.0, 55.0, 82.0, 77.0, 69.0)))
    settings = np.array([nearest_setting(basis, reference) for basis in bases])
    settings[:8] *= 1.5
    np.testing.assert_allclose(basis_parameters(median_basis(settings))[:3], [38.0, 46.0, 55.0], rtol=0.003)

"""Resolution shells of equal volume."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.cell import inverse_resolution
from sfxflow.point_group import point_group
from sfxflow.statistics.shells import possible_per_shell, shell_centres, shell_limits, shell_of

CELL = (79.1, 79.1, 37.9, 90, 90, 90)


@given(st.floats(0.001, 0.2), st.floats(0.21, 1.0), st.integers(1, 40))
def test_shells_have_equal_volumes_and_cover_the_range(low, high, n):
    limits = shell_limits(low, high, n)
    assert limits[0] == low
    assert limits[-1] == high
    np.testing.assert_allclose(np.diff(limits**3), (high**3 - low**3) / n, rtol=1e-9)


def test_a_limit_belongs_to_the_shell_below_it_and_what_is_outside_to_the_first():
    limits = np.array([0.1, 0.2, 0.3, 0.4])
    s = [0.1, 0.1000001, 0.2, 0.2000001, 0.4, 0.05, 0.41]
    np.testing.assert_array_equal(shell_of(s, limits), [0, 0, 0, 1, 2, 0, 0])
    np.testing.assert_allclose(shell_centres(limits), [0.15, 0.25, 0.35])


def test_possible_reflections_of_a_shell_by_brute_force():
    operations = point_group("4/mmm")
    limits = shell_limits(1 / 40.0, 1 / 4.0, 5)
    h, k, l = (np.arange(-n, n + 1) for n in (20, 20, 10))
    hkl = np.stack(np.meshgrid(h, k, l, indexing="ij"), axis=-1).reshape(-1, 3)
    s = inverse_resolution(hkl, CELL)
    expected = []
    for low, high in itertools.pairwise(limits):
        inside = np.abs(hkl[(s > low) & (s <= high)])
        inside[:, :2] = np.sort(inside[:, :2], axis=1)
        expected.append(len(np.unique(inside, axis=0)))
    np.testing.assert_array_equal(possible_per_shell(CELL, "P", operations, limits), expected)


def test_no_limits_no_possible_reflections():
    np.testing.assert_array_equal(possible_per_shell(CELL, "P", point_group("4/mmm"), np.full(4, np.nan)), [0, 0, 0])

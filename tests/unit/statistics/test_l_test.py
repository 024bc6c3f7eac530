"""L-test: what theory says of perfect data, and the obvious loop."""

import numpy as np
import pytest

from sfxflow.cell import reciprocal_metric
from sfxflow.point_group import asymmetric, point_group, possible_reflections
from sfxflow.statistics.l_test import l_test

CELL = (60.0, 60.0, 90.0, 90.0, 90.0, 90.0)


def reflections(seed=1, twinned=False):
    rng = np.random.default_rng(seed)
    hkl = possible_reflections(reciprocal_metric(CELL), (0.0, 1 / 2.2), point_group("422"), "P")
    intensity = rng.exponential(1.0, len(hkl))
    if twinned:
        intensity = (intensity + rng.exponential(1.0, len(hkl))) / 2
    return hkl, intensity


@pytest.mark.parametrize(("twinned", "mean_abs", "mean_square"), [(False, 1 / 2, 1 / 3), (True, 3 / 8, 1 / 5)])
def test_untwinned_and_twinned(twinned, mean_abs, mean_square):
    found_abs, found_square, n = l_test(*reflections(twinned=twinned), point_group("422"), "P")
    assert n > 10000
    assert found_abs == pytest.approx(mean_abs, abs=0.01)
    assert found_square == pytest.approx(mean_square, abs=0.01)


@pytest.mark.parametrize(("centering", "steps"), [("P", (1, 1, 1)), ("C", (2, 2, 1)), ("H", (3, 3, 3))])
def test_neighbours_one_by_one(centering, steps):
    operations = point_group("422")
    hkl, intensity = reflections(2)
    some = np.random.default_rng(1).permutation(len(hkl))[:400]
    hkl, intensity = hkl[some], intensity[some] - 0.05
    place = {tuple(one): i for i, one in enumerate(hkl.tolist())}
    values = []
    for i, one in enumerate(hkl):
        for axis, sign in [(0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)]:
            other = one.copy()
            other[axis] += sign * steps[axis]
            j = place.get(tuple(asymmetric([other], operations)[0].tolist()))
            if tuple(one) <= tuple(other) and j is not None and min(intensity[i], intensity[j]) >= 0:
                values.append(abs(intensity[i] - intensity[j]) / (intensity[i] + intensity[j]))
    mean_abs, mean_square, n = l_test(hkl, intensity, operations, centering)
    assert n == len(values) > 20
    assert mean_abs == pytest.approx(np.mean(values))
    assert mean_square == pytest.approx(np.mean(np.square(values)))


def test_nothing_to_compare():
    assert l_test(np.empty((0, 3), int), np.empty(0), point_group("422"), "P")[2] == 0
    assert np.isnan(l_test(np.array([[1, 2, 3]]), np.array([5.0]), point_group("422"), "P")[0])
    assert l_test(np.array([[1, 0, 0], [2, 0, 0]]), np.zeros(2), point_group("422"), "P")[2] == 0

"""How many crystals come out right, against the simulator's truth; what chance gives; and that nothing depends on chance."""

import numpy as np
import pytest

from sfxflow.ambiguity.resolve import exchanged, margins, resolve


@pytest.mark.parametrize(
    ("case", "n_crystals", "n_observations", "least"),
    [
        ("P63", 300, 60, 0.99),
        ("P43", 300, 60, 0.99),
        ("P21", 300, 60, 0.99),
        ("P3", 300, 60, 0.98),
        ("P63", 500, 30, 0.95),
    ],
)
def test_right_modes(prepared, case, n_crystals, n_observations, least):
    simulated, operators, columns = prepared(case, n_crystals, n_observations)
    found = resolve(columns)
    assert simulated.right(operators, found.mode) >= least
    assert found.told_apart
    assert found.median_margin > 1.5 * found.chance_margin


def test_clear_crystals_are_right(prepared):
    """Of crystals with a margin above 10 nearly none is wrong; those that are wrong have small margins."""
    simulated, _operators, columns = prepared("P63", 500, 30)
    found = resolve(columns)
    wrong = (found.mode != simulated.mode) ^ (np.mean(found.mode != simulated.mode) > 0.5)
    assert wrong[found.margin > 10].mean() < 0.005
    if wrong.any():
        assert np.median(found.margin[wrong]) < np.median(found.margin)


@pytest.mark.parametrize("n_crystals", [30, 100, 300])
def test_crystals_that_can_not_be_told_apart(prepared, n_crystals):
    """Every observation in a mode of its own: no answer is right, and none is claimed."""
    _, _, columns = prepared("P63", n_crystals, 30)
    found = resolve(exchanged(columns, seed=5))
    assert not found.told_apart


def test_the_same_every_time(prepared):
    _, _, columns = prepared("P63", 300, 60)
    first, second = resolve(columns), resolve(columns)
    np.testing.assert_array_equal(first.mode, second.mode)
    np.testing.assert_array_equal(first.margin, second.margin)


def test_exchanged_keeps_the_set_of_numbers_of_each_observation(prepared):
    _, _, columns = prepared("P3", 300, 60)
    shuffled = exchanged(columns).number
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(columns.number, axis=1))
    differs = np.all(np.diff(np.sort(columns.number, axis=1), axis=1) > 0, axis=1)
    assert 0.23 < np.mean((shuffled == columns.number)[differs, 0]) < 0.27


def test_margins_by_hand():
    log_likelihood = np.array([[-5.0, -2.0, -9.0], [-1.0, -1.0, -4.0], [-3.0, -8.0, -7.0]])
    np.testing.assert_allclose(margins(log_likelihood, np.array([1, 0, 0])), [3.0, 0.0, 4.0])
    np.testing.assert_allclose(margins(log_likelihood, np.array([0, 0, 0])), [0.0, 0.0, 4.0])

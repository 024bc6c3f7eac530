"""Figures of one list against plain means."""

import numpy as np
import pytest

from sfxflow.statistics.pairs import overall
from sfxflow.statistics.single import single_figures, single_sums


def test_figures_of_shells_and_whole():
    intensity, sigma = np.array([10.0, 20.0, -5.0, 7.0]), np.array([2.0, 0.0, 5.0, 1.0])
    sums = single_sums(intensity, sigma, np.array([2, 3, 4, 10]), np.array([0, 0, 0, 1]), 3)
    sums["possible"] = np.array([4, 5, 6])
    figures = single_figures(sums)
    assert figures["n_reflections"].tolist() == [3, 1, 0]
    assert figures["completeness"].tolist() == [0.75, 0.2, 0.0]
    assert figures["multiplicity"][:2].tolist() == [3.0, 10.0]
    assert figures["mean_i"][0] == pytest.approx(25 / 3)
    # the reflection without an uncertainty counts everywhere but here
    assert figures["i_over_sigma"][0] == pytest.approx((5.0 - 1.0) / 2)
    assert np.isnan(figures["mean_i"][2])
    whole = single_figures(overall(sums))
    assert whole["n_measurements"][0] == 19
    assert whole["i_over_sigma"][0] == pytest.approx((5.0 - 1.0 + 7.0) / 3)
    assert whole["completeness"][0] == pytest.approx(4 / 15)

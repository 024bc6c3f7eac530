"""Figures of two lists against the obvious formulas, reflection by reflection."""

import numpy as np
import pytest

from sfxflow.point_group import asymmetric, point_group
from sfxflow.statistics.pairs import (
    anomalous_figures,
    anomalous_sums,
    bijvoet_pairs,
    overall,
    pair_figures,
    pair_sums,
    relative_scale,
)


def lists(n=400, n_shells=4, seed=3):
    rng = np.random.default_rng(seed)
    truth = rng.exponential(100, n)
    first, second = (truth + rng.normal(0, 20, n) for _ in range(2))
    sigma = [rng.uniform(5, 30, n) for _ in range(2)]
    return first, sigma[0], second, sigma[1], rng.integers(0, n_shells, n)


def obvious(first, sigma_first, second, sigma_second):
    pairs = list(zip(first, second, strict=True))
    cc = np.corrcoef(first, second)[0, 1]
    root = [(np.sqrt(max(a, 0)), np.sqrt(max(b, 0))) for a, b in pairs]
    both = np.sqrt(sigma_first**2 + sigma_second**2)
    return {
        "n_pairs": len(pairs),
        "r_split": np.sqrt(2) * sum(abs(a - b) for a, b in pairs) / sum(a + b for a, b in pairs),
        "cc": cc,
        "cc_star": np.sqrt(2 * cc / (1 + cc)) if cc > 0 else np.nan,
        "r1_i": sum(abs(a - b) for a, b in pairs) / sum(a for a, _ in pairs),
        "r1_f": sum(abs(a - b) for a, b in root) / sum(a for a, _ in root),
        "r2": np.sqrt(sum((a - b) ** 2 for a, b in pairs) / sum(a**2 for a, _ in pairs)),
        "within_1_sigma": np.mean(np.abs(first - second) < both),
        "within_2_sigma": np.mean(np.abs(first - second) < 2 * both),
    }


def test_figures_of_each_shell_and_of_the_whole():
    *columns, shell = lists()
    sums = pair_sums(*columns, shell, 4)
    by_shell, whole = pair_figures(sums), pair_figures(overall(sums))
    for i in range(4):
        for name, value in obvious(*(column[shell == i] for column in columns)).items():
            assert by_shell[name][i] == pytest.approx(value, rel=1e-10, nan_ok=True), name
    for name, value in obvious(*columns).items():
        assert whole[name][0] == pytest.approx(value, rel=1e-10, nan_ok=True), name


def test_correlation_of_large_values_with_a_small_spread_is_not_lost_to_cancellation():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, 500)
    first, second = 1e8 + x, 1e8 + x + rng.normal(0, 1, 500)
    sums = pair_sums(first, np.ones(500), second, np.ones(500), np.zeros(500, int), 1)
    assert pair_figures(sums)["cc"][0] == pytest.approx(np.corrcoef(x, second - 1e8)[0, 1], abs=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_pairs_have_no_correlation(n):
    sums = pair_sums(*(np.full(n, 5.0) for _ in range(4)), np.zeros(n, int), 2)
    figures = pair_figures(sums)
    assert figures["n_pairs"].tolist() == [n, 0]
    assert np.isnan(figures["cc"]).all()
    assert np.isnan(figures["cc_star"]).all()
    assert np.isnan(figures["r_split"][1])


def test_scale_and_b_factor_are_found_exactly_where_they_are_exact():
    rng = np.random.default_rng(5)
    s = rng.uniform(0.1, 0.5, 200)
    first = rng.exponential(50, 200)
    second = first / (3.0 * np.exp(2 * 7.0 * (s / 2) ** 2))
    second[::7] *= -1
    scale, b = relative_scale(first, second, s)
    assert scale == pytest.approx(3.0)
    assert b == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("first", "second", "s"),
    [([], [], []), ([1.0], [2.0], [0.1]), ([1.0, -1.0], [2.0, 2.0], [0.1, 0.2]), ([1.0, 2.0], [1.0, 2.0], [0.3, 0.3])],
)
def test_no_scale_from_fewer_than_two_resolutions(first, second, s):
    assert np.isnan(relative_scale(*map(np.array, (first, second, s)))).all()


def literal_anomalous(hkl, first, second, operations):
    """Reflection by reflection in the list's order, as compare_hkl does it."""
    place = {tuple(one): i for i, one in enumerate(hkl.tolist())}
    seen, rows = set(), []
    for one in sorted(place):
        mate = tuple(asymmetric([[-i for i in one]], operations)[0].tolist())
        if mate == one or mate not in place or one in seen:
            continue
        seen |= {one, mate}
        rows.append((place[one], place[mate]))
    i, j = np.array(rows).T
    mean, mean_mate = (first[i] + second[i]) / 2, (first[j] + second[j]) / 2
    d1, d2 = first[i] - first[j], second[i] - second[j]
    r_ano = 2 * np.sum(abs(mean - mean_mate)) / np.sum(mean + mean_mate)
    r_split = np.sqrt(2) * np.sum(abs(first[i] - second[i])) / np.sum(first[i] + second[i])
    return {
        "n_bijvoet_pairs": len(rows),
        "r_ano": r_ano,
        "r_ano_over_r_split": r_ano / r_split,
        "cc_ano": np.corrcoef(d1, d2)[0, 1],
        "crd_ano": np.sqrt(np.sum((d1 + d2) ** 2) / np.sum((d1 - d2) ** 2)),
    }


@pytest.mark.parametrize("name", ["422", "222", "6", "1", "2_uab"])
def test_anomalous_figures_reflection_by_reflection(name):
    operations = point_group(name)
    rng = np.random.default_rng(2)
    hkl = np.unique(asymmetric(rng.integers(-6, 7, (500, 3)), operations), axis=0)
    rng.shuffle(hkl)
    first, second = (rng.exponential(100, len(hkl)) for _ in range(2))
    one, other = bijvoet_pairs(hkl, operations)
    sums = anomalous_sums(first[one], first[other], second[one], second[other], np.zeros(len(one), int), 1)
    figures = anomalous_figures(sums)
    for key, value in literal_anomalous(hkl, first, second, operations).items():
        assert figures[key][0] == pytest.approx(value, rel=1e-10), key


def test_no_reflections_no_bijvoet_pairs():
    one, other = bijvoet_pairs(np.empty((0, 3), int), point_group("422"))
    assert len(one) == len(other) == 0

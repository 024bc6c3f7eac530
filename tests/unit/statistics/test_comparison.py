"""Merges side by side: against loops over dicts of reflections, and on sets where those in common differ strongly from all."""

import math

import numpy as np
import pytest

from sfxflow.ambiguity.operators import ambiguity_operators
from sfxflow.cell import inverse_resolution, reciprocal_metric
from sfxflow.point_group import asymmetric, point_group, possible_reflections
from sfxflow.statistics.comparison import Merge, compare, turned_by, way_to_index
from sfxflow.statistics.shells import shell_limits
from sfxflow.statistics.tables import Crystal, Reflections
from sfxflow.symmetry import space_group

CELL = (40.0, 40.0, 60.0, 90.0, 90.0, 90.0)
CRYSTAL = Crystal(CELL, "P", point_group("4/mmm"))
HKL = possible_reflections(reciprocal_metric(CELL), (0.0, 1 / 2.5), CRYSTAL.operations, "P")
TRUTH = np.random.default_rng(17).exponential(100.0, len(HKL)) + 1.0
REFERENCE = Reflections(HKL, TRUTH, np.ones(len(HKL)), np.ones(len(HKL), int))
#: Every third reflection is measured ten times as badly as the others.
BAD = np.arange(len(HKL)) % 3 == 0


def merge_of(rows, seed, noise=3.0, scale=1.0, n=4):
    """Some of the reflections with noise, in half sets too; mates are written with other equivalent indices."""
    rng = np.random.default_rng(seed)
    spread = np.where(BAD, 10.0 * noise, noise)[rows]
    hkl = HKL[rows] * rng.choice([-1, 1], (len(rows), 1))
    halves = [scale * (TRUTH[rows] + rng.normal(0, spread)) for _ in range(2)]
    lists = [
        Reflections(hkl, values, scale * spread / root, np.full(len(rows), n))
        for values, root in ((np.mean(halves, axis=0), math.sqrt(2)), (halves[0], 1), (halves[1], 1))
    ]
    return Merge(lists[0], tuple(lists[1:]))


ALL = np.arange(len(HKL))
PICKY, GREEDY = merge_of(ALL[~BAD], 1), merge_of(ALL, 2, scale=7.0)


# ---- the obvious way ------------------------------------------------------------------------------------------------


def as_dict(reflections):
    """Unique indices to intensity, where that is finite."""
    unique = map(tuple, asymmetric(reflections.hkl, CRYSTAL.operations).tolist())
    return {h: (I, s) for h, I, s in zip(unique, reflections.I, reflections.sigI, strict=True) if np.isfinite(I)}


def slow_pair(first, second, keys):
    """Rsplit, CC and R1 of two dicts on some keys, the second scaled to the first by ln(I1 / I2) against s^2."""
    keys = sorted(keys)
    x, y = (np.array([lists[key][0] for key in keys]) for lists in (first, second))
    s = inverse_resolution(np.array(keys), CELL)
    positive = (x > 0) & (y > 0)
    slope, offset = np.polyfit((s[positive] / 2) ** 2, np.log(x[positive] / y[positive]), 1)
    y = y * np.exp(offset + slope * (s / 2) ** 2)
    return {
        "n": len(keys),
        "r_split": math.sqrt(2) * np.abs(x - y).sum() / (x + y).sum(),
        "cc": np.corrcoef(x, y)[0, 1],
        "r1_i": np.abs(x - y).sum() / x.sum(),
    }


def slow_halves(merge):
    return [as_dict(half) for half in merge.halves]


def pairs_of(merge):
    one, other = slow_halves(merge)
    return one.keys() & other.keys()


# ---- tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return compare([PICKY, GREEDY], CRYSTAL, (REFERENCE, CRYSTAL.operations), n_shells=5)


@pytest.mark.parametrize("number", [0, 1])
def test_own_and_common_figures_against_loops(found, number):
    merge = [PICKY, GREEDY][number]
    shared = pairs_of(PICKY) & pairs_of(GREEDY)
    for judged, keys in ((found.own[number], pairs_of(merge)), (found.common[number], shared)):
        overall = judged[0]
        slow = slow_pair(*slow_halves(merge), keys)
        assert overall["n_pairs"] == slow["n"]
        assert overall["r_split"] == pytest.approx(slow["r_split"], rel=1e-9)
        assert overall["cc_half"] == pytest.approx(slow["cc"], rel=1e-9)
        assert overall["cc_star"] == pytest.approx(math.sqrt(2 * slow["cc"] / (1 + slow["cc"])), rel=1e-9)


def test_who_keeps_only_the_good_ones_is_not_better_on_the_same(found):
    """Both measure each reflection equally well; only one of them keeps the bad third."""
    own, common = ([judged[0] for judged in each] for each in (found.own, found.common))
    assert own[1]["r_split"] > 2.5 * own[0]["r_split"]
    assert common[1]["r_split"] == pytest.approx(common[0]["r_split"], rel=0.1)
    assert common[0]["r_split"] == pytest.approx(own[0]["r_split"], rel=1e-9)
    assert own[1]["completeness"] == pytest.approx(1.5 * own[0]["completeness"], rel=0.01)
    assert {figures["n_reflections"] for figures in common} == {np.count_nonzero(~BAD)} == {found.n_common}


def test_reference_on_all_and_on_common(found):
    data, reference = as_dict(GREEDY.data), as_dict(REFERENCE)
    for judged, keys in ((found.own[1], data.keys()), (found.common[1], as_dict(PICKY.data).keys())):
        slow = slow_pair(data, reference, keys & data.keys())
        assert judged[0]["n_reference"] == slow["n"]
        assert judged[0]["reference_cc"] == pytest.approx(slow["cc"], rel=1e-9)
        assert judged[0]["reference_r1_i"] == pytest.approx(slow["r1_i"], rel=1e-9)
    assert found.own[1][0]["reference_r1_i"] > 2 * found.common[1][0]["reference_r1_i"]


def test_shells_are_the_same_for_all(found):
    s = inverse_resolution(HKL, CELL)
    limits = shell_limits(s.min(), s.max(), 5)
    assert np.array(found.limits) == pytest.approx(1 / np.column_stack([limits[:-1], limits[1:]]))
    for _, shells in (*found.own, *found.common):
        assert [(shell["d_max"], shell["d_min"]) for shell in shells] == found.limits
    # a shell by hand: the third one, of the reflections that both have
    shared = pairs_of(PICKY) & pairs_of(GREEDY)
    inside = [h for h in shared if limits[2] < inverse_resolution(np.array([h]), CELL)[0] <= limits[3]]
    assert found.common[1][1][2]["n_pairs"] == len(inside)


def test_merges_of_each_other(found):
    (pair,) = found.pairs
    one, other = as_dict(PICKY.data), as_dict(GREEDY.data)
    slow = slow_pair(one, other, one.keys() & other.keys())
    assert (pair["first"], pair["second"], pair["n"]) == (0, 1, slow["n"])
    assert pair["cc"] == pytest.approx(slow["cc"], rel=1e-9)
    assert pair["r1_i"] == pytest.approx(slow["r1_i"], rel=1e-9)


def test_a_third_merge_narrows_what_all_have():
    third = merge_of(ALL[: len(ALL) // 4], 3)
    found = compare([PICKY, GREEDY, third], CRYSTAL, n_shells=3)
    expected = as_dict(PICKY.data).keys() & as_dict(third.data).keys()
    assert found.n_common == found.n_common_pairs == len(expected)
    ranges = {(pair["first"], pair["second"]): (pair["n"], pair["n_common"]) for pair in found.pairs}
    assert ranges[0, 1] == (np.count_nonzero(~BAD), len(expected))
    assert ranges[1, 2] == (len(ALL) // 4, len(expected))


def test_common_half_sets_need_both_halves_of_all():
    """A reflection that one merger has in one half only counts among the merged ones, not among the half sets."""
    one_half = GREEDY.halves[1]._replace(I=np.where(np.arange(len(HKL)) % 2 == 0, np.nan, GREEDY.halves[1].I))
    found = compare([PICKY, Merge(GREEDY.data, (GREEDY.halves[0], one_half))], CRYSTAL, n_shells=2)
    assert found.n_common == np.count_nonzero(~BAD)
    assert found.n_common_pairs == np.count_nonzero(~BAD & (np.arange(len(HKL)) % 2 == 1))
    assert found.common[0][0]["n_pairs"] == found.common[1][0]["n_pairs"] == found.n_common_pairs
    assert found.common[0][0]["n_reflections"] == found.n_common


def test_a_merge_without_reflections_is_left_out():
    empty = merge_of(ALL[:0], 4)
    found = compare([empty, PICKY, GREEDY], CRYSTAL, n_shells=3)
    assert found.without_reflections == [0]
    assert found.common[0] is None
    assert found.n_common == np.count_nonzero(~BAD)
    assert found.own[0][0]["n_reflections"] == 0
    assert found.own[0][0]["r_split"] is None
    assert found.pairs[0]["cc"] is None


def test_a_merge_without_half_sets_is_left_out_of_theirs():
    nothing = [half._replace(I=np.full(len(half.I), np.nan)) for half in GREEDY.halves]
    found = compare([PICKY, Merge(GREEDY.data, tuple(nothing))], CRYSTAL, n_shells=3)
    assert found.without_halves == [1]
    assert found.without_reflections == []
    assert found.n_common_pairs == np.count_nonzero(~BAD)
    assert found.common[1][0]["cc_half"] is None


def test_limits_of_resolution():
    found = compare([PICKY, GREEDY], CRYSTAL, s_min=1 / 8, s_max=1 / 3, n_shells=2)
    s = inverse_resolution(HKL, CELL)
    assert found.n_common == np.count_nonzero(~BAD & (s >= 1 / 8) & (s <= 1 / 3))
    assert found.limits[0][0] == pytest.approx(8.0)
    assert found.limits[-1][1] == pytest.approx(3.0)


# ---- ways to index --------------------------------------------------------------------------------------------------

CUBE = (50.0, 50.0, 70.0, 90.0, 90.0, 120.0)


@pytest.fixture(scope="module")
def hexagonal():
    """P63: h,k,l and k,h,-l are two ways to index the same lattice."""
    group = space_group("P63")
    crystal = Crystal(CUBE, "P", point_group("6/m"))
    hkl = possible_reflections(reciprocal_metric(CUBE), (0.0, 1 / 4), crystal.operations, "P")
    values = np.random.default_rng(5).exponential(100.0, len(hkl))
    operators = ambiguity_operators(CUBE, group)
    assert len(operators) == 2
    return crystal, Reflections(hkl, values, np.ones(len(hkl)), np.ones(len(hkl), int)), operators


def test_another_way_to_index_is_found_and_undone(hexagonal):
    crystal, data, operators = hexagonal
    rng = np.random.default_rng(6)
    other = turned_by(data._replace(I=data.I + rng.normal(0, 30, len(data.I))), operators[1])
    assert way_to_index(other, data, crystal, operators) == 1
    assert way_to_index(turned_by(other, operators[1]), data, crystal, operators) == 0
    assert way_to_index(other, (data, crystal.operations), crystal, operators) == 1


def test_noise_stays_as_it_is(hexagonal):
    crystal, data, operators = hexagonal
    rng = np.random.default_rng(7)
    chosen = [
        way_to_index(data._replace(I=rng.exponential(100.0, len(data.I))), data, crystal, operators) for _ in range(20)
    ]
    assert chosen == [0] * 20

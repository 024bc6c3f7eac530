"""Groups of crystals: scaled together, merged apart."""

import numpy as np
import pytest
from observation_simulator import CELL, SPACE_GROUP, simulate

from sfxflow.merging.merge import Parts, merge_blocks, merge_observations
from sfxflow.merging.observations import Collector
from sfxflow.merging.scaling import known_of_groups
from sfxflow.settings import Merging
from sfxflow.symmetry import reflection_key, space_group

GROUP = space_group(SPACE_GROUP)


@pytest.fixture(scope="module")
def simulated():
    return simulate(90, seed=31, d_min=3.0)


@pytest.fixture(scope="module")
def split(simulated):
    """Crystals by thirds: in the first group, in the second, in none."""
    parts = Parts(("dark", "light"), np.arange(90) % 3 - 1)
    return merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging(), parts=parts)


def rows_in(table, other):
    keys = [reflection_key(np.stack([t[name] for name in "hkl"], axis=1)) for t in (table, other)]
    return np.intersect1d(*keys, assume_unique=True, return_indices=True)[1:]


def test_groups_that_do_not_differ_change_little_of_the_whole(simulated, split):
    whole = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging())
    assert set(split.groups) == {"dark", "light"}
    own, there = rows_in(split.reflections, whole.reflections)
    assert len(own) > 0.99 * len(whole.reflections["I"])
    change = split.reflections["I"][own] - whole.reflections["I"][there]
    assert np.quantile(np.abs(change) / whole.reflections["sigI"][there], 0.95) < 0.3


def test_what_is_known_of_a_group():
    """Own sums, and the others' loosened by the mean square difference: written down plainly for two groups."""
    rng = np.random.default_rng(8)
    true = rng.exponential(100, 4000) + 20
    variance = np.array([4.0, 9.0])
    apart = np.zeros((4000, 2, 2, 2, 4))
    for g in range(2):
        own = true * (1 + 0.15 * (g == 1) * rng.normal(size=4000))
        for half in range(2):
            apart[:, 0, g, half, 1] = 0.5 / variance[g]
            apart[:, 0, g, half, 0] = 0.5 / variance[g] * (own + rng.normal(0, variance[g] ** 0.5, 4000))
    known = known_of_groups(apart, anomalous=False)
    assert known.shape == (2, 4000, 2, 2)
    np.testing.assert_array_equal(known[:, :, 0], known[:, :, 1])
    sums = apart.sum(axis=(1, 3))
    for g, other in ((0, 1), (1, 0)):
        added = known[g, :, 0, 1] - sums[:, g, 1]
        intensity = sums[:, other, 0] / sums[:, other, 1]
        strong = intensity > 100
        relative = (1 / added - variance[other]) / intensity**2
        assert np.median(relative[strong]) == pytest.approx(0.15**2, rel=0.15)
        np.testing.assert_allclose(relative[strong], np.median(relative[strong]), rtol=1e-6)
        np.testing.assert_allclose(known[g, :, 0, 0] - sums[:, g, 0], added * intensity, rtol=1e-6)


def test_groups_that_do_not_differ_know_all_of_each_other():
    rng = np.random.default_rng(9)
    apart = np.zeros((4000, 2, 3, 2, 4))
    apart[..., 1] = rng.uniform(0.1, 1, (4000, 2, 3, 2))
    true = rng.exponential(100, 4000)[:, None, None, None] + 20
    apart[..., 0] = apart[..., 1] * (true + rng.normal(size=apart.shape[:4]) * apart[..., 1] ** -0.5)
    known = known_of_groups(apart, anomalous=False)
    assert np.median(known[..., 1] / apart[..., 1].sum(axis=(1, 2, 3))[None, :, None]) > 0.8


def test_groups_add_up_to_the_whole(simulated):
    """Three groups, each with one measurement at least: the whole is a weighted mean of them."""
    settings = Merging(min_measurements=1, keep_unrecorded=False)
    parts = Parts(("a", "b", "rest"), np.arange(90) % 3)
    merged = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, settings, parts=parts)
    whole = merged.reflections
    n, information = np.zeros((2, len(whole["I"])))
    lowest, highest = np.full((2, len(whole["I"])), np.nan)
    for table in merged.groups.values():
        own, there = rows_in(table, whole)
        n[there] += table["n"][own]
        assert np.array_equal(table["n_half1"] + table["n_half2"], table["n"])
        information[there] += 1 / table["sigI"][own] ** 2
        lowest[there], highest[there] = (
            np.fmin(lowest[there], table["I"][own]),
            np.fmax(highest[there], table["I"][own]),
        )
    np.testing.assert_array_equal(n, whole["n"])
    assert np.all((lowest - 1e-9 <= whole["I"]) & (whole["I"] <= highest + 1e-9))
    # errors of the crystals' parameters count with the square of a crystal's weight: not quite the sum of the groups' information
    np.testing.assert_allclose(information**-0.5, whole["sigI"], rtol=0.2)


def test_crystals_of_no_group_are_in_no_group(simulated, split):
    parts = Parts(("rest", "dark", "light"), np.arange(90) % 3)
    same = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging(), parts=parts)
    for name in ("dark", "light"):
        np.testing.assert_allclose(same.groups[name]["I"], split.groups[name]["I"], rtol=1e-9)
    assert len(same.groups["rest"]["I"]) > 100


def test_fewest_measurements_hold_for_each_group(split):
    assert all(table["n_measured"].min() == 2 and table["n"].min() == 1 for table in split.groups.values())


def test_a_group_without_a_crystal_is_empty(simulated):
    parts = Parts(("here", "nowhere"), np.zeros(90, int))
    settings = Merging(cycles=2, anomalous=True, keep_unrecorded=False)
    merged = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, settings, parts=parts)
    assert len(merged.groups["nowhere"]["I"]) == 0
    assert merged.groups["nowhere"].keys() == merged.reflections.keys()
    np.testing.assert_array_equal(merged.groups["here"]["n"], merged.reflections["n"])


def test_groups_of_a_dataset_without_a_crystal():
    merged = merge_blocks([], Collector(CELL, GROUP), Merging(), parts=Parts(("a", "b"), np.empty(0, int)))
    assert [len(table["I"]) for table in merged.groups.values()] == [0, 0]


def test_mates_stay_apart_within_groups(simulated):
    parts = Parts(("dark", "light"), np.arange(90) % 2)
    settings = Merging(anomalous=True, min_measurements=1)
    merged = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, settings, parts=parts)
    total = np.zeros(len(merged.reflections["I"]))
    for table in merged.groups.values():
        own, there = rows_in(table, merged.reflections)
        total[there] += table["n_plus"][own]
    np.testing.assert_array_equal(total, merged.reflections["n_plus"])


def test_shares_as_many_as_their_sums_fit(simulated, monkeypatch):
    collector = Collector(CELL, GROUP)
    blocks = [collector.add(simulated.crystals, simulated.reflections, 90 * i) for i in range(3)]
    parts = Parts(("a", "b"), np.arange(270) % 2)
    results = []
    for memory in (1, 1 << 30):
        monkeypatch.setattr("sfxflow.merging.cycles._SUMS_MEMORY", memory)
        for block in blocks:
            block.columns["weight"][:] = 250
        results.append(merge_blocks(blocks, collector, Merging(cycles=3), threads=3, parts=parts))
    for name in parts.names:
        np.testing.assert_allclose(results[0].groups[name]["I"], results[1].groups[name]["I"], rtol=1e-6)


def test_same_numbers_with_any_number_of_threads(simulated):
    """To the last bit: results of machines with more or fewer cores can be compared."""
    collector = Collector(CELL, GROUP)
    blocks = [collector.add(simulated.crystals, simulated.reflections, 90 * i) for i in range(5)]
    results = []
    for threads in (1, 2, 5):
        for block in blocks:
            block.columns["weight"][:] = 250
        results.append(merge_blocks(blocks, collector, Merging(cycles=3), threads=threads))
    for result in results[1:]:
        for name, values in result.reflections.items():
            np.testing.assert_array_equal(values, results[0].reflections[name], err_msg=name)

"""Cycles on ever more of the crystals: the parts, and that the result is that of many cycles over all of them."""

import numpy as np
import pytest
from observation_simulator import CELL, SPACE_GROUP, agreement, simulate

from sfxflow.merging import levels, scaling
from sfxflow.merging.merge import merge_blocks
from sfxflow.merging.observations import Collector
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group


def test_parts_grow_by_a_factor_and_the_first_is_well_measured():
    parts = levels.parts_of(100_000_000, 9000, 480_000)
    assert parts[-1] == 1.0
    np.testing.assert_allclose(np.diff(np.log(parts)), np.log(8))
    assert 10 <= 1e8 * parts[0] / 9000 < 80
    assert levels.parts_of(100_000_000, 9000, 480) == [1.0], "few crystals don't tell how crystals differ"
    assert levels.parts_of(100_000, 9000, 480_000) == [1.0], (
        "nor do few observations of each reflection tell intensities"
    )
    assert len(levels.parts_of(100_000_000, 8 * 9000, 480_000)) == len(parts) - 1, "with eight times the intensities"


@pytest.mark.parametrize("every", [1, 2, 8, 600])
def test_crystals_are_spread_evenly_over_the_levels(every):
    """Also those of every second run, or of the same place in each run."""
    parts = [1 / 64, 1 / 8, 1.0]
    level = levels.level_of(600_000, parts)[::every]
    assert level.min() == 0 and level.max() == 2
    for number, part in enumerate(parts):
        expected = len(level) * part
        assert abs(np.sum(level <= number) - expected) <= 5 + 0.05 * expected


@pytest.fixture(scope="module")
def simulated():
    return simulate(320, seed=77, d_min=3.0)


def merged(simulated, **settings):
    lines = []
    collector = Collector(CELL, space_group(SPACE_GROUP))
    block = collector.add(simulated.crystals, simulated.reflections, 0)
    return merge_blocks([block], collector, Merging(**settings), progress=lines.append), lines


@pytest.fixture(scope="module")
def slow(simulated):
    """All crystals, so many cycles that nothing changes any more."""
    patch = pytest.MonkeyPatch()
    patch.setattr(levels, "TOLERANCE", 0.0)
    result, lines = merged(simulated, cycles=24)
    patch.undo()
    assert len(lines) == 24
    return result


def difference(one, other):
    for name in "hkl":
        np.testing.assert_array_equal(one.reflections[name], other.reflections[name])
    twice = (one.reflections["n"] >= 2) & (other.reflections["n"] >= 2)
    first, second = one.reflections["I"][twice], other.reflections["I"][twice]
    return np.abs(first - second).sum() / np.abs(second).sum()


def test_levels_lead_where_many_cycles_over_all_crystals_do(simulated, slow, monkeypatch):
    monkeypatch.setattr(levels, "_FEWEST_CRYSTALS", 10)
    monkeypatch.setattr(levels, "_FEWEST_OBSERVATIONS", 0.5)
    found, lines = merged(simulated, cycles=16)
    assert any(line.startswith("level 1 of 2, cycle 7") for line in lines)
    over_all = [line for line in lines if line.startswith("level 2 of 2")]
    assert 2 <= len(over_all) < 14
    assert not np.any(np.array(found.crystals["status"]) == scaling.WAITING)
    np.testing.assert_array_equal(found.crystals["status"], slow.crystals["status"])
    assert difference(found, slow) < 1e-3
    hkl = np.stack([slow.reflections[name] for name in "hkl"], axis=1)
    r1 = [agreement(hkl, result.reflections["I"], simulated)[0] for result in (found, slow)]
    assert abs(r1[0] - r1[1]) < 0.01 * r1[1]


def test_cycles_end_when_intensities_stay_as_they_are(simulated, slow):
    found, lines = merged(simulated, cycles=24)
    assert 7 <= len(lines) < 20
    assert difference(found, slow) < 4 * levels.TOLERANCE
    short, _ = merged(simulated, cycles=5)
    assert difference(short, slow) > 10 * levels.TOLERANCE, "five cycles are too few, so that the test says something"

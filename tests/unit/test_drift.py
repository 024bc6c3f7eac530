"""Pinned frames, rates, movements and differences."""

import numpy as np
import pytest

from sfxflow.drift import Movement, differences, movements, pinned_frames, rates
from sfxflow.reflections import Status

TOLERANCES = {"hit_rate_tolerance": 0.02, "index_rate_tolerance": 0.03, "cc_half_tolerance": 0.02}


def statuses(failed=0, blank=0, hit=0, indexed=0):
    listed = [Status.failed] * failed + [Status.blank] * blank + [Status.hit] * hit + [Status.indexed] * indexed
    return [listed[i] for i in np.random.default_rng(1).permutation(len(listed))]


def chosen_of(listed, n_frames, hit_share):
    rows = pinned_frames(listed, n_frames, hit_share)
    assert len(set(rows.tolist())) == len(rows)
    assert rows.tolist() == sorted(rows.tolist())
    return rows, rates([listed[i] for i in rows])


def test_hits_are_rare():
    """Evenly spread frames of a run with a hit rate of 2 % would hold four hits."""
    listed = statuses(failed=50, blank=9800, hit=40, indexed=160)
    rows, found = chosen_of(listed, 200, 0.75)
    assert (found["frames"], found["hits"], found["failed"]) == (200, 150, 0)
    hits = [i for i in rows if listed[i] != Status.blank]
    spread = np.histogram(hits, bins=4, range=(0, len(listed)))[0]
    assert spread.min() > 20


@pytest.mark.parametrize(
    ("have", "hits", "frames"),
    [
        ({"blank": 1000, "indexed": 20}, 20, 200),
        ({"blank": 10, "indexed": 1000}, 190, 200),
        ({"blank": 10, "hit": 5, "indexed": 15}, 20, 30),
        ({"blank": 10}, 0, 10),
        ({"failed": 10}, 0, 0),
    ],
)
def test_too_few_of_one_kind_are_made_up_by_the_other(have, hits, frames):
    _, found = chosen_of(statuses(**have), 200, 0.75)
    assert (found["hits"], found["frames"]) == (hits, frames)


def test_rates():
    found = rates(statuses(failed=10, blank=50, hit=10, indexed=40))
    assert found == {
        "frames": 110, "failed": 10, "hits": 50, "indexed": 40, "hit_rate": 0.5, "index_rate": 0.8,
    }  # fmt: skip
    assert rates(statuses(failed=3))["hit_rate"] is None
    assert rates(statuses(blank=3))["index_rate"] is None


def seen(hit_rate=0.75, index_rate=0.9, cc_half=0.95):
    mergers = {"builtin": {"cc_half": cc_half, "r_split": 0.1, "n_pairs": 1000}}
    return {"d": {"crystfel": {"hit_rate": hit_rate, "index_rate": index_rate, "mergers": mergers}}}


@pytest.mark.parametrize(
    ("now", "moved"),
    [
        ({}, []),
        ({"hit_rate": 0.77, "index_rate": 0.87, "cc_half": 0.93}, []),
        ({"hit_rate": 0.78}, ["hit_rate"]),
        ({"index_rate": 0.86}, ["index_rate"]),
        ({"cc_half": 0.98}, ["cc_half"]),
        ({"index_rate": 0.0, "cc_half": None}, ["index_rate", "cc_half"]),
        ({"hit_rate": None, "index_rate": None, "cc_half": None}, ["hit_rate", "index_rate", "cc_half"]),
    ],
)
def test_what_moved_too_far(now, moved):
    """Either way, and where a figure is not defined any more."""
    found = movements(seen(), seen(**now), TOLERANCES)
    assert [movement.what for movement in found] == ["hit_rate", "index_rate", "cc_half"]
    assert [movement.what for movement in found if movement.too_far] == moved


def test_an_engine_that_gave_nothing():
    assert all(movement.too_far for movement in movements(seen(), {}, TOLERANCES))


def test_undefined_then_and_now_is_no_movement():
    assert not any(m.too_far for m in movements(seen(cc_half=None), seen(cc_half=None), TOLERANCES))


def test_words_of_a_movement():
    text = Movement("d, crystfel", "index_rate", 0.9, 0.0, 0.03).text
    assert text == "d, crystfel: index rate 0.9000 then, 0.0000 now, moved -0.9000 (tolerated 0.03)"


def test_differences_name_the_key():
    then = {"merging": {"cycles": 8, "d": None}, "engines": ["builtin"], "old": 1}
    now = {"merging": {"cycles": 5, "d": None}, "engines": ["builtin", "dials"], "new": None}
    assert differences(then, now) == [
        "merging.cycles: 8 in the lock, 5 now",
        "engines: ['builtin'] in the lock, ['builtin', 'dials'] now",
        "old: 1 in the lock, not there now",
        "new: not in the lock, none now",
    ]
    assert differences(then, then) == []

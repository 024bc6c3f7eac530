"""Reflection lists of other programs as columns of merged data."""

from typing import NamedTuple

import numpy as np
import pytest

from sfxflow.merging.from_lists import merged_columns
from sfxflow.point_group import asymmetric, point_group
from sfxflow.symmetry import reflection_key, space_group

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)


class Listed(NamedTuple):
    hkl: np.ndarray
    I: np.ndarray
    sigI: np.ndarray
    n: np.ndarray


def listed(hkl, seed):
    """Intensities that only depend on the indices and the seed, in an order of their own."""
    rng = np.random.default_rng(seed)
    hkl = np.asarray(hkl)[rng.permutation(len(hkl))]
    return Listed(hkl, 1000.0 * seed + reflection_key(hkl) % 997, np.full(len(hkl), 2.0), np.full(len(hkl), seed + 1))


@pytest.fixture
def unique():
    """Unique reflections as CrystFEL chooses them in 4/mmm."""
    hkl = np.argwhere(np.ones((9, 9, 9)))
    chosen = np.unique(asymmetric(hkl, point_group("4/mmm")), axis=0)
    return chosen[np.any(chosen != 0, axis=1)]


def test_half_sets_stand_beside_the_reflections_that_they_belong_to(unique):
    group = space_group("P422")
    half = unique[::2]
    columns, left_out = merged_columns({"": listed(unique, 1), "_half1": listed(half, 2)}, group, CELL, None)
    assert len(columns["I"]) == len(unique)
    own = np.column_stack([columns[name] for name in "hkl"])
    # CCP4 wants h >= k there, and so does CrystFEL.
    assert {tuple(row) for row in own} == {tuple(row) for row in unique}
    np.testing.assert_array_equal(columns["I"], 1000.0 + reflection_key(own) % 997)
    there = np.array([tuple(row) in {tuple(other) for other in half} for row in own])
    np.testing.assert_array_equal(np.isfinite(columns["I_half1"]), there)
    np.testing.assert_array_equal(columns["I_half1"][there], 2000.0 + reflection_key(own[there]) % 997)
    np.testing.assert_array_equal(columns["n_half1"], np.where(there, 3, 0))
    assert np.isnan(columns["I_half2"]).all()
    assert not columns["n_half2"].any()
    assert left_out["n_absent"] == left_out["n_beyond_d_min"] == 0
    assert np.all(np.diff(reflection_key(own)) > 0)


def test_absent_reflections_and_those_beyond_the_limit_are_counted(unique):
    group = space_group("P43212")
    columns, left_out = merged_columns({"": listed(unique, 1)}, group, CELL, 12.0)
    # (0 0 l) but for l = 4 n, and (h 0 0) but for h = 2 n: 6 and 4 up to 8.
    assert left_out["n_absent"] == 10
    d = 1.0 / np.sqrt((columns["h"] ** 2 + columns["k"] ** 2) / CELL[0] ** 2 + columns["l"] ** 2 / CELL[2] ** 2)
    assert d.min() >= 12.0
    assert len(d) + left_out["n_beyond_d_min"] >= len(unique) - 10
    assert not np.any((columns["h"] == 0) & (columns["k"] == 0) & (columns["l"] % 4 != 0))


def test_friedel_mates_apart():
    """Against one reflection after the other."""
    group = space_group("P422")
    operations = point_group("422")
    rng = np.random.default_rng(5)
    chosen = np.unique(asymmetric(rng.integers(-6, 7, (400, 3)), operations), axis=0)
    given = Listed(
        chosen, rng.normal(size=len(chosen)), rng.uniform(0.5, 1, len(chosen)), rng.integers(1, 9, len(chosen))
    )
    columns, _ = merged_columns({"": given}, group, CELL, None, anomalous=True)
    of = {tuple(hkl): (i, s, n) for hkl, i, s, n in zip(chosen.tolist(), given.I, given.sigI, given.n, strict=True)}
    both = 0
    for row, hkl in enumerate(np.column_stack([columns[name] for name in "hkl"])):
        own, mate = (tuple(asymmetric(sign * hkl[None], operations)[0].tolist()) for sign in (1, -1))
        plus, minus = of.get(own), of.get(mate) if mate != own else None
        for name, expected in (("_plus", plus), ("_minus", minus)):
            found = tuple(columns[f"{column}{name}"][row] for column in ("I", "sigI", "n"))
            np.testing.assert_array_equal(found, expected or (np.nan, np.nan, 0))
        there = np.array([values for values in (plus, minus) if values])
        both += len(there) == 2
        n = there[:, 2].sum()
        np.testing.assert_allclose(columns["I"][row], there[:, 0] @ there[:, 2] / n)
        np.testing.assert_allclose(columns["sigI"][row], np.linalg.norm(there[:, 1] * there[:, 2]) / n)
        assert columns["n"][row] == n
    assert both > 20
    assert sum(columns["n"]) == sum(given.n)


def test_mates_that_can_not_be_used_do_not_spoil_their_mean():
    given = Listed(np.array([(2, 1, 1), (1, 2, 1)]), np.array([5.0, np.nan]), np.ones(2), np.array([2, 2]))
    columns, _ = merged_columns({"": given}, space_group("P422"), CELL, None, anomalous=True)
    assert columns["I"].tolist() == columns["I_plus"].tolist() == [5.0]
    assert columns["n_minus"].tolist() == [0]


def test_what_can_not_be_used_is_left_out(unique):
    given = listed(unique, 1)
    given.I[0], given.sigI[1] = np.nan, 0.0
    columns, _ = merged_columns({"": given}, space_group("P422"), CELL, None)
    assert len(columns["I"]) == len(unique) - 2


def test_nothing():
    columns, left_out = merged_columns({}, space_group("P422"), CELL, 2.0, anomalous=True)
    assert all(len(values) == 0 for values in columns.values())
    assert {"h", "I", "n_half2", "I_plus", "n_minus_half1"} <= columns.keys()
    assert left_out == {}

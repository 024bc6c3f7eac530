"""Tables: selection, limits, scaling and the reference."""

import numpy as np
import pytest

from sfxflow.cell import inverse_resolution, reciprocal_metric
from sfxflow.point_group import asymmetric, point_group, possible_reflections
from sfxflow.statistics.tables import (
    Crystal,
    Reflections,
    anomalous_table,
    matched_reference,
    pair_table,
    repeated,
    single_table,
    wilson_and_l_test,
)

CELL = (40.0, 40.0, 60.0, 90.0, 90.0, 90.0)
CRYSTAL = Crystal(CELL, "P", point_group("4/mmm"))


def reflections(seed=0, noise=0.0, crystal=CRYSTAL, d_min=2.5):
    hkl = possible_reflections(reciprocal_metric(CELL), (0.0, 1 / d_min), crystal.operations, "P")
    truth = np.random.default_rng(17).exponential(100.0, len(hkl))
    rng = np.random.default_rng(seed)
    return Reflections(
        hkl, truth + rng.normal(0, noise, len(hkl)) if noise else truth, np.full(len(hkl), 5.0), np.full(len(hkl), 3)
    )


def test_complete_data_are_complete():
    data = reflections()
    table = single_table(data, CRYSTAL, n_shells=7)
    s = inverse_resolution(data.hkl, CELL)
    assert table.limits[[0, -1]].tolist() == [s.min(), s.max()]
    # the reflection at the lower limit is counted among the data but not among the possible ones, as check_hkl does
    n_lowest = np.count_nonzero(s == s.min())
    assert (table.shells["n_reflections"] - table.shells["n_possible"]).tolist() == [n_lowest] + [0] * 6
    assert table.overall["n_reflections"] == len(data.hkl)
    assert table.overall["multiplicity"] == 3


def test_fixed_range_drops_what_is_outside():
    data = reflections()
    table = single_table(data, CRYSTAL, 1 / 10, 1 / 3, n_shells=3)
    s = inverse_resolution(data.hkl, CELL)
    assert table.overall["n_reflections"] == np.count_nonzero((s >= 1 / 10) & (s <= 1 / 3))
    assert table.limits[[0, -1]].tolist() == [1 / 10, 1 / 3]


def test_values_that_are_not_finite_do_not_count():
    data = reflections()
    data.I[3] = np.nan
    data.sigI[5] = np.inf
    assert single_table(data, CRYSTAL).overall["n_reflections"] == len(data.hkl) - 2
    assert pair_table(data, reflections(), CRYSTAL).overall["n_pairs"] == len(data.hkl) - 2


def test_scale_and_b_factor_between_lists_do_not_matter():
    first, second = reflections(1, 3.0), reflections(2, 3.0)
    s = inverse_resolution(first.hkl, CELL)
    # positive only: the fit of the logarithms leaves other pairs out
    factor = 0.02 * np.exp(-2 * 15 * (s / 2) ** 2)
    scaled = second._replace(I=second.I * factor, sigI=second.sigI * factor)
    plain, corrected = (pair_table(first, other, CRYSTAL).overall for other in (second, scaled))
    for name in plain:
        assert corrected[name] == pytest.approx(plain[name], rel=1e-9), name


def test_equivalent_indices_are_the_same_reflection_whatever_the_order():
    first, second = reflections(1, 10.0), reflections(2, 10.0)
    rng = np.random.default_rng(4)
    rows = rng.permutation(len(second.hkl))
    turned = second._replace(hkl=-second.hkl[:, [1, 0, 2]]).take(rows)
    assert pair_table(first, turned, CRYSTAL).overall == pytest.approx(pair_table(first, second, CRYSTAL).overall)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_common_reflections_give_nan_and_no_warning(n):
    first, second = reflections(1, 10.0), reflections(2, 10.0).take(slice(0, n))
    table = pair_table(first, second, CRYSTAL)
    assert table.overall["n_pairs"] == n
    assert n == 2 or np.isnan(table.overall["cc"])
    assert single_table(second, CRYSTAL).overall["n_reflections"] == n
    figures = wilson_and_l_test(second, CRYSTAL)
    assert np.isnan(figures["wilson_b"])


def test_anomalous_signal_is_seen():
    crystal = Crystal(CELL, "P", point_group("422"))
    data = reflections(crystal=crystal)
    rng = np.random.default_rng(1)
    first, second = (data._replace(I=data.I + rng.normal(0, 2, len(data.I))) for _ in range(2))
    strong = anomalous_table(first, second, crystal).overall
    # the same intensities for both mates: nothing but noise is left of the difference
    laue = asymmetric(data.hkl, point_group("4/mmm"))
    _, inverse = np.unique(laue, axis=0, return_inverse=True)
    same = np.random.default_rng(3).exponential(100, inverse.max() + 1)[inverse.reshape(-1)]
    first, second = (data._replace(I=same + rng.normal(0, 2, len(same))) for _ in range(2))
    none = anomalous_table(first, second, crystal).overall
    assert strong["cc_ano"] > 0.99
    assert abs(none["cc_ano"]) < 0.15
    assert strong["crd_ano"] > 10
    assert none["crd_ano"] < 2
    assert strong["n_bijvoet_pairs"] == none["n_bijvoet_pairs"] > 100
    with pytest.raises(ValueError, match="centrosymmetric"):
        anomalous_table(first, second, CRYSTAL)


def test_reference_in_lower_symmetry_is_averaged():
    data = reflections()
    mirrored = data._replace(hkl=data.hkl * [1, 1, -1], I=data.I + 10.0)
    both = Reflections(*(np.concatenate(pair) for pair in zip(data, mirrored, strict=True)))
    matched = matched_reference(data, both, point_group("422"), CRYSTAL)
    expected = {tuple(hkl): value + 5.0 for hkl, value in zip(data.hkl.tolist(), data.I, strict=True)}
    assert {tuple(h): pytest.approx(v) for h, v in zip(matched.hkl.tolist(), matched.I, strict=True)} == expected


def test_reference_in_higher_symmetry_stands_for_all_that_are_equivalent_there():
    low = Crystal(CELL, "P", point_group("4/m"))
    data, reference = reflections(crystal=low), reflections()
    matched = matched_reference(data, reference, point_group("4/mmm"), low)
    assert len(matched.hkl) == len(data.hkl)
    values = dict(zip(map(tuple, asymmetric(reference.hkl, CRYSTAL.operations).tolist()), reference.I, strict=True))
    for hkl, value in zip(matched.hkl, matched.I, strict=True):
        assert value == values[tuple(asymmetric([hkl], CRYSTAL.operations)[0].tolist())]


def test_reference_without_common_reflections():
    data = reflections()
    elsewhere = data._replace(hkl=data.hkl + 100)
    assert len(matched_reference(data, elsewhere, point_group("4/mmm"), CRYSTAL).hkl) == 0
    assert len(matched_reference(data, data.take(slice(0, 0)), point_group("4/mmm"), CRYSTAL).hkl) == 0


def test_repeated_reflections_are_found():
    assert repeated(np.array([[1, 2, 3], [4, 5, 6], [2, 1, 3]]), point_group("4/mmm")) == (0, 2)
    assert repeated(np.array([[1, 2, 3], [4, 5, 6], [2, 1, 3]]), point_group("4/m")) is None
